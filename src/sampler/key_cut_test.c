/* The cut against walking down a sorted list. */
#include "sampler/key_cut_impl.h"

#include "sampler/counted_random.h"
#include "sampler/token_weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N = 3000 };

static uint32_t keys[N];
static float weights[N];

static int best_first(const void *a, const void *b) /* indices */
{
    int x = *(const int *)a, y = *(const int *)b;
    if (keys[x] != keys[y])
        return keys[x] < keys[y] ? 1 : -1;
    return x - y;
}

static struct key_cut naive_cut(int n, int weighted, uint64_t goal)
{
    static int order[N];
    for (int i = 0; i < n; i++)
        order[i] = i;
    qsort(order, (size_t)n, sizeof order[0], best_first);
    struct key_cut cut = {0};
    uint64_t sum = 0;
    for (int i = 0; sum < goal; i++) {
        sum += weighted ? weight_units(weights[order[i]]) : 1;
        cut.n_equal = keys[order[i]] == cut.key && i > 0 ? cut.n_equal + 1 : 1;
        cut.key = keys[order[i]];
    }
    return cut;
}

static void fill(int kind, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)counted_bits(9, (uint32_t)kind, (uint32_t)i);
        switch (kind) {
        case 0: keys[i] = bits; break;
        case 1: keys[i] = bits % 5; break;
        case 2: keys[i] = 77; break;
        case 3: keys[i] = UINT32_MAX - (bits % 2000); break;
        case 4: keys[i] = bits >> (bits % 32); break;             /* dense near 0 */
        default: keys[i] = bits % 2 != 0 ? 0 : UINT32_MAX; break; /* the ends */
        }
        weights[i] = i % 7 == 0 ? 0 : (float)(bits >> 8) * 0x1p-24f;
    }
}

static void same_as_sorting(void **state)
{
    (void)state;
    struct key_cut_work *w = key_cut_work_new(N);
    for (int kind = 0; kind < 6; kind++) {
        for (int round = 0; round < 60; round++) {
            int n =
                round < 20 ? round + 1 : 2 + (int)(counted_bits(1, 0, (uint32_t)round) % (N - 2));
            fill(kind, n);
            uint64_t total = 0;
            for (int i = 0; i < n; i++)
                total += weight_units(weights[i]);
            for (int weighted = 0; weighted < 2; weighted++) {
                uint64_t all = weighted ? total : (uint64_t)n;
                uint64_t goals[] = {1, all, all / 2,
                                    1 + counted_bits(2, 0, (uint32_t)round) % (all + 1)};
                for (int g = 0; g < 4; g++) {
                    uint64_t goal = goals[g] < 1 ? 1 : goals[g] > all ? all : goals[g];
                    if (all == 0)
                        continue;
                    struct key_cut expected = naive_cut(n, weighted, goal);
                    struct key_cut found =
                        key_cut_find(w, keys, weighted ? weights : NULL, n, goal);
                    assert_int_equal(found.key, expected.key);
                    assert_int_equal(found.n_equal, expected.n_equal);
                }
            }
        }
    }
    key_cut_work_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_sorting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
