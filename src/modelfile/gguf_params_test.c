/* Hyper-parameters out of GGUF metadata. Each case is a small llama with some keys changed: a
 * struct pair whose value replaces the key's, adds it, or (type NONE) takes it away. */
#include "modelfile/test_model_impl.h"

enum { NONE = 99 };

struct pair {
    const char *key;
    uint32_t type;
    double number;
    const char *text;
};

static const struct pair base[] = {
    {"general.architecture", T_STRING, 0, "llama"},
    {"general.name", T_STRING, 0, "tiny"},
    {"llama.block_count", T_U32, 3, NULL},
    {"llama.embedding_length", T_U32, 256, NULL},
    {"llama.feed_forward_length", T_U32, 704, NULL},
    {"llama.context_length", T_U32, 4096, NULL},
    {"llama.attention.head_count", T_U32, 8, NULL},
    {"llama.attention.head_count_kv", T_U32, 2, NULL},
    {"llama.attention.layer_norm_rms_epsilon", T_F32, 1e-5, NULL},
    {"llama.rope.freq_base", T_F32, 500000, NULL},
    {"llama.rope.dimension_count", T_U32, 32, NULL},
    {"llama.vocab_size", T_U32, 1000, NULL},
};
enum { N_BASE = sizeof(base) / sizeof(base[0]) };

static void put_pair(struct blob *b, const struct pair *p)
{
    put_string(b, p->key);
    put_u32(b, p->type);
    switch (p->type) {
    case T_U32: put_u32(b, (uint32_t)p->number); return;
    case T_I32: put(b, &(int32_t){(int32_t)p->number}, 4); return;
    case T_U64: put_u64(b, (uint64_t)p->number); return;
    case T_F32: put(b, &(float){(float)p->number}, 4); return;
    case T_BOOL: put_u8(b, (uint8_t)p->number); return;
    case T_STRING: put_string(b, p->text); return;
    case T_ARRAY: /* of `number` bytes */
        put_u32(b, T_U8);
        put_u64(b, (uint64_t)p->number);
        put_pattern(b, (size_t)p->number);
        return;
    default: fail_msg("the test has no value type %u", p->type);
    }
}

/* The base with `changes` over it and one tensor beside the embedding. */
static enum err params_of(const struct pair *changes, int n_changes, const char *tensor,
                          struct model_params *p, struct error *e)
{
    struct blob pairs = {0}, b = {0};
    struct modelfile *m;
    uint64_t n = 0;
    for (int i = 0; i < N_BASE; i++) {
        bool is_replaced = false;
        for (int k = 0; k < n_changes; k++)
            is_replaced |= strcmp(changes[k].key, base[i].key) == 0;
        if (!is_replaced) {
            put_pair(&pairs, &base[i]);
            n++;
        }
    }
    for (int k = 0; k < n_changes; k++) {
        if (changes[k].type != NONE) {
            put_pair(&pairs, &changes[k]);
            n++;
        }
    }
    gguf_start(&b, 3, 2, n);
    put(&b, pairs.data, pairs.bytes);
    tensor2_put(&b, "token_embd.weight", 8, 100, DTYPE_F32, 0);
    tensor2_put(&b, tensor, 8, 1, DTYPE_F32, 3200);
    put_pad(&b, 32);
    put_pattern(&b, 3232);
    if (modelfile_open_memory("params", b.data, b.bytes, &m, e) != OK)
        fail_msg("%s", e->text);
    enum err err = modelfile_params(m, p, e);
    modelfile_close(m);
    blob_free(&pairs);
    blob_free(&b);
    return err;
}

static struct model_params good(struct pair change)
{
    struct model_params p;
    struct error e;
    if (params_of(&change, 1, "output.weight", &p, &e) != OK)
        fail_msg("%s: %s", change.key, e.text);
    return p;
}

