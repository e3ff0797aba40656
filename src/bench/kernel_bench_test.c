#include "bench/kernel_bench.h"

#include "bench/trial_impl.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct pool *pool;

static int start(void **state)
{
    (void)state;
    return pool_new(2, &pool, NULL);
}

static int stop(void **state)
{
    (void)state;
    pool_free(pool);
    return 0;
}

static struct kernel_bench *new_bench(const char *isa)
{
    struct kernel_bench *b;
    assert_int_equal(kernel_bench_new(pool, isa, &b, NULL), OK);
    return b;
}

/* Small cases of every operation, with columns beyond the sample and rows beyond it. */
static const struct kernel_case cases[] = {
    {.op = OP_MATMUL, .type = DTYPE_Q8_0, .n_rows = 150, .n_cols = 256, .n = 5},
    {.op = OP_MATMUL, .type = DTYPE_Q4_0, .n_rows = 40, .n_cols = 512, .n = 1},
    {.op = OP_MATMUL, .type = DTYPE_Q6_K, .n_rows = 65, .n_cols = 256, .n = 2},
    {.op = OP_MATMUL, .type = DTYPE_F32, .n_rows = 70, .n_cols = 100, .n = 3},
    {.op = OP_ATTENTION,
     .kv = KV_F16,
     .n_heads = 4,
     .n_kv_heads = 2,
     .head_size = 32,
     .n_positions = 300,
     .n = 1},
    {.op = OP_ATTENTION,
     .kv = KV_F32,
     .n_heads = 4,
     .n_kv_heads = 4,
     .head_size = 16,
     .n_positions = 70,
     .n = 70},
    {.op = OP_FFN, .type = DTYPE_Q8_0, .n_rows = 96, .n_cols = 160, .n = 3},
    {.op = OP_FFN, .type = DTYPE_F16, .n_rows = 50, .n_cols = 70, .n = 1},
    {.op = OP_RMS_NORM, .n_cols = 200, .n = 4},
    {.op = OP_SILU_MUL, .n_cols = 200, .n = 4},
    {.op = OP_ADD, .n_cols = 200, .n = 4},
    {.op = OP_ROPE, .n_heads = 4, .head_size = 32, .n = 4},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/* Quantised products are off by what rounding activations to int8 costs; nothing else is. */
static double bound_of(const struct kernel_case *c)
{
    if (c->type == DTYPE_Q8_0 || c->type == DTYPE_Q4_0 || c->type == DTYPE_Q6_K)
        return 0.05;
    return c->op == OP_ATTENTION && c->kv == KV_F16 ? 2e-3 : 1e-5;
}

static void every_operation_is_measured_and_equals_the_reference(void **state)
{
    (void)state;
    char isas[64];
    kernel_bench_isas(isas, sizeof isas);
    for (char *rest, *isa = strtok_r(isas, ", ", &rest); isa; isa = strtok_r(NULL, ", ", &rest)) {
        struct kernel_bench *b = new_bench(isa);
        /* Other numerics are of BF16 weights; there are none here. */
        assert_true(kernel_bench_is_exact(b) || strcmp(isa, kernel_bench_best_isa()) != 0);
        for (int i = 0; i < N_CASES; i++) {
            struct kernel_result r;
            assert_int_equal(kernel_bench_run(b, &cases[i], 0.001, &r, NULL), OK);
            assert_true(r.seconds > 0 && r.seconds < 10);
            assert_true(r.bytes > 0 && r.ops > 0);
            assert_true(r.equal);
            assert_true(r.n_compared >= 64 || r.n_compared == 40);
            if (!(r.error >= 0 && r.error < bound_of(&cases[i])))
                fail_msg("%s, case %d: error %g", isa, i, r.error);
        }
        kernel_bench_free(b);
    }
}

static void work_is_counted(void **state)
{
    (void)state;
    struct kernel_bench *b = new_bench("ref");
    struct kernel_result r;
    assert_int_equal(kernel_bench_run(b, &cases[0], 0, &r, NULL), OK);
    assert_true(r.bytes == 150 * 256 / 32 * 34 && r.ops == 2.0 * 150 * 256 * 5);
    assert_int_equal(r.n_compared, 3 * SAMPLE_COLS);
    assert_false(r.from_memory);
    assert_int_equal(kernel_bench_run(b, &cases[4], 0, &r, NULL), OK);
    assert_true(r.bytes == 300 * 2 * 2 * 32 * 2 && r.ops == 300.0 * 4 * 4 * 32);
    /* 70 rows see 1, 2, … 70 positions. */
    assert_int_equal(kernel_bench_run(b, &cases[5], 0, &r, NULL), OK);
    assert_true(r.ops == 70.0 * 71 / 2 * 4 * 4 * 16);
    kernel_bench_free(b);
}

static void large_matrices_are_read_from_memory(void **state)
{
    (void)state;
    struct kernel_bench *b = new_bench("ref");
    struct kernel_case c = {
        .op = OP_MATMUL, .type = DTYPE_Q8_0, .n_rows = 2048, .n_cols = 2048, .n = 1};
    struct kernel_result r;
    assert_int_equal(kernel_bench_run(b, &c, 0, &r, NULL), OK);
    assert_true(r.from_memory);
    kernel_bench_free(b);
}

static void bad_cases_are_refused(void **state)
{
    (void)state;
    struct kernel_bench *b = new_bench("ref");
    struct kernel_case c = {
        .op = OP_MATMUL, .type = DTYPE_Q8_0, .n_rows = 16, .n_cols = 40, .n = 1};
    struct kernel_result r;
    struct error e;
    assert_int_equal(kernel_bench_run(b, &c, 0, &r, &e), ERR_INVALID);
    assert_string_equal(e.text, "Q8_0: 40 columns are no whole number of its blocks");
    c.op = OP_FFN; /* the columns of the matrix down are the block's width */
    c.n_cols = 32;
    assert_int_equal(kernel_bench_run(b, &c, 0, &r, &e), ERR_INVALID);
    assert_string_equal(e.text, "Q8_0: 16 columns are no whole number of its blocks");
    c.op = OP_MATMUL;
    c.type = DTYPE_Q2_K;
    c.n_cols = 256;
    assert_int_equal(kernel_bench_run(b, &c, 0, &r, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "Q2_K"));
    kernel_bench_free(b);
}

static void unknown_instruction_sets_are_refused_and_the_variable_is_kept(void **state)
{
    (void)state;
    struct kernel_bench *b;
    struct error e;
    setenv("SHOAL_CPU", "ref", 1);
    assert_int_equal(kernel_bench_new(pool, "mmx", &b, &e), ERR_INVALID);
    assert_null(b);
    assert_string_equal(getenv("SHOAL_CPU"), "ref");
    unsetenv("SHOAL_CPU");
    kernel_bench_free(new_bench("ref"));
    assert_null(getenv("SHOAL_CPU"));
    kernel_bench_free(NULL);
}

static void a_sample_has_both_ends(void **state)
{
    (void)state;
    assert_int_equal(sample_col(10, 9), 9);
    assert_int_equal(sample_col(1000, 0), 0);
    assert_int_equal(sample_col(1000, SAMPLE_COLS / 2 - 1), SAMPLE_COLS / 2 - 1);
    assert_int_equal(sample_col(1000, SAMPLE_COLS / 2), 1000 - SAMPLE_COLS / 2);
    assert_int_equal(sample_col(1000, SAMPLE_COLS - 1), 999);
}

static void inputs_differ_and_fill_the_range(void **state)
{
    (void)state;
    float a[1000], b[1000], low = 1, high = -1;
    trial_values(0, 7, a, 1000);
    trial_values(0, 7, b, 1000);
    assert_memory_equal(a, b, sizeof a);
    trial_values(1, 7, b, 1000);
    assert_memory_not_equal(a, b, sizeof a);
    trial_values(0, 8, b, 1000);
    assert_memory_not_equal(a, b, sizeof a);
    for (int i = 0; i < 1000; i++) {
        low = fminf(low, a[i]);
        high = fmaxf(high, a[i]);
    }
    assert_true(low >= -1 && low < -0.9f && high < 1 && high > 0.9f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_is_measured_and_equals_the_reference),
        cmocka_unit_test(work_is_counted),
        cmocka_unit_test(large_matrices_are_read_from_memory),
        cmocka_unit_test(bad_cases_are_refused),
        cmocka_unit_test(unknown_instruction_sets_are_refused_and_the_variable_is_kept),
        cmocka_unit_test(a_sample_has_both_ends),
        cmocka_unit_test(inputs_differ_and_fill_the_range),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
