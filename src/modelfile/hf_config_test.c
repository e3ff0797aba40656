/* config.json: right values from a right file, and for every wrong or unknown key a refusal that
 * names it. Each case is the base configuration with some keys replaced. */
#include "modelfile/test_model_impl.h"

#include <jansson.h>

static const char base[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\","
    "\"hidden_size\":256,\"intermediate_size\":704,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":8,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-6,"
    "\"rope_theta\":500000.0,\"vocab_size\":1000,\"max_position_embeddings\":4096,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"use_cache\":true}";

/* The base with the members of `patch` put over it; a member "-key" removes key. */
static enum err params_of(const char *patch, struct model_params *p, struct error *e)
{
    json_error_t why;
    json_t *config = json_loads(base, 0, &why), *change = json_loads(patch, 0, &why);
    if (config == NULL || change == NULL)
        fail_msg("the test's own JSON: %s in %s", why.text, patch);
    const char *key;
    json_t *value;
    json_object_foreach(change, key, value)
    {
        if (key[0] == '-')
            json_object_del(config, key + 1);
        else
            json_object_set(config, key, value);
    }
    char *text = json_dumps(config, 0);
    enum err err = hf_config_params(text, strlen(text), p, e);
    free(text);
    json_decref(config);
    json_decref(change);
    return err;
}

static struct model_params good(const char *patch)
{
    struct model_params p;
    struct error e;
    if (params_of(patch, &p, &e) != OK)
        fail_msg("%s: %s", patch, e.text);
    return p;
}

static void bad(const char *patch, enum err wanted, const char *part)
{
    struct model_params p;
    struct error e;
    enum err err = params_of(patch, &p, &e);
    if (err != wanted)
        fail_msg("%s: expected error %d (…%s…), got %d: %s", patch, wanted, part, err,
                 err ? e.text : "");
    expect_text(&e, part);
}

static void every_value_arrives(void **state)
{
    (void)state;
    struct model_params p = good("{}");
    assert_string_equal(p.architecture, "LlamaForCausalLM");
    assert_int_equal(p.n_layers, 3);
    assert_int_equal(p.hidden, 256);
    assert_int_equal(p.ffn, 704);
    assert_int_equal(p.n_heads, 8);
    assert_int_equal(p.n_kv_heads, 2);
    assert_int_equal(p.head_size, 32);
    assert_int_equal(p.rope_size, 32);
    assert_int_equal(p.vocab, 1000);
    assert_int_equal(p.context, 4096);
    assert_true(p.norm_eps == 1e-6f);
    assert_true(p.rope_base == 500000.0f);
    assert_int_equal(p.rope_pairing, ROPE_HALVES);
    assert_int_equal(p.rope_scaling, ROPE_SCALING_NONE);
    assert_true(p.rope_factor == 1);
    assert_false(p.tied_head);
    assert_true(good("{\"tie_word_embeddings\":true}").tied_head);
    assert_false(good("{\"-tie_word_embeddings\":0}").tied_head);
    assert_int_equal(good("{\"head_dim\":64}").head_size, 64);
    assert_int_equal(good("{\"head_dim\":64}").rope_size, 64);
    assert_int_equal(good("{\"head_dim\":null}").head_size, 32);
    assert_int_equal(good("{\"-num_key_value_heads\":0}").n_kv_heads, 8);
    assert_true(good("{\"-rope_theta\":0}").rope_base == 10000);
    assert_true(good("{\"rope_theta\":10000}").rope_base == 10000);
    assert_string_equal(good("{\"-architectures\":0}").architecture, "LlamaForCausalLM");
    assert_string_equal(good("{\"_name_or_path\":\"x/y\"}").name, "x/y");
}

static void rope_scaling_both_styles(void **state)
{
    (void)state;
    static const char *const llama3[] = {
        "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}}",
        "{\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":500000,\"factor\":8.0,"
        "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        "\"original_max_position_embeddings\":8192},\"-rope_theta\":0}",
    };
    for (int i = 0; i < 2; i++) {
        struct model_params p = good(llama3[i]);
        assert_int_equal(p.rope_scaling, ROPE_SCALING_LLAMA3);
        assert_true(p.rope_base == 500000 && p.rope_factor == 8);
        assert_true(p.rope_low_freq_factor == 1 && p.rope_high_freq_factor == 4);
        assert_int_equal(p.rope_original_context, 8192);
    }
    struct model_params p = good("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}");
    assert_int_equal(p.rope_scaling, ROPE_SCALING_LINEAR);
    assert_true(p.rope_factor == 2);
    p = good("{\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e6}}");
    assert_int_equal(p.rope_scaling, ROPE_SCALING_NONE);
    assert_true(p.rope_base == 1e6f);
    assert_true(good("{\"rope_parameters\":{\"rope_type\":\"default\"}}").rope_base == 500000);
    assert_int_equal(good("{\"rope_scaling\":null}").rope_scaling, ROPE_SCALING_NONE);
}

static void rope_scaling_refused(void **state)
{
    (void)state;
    static const char *const types[] = {"dynamic", "yarn", "longrope", "su", "mrope"};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        char patch[100], part[60];
        snprintf(patch, sizeof(patch), "{\"rope_scaling\":{\"type\":\"%s\",\"factor\":2}}",
                 types[i]);
        snprintf(part, sizeof(part), "rope_scaling: type is \"%s\", supported are", types[i]);
        bad(patch, ERR_UNSUPPORTED, part);
    }
    bad("{\"rope_scaling\":{\"factor\":2}}", ERR_INVALID, "no string \"rope_type\" or \"type\"");
    bad("{\"rope_scaling\":{\"type\":\"linear\"}}", ERR_NOT_FOUND, "rope_scaling: key factor");
    bad("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", ERR_INVALID, "rope factor is 0");
    bad("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"}}", ERR_INVALID,
        "factor is \"2\"");
    bad("{\"rope_scaling\":{\"type\":\"linear\",\"rope_type\":\"llama3\",\"factor\":2}}",
        ERR_INVALID, "rope_type and type differ");
    bad("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"mrope_section\":[1]}}",
        ERR_UNSUPPORTED, "rope_scaling: key mrope_section ([1]) is not known");
    bad("{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", ERR_NOT_FOUND,
        "rope_scaling: key low_freq_factor is missing");
    bad("{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
        "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}}",
        ERR_INVALID, "low_freq_factor is 4, expected less than high_freq_factor 4");
    bad("{\"rope_scaling\":7}", ERR_INVALID, "rope_scaling is no object");
    bad("{\"rope_scaling\":{\"type\":\"default\"},\"rope_parameters\":{\"rope_type\":\"default\"}}",
        ERR_INVALID, "both rope_parameters and rope_scaling");
    bad("{\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}}",
        ERR_UNSUPPORTED, "rope_parameters: key partial_rotary_factor (0.5)");
    bad("{\"rope_theta\":0}", ERR_INVALID, "the rope base is 0");
    bad("{\"rope_theta\":\"big\"}", ERR_INVALID, "rope_theta is \"big\"");
    bad("{\"rope_theta\":1e300}", ERR_INVALID, "rope_theta is 1e300, expected a number");
}

