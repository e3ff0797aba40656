/* The reader on real files of the shared data: trained models, vocabularies, configurations and
 * indexes as they are found in the wild. Skipped (77) where the shared data is absent. */
#include "modelfile/test_model_impl.h"

#include <jansson.h>
#include <math.h>

static const char *shared(const char *name)
{
    static char path[1200];
    snprintf(path, sizeof(path), "%s/data/%s", SHOAL_SHARED_DIR, name);
    return path;
}

static struct modelfile *open_shared(const char *name)
{
    struct modelfile *m;
    struct error e;
    if (modelfile_open(shared(name), &m, &e) != OK)
        fail_msg("%s", e.text);
    return m;
}

static void *read_file(const char *name, size_t *bytes)
{
    FILE *f = fopen(shared(name), "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *bytes = (size_t)ftell(f);
    rewind(f);
    void *data = malloc(*bytes + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *bytes, f), *bytes);
    fclose(f);
    return data;
}

/* The .bin holds the same weights in one fixed order (llama2.c v0): after seven integers all
 * layers' tensors of a kind one behind the other. */
static const float *expect_same(const struct modelfile *m, const char *format, int n_layers,
                                const float *at)
{
    for (int layer_i = 0; layer_i < n_layers; layer_i++) {
        char name[64];
        snprintf(name, sizeof(name), format, layer_i);
        const struct model_tensor *t = modelfile_find(m, name);
        if (t == NULL)
            fail_msg("no tensor %s", name);
        assert_int_equal(t->type, DTYPE_F32);
        assert_memory_equal(modelfile_data(m, t), at, t->bytes);
        at += t->bytes / 4;
    }
    return at;
}

static void stories_gguf_equals_its_bin(void **state)
{
    (void)state;
    size_t bytes;
    int32_t *bin = read_file("models/stories260K/stories260K.bin", &bytes);
    struct modelfile *m = open_shared("models/stories260K/stories260K.gguf");
    assert_int_equal(modelfile_n_tensors(m), 48);
    const float *at = (const float *)(bin + 7);
    at = expect_same(m, "token_embd.weight", 1, at);
    at = expect_same(m, "blk.%d.attn_norm.weight", 5, at);
    at = expect_same(m, "blk.%d.attn_q.weight", 5, at);
    at = expect_same(m, "blk.%d.attn_k.weight", 5, at);
    at = expect_same(m, "blk.%d.attn_v.weight", 5, at);
    at = expect_same(m, "blk.%d.attn_output.weight", 5, at);
    at = expect_same(m, "blk.%d.ffn_norm.weight", 5, at);
    at = expect_same(m, "blk.%d.ffn_gate.weight", 5, at);
    at = expect_same(m, "blk.%d.ffn_down.weight", 5, at);
    at = expect_same(m, "blk.%d.ffn_up.weight", 5, at);
    at = expect_same(m, "output_norm.weight", 1, at);
    assert_true((const uint8_t *)at <= (const uint8_t *)bin + bytes);
    modelfile_close(m);
    free(bin);
}

static void stories_parameters(void **state)
{
    (void)state;
    struct model_params p;
    struct error e;
    struct meta_value v;
    struct modelfile *m = open_shared("models/stories260K/stories260K.gguf");
    if (modelfile_params(m, &p, &e) != OK)
        fail_msg("%s", e.text);
    assert_string_equal(p.architecture, "llama");
    assert_int_equal(p.n_layers, 5);
    assert_int_equal(p.hidden, 64);
    assert_int_equal(p.ffn, 172);
    assert_int_equal(p.n_heads, 8);
    assert_int_equal(p.n_kv_heads, 4);
    assert_int_equal(p.head_size, 8);
    assert_int_equal(p.rope_size, 8);
    assert_int_equal(p.vocab, 512);
    assert_int_equal(p.context, 2048);
    assert_true(p.norm_eps == 1e-5f && p.rope_base == 10000);
    assert_int_equal(p.rope_pairing, ROPE_NEIGHBOURS);
    assert_false(p.tied_head);
    assert_true(modelfile_meta(m, "tokenizer.ggml.tokens", &v));
    assert_int_equal(v.n_elems, 512);
    modelfile_close(m);
}

