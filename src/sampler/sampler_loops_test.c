/* Each variant of the loops against the plain one and against what the words say, with guards. */
#include "sampler/sampler_loops_impl.h"

#include "sampler/counted_random.h"
#include "tensor/exact_math.h"
#include "tensor/float16.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { N = 4099 };

typedef void check_fn(const struct sampler_loops *loops);

static void for_each_variant(check_fn *check)
{
    const struct sampler_loops *const *all = sampler_loops_all();
    assert_string_equal(all[0]->name, "plain");
    for (; *all != NULL; all++)
        check(*all);
}

/* ---- weights ---- */

static void assert_weights(const struct sampler_loops *loops, const float *logits, int n,
                           float best, float temperature)
{
    static float weights[N + 1];
    weights[n] = 7; /* guard */
    uint64_t total = loops->weights(logits, n, best, temperature, weights), expected = 0;
    assert_true(weights[n] == 7);
    for (int i = 0; i < n; i++) {
        float w = exact_expf((logits[i] - best) / temperature);
        if (f32_bits(weights[i]) != f32_bits(w))
            fail_msg("%s: e^((%a - %a) / %a): expected %a, found %a", loops->name,
                     (double)logits[i], (double)best, (double)temperature, (double)w,
                     (double)weights[i]);
        expected += (uint64_t)llrint((double)w * 0x1p40); /* nearest, ties to even */
    }
    if (total != expected)
        fail_msg("%s: sum of %d: expected %llu, found %llu", loops->name, n,
                 (unsigned long long)expected, (unsigned long long)total);
}

static void check_weights(const struct sampler_loops *loops)
{
    static float x[N];
    for (int i = 0; i < N; i++) /* evenly over all that is not 0, denormal results included */
        x[i] = -110.0f * (float)i / N;
    assert_weights(loops, x, N, 0, 1);
    assert_weights(loops, x, N, 3.7f, 0.83f);
    assert_weights(loops, x, N, 0, 1e-30f);
    assert_weights(loops, x, N, 0, 1000);
    uint32_t bits = 0x80000000u; /* -0, then over all negative floats up to -inf */
    for (int round = 0; round < 64; round++) {
        for (int i = 0; i < N; i++, bits += 8111)
            x[i] = bits >= 0x80000000u && bits <= 0xff800000u ? f32_from_bits(bits) : -INFINITY;
        assert_weights(loops, x, N, 0, 1);
    }
    for (int n = 0; n <= 70; n++)
        assert_weights(loops, x + N - 70, n, 0, 1);
}

static void weights_are_exact(void **state)
{
    (void)state;
    for_each_variant(check_weights);
}

static void a_unit_rounds_to_nearest(void **state)
{
    (void)state;
    assert_int_equal(weight_units(0), 0);
    assert_int_equal(weight_units(1), 1ll << 40);
    assert_int_equal(weight_units(0x1p-40f), 1);
    assert_int_equal(weight_units(0x1p-41f), 0); /* a tie, to even */
    assert_int_equal(weight_units(0x1.8p-40f), 2);
    assert_int_equal(weight_units(0x1.000002p-41f), 1);
}

/* ---- block_bests ---- */

static void check_bests(const struct sampler_loops *loops)
{
    enum { N_BLOCKS = 9 };
    static float x[N_BLOCKS * BLOCK_TOKENS];
    float best[N_BLOCKS + 1];
    for (int i = 0; i < N_BLOCKS * BLOCK_TOKENS; i++)
        x[i] = (float)(counted_uniform(3, 0, (uint32_t)i) - 0.7);
    for (int i = 2 * BLOCK_TOKENS; i < 3 * BLOCK_TOKENS; i++)
        x[i] = -INFINITY;
    for (int at = 0; at < N_BLOCKS * BLOCK_TOKENS; at++) {
        float before = x[at];
        x[at] = 1 + (float)at;
        best[N_BLOCKS] = 7;
        assert_true(loops->block_bests(x, N_BLOCKS, best));
        assert_true(best[at / BLOCK_TOKENS] == x[at] && best[N_BLOCKS] == 7);
        x[at] = NAN;
        assert_false(loops->block_bests(x, N_BLOCKS, best));
        x[at] = INFINITY;
        assert_false(loops->block_bests(x, N_BLOCKS, best));
        x[at] = before;
    }
    assert_true(loops->block_bests(x, N_BLOCKS, best));
    assert_true(best[2] == -INFINITY);
    for (int b = 0; b < N_BLOCKS; b++) {
        float most = -INFINITY;
        for (int i = 0; i < BLOCK_TOKENS; i++)
            most = fmaxf(most, x[b * BLOCK_TOKENS + i]);
        assert_true(best[b] == most);
    }
    assert_true(loops->block_bests(x, 0, best));
}