static void required_keys(void **state)
{
    (void)state;
    static const char *const names[] = {
        "model_type",          "hidden_size", "intermediate_size",       "num_hidden_layers",
        "num_attention_heads", "vocab_size",  "max_position_embeddings", "rms_norm_eps",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char patch[100], part[100];
        snprintf(patch, sizeof(patch), "{\"-%s\":0}", names[i]);
        snprintf(part, sizeof(part), "key %s is missing", names[i]);
        bad(patch, ERR_NOT_FOUND, part);
        snprintf(patch, sizeof(patch), "{\"%s\":null}", names[i]);
        bad(patch, ERR_NOT_FOUND, part);
        snprintf(patch, sizeof(patch), "{\"%s\":[]}", names[i]);
        snprintf(part, sizeof(part), "%s is []", names[i]);
        struct model_params p;
        struct error e;
        assert_int_not_equal(params_of(patch, &p, &e), OK);
        expect_text(&e, part);
    }
}

static void values_out_of_range(void **state)
{
    (void)state;
    bad("{\"num_hidden_layers\":0}", ERR_INVALID, "num_hidden_layers is 0");
    bad("{\"num_hidden_layers\":-1}", ERR_INVALID, "num_hidden_layers is -1");
    bad("{\"num_hidden_layers\":3.0}", ERR_INVALID, "num_hidden_layers is 3.0");
    bad("{\"num_hidden_layers\":5000}", ERR_LIMIT, "the number of layers is 5000");
    bad("{\"hidden_size\":4294967296}", ERR_INVALID, "hidden_size is 4294967296");
    bad("{\"hidden_size\":2097152}", ERR_LIMIT, "expected 1 to 1048576");
    bad("{\"vocab_size\":100000000}", ERR_LIMIT, "the vocabulary size is 100000000");
    bad("{\"max_position_embeddings\":2000000000}", ERR_LIMIT, "the context length");
    bad("{\"hidden_size\":250}", ERR_INVALID, "hidden_size 250 is no multiple of");
    bad("{\"num_key_value_heads\":3}", ERR_INVALID, "8 heads cannot share 3");
    bad("{\"num_key_value_heads\":16}", ERR_INVALID, "8 heads cannot share 16");
    bad("{\"head_dim\":33}", ERR_INVALID, "the rotated part of a head has 33");
    bad("{\"head_dim\":2000}", ERR_LIMIT, "the head size is 2000");
    bad("{\"rms_norm_eps\":-1e-6}", ERR_INVALID, "the norm epsilon");
    bad("{\"tie_word_embeddings\":1}", ERR_INVALID, "tie_word_embeddings is 1");
    bad("{\"architectures\":[]}", ERR_INVALID, "architectures");
}

