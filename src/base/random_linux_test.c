#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Long enough that the system gives it in pieces; the bytes behind stay as they are. */
static void every_byte_is_drawn(void **state)
{
    (void)state;
    enum { N = 1 << 16 };
    static unsigned char drawn[N + 1];
    int counts[256] = {0};
    drawn[N] = 0xa5;
    assert_int_equal(random_bytes(drawn, N, NULL), OK);
    assert_int_equal(drawn[N], 0xa5);
    for (int i = 0; i < N; i++)
        counts[drawn[i]]++;
    for (int i = 0; i < 256; i++) /* 256 expected, standard deviation 16 */
        assert_true(counts[i] > 100 && counts[i] < 412);
}

static void draws_differ(void **state)
{
    (void)state;
    uint64_t a[2] = {0}, b[2] = {0};
    assert_int_equal(random_bytes(a, sizeof a, NULL), OK);
    assert_int_equal(random_bytes(b, sizeof b, NULL), OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(random_bytes(NULL, 0, NULL), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_drawn),
        cmocka_unit_test(draws_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
