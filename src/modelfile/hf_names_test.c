/* Names of Hugging Face tensors in GGUF's words, near misses, and tied embeddings. */
#include "modelfile/test_model_impl.h"

static void names_are_translated(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"model.embed_tokens.weight", "token_embd.weight"},
        {"model.norm.weight", "output_norm.weight"},
        {"lm_head.weight", "output.weight"},
        {"model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"},
        {"model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight"},
        {"model.layers.1.self_attn.q_proj.bias", "blk.1.attn_q.bias"},
        {"model.layers.12.self_attn.k_proj.weight", "blk.12.attn_k.weight"},
        {"model.layers.12.self_attn.v_proj.weight", "blk.12.attn_v.weight"},
        {"model.layers.125.self_attn.o_proj.weight", "blk.125.attn_output.weight"},
        {"model.layers.9.self_attn.q_norm.weight", "blk.9.attn_q_norm.weight"},
        {"model.layers.9.self_attn.k_norm.weight", "blk.9.attn_k_norm.weight"},
        {"model.layers.9.post_attention_layernorm.weight", "blk.9.ffn_norm.weight"},
        {"model.layers.9.mlp.gate_proj.weight", "blk.9.ffn_gate.weight"},
        {"model.layers.9.mlp.up_proj.weight", "blk.9.ffn_up.weight"},
        {"model.layers.4095.mlp.down_proj.weight", "blk.4095.ffn_down.weight"},
    };
    char out[MODEL_MAX_NAME];
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        assert_true(hf_tensor_name(pairs[i][0], out));
        assert_string_equal(out, pairs[i][1]);
    }
}

static void other_names_are_kept(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "weight",
        "model.layers",
        "model.layers.",
        "model.layers.0",
        "model.layers..mlp.up_proj.weight",
        "model.layers.00.mlp.up_proj.weight",
        "model.layers.+1.mlp.up_proj.weight",
        "model.layers.4096.mlp.up_proj.weight",
        "model.layers.99999999999999999999.mlp.up_proj.weight",
        "model.layers.0.mlp.up_proj",
        "model.layers.0.mlp.up_proj.weights",
        "model.layers.0.mlp.up_projx.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "xmodel.norm.weight",
        "model.norm.weight2",
        "transformer.h.0.attn.c_attn.weight",
        "blk.0.attn_q.weight",
    };
    char out[MODEL_MAX_NAME];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        bool fits = hf_tensor_name(names[i], out);
        assert_true(fits == (names[i][0] != 0));
        assert_string_equal(out, names[i]);
    }
    char long_name[MODEL_MAX_NAME + 1];
    memset(long_name, 'x', MODEL_MAX_NAME);
    long_name[MODEL_MAX_NAME] = 0;
    assert_false(hf_tensor_name(long_name, out));
    long_name[MODEL_MAX_NAME - 1] = 0;
    assert_true(hf_tensor_name(long_name, out));
}

/* A folder with a configuration and one file of these tensors, opened. */
static struct modelfile *open_with(char *dir, const char *tied, const char *const *tensors, int n)
{
    struct blob b = {0};
    struct modelfile *m;
    struct error e;
    char header[1000] = "{", config[100];
    for (int i = 0; i < n; i++) {
        size_t used = strlen(header);
        snprintf(header + used, sizeof(header) - used,
                 "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                 i ? "," : "", tensors[i], 4 * i, 4 * i + 4);
    }
    strcat(header, "}");
    safetensors_put(&b, header, (size_t)(4 * n));
    file_put(dir, "model.safetensors", b.data, b.bytes);
    blob_free(&b);
    snprintf(config, sizeof(config), "{\"tie_word_embeddings\":%s}", tied);
    text_put(dir, "config.json", config);
    if (modelfile_open(dir, &m, &e) != OK)
        fail_msg("%s", e.text);
    return m;
}

static void a_lone_head_is_the_tied_embedding(void **state)
{
    (void)state;
    static const char *const head[] = {"model.norm.weight", "lm_head.weight"};
    static const char *const both[] = {"lm_head.weight", "model.embed_tokens.weight"};
    char *dir = dir_new();
    struct modelfile *m = open_with(dir, "true", head, 2);
    assert_int_equal(modelfile_n_tensors(m), 2);
    assert_ptr_equal(modelfile_find(m, "token_embd.weight"), modelfile_tensor(m, 1));
    assert_null(modelfile_find(m, "output.weight"));
    modelfile_close(m);

    /* Not tied: a missing embedding stays missing, for the model module to say. */
    m = open_with(dir, "false", head, 2);
    assert_null(modelfile_find(m, "token_embd.weight"));
    assert_non_null(modelfile_find(m, "output.weight"));
    modelfile_close(m);

    m = open_with(dir, "true", both, 2);
    assert_ptr_equal(modelfile_find(m, "token_embd.weight"), modelfile_tensor(m, 1));
    assert_ptr_equal(modelfile_find(m, "output.weight"), modelfile_tensor(m, 0));
    modelfile_close(m);
    dir_free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_translated),
        cmocka_unit_test(other_names_are_kept),
        cmocka_unit_test(a_lone_head_is_the_tied_embedding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