static void bad(struct pair change, enum err wanted, const char *part)
{
    struct model_params p;
    struct error e;
    enum err err = params_of(&change, 1, "output.weight", &p, &e);
    if (err != wanted)
        fail_msg("%s: expected error %d (…%s…), got %d: %s", change.key, wanted, part, err,
                 err ? e.text : "");
    expect_text(&e, part);
}

static void every_value_arrives(void **state)
{
    (void)state;
    struct model_params p = good((struct pair){"unrelated.key", T_U32, 1, NULL});
    assert_string_equal(p.architecture, "llama");
    assert_string_equal(p.name, "tiny");
    assert_int_equal(p.n_layers, 3);
    assert_int_equal(p.hidden, 256);
    assert_int_equal(p.ffn, 704);
    assert_int_equal(p.n_heads, 8);
    assert_int_equal(p.n_kv_heads, 2);
    assert_int_equal(p.head_size, 32);
    assert_int_equal(p.rope_size, 32);
    assert_int_equal(p.vocab, 1000);
    assert_int_equal(p.context, 4096);
    assert_true(p.norm_eps == 1e-5f);
    assert_true(p.rope_base == 500000);
    assert_true(p.rope_factor == 1);
    assert_int_equal(p.rope_pairing, ROPE_NEIGHBOURS);
    assert_int_equal(p.rope_scaling, ROPE_SCALING_NONE);
    assert_false(p.tied_head);
}

static void absent_keys_have_defaults(void **state)
{
    (void)state;
    struct model_params p;
    struct error e;
    assert_int_equal(good((struct pair){"llama.attention.head_count_kv", NONE, 0, NULL}).n_kv_heads,
                     8);
    assert_true(good((struct pair){"llama.rope.freq_base", NONE, 0, NULL}).rope_base == 10000);
    assert_int_equal(good((struct pair){"llama.rope.dimension_count", NONE, 0, NULL}).rope_size,
                     32);
    assert_int_equal(good((struct pair){"llama.rope.dimension_count", T_U32, 16, NULL}).rope_size,
                     16);
    assert_int_equal(good((struct pair){"general.name", NONE, 0, NULL}).name[0], 0);
    /* The vocabulary: from the key, else the tokens, else the embedding's rows. */
    assert_int_equal(good((struct pair){"llama.vocab_size", NONE, 0, NULL}).vocab, 100);
    const struct pair tokens[] = {{"llama.vocab_size", NONE, 0, NULL},
                                  {"tokenizer.ggml.tokens", T_ARRAY, 77, NULL}};
    assert_int_equal(params_of(tokens, 2, "output.weight", &p, &e), OK);
    assert_int_equal(p.vocab, 77);
    assert_int_equal(params_of(NULL, 0, "no-head", &p, &e), OK);
    assert_true(p.tied_head);
}

static void head_size_apart_from_width(void **state)
{
    (void)state;
    struct model_params p;
    struct error e;
    const struct pair sizes[] = {{"llama.attention.key_length", T_U32, 64, NULL},
                                 {"llama.attention.value_length", T_U32, 64, NULL},
                                 {"llama.rope.dimension_count", NONE, 0, NULL}};
    assert_int_equal(params_of(sizes, 3, "output.weight", &p, &e), OK);
    assert_int_equal(p.head_size, 64);
    assert_int_equal(p.rope_size, 64);
    bad((struct pair){"llama.attention.value_length", T_U32, 64, NULL}, ERR_UNSUPPORTED,
        "llama.attention.value_length is 64, supported is only the key length 32");
    bad((struct pair){"llama.attention.head_count", T_U32, 6, NULL}, ERR_INVALID, "head size is 0");
}

static void required_keys(void **state)
{
    (void)state;
    static const char *const names[] = {
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.context_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char part[100];
        snprintf(part, sizeof(part), "metadata %s is missing", names[i]);
        bad((struct pair){names[i], NONE, 0, NULL}, ERR_NOT_FOUND, part);
    }
}

