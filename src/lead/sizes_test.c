#include "lead/sizes.h"

#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* 2 heads of 64, 4 layers: 256 elements a position and layer, keys and values together. */
static const struct model_params params = {
    .n_layers = 4, .n_kv_heads = 2, .head_size = 64, .context = 2048};
enum { BLOCK_BYTES = 256 * 2 * 16 * 4 };

static enum err fit(const struct model_params *p, enum kv_type type, int context, int n_slots,
                    uint64_t budget, struct sizes_kv *out, struct error *e)
{
    return sizes_kv_fit(&(struct sizes_kv_wish){.params = p,
                                                .type = type,
                                                .context = context,
                                                .n_slots = n_slots,
                                                .max_rows = 33,
                                                .budget = budget},
                        out, e);
}

static void enough_memory_gives_every_slot_its_context(void **state)
{
    (void)state;
    struct sizes_kv kv;
    assert_int_equal(sizes_kv_position_bytes(&params, KV_F16), 512);
    assert_int_equal(sizes_kv_position_bytes(&params, KV_F32), 1024);
    assert_int_equal(fit(&params, KV_F16, 0, 3, 1 << 30, &kv, NULL), OK);
    assert_int_equal(kv.context, 2048);
    assert_int_equal(kv.n_blocks, 3 * 128);
    assert_int_equal(fit(&params, KV_F16, 17, 2, 1 << 30, &kv, NULL), OK);
    assert_int_equal(kv.context, 17);
    assert_int_equal(kv.n_blocks, 4);
}

static void little_memory_shrinks_an_open_context_only(void **state)
{
    (void)state;
    struct sizes_kv kv;
    struct error e;
    assert_int_equal(fit(&params, KV_F16, 0, 4, 10 * BLOCK_BYTES, &kv, NULL), OK);
    assert_int_equal(kv.n_blocks, 10);
    assert_int_equal(kv.context, 160);
    assert_int_equal(fit(&params, KV_F16, 161, 1, 10 * BLOCK_BYTES, &kv, &e), ERR_LIMIT);
    assert_string_equal(e.text, "keys and values of 161 positions need 0.4 MB, 0.3 MB are there "
                                "for them");
    assert_int_equal(fit(&params, KV_F16, 0, 1, 10, &kv, &e), ERR_LIMIT);
}

static void a_context_beyond_the_model_is_refused(void **state)
{
    (void)state;
    struct sizes_kv kv;
    struct error e;
    assert_int_equal(fit(&params, KV_F16, 2049, 1, 1 << 30, &kv, &e), ERR_LIMIT);
    assert_string_equal(e.text, "context of 2049 positions: the model was trained for 2048");
}

/* Steps of 33 rows behind a window of 64: 96 positions, in 7 blocks. */
static void a_window_bounds_what_a_sequence_needs(void **state)
{
    (void)state;
    struct model_params p = params;
    struct sizes_kv kv;
    struct error e;
    p.window = 64;
    assert_int_equal(fit(&p, KV_F16, 0, 3, 1 << 30, &kv, NULL), OK);
    assert_int_equal(kv.context, 2048);
    assert_int_equal(kv.n_blocks, 3 * 7);
    assert_int_equal(fit(&p, KV_F16, 50, 3, 1 << 30, &kv, NULL), OK);
    assert_int_equal(kv.n_blocks, 3 * 4);
    /* Row by row 5 blocks will do; with fewer the context ends with them. */
    assert_int_equal(fit(&p, KV_F16, 2000, 3, 5 * BLOCK_BYTES, &kv, NULL), OK);
    assert_int_equal(kv.context, 2000);
    assert_int_equal(kv.n_blocks, 5);
    assert_int_equal(fit(&p, KV_F16, 2000, 3, 4 * BLOCK_BYTES, &kv, &e), ERR_LIMIT);
    assert_string_equal(e.text, "keys and values of 80 positions need 0.2 MB, 0.1 MB are there for "
                                "them");
    assert_int_equal(fit(&p, KV_F16, 0, 3, 4 * BLOCK_BYTES, &kv, NULL), OK);
    assert_int_equal(kv.context, 64);
    p.window = 4096; /* more than the context: as without */
    assert_int_equal(fit(&p, KV_F16, 0, 3, 1 << 30, &kv, NULL), OK);
    assert_int_equal(kv.n_blocks, 3 * 128);
    assert_int_equal(fit(&p, KV_F16, 0, 4, 10 * BLOCK_BYTES, &kv, NULL), OK);
    assert_int_equal(kv.context, 160);
}