static void story_folder(void **state)
{
    (void)state;
    struct model_params p;
    struct error e;
    size_t bytes;
    struct modelfile *m = open_shared("models/story-656k-hf");
    if (modelfile_params(m, &p, &e) != OK)
        fail_msg("%s", e.text);
    assert_string_equal(p.architecture, "LlamaForCausalLM");
    assert_string_equal(p.name, "story-656k-hf");
    assert_int_equal(p.n_layers, 2);
    assert_int_equal(p.hidden, 128);
    assert_int_equal(p.head_size, 16);
    assert_int_equal(p.vocab, 2048);
    assert_int_equal(p.rope_pairing, ROPE_HALVES);
    assert_true(p.tied_head);
    assert_int_equal(modelfile_n_tensors(m), 20);
    /* Only lm_head.weight is stored; tied, so it is the embedding. */
    const struct model_tensor *t = modelfile_find(m, "token_embd.weight");
    assert_non_null(t);
    assert_int_equal(t->n_rows, 2048);
    assert_int_equal(t->n_cols, 128);
    assert_null(modelfile_find(m, "output.weight"));
    t = modelfile_find(m, "blk.1.attn_k.weight");
    assert_non_null(t);
    assert_int_equal(t->n_rows, 64);
    assert_true(isfinite(*(const float *)modelfile_data(m, t)));
    assert_non_null(modelfile_text(m, "tokenizer.json", &bytes));
    assert_int_equal(bytes, 86434);
    modelfile_close(m);
}

static void vocabularies(void **state)
{
    (void)state;
    static const struct {
        const char *name, *architecture;
        uint64_t n_tokens;
    } files[] = {
        {"baichuan", "baichuan", 64000}, {"deepseek-llm", "llama", 102400},
        {"gpt-2", "gpt2", 50257},        {"gpt-neox", "gptneox", 50432},
        {"llama-spm", "llama", 32000},   {"phi-3", "phi3", 32064},
        {"refact", "refact", 49216},     {"starcoder", "starcoder2", 49152},
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char name[100];
        struct meta_value v;
        struct model_params p;
        struct error e;
        snprintf(name, sizeof(name), "tokenizers/ggml-vocab/ggml-vocab-%s.gguf", files[i].name);
        struct modelfile *m = open_shared(name);
        assert_int_equal(modelfile_n_tensors(m), 0);
        assert_true(modelfile_meta(m, "general.architecture", &v));
        assert_int_equal(v.bytes, strlen(files[i].architecture));
        assert_memory_equal(v.string, files[i].architecture, v.bytes);
        assert_true(modelfile_meta(m, "tokenizer.ggml.tokens", &v));
        assert_int_equal(v.n_elems, files[i].n_tokens);
        assert_true(touch_all(m) > 0);
        assert_int_equal(modelfile_params(m, &p, &e), ERR_NOT_FOUND);
        modelfile_close(m);
    }
}