static void wrong_types_and_ranges(void **state)
{
    (void)state;
    static const char layers[] = "llama.block_count",
                      eps[] = "llama.attention.layer_norm_rms_epsilon";
    bad((struct pair){layers, T_STRING, 0, "3"}, ERR_UNSUPPORTED, "llama.block_count is a string");
    bad((struct pair){layers, T_F32, 3, NULL}, ERR_UNSUPPORTED, "llama.block_count is a float");
    bad((struct pair){"llama.attention.head_count", T_ARRAY, 3, NULL}, ERR_UNSUPPORTED,
        "llama.attention.head_count is an array, expected one whole number");
    bad((struct pair){layers, T_I32, -1, NULL}, ERR_INVALID, "llama.block_count is -1");
    bad((struct pair){layers, T_U64, 1e18, NULL}, ERR_INVALID, "out of range");
    bad((struct pair){layers, T_U32, 0, NULL}, ERR_INVALID, "the number of layers is 0");
    bad((struct pair){layers, T_U32, 4097, NULL}, ERR_LIMIT, "expected 1 to 4096");
    assert_int_equal(good((struct pair){layers, T_I32, 4, NULL}).n_layers, 4);
    assert_int_equal(good((struct pair){layers, T_U64, 5, NULL}).n_layers, 5);
    bad((struct pair){eps, T_U32, 1, NULL}, ERR_INVALID, "expected a float");
    bad((struct pair){eps, T_F32, -1, NULL}, ERR_INVALID, "the norm epsilon is -1");
    bad((struct pair){"llama.rope.freq_base", T_F32, 0, NULL}, ERR_INVALID, "the rope base is 0");
    bad((struct pair){"llama.rope.freq_base", T_F32, (double)(0.0f / 0.0f), NULL}, ERR_INVALID,
        "the rope base is");
    bad((struct pair){"llama.rope.dimension_count", T_U32, 34, NULL}, ERR_LIMIT,
        "expected 1 to 32");
    bad((struct pair){"llama.rope.dimension_count", T_U32, 31, NULL}, ERR_INVALID,
        "an even number");
    bad((struct pair){"llama.attention.head_count_kv", T_U32, 3, NULL}, ERR_INVALID,
        "cannot share");
    bad((struct pair){"llama.attention.head_count_kv", T_U32, 0, NULL}, ERR_INVALID,
        "the number of key-value heads is 0");
    bad((struct pair){"general.architecture", T_U32, 3, NULL}, ERR_INVALID, "general.architecture");
    bad((struct pair){"general.architecture", T_STRING, 0, ""}, ERR_INVALID,
        "no string of 1 to 63");
}

static void keys_that_change_results(void **state)
{
    (void)state;
    bad((struct pair){"llama.some.new_key", T_U32, 1, NULL}, ERR_UNSUPPORTED,
        "metadata llama.some.new_key is not known");
    bad((struct pair){"llama.expert_count", T_U32, 8, NULL}, ERR_UNSUPPORTED,
        "metadata llama.expert_count is 8, supported is only 0");
    bad((struct pair){"llama.attention.sliding_window", T_F32, 0.5, NULL}, ERR_UNSUPPORTED,
        "llama.attention.sliding_window is a float, expected one whole number");
    bad((struct pair){"llama.attention.sliding_window_pattern", T_U32, 2, NULL}, ERR_UNSUPPORTED,
        "llama.attention.sliding_window_pattern is not known");
    assert_int_equal(
        good((struct pair){"llama.attention.sliding_window", T_U32, 4096, NULL}).window, 4096);
    assert_int_equal(good((struct pair){"llama.attention.sliding_window", T_U32, 0, NULL}).window,
                     0);
    bad((struct pair){"llama.logit_scale", T_F32, 0.5, NULL}, ERR_UNSUPPORTED, "is 0.5");
    bad((struct pair){"llama.attention.causal", T_BOOL, 0, NULL}, ERR_UNSUPPORTED, "causal is 0");
    bad((struct pair){"llama.expert_count", T_STRING, 0, "0"}, ERR_UNSUPPORTED, "expert_count");
    (void)good((struct pair){"llama.expert_count", T_U32, 0, NULL});
    (void)good((struct pair){"llama.attention.causal", T_BOOL, 1, NULL});
    (void)good((struct pair){"llama.tensor_data_layout", T_STRING, 0, "Meta AI original pth"});
    (void)good((struct pair){"general.file_type", T_U32, 7, NULL});
}

