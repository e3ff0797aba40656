#include "base/error.h"
#include "base/size.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void set_returns_the_code_and_cuts(void **state)
{
    (void)state;
    struct error e;
    char big[1000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    assert_int_equal(error_set(&e, ERR_FORMAT, "%s", big), ERR_FORMAT);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    assert_int_equal(error_set(NULL, ERR_IO, "nobody reads this"), ERR_IO);
}

static void control_bytes_cannot_reach_a_terminal(void **state)
{
    (void)state;
    struct error e;
    error_set(&e, ERR_FORMAT, "tensor \"%s\"", "a\nb\x1b[31m\xff\xc3\xa9\xc3");
    assert_string_equal(e.text, "tensor \"a?b?[31m?\xc3\xa9?\"");
}

/* Texts go into JSON as they are: cut or wrong characters in them would spoil it. */
static void what_is_left_is_utf8(void **state)
{
    (void)state;
    struct error e;
    char text[300];
    for (int pad = 0; pad < 4; pad++) {
        memset(text, 'x', 254);
        memcpy(text + 250 + pad, "\xf0\x9f\x90\x9f", 5); /* the last bytes are cut off */
        error_set(&e, ERR_FORMAT, "%s", text);
        assert_int_equal(strlen(e.text), pad + 254 > 255 ? 255 : pad + 254);
        assert_string_equal(e.text + 250 + pad, pad < 2    ? "\xf0\x9f\x90\x9f"
                                                : pad == 2 ? "???"
                                                           : "??");
    }
    error_set(&e, ERR_FORMAT, "%s", "\xed\xa0\x80 \xc0\xaf \xc2\x9b");
    assert_string_equal(e.text, "??? ?? ??");
}

static void prefix_and_errno(void **state)
{
    (void)state;
    struct error e;
    error_errno(&e, ERR_IO, ENOENT, "opening x");
    assert_string_equal(e.text, "opening x: No such file or directory");
    assert_int_equal(error_prefix(&e, "node %d", 3), ERR_IO);
    assert_string_equal(e.text, "node 3: opening x: No such file or directory");
    for (int i = 0; i < 100; i++)
        error_prefix(&e, "again and again");
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
}

static void every_code_has_a_text(void **state)
{
    (void)state;
    for (int i = 0; i < N_ERRS; i++)
        assert_true(strlen(err_text((enum err)i)) > 1);
    assert_string_equal(err_text((enum err)N_ERRS), "unknown error");
}

static void checked_sizes(void **state)
{
    (void)state;
    uint64_t r;
    assert_true(size_mul(1ull << 32, 1ull << 31, &r));
    assert_false(size_mul(1ull << 32, 1ull << 32, &r));
    assert_false(size_add(UINT64_MAX, 1, &r));
    assert_true(size_align(65, 64, &r));
    assert_int_equal(r, 128);
    assert_false(size_align(UINT64_MAX - 5, 64, &r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_returns_the_code_and_cuts),
        cmocka_unit_test(control_bytes_cannot_reach_a_terminal),
        cmocka_unit_test(what_is_left_is_utf8),
        cmocka_unit_test(prefix_and_errno),
        cmocka_unit_test(every_code_has_a_text),
        cmocka_unit_test(checked_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