/* Architecture "" : refused, with this in the message. */
static const struct {
    const char *name, *architecture, *part;
    int n_layers, hidden, n_kv_heads, head_size;
    enum rope_scaling scaling;
} configs[] = {
    {"EleutherAI--pythia-1b-finetune", "", "model_type is \"gpt_neox\"", 0, 0, 0, 0, 0},
    {"MiniMaxAI--MiniMax-M2.5", "", "model_type is \"minimax_m2\"", 0, 0, 0, 0, 0},
    {"Qwen--Qwen2.5-0.5B-Instruct", "Qwen2ForCausalLM", "", 24, 896, 2, 64, ROPE_SCALING_NONE},
    {"Qwen--Qwen3-0.6B", "Qwen3ForCausalLM", "", 28, 1024, 8, 128, ROPE_SCALING_NONE},
    {"Qwen--Qwen3-1.7B", "Qwen3ForCausalLM", "", 28, 2048, 8, 128, ROPE_SCALING_NONE},
    {"Qwen--Qwen3-235B-A22B", "", "model_type is \"qwen3_moe\"", 0, 0, 0, 0, 0},
    {"Qwen--Qwen3-30B-A3B", "", "model_type is \"qwen3_moe\"", 0, 0, 0, 0, 0},
    {"Qwen--Qwen3-30B-A3B-FP8", "", "model_type is \"qwen3_moe\"", 0, 0, 0, 0, 0},
    {"Qwen--Qwen3-32B", "Qwen3ForCausalLM", "", 64, 5120, 8, 128, ROPE_SCALING_NONE},
    {"Qwen--Qwen3-8B", "Qwen3ForCausalLM", "", 36, 4096, 8, 128, ROPE_SCALING_NONE},
    {"Qwen--Qwen3-Coder-480B-A35B-Instruct", "", "model_type is \"qwen3_moe\"", 0, 0, 0, 0, 0},
    {"Qwen--Qwen3.5-27B", "", "model_type is \"qwen3_5\"", 0, 0, 0, 0, 0},
    {"Qwen--Qwen3.5-35B-A3B", "", "model_type is \"qwen3_5_moe\"", 0, 0, 0, 0, 0},
    {"TinyLlama--TinyLlama-1.1B-Chat-v1.0", "LlamaForCausalLM", "", 22, 2048, 4, 64,
     ROPE_SCALING_NONE},
    {"XiaomiMiMo--MiMo-7B-Base", "", "model_type is \"mimo\"", 0, 0, 0, 0, 0},
    {"deepcogito--cogito-v1-preview-qwen-14B", "Qwen2ForCausalLM", "", 48, 5120, 8, 128,
     ROPE_SCALING_NONE},
    {"deepseek-ai--DeepSeek-R1", "", "model_type is \"deepseek_v3\"", 0, 0, 0, 0, 0},
    {"deepseek-ai--DeepSeek-V3", "", "model_type is \"deepseek_v3\"", 0, 0, 0, 0, 0},
    {"deepseek-ai--DeepSeek-V3.2", "", "model_type is \"deepseek_v32\"", 0, 0, 0, 0, 0},
    {"deepseek-ai--DeepSeek-V4-Flash", "", "model_type is \"deepseek_v4\"", 0, 0, 0, 0, 0},
    {"google--gemma-2b-it", "", "model_type is \"gemma\"", 0, 0, 0, 0, 0},
    {"google--gemma-4-26B-A4B", "", "model_type is \"gemma4\"", 0, 0, 0, 0, 0},
    {"meta-llama--Llama-2-7b-hf", "LlamaForCausalLM", "", 32, 4096, 32, 128, ROPE_SCALING_NONE},
    {"meta-llama--Llama-3.2-3B-Instruct", "LlamaForCausalLM", "", 28, 3072, 8, 128,
     ROPE_SCALING_LLAMA3},
    {"meta-llama--Llama-4-Scout-17B-16E-Instruct", "", "model_type is \"llama4\"", 0, 0, 0, 0, 0},
    {"meta-llama--Meta-Llama-3.1-405B", "LlamaForCausalLM", "", 126, 16384, 8, 128,
     ROPE_SCALING_LLAMA3},
    {"meta-llama--Meta-Llama-3.1-70B", "LlamaForCausalLM", "", 80, 8192, 8, 128,
     ROPE_SCALING_LLAMA3},
    {"meta-llama--Meta-Llama-3.1-8B", "LlamaForCausalLM", "", 32, 4096, 8, 128,
     ROPE_SCALING_LLAMA3},
    {"microsoft--Phi-3-mini-128k-instruct", "", "model_type is \"phi3\"", 0, 0, 0, 0, 0},
    {"mistralai--Mixtral-8x22B-v0.1", "", "model_type is \"mixtral\"", 0, 0, 0, 0, 0},
    {"mistralai--Mixtral-8x7B-v0.1", "", "model_type is \"mixtral\"", 0, 0, 0, 0, 0},
    {"moonshotai--Kimi-K2-Instruct", "", "model_type is \"kimi_k2\"", 0, 0, 0, 0, 0},
    {"openai--gpt-oss-120b", "", "model_type is \"gpt_oss\"", 0, 0, 0, 0, 0},
    {"openai--gpt-oss-20b", "", "model_type is \"gpt_oss\"", 0, 0, 0, 0, 0},
    {"zai-org--GLM-5", "", "model_type is \"glm_moe_dsa\"", 0, 0, 0, 0, 0},
};