static void keys_that_change_results(void **state)
{
    (void)state;
    bad("{\"attention_bias\":true}", ERR_UNSUPPORTED, "attention_bias is true, supported is only");
    bad("{\"mlp_bias\":true}", ERR_UNSUPPORTED, "mlp_bias is true");
    bad("{\"hidden_act\":\"gelu\"}", ERR_UNSUPPORTED, "hidden_act is \"gelu\"");
    bad("{\"partial_rotary_factor\":0.5}", ERR_UNSUPPORTED, "partial_rotary_factor is 0.5");
    bad("{\"quantization_config\":{\"bits\":4}}", ERR_UNSUPPORTED, "quantization_config is set");
    bad("{\"auto_map\":{\"AutoModel\":\"x.Y\"}}", ERR_UNSUPPORTED, "auto_map is set");
    bad("{\"attn_logit_softcapping\":30.0}", ERR_UNSUPPORTED,
        "key attn_logit_softcapping (30.0) is not known");
    bad("{\"some_new_switch\":\"a value so long that it has to be cut somewhere before its end\"}",
        ERR_UNSUPPORTED, "some_new_switch (\"a value so long that it has to be cut somewher)");
    bad("{\"some_new_switch\":false}", ERR_UNSUPPORTED, "key some_new_switch (false)");
    bad("{\"sliding_window\":1024}", ERR_UNSUPPORTED, "sliding_window is 1024");
    bad("{\"use_sliding_window\":true,\"sliding_window\":1024}", ERR_UNSUPPORTED, "sliding_window");
    bad("{\"layer_types\":[\"full_attention\"]}", ERR_INVALID, "layer_types has 1 entries");
    bad("{\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\"]}",
        ERR_UNSUPPORTED, "layer_types[1] is \"sliding_attention\"");
    bad("{\"model_type\":\"gemma\"}", ERR_UNSUPPORTED,
        "model_type is \"gemma\", expected one of llama, mistral, qwen2, qwen3");
    bad("{\"model_type\":5}", ERR_UNSUPPORTED, "model_type is 5");
    /* What is off, null or bookkeeping stands in nobody's way. */
    (void)good("{\"attention_bias\":false,\"mlp_bias\":null,\"quantization_config\":null,"
               "\"some_new_switch\":null,\"pruned_heads\":{},\"partial_rotary_factor\":1.0,"
               "\"sliding_window\":null,\"hidden_act\":\"swish\",\"pretraining_tp\":1,"
               "\"transformers_version\":\"4.41.2\",\"bos_token_id\":1,\"eos_token_id\":[2,3],"
               "\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\"]}");
}

static void other_families(void **state)
{
    (void)state;
    assert_string_equal(good("{\"model_type\":\"mistral\",\"sliding_window\":null,"
                             "\"-architectures\":0}")
                            .architecture,
                        "MistralForCausalLM");
    bad("{\"model_type\":\"mistral\",\"sliding_window\":null,\"-num_key_value_heads\":0}",
        ERR_NOT_FOUND, "num_key_value_heads");
    bad("{\"model_type\":\"qwen3\"}", ERR_NOT_FOUND, "key head_dim is missing");
    assert_int_equal(good("{\"model_type\":\"qwen3\",\"head_dim\":128}").head_size, 128);
}

static int window_of(const char *changes)
{
    return good(changes).window;
}