static void rope_scaling(void **state)
{
    (void)state;
    struct model_params p;
    struct error e;
    struct pair linear[] = {{"llama.rope.scaling.type", T_STRING, 0, "linear"},
                            {"llama.rope.scaling.factor", T_F32, 4, NULL}};
    assert_int_equal(params_of(linear, 2, "output.weight", &p, &e), OK);
    assert_int_equal(p.rope_scaling, ROPE_SCALING_LINEAR);
    assert_true(p.rope_factor == 4);
    linear[0].text = "none";
    assert_int_equal(params_of(linear, 2, "output.weight", &p, &e), OK);
    assert_int_equal(p.rope_scaling, ROPE_SCALING_NONE);
    assert_true(p.rope_factor == 1);
    linear[0].text = "yarn";
    assert_int_equal(params_of(linear, 2, "output.weight", &p, &e), ERR_UNSUPPORTED);
    expect_text(&e, "llama.rope.scaling.type is \"yarn\", supported are none and linear");
    p = good((struct pair){"llama.rope.scale_linear", T_F32, 2, NULL});
    assert_int_equal(p.rope_scaling, ROPE_SCALING_LINEAR);
    assert_true(p.rope_factor == 2);
    bad((struct pair){"llama.rope.scaling.type", T_U32, 1, NULL}, ERR_INVALID, "expected a string");
    bad((struct pair){"llama.rope.scaling.factor", T_F32, 0, NULL}, ERR_INVALID,
        "rope factor is 0");
    bad((struct pair){"llama.rope.scaling.attn_factor", T_F32, 2, NULL}, ERR_UNSUPPORTED,
        "attn_factor is 2");
    /* Two sets of factors in tensors: leaving them out would be wrong silently. */
    assert_int_equal(params_of(NULL, 0, "rope_factors_long.weight", &p, &e), ERR_UNSUPPORTED);
    expect_text(&e, "tensor rope_factors_long.weight");
    assert_int_equal(params_of(NULL, 0, "rope_freqs.weight", &p, &e), OK);
    assert_int_equal(p.rope_scaling, ROPE_SCALING_NONE);
}

static void other_architectures_are_generic(void **state)
{
    (void)state;
    static const struct pair qwen[] = {
        {"general.architecture", T_STRING, 0, "qwen2"},
        {"qwen2.block_count", T_U32, 2, NULL},
        {"qwen2.embedding_length", T_U32, 128, NULL},
        {"qwen2.feed_forward_length", T_U32, 256, NULL},
        {"qwen2.context_length", T_U32, 512, NULL},
        {"qwen2.attention.head_count", T_U32, 4, NULL},
        {"qwen2.attention.layer_norm_rms_epsilon", T_F32, 1e-6, NULL},
        {"qwen2.some.new_key", T_U32, 1, NULL},
    };
    struct model_params p;
    struct error e;
    if (params_of(qwen, 8, "output.weight", &p, &e) != OK)
        fail_msg("%s", e.text);
    assert_string_equal(p.architecture, "qwen2");
    assert_int_equal(p.n_layers, 2);
    assert_int_equal(p.vocab, 100);
    assert_int_equal(p.rope_pairing, ROPE_HALVES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_arrives),
        cmocka_unit_test(absent_keys_have_defaults),
        cmocka_unit_test(head_size_apart_from_width),
        cmocka_unit_test(required_keys),
        cmocka_unit_test(wrong_types_and_ranges),
        cmocka_unit_test(keys_that_change_results),
        cmocka_unit_test(rope_scaling),
        cmocka_unit_test(other_architectures_are_generic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