static void configurations(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        char name[200];
        size_t bytes;
        struct model_params p;
        struct error e;
        snprintf(name, sizeof(name), "configs/hf/%s.json", configs[i].name);
        char *text = read_file(name, &bytes);
        enum err err = hf_config_params(text, bytes, &p, &e);
        if (configs[i].architecture[0] == 0) {
            assert_int_equal(err, ERR_UNSUPPORTED);
            expect_text(&e, configs[i].part);
        } else if (err != OK) {
            fail_msg("%s: %s", configs[i].name, e.text);
        } else {
            assert_string_equal(p.architecture, configs[i].architecture);
            assert_int_equal(p.n_layers, configs[i].n_layers);
            assert_int_equal(p.hidden, configs[i].hidden);
            assert_int_equal(p.n_kv_heads, configs[i].n_kv_heads);
            assert_int_equal(p.head_size, configs[i].head_size);
            assert_int_equal(p.rope_scaling, configs[i].scaling);
        }
        free(text);
    }
}

/* A folder as its real index describes it, each tensor cut down to one number. */
static void write_shards(const char *dir, json_t *map)
{
    json_t *headers = json_object();
    const char *tensor, *file;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        json_t *header = json_object_get(headers, json_string_value(value));
        if (header == NULL) {
            header = json_object();
            json_object_set_new(headers, json_string_value(value), header);
        }
        int at = (int)(2 * json_object_size(header));
        json_object_set_new(header, tensor,
                            json_pack("{s:s, s:[i], s:[ii]}", "dtype", "BF16", "shape", 1,
                                      "data_offsets", at, at + 2));
    }
    json_object_foreach(headers, file, value)
    {
        struct blob b = {0};
        char *text = json_dumps(value, JSON_COMPACT);
        safetensors_put(&b, text, 2 * json_object_size(value));
        file_put(dir, file, b.data, b.bytes);
        blob_free(&b);
        free(text);
    }
    json_decref(headers);
}

static void expect_index(const char *name, size_t n_tensors, const char *tensor)
{
    char path[200];
    size_t bytes;
    struct modelfile *m;
    struct error e;
    snprintf(path, sizeof(path), "configs/index/%s.model.safetensors.index.json", name);
    char *text = read_file(path, &bytes);
    json_t *index = json_loadb(text, bytes, 0, NULL), *map = json_object_get(index, "weight_map");
    assert_int_equal(json_object_size(map), n_tensors);
    char *dir = dir_new();
    write_shards(dir, map);
    file_put(dir, "model.safetensors.index.json", text, bytes);
    if (modelfile_open(dir, &m, &e) != OK)
        fail_msg("%s", e.text);
    assert_int_equal(modelfile_n_tensors(m), n_tensors);
    assert_non_null(modelfile_find(m, tensor));
    (void)touch_all(m);
    modelfile_close(m);
    dir_free(dir);
    json_decref(index);
    free(text);
}

static void indexes(void **state)
{
    (void)state;
    expect_index("Llama-3.2-3B-Instruct", 254, "blk.27.ffn_down.weight");
    expect_index("Qwen2.5-14B-shape-cogito", 579, "blk.47.attn_q.bias");
    expect_index("gemma-2b-it", 164, "token_embd.weight");
    expect_index("gpt-oss-20b", 459, "model.layers.0.self_attn.sinks");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_gguf_equals_its_bin),
        cmocka_unit_test(stories_parameters),
        cmocka_unit_test(story_folder),
        cmocka_unit_test(vocabularies),
        cmocka_unit_test(configurations),
        cmocka_unit_test(indexes),
    };
    if (access(shared("README.md"), R_OK) != 0) {
        fprintf(stderr, "skipped: no shared data at %s\n", SHOAL_SHARED_DIR);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