static void one_window_for_all_layers(void **state)
{
    (void)state;
    assert_int_equal(window_of("{}"), 0);
    assert_int_equal(window_of("{\"use_sliding_window\":false,\"sliding_window\":9}"), 0);
    assert_int_equal(window_of("{\"model_type\":\"mistral\"}"), 4096); /* its default */
    assert_int_equal(window_of("{\"model_type\":\"mistral\",\"sliding_window\":null}"), 0);
    assert_int_equal(window_of("{\"model_type\":\"mistral\",\"sliding_window\":1024}"), 1024);
    assert_int_equal(window_of("{\"model_type\":\"mistral\",\"sliding_window\":7,\"layer_types\":"
                               "[\"sliding_attention\",\"sliding_attention\","
                               "\"sliding_attention\"]}"),
                     7);
    /* Off, on from layer 0, on from a layer behind the last. */
    assert_int_equal(window_of("{\"model_type\":\"qwen2\",\"sliding_window\":4096,"
                               "\"use_sliding_window\":false,\"max_window_layers\":1}"),
                     0);
    assert_int_equal(window_of("{\"model_type\":\"qwen2\",\"sliding_window\":512,"
                               "\"use_sliding_window\":true,\"max_window_layers\":0}"),
                     512);
    assert_int_equal(window_of("{\"model_type\":\"qwen2\",\"use_sliding_window\":true,"
                               "\"max_window_layers\":0}"),
                     4096);
    assert_int_equal(window_of("{\"model_type\":\"qwen2\",\"sliding_window\":512,"
                               "\"use_sliding_window\":true,\"max_window_layers\":3}"),
                     0);
    assert_int_equal(window_of("{\"model_type\":\"qwen2\",\"sliding_window\":512,"
                               "\"use_sliding_window\":true}"),
                     0); /* 28 layers without */
    assert_int_equal(window_of("{\"model_type\":\"qwen2\",\"sliding_window\":512,"
                               "\"use_sliding_window\":true,\"max_window_layers\":1,"
                               "\"layer_types\":[\"sliding_attention\",\"sliding_attention\","
                               "\"sliding_attention\"]}"),
                     512); /* types, where given, decide */
}

static void layers_that_differ_in_their_window(void **state)
{
    (void)state;
    bad("{\"model_type\":\"qwen2\",\"sliding_window\":512,\"use_sliding_window\":true,"
        "\"max_window_layers\":2}",
        ERR_UNSUPPORTED, "max_window_layers is 2 of 3 layers");
    bad("{\"model_type\":\"qwen2\",\"sliding_window\":512,\"use_sliding_window\":true,"
        "\"max_window_layers\":-1}",
        ERR_INVALID, "max_window_layers is -1");
    bad("{\"model_type\":\"qwen2\",\"sliding_window\":512,\"use_sliding_window\":true,"
        "\"layer_types\":[\"full_attention\",\"full_attention\",\"sliding_attention\"]}",
        ERR_UNSUPPORTED, "layer_types[2] is \"sliding_attention\", unlike the layers before it");
    bad("{\"layer_types\":[\"full_attention\",\"chunked_attention\",\"full_attention\"]}",
        ERR_UNSUPPORTED, "layer_types[1] is \"chunked_attention\"");
    /* What the types say and what the size says must agree. */
    bad("{\"model_type\":\"mistral\",\"sliding_window\":null,\"layer_types\":"
        "[\"sliding_attention\",\"sliding_attention\",\"sliding_attention\"]}",
        ERR_UNSUPPORTED, "\"sliding_attention\", which does not go with a window of 0");
    bad("{\"model_type\":\"mistral\",\"sliding_window\":64,\"layer_types\":"
        "[\"full_attention\",\"full_attention\",\"full_attention\"]}",
        ERR_UNSUPPORTED, "\"full_attention\", which does not go with a window of 64");
    bad("{\"model_type\":\"mistral\",\"use_sliding_window\":false}", ERR_UNSUPPORTED,
        "use_sliding_window is false");
    bad("{\"model_type\":\"mistral\",\"sliding_window\":0}", ERR_INVALID, "sliding_window is 0");
    bad("{\"model_type\":\"mistral\",\"sliding_window\":\"all\"}", ERR_INVALID,
        "sliding_window is \"all\"");
    bad("{\"model_type\":\"mistral\",\"sliding_window\":100000000}", ERR_LIMIT,
        "the attention window is 100000000");
}

static void text_that_is_no_config(void **state)
{
    (void)state;
    static const char *const texts[] = {"",    "{",     "[]", "null", "{\"a\":1,\"a\":2}",
                                        "{}x", "\xff{}"};
    struct model_params p;
    struct error e;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(hf_config_params(texts[i], strlen(texts[i]), &p, &e), ERR_FORMAT);
        expect_text(&e, "JSON");
    }
    for (size_t n = 0; n < sizeof(base) - 1; n++) {
        assert_int_equal(hf_config_params(base, n, &p, &e), ERR_FORMAT);
        expect_text(&e, "JSON");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_arrives),
        cmocka_unit_test(rope_scaling_both_styles),
        cmocka_unit_test(rope_scaling_refused),
        cmocka_unit_test(required_keys),
        cmocka_unit_test(values_out_of_range),
        cmocka_unit_test(keys_that_change_results),
        cmocka_unit_test(other_families),
        cmocka_unit_test(text_that_is_no_config),
        cmocka_unit_test(one_window_for_all_layers),
        cmocka_unit_test(layers_that_differ_in_their_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