static void bests_of_blocks(void **state)
{
    (void)state;
    for_each_variant(check_bests);
}

/* ---- range, keep ---- */

static uint32_t random_key(int kind, uint32_t i)
{
    uint32_t bits = (uint32_t)counted_bits(5, (uint32_t)kind, i);
    return kind == 0 ? bits : kind == 1 ? bits % 3 : UINT32_MAX - bits % 40;
}

static void check_range(const struct sampler_loops *loops)
{
    static uint32_t keys[N];
    for (int kind = 0; kind < 3; kind++) {
        struct key_range expected = {UINT32_MAX, 0};
        for (int n = 1; n <= 200; n++) {
            uint32_t key = random_key(kind, (uint32_t)n);
            keys[n - 1] = key;
            expected.least = key < expected.least ? key : expected.least;
            expected.most = key > expected.most ? key : expected.most;
            struct key_range found = loops->range(keys, n);
            assert_int_equal(found.least, expected.least);
            assert_int_equal(found.most, expected.most);
        }
    }
}

static void ranges_of_keys(void **state)
{
    (void)state;
    for_each_variant(check_range);
}

static struct {
    uint32_t keys[N], b[N];
    float a[N];
    float a_out[N + 1];
    uint32_t b_out[N + 1];
} k;

static void check_keep_case(const struct sampler_loops *loops, int n, struct key_range r)
{
    int n_expected = 0;
    static int expected[N];
    for (int i = 0; i < n; i++)
        if (k.keys[i] >= r.least && k.keys[i] <= r.most)
            expected[n_expected++] = i;
    k.a_out[n] = 7;
    k.b_out[n] = 7;
    assert_int_equal(loops->keep(k.keys, n, r, k.a, k.a_out, k.b, 0, k.b_out), n_expected);
    for (int i = 0; i < n_expected; i++) {
        assert_true(k.a_out[i] == k.a[expected[i]]);
        assert_int_equal(k.b_out[i], k.b[expected[i]]);
    }
    assert_int_equal(loops->keep(k.keys, n, r, NULL, NULL, NULL, 100, k.b_out), n_expected);
    for (int i = 0; i < n_expected; i++)
        assert_int_equal(k.b_out[i], 100 + expected[i]);
    /* In place, the keys themselves included. */
    static uint32_t keys[N];
    static float a[N];
    memcpy(keys, k.keys, sizeof keys);
    memcpy(a, k.a, sizeof a);
    assert_int_equal(loops->keep(keys, n, r, a, a, keys, 0, keys), n_expected);
    for (int i = 0; i < n_expected; i++) {
        assert_true(a[i] == k.a[expected[i]]);
        assert_int_equal(keys[i], k.keys[expected[i]]);
    }
    assert_true(k.a_out[n] == 7);
    assert_int_equal(k.b_out[n], 7);
}

static void check_keep(const struct sampler_loops *loops)
{
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < N; i++) {
            k.keys[i] = random_key(kind, (uint32_t)i);
            k.a[i] = (float)i + 0.5f;
            k.b[i] = (uint32_t)(i * 3);
        }
        for (int n = 0; n < 70; n++)
            check_keep_case(loops, n, (struct key_range){k.keys[0], UINT32_MAX});
        check_keep_case(loops, N, (struct key_range){0, UINT32_MAX});
        check_keep_case(loops, N, (struct key_range){1, 1});
        check_keep_case(loops, N, (struct key_range){1u << 30, (1u << 30) + (1u << 24)});
        check_keep_case(loops, N, (struct key_range){UINT32_MAX - 3, UINT32_MAX - 1});
    }
}

static void what_is_kept(void **state)
{
    (void)state;
    for_each_variant(check_keep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_exact), cmocka_unit_test(a_unit_rounds_to_nearest),
        cmocka_unit_test(bests_of_blocks),   cmocka_unit_test(ranges_of_keys),
        cmocka_unit_test(what_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
