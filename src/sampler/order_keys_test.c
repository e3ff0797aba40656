#include "sampler/order_keys.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void keys_order_like_logits_then_ids(void **state)
{
    (void)state;
    static const float ascending[] = {-INFINITY, -FLT_MAX, -3.5f, -1,       -FLT_MIN, -1e-45f, 0,
                                      1e-45f,    FLT_MIN,  0.25f, 0.25001f, 7,        FLT_MAX};
    int n = sizeof(ascending) / sizeof(ascending[0]);
    for (int i = 0; i + 1 < n; i++) {
        assert_true(order_key(ascending[i], 0) < order_key(ascending[i + 1], 1000000));
        assert_true(order_key(ascending[i], 5) > order_key(ascending[i], 6));
        assert_int_equal(order_key_token(order_key(ascending[i], 4194303)), 4194303);
    }
    assert_true(order_key(-0.0f, 3) == order_key(0.0f, 3));
}

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* Against a full sort: spread values, few different values, all equal. */
static void selection_agrees_with_a_sort(void **state)
{
    (void)state;
    enum { MAX_KEYS = 3000 };
    static uint64_t keys[MAX_KEYS], sorted[MAX_KEYS], work[MAX_KEYS];
    static const int sizes[] = {1, 2, 3, 100, 2048, MAX_KEYS};
    unsigned seed = 5;
    for (int kind = 0; kind < 3; kind++) {
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            int n_keys = sizes[s];
            for (int i = 0; i < n_keys; i++) {
                int random = rand_r(&seed);
                float logit = kind == 0   ? (float)random / 1e8f - 10
                              : kind == 1 ? (float)(random % 3)
                                          : 1.5f;
                keys[i] = sorted[i] = order_key(logit, i);
            }
            qsort(sorted, (size_t)n_keys, sizeof(sorted[0]), descending);
            for (int n = 1; n <= n_keys; n += 1 + n_keys / 50) {
                assert_true(order_keys_nth(keys, n_keys, n, work) == sorted[n - 1]);
                assert_int_equal(order_keys_best(keys, n_keys, n, work), n);
                assert_memory_equal(work, sorted, (size_t)n * sizeof(work[0]));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_order_like_logits_then_ids),
        cmocka_unit_test(selection_agrees_with_a_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
