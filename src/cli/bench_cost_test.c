#include "cli/bench_cost.h"

#include "cli/bench.h"
#include "cli/bench_context.h"
#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Matrices of a layer: q 32 x 32, k and v 16 x 32, output 32 x 32, gate, up, down 64 x 32. */
enum { LAYER_ELEMS = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32, HEAD_ELEMS = 100 * 32 };

static struct bench_cost cost_of(bool tied, enum dtype type, enum kv_type kv)
{
    struct tiny_shape shape = {.n_layers = 3,
                               .hidden = 32,
                               .ffn = 64,
                               .n_heads = 2,
                               .n_kv_heads = 1,
                               .head_size = 16,
                               .vocab = 100,
                               .tied = tied,
                               .type = type};
    struct modelfile *file = tiny_model(&shape, 1);
    struct model_params params;
    struct bench_cost c;
    assert_int_equal(modelfile_params(file, &params, NULL), OK);
    assert_int_equal(bench_cost_of(file, &params, kv, &c, NULL), OK);
    modelfile_close(file);
    return c;
}

static void a_step_reads_layers_and_head(void **state)
{
    (void)state;
    int norms = (3 * 2 + 1) * 32 * 4;
    struct bench_cost c = cost_of(false, DTYPE_F32, KV_F16);
    assert_int_equal(c.weight_bytes, (3 * LAYER_ELEMS + HEAD_ELEMS) * 4 + norms);
    assert_true(c.layer_ops == 2.0 * 3 * LAYER_ELEMS && c.head_ops == 2.0 * HEAD_ELEMS);
    assert_true(c.last_ops == 2.0 * (LAYER_ELEMS - 2 * 16 * 32));
    assert_int_equal(c.kv_position_bytes, 3 * 2 * 16 * 2);
    struct bench_cost tied = cost_of(true, DTYPE_F32, KV_F32);
    assert_int_equal(tied.weight_bytes, c.weight_bytes);
    assert_int_equal(tied.kv_position_bytes, 2 * c.kv_position_bytes);
    c = cost_of(true, DTYPE_Q8_0, KV_F16);
    assert_int_equal(c.weight_bytes, (3 * LAYER_ELEMS + HEAD_ELEMS) / 32 * 34 + norms);
}

static void sums_over_steps_and_sequences(void **state)
{
    (void)state;
    struct bench_cost c = {.weight_bytes = 1000,
                           .kv_position_bytes = 10,
                           .layer_ops = 7,
                           .last_ops = 3,
                           .head_ops = 5};
    assert_true(bench_prefill_ops(&c, 1, 1) == 12);
    assert_true(bench_prefill_ops(&c, 3, 1) == 20);
    assert_true(bench_prefill_ops(&c, 3, 4) == 80);
    assert_true(bench_prefill_ops(&c, 0, 4) == 0);
    assert_true(bench_decode_bytes(&c, 0, 1, 1) == 1010);
    /* Steps see 6, 7, 8 positions. */
    assert_true(bench_decode_bytes(&c, 5, 3, 1) == 3210);
    assert_true(bench_decode_bytes(&c, 5, 3, 2) == 3420);
    assert_true(bench_decode_bytes(&c, 5, 0, 2) == 0);
}

static void contexts(void **state)
{
    (void)state;
    static const int lengths[] = {16, 8192, 2048};
    /* The longest, and 32 tokens to warm up and in each of 5 repetitions. */
    assert_int_equal(context_bench_length(lengths, 3, 32, 5), 8192 + 6 * 32);
    assert_int_equal(context_bench_length(lengths, 1, 1, 1), 18);
    struct bench_cost c = {.kv_position_bytes = 17000};
    assert_float_equal(context_bench_allowed_s(&c, 1000, 20), 1e-3, 1e-9); /* 17 MB at 17 GB/s */
    assert_true(context_bench_allowed_s(&c, 0, 20) == 0);
}

static void medians(void **state)
{
    (void)state;
    double odd[] = {3, 1, 2}, even[] = {4, 1, 2, 3};
    assert_true(bench_median(odd, 3) == 2);
    assert_true(bench_median(even, 4) == 2.5);
    json_t *j = bench_spread_json(odd, 3);
    assert_true(json_real_value(json_object_get(j, "min")) == 1);
    assert_true(json_real_value(json_object_get(j, "max")) == 3);
    assert_int_equal(json_integer_value(json_object_get(j, "repetitions")), 3);
    json_decref(j);
    assert_true(json_is_null(bench_spread_json(odd, 0)));
}

static void probes_agree_within_five_percent(void **state)
{
    (void)state;
    assert_true(bench_probes_agree(100, 95) && bench_probes_agree(95, 100));
    assert_false(bench_probes_agree(100, 94.9) || bench_probes_agree(94.9, 100));
}

static void number_lists(void **state)
{
    (void)state;
    int numbers[BENCH_MAX_LIST], n;
    assert_int_equal(bench_number_list("-b", "1,2,16", 16, numbers, &n, NULL), OK);
    assert_int_equal(n, 3);
    assert_int_equal(numbers[2], 16);
    static const char *const bad[] = {"",   ",",   "1,", ",1",  "0",  "17",
                                      "-1", "1,x", "1 ", "1;2", " 1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct error e;
        assert_int_equal(bench_number_list("-b", bad[i], 16, numbers, &n, &e), ERR_USAGE);
        assert_non_null(strstr(e.text, "-b: expected numbers from 1 to 16"));
    }
    char many[3 * BENCH_MAX_LIST + 3] = "1";
    for (int i = 0; i < BENCH_MAX_LIST; i++)
        strcat(many, ",1");
    assert_int_equal(bench_number_list("-b", many, 16, numbers, &n, NULL), ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_reads_layers_and_head),
        cmocka_unit_test(sums_over_steps_and_sequences),
        cmocka_unit_test(contexts),
        cmocka_unit_test(medians),
        cmocka_unit_test(probes_agree_within_five_percent),
        cmocka_unit_test(number_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