/* Sums of a model whose tensors are counted by hand: 16 x 32 matrices of f32 and a head. */
static void check_plan_model(bool tied)
{
    const struct tiny_shape shape = {.n_layers = 2,
                                     .hidden = 32,
                                     .ffn = 48,
                                     .n_heads = 2,
                                     .n_kv_heads = 1,
                                     .head_size = 16,
                                     .vocab = 100,
                                     .tied = tied,
                                     .type = DTYPE_F32};
    enum { LAYER = 4 * (32 + 32 * 32 * 2 + 16 * 32 * 2 + 32 + 3 * 32 * 48), MATRIX = 4 * 100 * 32 };
    struct modelfile *file = tiny_model(&shape, 1);
    struct model_params p;
    struct plan_model m;
    uint64_t *layer_bytes;
    assert_int_equal(modelfile_params(file, &p, NULL), OK);
    struct sizes_use use = {.params = &p, .kv_type = KV_F32, .n_blocks = 7, .max_rows = 10};
    assert_int_equal(sizes_plan_model(file, &use, &m, &layer_bytes, NULL), OK);
    assert_int_equal(m.n_layers, 2);
    assert_int_equal(layer_bytes[0], LAYER);
    assert_int_equal(layer_bytes[1], LAYER);
    assert_int_equal(m.kv_bytes_per_layer, 7 * 16 * 2 * 16 * 4);
    assert_int_equal(m.embedding_bytes, MATRIX);
    assert_int_equal(m.head_bytes, 4 * 32 + MATRIX + 4 * 16 * (32 + 100));
    assert_int_equal(m.shared_bytes, tied ? MATRIX : 0);
    /* x, normed, delta, q, context: 32 wide; k, v: 16; gate, up: 48. */
    assert_int_equal(m.fixed_bytes, (64 << 20) + 4 * 10 * (5 * 32 + 2 * 16 + 2 * 48));
    free(layer_bytes);
    modelfile_close(file);
}

static void a_model_is_summed_up(void **state)
{
    (void)state;
    check_plan_model(false);
    check_plan_model(true);
}

static void a_missing_tensor_ends_the_sum(void **state)
{
    (void)state;
    const struct tiny_shape shape = {.n_layers = 1,
                                     .hidden = 32,
                                     .ffn = 48,
                                     .n_heads = 2,
                                     .n_kv_heads = 1,
                                     .head_size = 16,
                                     .vocab = 100,
                                     .type = DTYPE_F32,
                                     .without = "output_norm.weight"};
    struct modelfile *file = tiny_model(&shape, 1);
    struct model_params p;
    struct plan_model m;
    uint64_t *layer_bytes;
    assert_int_equal(modelfile_params(file, &p, NULL), OK);
    struct sizes_use use = {.params = &p, .n_blocks = 1, .max_rows = 1};
    assert_int_equal(sizes_plan_model(file, &use, &m, &layer_bytes, NULL), ERR_NOT_FOUND);
    free(layer_bytes);
    modelfile_close(file);
}

/* The largest shapes there may be and all memory there could be: no product wraps. */
static void the_largest_shapes_do_not_wrap(void **state)
{
    (void)state;
    struct model_params p = {.n_layers = SHAPE_MAX_LAYERS,
                             .n_kv_heads = SHAPE_MAX_HEADS,
                             .head_size = SHAPE_MAX_HEAD_SIZE,
                             .context = SHAPE_MAX_CONTEXT};
    struct sizes_kv kv;
    assert_int_equal(fit(&p, KV_F32, 0, SLOT_MAX, UINT64_MAX, &kv, NULL), OK);
    uint64_t block = sizes_kv_position_bytes(&p, KV_F32) * KV_BLOCK_TOKENS * SHAPE_MAX_LAYERS;
    assert_true((uint64_t)kv.n_blocks <= UINT64_MAX / block);
    p = (struct model_params){.n_layers = 1, .n_kv_heads = 1, .head_size = 2, .context = 1 << 24};
    assert_int_equal(fit(&p, KV_F16, 0, SLOT_MAX, UINT64_MAX, &kv, NULL), OK);
    assert_int_equal(kv.n_blocks, KV_MAX_BLOCKS);
    assert_int_equal(kv.context, 1 << 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enough_memory_gives_every_slot_its_context),
        cmocka_unit_test(little_memory_shrinks_an_open_context_only),
        cmocka_unit_test(a_context_beyond_the_model_is_refused),
        cmocka_unit_test(a_window_bounds_what_a_sequence_needs),
        cmocka_unit_test(a_model_is_summed_up),
        cmocka_unit_test(a_missing_tensor_ends_the_sum),
        cmocka_unit_test(the_largest_shapes_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
