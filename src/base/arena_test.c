#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void pieces_are_aligned_and_apart(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1 << 20);
    char *last = NULL;
    for (size_t bytes = 0; bytes < 5000; bytes += 37) {
        char *p = arena_alloc(&a, bytes);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        assert_ptr_not_equal(p, last);
        memset(p, 0xa5, bytes);
        last = p;
    }
    arena_release(&a);
    assert_int_equal(a.held_bytes, 0);
}

static void limit_is_an_error_and_clear_reuses(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 100000);
    assert_non_null(arena_alloc(&a, 60000));
    assert_null(arena_alloc(&a, 60000));
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_zalloc(&a, SIZE_MAX / 2, 3));
    assert_null(arena_strndup(&a, "", SIZE_MAX));
    arena_clear(&a);
    assert_int_equal(a.used_bytes, 0);
    assert_non_null(arena_alloc(&a, 60000));
    assert_true(a.held_bytes <= 100000);
    arena_release(&a);
}

/* A size that only the chunk's own header makes wrap. */
static void no_size_wraps(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, SIZE_MAX);
    assert_null(arena_alloc(&a, SIZE_MAX - 63));
    assert_int_equal(a.held_bytes, 0);
    arena_release(&a);
}

static void zeroed_and_copied(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1 << 16);
    memset(arena_alloc(&a, 640), 0xff, 640);
    arena_clear(&a);
    const char *zero = arena_zalloc(&a, 10, 64);
    for (int i = 0; i < 640; i++)
        assert_int_equal(zero[i], 0);
    assert_string_equal(arena_strndup(&a, "layered", 5), "layer");
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_and_apart),
        cmocka_unit_test(limit_is_an_error_and_clear_reuses),
        cmocka_unit_test(no_size_wraps),
        cmocka_unit_test(zeroed_and_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
