/* Pieces of all sizes are zero, aligned and apart from each other, and what is freed is no longer
 * resident. */
#include "backend/cpu/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { MB = 1 << 20, N_PIECES = 200 };

/* Pages wholly inside a piece that are in memory; what is not mapped any more is not. */
static int resident_pages(const uint8_t *p, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int n = 0;
    for (uintptr_t at = ((uintptr_t)p + page - 1) & -page; at + page <= (uintptr_t)p + bytes;
         at += page) {
        unsigned char resident = 0;
        n += mincore((void *)at, page, &resident) == 0 && (resident & 1);
    }
    return n;
}

static void is_zero(const uint8_t *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (p[i] != 0)
            fail_msg("byte %zu of %zu is %d", i, bytes, p[i]);
}

static void every_size_is_zero_and_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,           1,       64,         4095,   65535,
                                   65536,       65537,   2 * MB - 1, 2 * MB, 3 * MB + 17,
                                   64 * MB - 1, 64 * MB, 64 * MB + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *p = cpu_alloc(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        is_zero(p, sizes[i]);
        memset(p, 0xff, sizes[i]);
        cpu_free(p, sizes[i]);
    }
    cpu_free(NULL, 5 * MB);
}

/* More than one region's worth, freed in another order than made, in between written all over. */
static void pieces_do_not_touch_each_other(void **state)
{
    (void)state;
    uint8_t *pieces[N_PIECES];
    size_t bytes[N_PIECES];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N_PIECES; i++) {
            bytes[i] = (size_t)(i % 7 + 1) * 400000 + (size_t)(i * 13);
            pieces[i] = cpu_alloc(bytes[i]);
            assert_non_null(pieces[i]);
            assert_int_equal(pieces[i][0] | pieces[i][bytes[i] / 2] | pieces[i][bytes[i] - 1], 0);
            memset(pieces[i], i + 1, bytes[i]);
        }
        for (int step = 0; step < N_PIECES; step++) {
            int i = step * 77 % N_PIECES; /* 77 and 200 have no common divisor */
            for (size_t at = 0; at < bytes[i]; at += 997)
                assert_int_equal(pieces[i][at], i + 1);
            assert_int_equal(pieces[i][bytes[i] - 1], i + 1);
            cpu_free(pieces[i], bytes[i]);
        }
    }
}

static void freed_memory_is_given_back(void **state)
{
    (void)state;
    static const size_t sizes[] = {100000, 9 * MB, 70 * MB}; /* the last is a mapping of its own */
    uint8_t *keeps_region = cpu_alloc(MB);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        uint8_t *pieces[3];
        for (int i = 0; i < 3; i++) {
            pieces[i] = cpu_alloc(sizes[s]);
            assert_non_null(pieces[i]);
            memset(pieces[i], 1, sizes[s]);
            assert_true(resident_pages(pieces[i], sizes[s]) >= (int)(sizes[s] / 65536));
        }
        for (int i = 0; i < 3; i++) {
            cpu_free(pieces[i], sizes[s]);
            assert_int_equal(resident_pages(pieces[i], sizes[s]), 0);
        }
    }
    cpu_free(keeps_region, MB);
}

/* Nor are the pages that freed pieces shared with each other: only those of huge pages in which a
 * piece still lives may be. */
static void nothing_is_left_between_freed_pieces(void **state)
{
    (void)state;
    enum { N = 40, BYTES = MB / 2 - 1000, HUGE_PAGE = 2 * MB };
    uint8_t *before = cpu_alloc(MB), *pieces[N];
    for (int i = 0; i < N; i++) {
        pieces[i] = cpu_alloc(BYTES);
        assert_non_null(pieces[i]);
        memset(pieces[i], 1, BYTES);
    }
    uint8_t *after = cpu_alloc(MB);
    memset(after, 1, MB);
    uintptr_t first = ((uintptr_t)before + MB + HUGE_PAGE - 1) & -(uintptr_t)HUGE_PAGE,
              last = (uintptr_t)after & -(uintptr_t)HUGE_PAGE;
    assert_true(first < last && last - first < (size_t)(N + 2) * BYTES); /* all in one region */
    for (int step = 0; step < N; step++)
        cpu_free(pieces[step * 7 % N], BYTES); /* 7 and 40 have no common divisor */
    assert_int_equal(resident_pages((uint8_t *)first, last - first), 0);
    is_zero((uint8_t *)first, last - first);
    for (size_t i = 0; i < MB; i += 997)
        assert_int_equal(after[i], 1);
    cpu_free(after, MB);
    cpu_free(before, MB);
}

static void absurd_sizes_are_refused(void **state)
{
    (void)state;
    assert_null(cpu_alloc(SIZE_MAX));
    assert_null(cpu_alloc(SIZE_MAX - 100));
    assert_null(cpu_alloc((size_t)1 << 60));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_is_zero_and_aligned),
        cmocka_unit_test(pieces_do_not_touch_each_other),
        cmocka_unit_test(freed_memory_is_given_back),
        cmocka_unit_test(nothing_is_left_between_freed_pieces),
        cmocka_unit_test(absurd_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
