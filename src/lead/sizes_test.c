#include "lead/sizes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* 2 heads of 64, 4 layers: 256 elements a position and layer, keys and values together. */
static const struct model_params params = {
    .n_layers = 4, .n_kv_heads = 2, .head_size = 64, .context = 2048};
enum { BLOCK_BYTES = 256 * 2 * 16 * 4 };

static void enough_memory_gives_every_slot_its_context(void **state)
{
    (void)state;
    struct sizes_kv kv;
    assert_int_equal(sizes_kv_position_bytes(&params, KV_F16), 512);
    assert_int_equal(sizes_kv_position_bytes(&params, KV_F32), 1024);
    assert_int_equal(sizes_kv_fit(&params, KV_F16, 0, 3, 1 << 30, &kv, NULL), OK);
    assert_int_equal(kv.context, 2048);
    assert_int_equal(kv.n_blocks, 3 * 128);
    assert_int_equal(sizes_kv_fit(&params, KV_F16, 17, 2, 1 << 30, &kv, NULL), OK);
    assert_int_equal(kv.context, 17);
    assert_int_equal(kv.n_blocks, 4);
}

static void little_memory_shrinks_an_open_context_only(void **state)
{
    (void)state;
    struct sizes_kv kv;
    struct error e;
    assert_int_equal(sizes_kv_fit(&params, KV_F16, 0, 4, 10 * BLOCK_BYTES, &kv, NULL), OK);
    assert_int_equal(kv.n_blocks, 10);
    assert_int_equal(kv.context, 160);
    assert_int_equal(sizes_kv_fit(&params, KV_F16, 161, 1, 10 * BLOCK_BYTES, &kv, &e), ERR_LIMIT);
    assert_string_equal(e.text, "keys and values of 161 positions need 0.4 MB, 0.3 MB are there "
                                "for them");
    assert_int_equal(sizes_kv_fit(&params, KV_F16, 0, 1, 10, &kv, &e), ERR_LIMIT);
}

static void a_context_beyond_the_model_is_refused(void **state)
{
    (void)state;
    struct sizes_kv kv;
    struct error e;
    assert_int_equal(sizes_kv_fit(&params, KV_F16, 2049, 1, 1 << 30, &kv, &e), ERR_LIMIT);
    assert_string_equal(e.text, "context of 2049 positions: the model was trained for 2048");
}

static void there_is_some_memory(void **state)
{
    (void)state;
    assert_true(sizes_free_memory() > 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enough_memory_gives_every_slot_its_context),
        cmocka_unit_test(little_memory_shrinks_an_open_context_only),
        cmocka_unit_test(a_context_beyond_the_model_is_refused),
        cmocka_unit_test(there_is_some_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
