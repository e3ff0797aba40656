/* The operations that the CPU backend fuses, with as many rows as it takes in one piece, and more:
 * the bits are those of ref, whatever the instruction set, the threads and the other rows. */
#include "backend/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <cmocka.h>

#include "backend/cpu/check_handles.h"
#include "backend/cpu/kernels.h"

#include <stdlib.h>

enum {
    ROWS = 270, /* more than two blocks of the gated operation, and one of any kernel */
    HIDDEN = 768,
    FFN = 544, /* no whole number of blocks of interleaved groups, nor of pairs of panels */
    SIDE = 48,
};

/* Types of the matrices of a layer. Sections of k have whole blocks of a type: HIDDEN is some of
 * each, FFN only of those with small ones. */
struct types {
    enum dtype gate, up, down, side, o;
};

struct layer {
    struct backend *b;
    struct weight *gate, *up, *down, *side[2], *o;
    struct tensor *x, *gain, *scratch, *gated, *upped, *product, *y[2];
};

static void layer_init(struct layer *l, struct backend *b, const struct types *t)
{
    struct random r = {.state = 5};
    *l = (struct layer){.b = b,
                        .gate = random_weight(b, &r, t->gate, FFN, HIDDEN),
                        .up = random_weight(b, &r, t->up, FFN, HIDDEN),
                        .down = random_weight(b, &r, t->down, HIDDEN, FFN),
                        .side = {random_weight(b, &r, t->gate, SIDE, HIDDEN),
                                 random_weight(b, &r, t->side, SIDE, HIDDEN)},
                        .o = random_weight(b, &r, t->o, HIDDEN, HIDDEN),
                        .x = random_tensor(b, &r, ROWS, HIDDEN),
                        .gain = random_tensor(b, &r, 1, HIDDEN),
                        .scratch = new_tensor(b, ROWS, HIDDEN),
                        .gated = new_tensor(b, ROWS, FFN),
                        .upped = new_tensor(b, ROWS, FFN),
                        .product = new_tensor(b, ROWS, HIDDEN),
                        .y = {new_tensor(b, ROWS, SIDE), new_tensor(b, ROWS, SIDE)}};
}

static void layer_release(struct layer *l)
{
    struct weight *weights[] = {l->gate, l->up, l->down, l->side[0], l->side[1], l->o};
    struct tensor *tensors[] = {l->x,     l->gain,    l->scratch, l->gated,
                                l->upped, l->product, l->y[0],    l->y[1]};
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++)
        l->b->ops->weight_free(l->b, weights[i]);
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        l->b->ops->tensor_free(l->b, tensors[i]);
}

/* What a run leaves of n rows. */
struct result {
    float x[ROWS * HIDDEN], y[2][ROWS * SIDE];
};

/* y = h side^T, x += h o^T, h = normed x; x += the gated block. */
static void run_fused(struct layer *l, int n)
{
    struct backend *b = l->b;
    struct normed in = {l->x, l->gain, l->scratch, 1e-5f};
    const struct weight *const side[] = {l->side[0], l->side[1]};
    backend_norm_matmul_many(b, l->y, side, 2, &in, n);
    b->ops->rms_norm(b, l->scratch, l->x, l->gain, 1e-5f, n);
    backend_matmul_add(b, l->x, l->o, l->scratch, l->product, n);
    struct gated_ffn ffn = {in, l->gate, l->up, l->down, l->gated, l->upped, l->product};
    backend_gated_ffn(b, l->x, &ffn, n);
}

/* The same by operations that are not fused. */
static void run_plain(struct layer *l, int n)
{
    struct backend *b = l->b;
    const struct backend_ops *ops = b->ops;
    ops->rms_norm(b, l->scratch, l->x, l->gain, 1e-5f, n);
    for (int i = 0; i < 2; i++)
        ops->matmul(b, l->y[i], l->side[i], l->scratch, n);
    ops->matmul(b, l->product, l->o, l->scratch, n);
    ops->add(b, l->x, l->product, n);
    ops->rms_norm(b, l->scratch, l->x, l->gain, 1e-5f, n);
    ops->matmul(b, l->gated, l->gate, l->scratch, n);
    ops->matmul(b, l->upped, l->up, l->scratch, n);
    ops->silu_mul(b, l->gated, l->gated, l->upped, n);
    ops->matmul(b, l->product, l->down, l->gated, n);
    ops->add(b, l->x, l->product, n);
}

static void run(const char *isa, int n_threads, const struct types *types, bool fused, int n,
                struct result *out)
{
    struct pool *pool;
    struct backend *b;
    struct layer l;
    setenv("SHOAL_CPU", isa, 1);
    assert_int_equal(pool_new(n_threads, &pool, NULL), OK);
    assert_int_equal(backend_cpu_open(pool, &b, NULL), OK);
    assert_string_equal(b->variant, isa);
    layer_init(&l, b, types);
    (fused ? run_fused : run_plain)(&l, n);
    b->ops->sync(b);
    b->ops->read(b, l.x, 0, n, out->x);
    for (int i = 0; i < 2; i++)
        b->ops->read(b, l.y[i], 0, n, out->y[i]);
    layer_release(&l);
    b->ops->free(b);
    pool_free(pool);
    unsetenv("SHOAL_CPU");
}

static void compare(const struct result *found, const struct result *expected, int n)
{
    size_t row = HIDDEN * sizeof(float), side = SIDE * sizeof(float);
    assert_memory_equal(found->x, expected->x, (size_t)n * row);
    for (int i = 0; i < 2; i++)
        assert_memory_equal(found->y[i], expected->y[i], (size_t)n * side);
}

static void fused_operations_keep_the_bits(void **state)
{
    (void)state;
    static const struct types types[] = {
        {DTYPE_Q4_0, DTYPE_Q4_0, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_K},
        {DTYPE_Q4_K, DTYPE_Q6_K, DTYPE_Q4_0, DTYPE_F16, DTYPE_Q6_K}, /* side: mixed */
        {DTYPE_Q8_0, DTYPE_F16, DTYPE_Q4_0, DTYPE_F32, DTYPE_BF16},  /* not to be fused */
    };
    static const int counts[] = {1, 5, 32, 33, 38, 133, ROWS};
    struct result *expected = malloc(sizeof *expected), *found = malloc(sizeof *found);
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        run("ref", 3, &types[t], false, ROWS, expected);
        for (const struct isa *isa = kernels_isas; isa->name != NULL; isa++) {
            if (!isa->present() || isa->numerics_id != NULL)
                continue;
            for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
                run(isa->name, 1 + (int)c % 3, &types[t], true, counts[c], found);
                compare(found, expected, counts[c]);
            }
        }
    }
    free(expected);
    free(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(fused_operations_keep_the_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
