/* The safetensors reader and the folder around it: good files, headers that lie, every truncation,
 * every flipped bit, indexes that point elsewhere. */
#include "modelfile/test_model_impl.h"

static const char good[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[5,4],\"data_offsets\":[0,80]},"
    "\"model.layers.0.mlp.up_proj.weight\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":["
    "80,104]},"
    "\"odd\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[104,112]},"
    "\"model.norm.weight\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[112,120]}}  ";

static void a_good_file_is_read(void **state)
{
    (void)state;
    struct blob b = {0};
    struct modelfile *m;
    struct error e;
    safetensors_put(&b, good, 120);
    size_t data_start = 8 + strlen(good);
    if (modelfile_open_memory("good", b.data, b.bytes, &m, &e) != OK)
        fail_msg("%s", e.text);
    assert_int_equal(modelfile_format(m), MODEL_HF);
    assert_int_equal(modelfile_n_tensors(m), 4);
    assert_int_equal(modelfile_n_meta(m), 0);
    const struct model_tensor *t = modelfile_find(m, "token_embd.weight");
    assert_non_null(t);
    assert_int_equal(t->type, DTYPE_F32);
    assert_int_equal(t->n_rows, 5);
    assert_int_equal(t->n_cols, 4);
    assert_int_equal(t->dims[0], 4);
    assert_int_equal(t->dims[1], 5);
    t = modelfile_find(m, "blk.0.ffn_up.weight");
    assert_non_null(t);
    assert_int_equal(t->type, DTYPE_BF16);
    assert_int_equal(t->file_offset, data_start + 80);
    assert_ptr_equal(modelfile_data(m, t), b.data + data_start + 80);
    t = modelfile_find(m, "odd"); /* a scalar of a type we cannot compute with */
    assert_non_null(t);
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(t->n_rows * t->n_cols, 1);
    assert_int_equal(modelfile_computable(t, &e), ERR_UNSUPPORTED);
    expect_text(&e, "tensor odd has type I64");
    assert_int_equal(modelfile_find(m, "output_norm.weight")->n_rows, 1);
    (void)touch_all(m);
    modelfile_close(m);
    blob_free(&b);
}

static void truncations_and_bit_flips(void **state)
{
    (void)state;
    struct blob b = {0};
    safetensors_put(&b, good, 120);
    size_t n_refused = torture(&b, 8 + strlen(good));
    /* What survives: letters of names, a few of "pt", blanks at the end. */
    assert_true(n_refused > 8 * strlen(good) / 2);
    blob_free(&b);
}

static void expect_header(const char *header, size_t data_bytes, enum err err, const char *part)
{
    struct blob b = {0};
    safetensors_put(&b, header, data_bytes);
    expect_refused(&b, err, part);
    blob_free(&b);
}

/* One tensor "t" with these three members. */
static void expect_tensor(const char *members, size_t data_bytes, enum err err, const char *part)
{
    char header[600];
    snprintf(header, sizeof(header), "{\"t\":{%s}}", members);
    expect_header(header, data_bytes, err, part);
}

static void headers_that_lie(void **state)
{
    (void)state;
    struct blob b = {0};
    put_u64(&b, UINT64_MAX);
    put_string(&b, "{}");
    expect_refused(&b, ERR_FORMAT, "declares a header of 18446744073709551615 bytes");
    blob_free(&b);
    put_u64(&b, 3); /* one more than there is */
    put(&b, "{}", 2);
    expect_refused(&b, ERR_FORMAT, "declares a header of 3 bytes, the file has 10");
    blob_free(&b);
    put(&b, "\1\2\3", 3);
    expect_refused(&b, ERR_FORMAT, "has 3 bytes, too short");
    blob_free(&b);
    expect_header("", 0, ERR_FORMAT, "not valid JSON");
    expect_header("[1]", 0, ERR_FORMAT, "the header is not a JSON object");
    expect_header("{\"a\":1", 0, ERR_FORMAT, "not valid JSON: line 1");
    expect_header("{} x", 0, ERR_FORMAT, "not valid JSON");
    expect_header("{\"t\":{},\"t\":{}}", 0, ERR_FORMAT, "duplicate object key");
    expect_header("{\"t\":5}", 0, ERR_FORMAT, "tensor t: expected exactly");
    expect_header("{\"__metadata__\":[]}", 0, ERR_FORMAT, "\"__metadata__\" is not an object");
    expect_header("{\"__metadata__\":{\"a\":1}}", 0, ERR_FORMAT, "a is not a string");
    expect_header("{}", 8, ERR_FORMAT, "its tensors take 0 bytes, the data has 8");
}

static void deep_json_is_refused(void **state)
{
    (void)state;
    enum { DEPTH = 1000000 };
    char *header = malloc(DEPTH + 16);
    assert_non_null(header);
    strcpy(header, "{\"t\":");
    memset(header + 5, '[', DEPTH);
    header[5 + DEPTH] = 0;
    expect_header(header, 0, ERR_FORMAT, "not valid JSON");
    free(header);
}

static void tensors_that_lie(void **state)
{
    (void)state;
    static const struct {
        const char *members;
        size_t data_bytes;
        enum err err;
        const char *part;
    } cases[] = {
        {"\"dtype\":\"F32\",\"shape\":[2]", 8, ERR_FORMAT, "expected exactly"},
        {"\"dtype\":5,\"shape\":[2],\"data_offsets\":[0,8]", 8, ERR_FORMAT, "no string \"dtype\""},
        {"\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]", 8, ERR_UNSUPPORTED,
         "unknown dtype \"F33\""},
        {"\"dtype\":\"Q8_0\",\"shape\":[32],\"data_offsets\":[0,34]", 34, ERR_UNSUPPORTED,
         "unknown dtype \"Q8_0\""},
        {"\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]", 8, ERR_FORMAT,
         "no array \"shape\""},
        {"\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]", 8, ERR_FORMAT, "no size"},
        {"\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]", 8, ERR_FORMAT, "no size"},
        {"\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]", 0, ERR_FORMAT,
         "dimension 0 is 0"},
        {"\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,8]", 8, ERR_UNSUPPORTED,
         "5 dimensions, at most 4"},
        {"\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]", 8, ERR_FORMAT, "begin <= end"},
        {"\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]", 8, ERR_FORMAT, "begin <= end"},
        {"\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]", 8, ERR_FORMAT, "begin <= end"},
        {"\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]", 7, ERR_FORMAT, "truncated?"},
        {"\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]", 8, ERR_FORMAT,
         "its offsets span 8 bytes, its shape needs 12"},
        {"\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]", 12, ERR_FORMAT,
         "its tensors take 8 bytes, the data has 12"},
        {"\"dtype\":\"F32\",\"shape\":[4611686018427387904,8],\"data_offsets\":[0,8]", 8,
         ERR_FORMAT, "overflow"},
        {"\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]", 8, ERR_FORMAT,
         "too big integer"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_tensor(cases[i].members, cases[i].data_bytes, cases[i].err, cases[i].part);
}

static void overlaps_and_duplicates(void **state)
{
    (void)state;
    expect_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
                  16, ERR_FORMAT, "tensors a and b overlap");
    /* Two names that become one. */
    expect_header("{\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                  "\"output.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
                  16, ERR_FORMAT, "two tensors are named output.weight");
}

static void every_dtype_has_its_name_and_size(void **state)
{
    (void)state;
    static const struct {
        const char *dtype;
        int n, bytes;
    } types[] = {
        {"F64", 4, 32},    {"F32", 4, 16}, {"F16", 4, 8},  {"BF16", 4, 8},    {"I64", 4, 32},
        {"I32", 4, 16},    {"I16", 4, 8},  {"I8", 4, 4},   {"U64", 4, 32},    {"U32", 4, 16},
        {"U16", 4, 8},     {"U8", 4, 4},   {"BOOL", 4, 4}, {"F8_E4M3", 4, 4}, {"F8_E5M2", 4, 4},
        {"F8_E8M0", 4, 4}, {"C64", 4, 32}, {"F4", 4, 2},   {"F6_E2M3", 4, 3}, {"F6_E3M2", 4, 3},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        struct blob b = {0};
        struct modelfile *m;
        struct error e;
        char header[200];
        snprintf(header, sizeof(header),
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[0,%d]}}",
                 types[i].dtype, types[i].n, types[i].bytes);
        safetensors_put(&b, header, (size_t)types[i].bytes);
        if (modelfile_open_memory("types", b.data, b.bytes, &m, &e) != OK)
            fail_msg("%s", e.text);
        assert_string_equal(dtype_name(modelfile_tensor(m, 0)->type), types[i].dtype);
        modelfile_close(m);
        blob_free(&b);
    }
}

/* ---- folders ---- */

static void put_shard(const char *dir, const char *file, const char *tensor)
{
    struct blob b = {0};
    char header[300];
    snprintf(header, sizeof(header),
             "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", tensor);
    safetensors_put(&b, header, 8);
    file_put(dir, file, b.data, b.bytes);
    blob_free(&b);
}

static void expect_folder(const char *dir, int n_tensors)
{
    struct modelfile *m;
    struct error e;
    if (modelfile_open(dir, &m, &e) != OK)
        fail_msg("%s", e.text);
    assert_int_equal(modelfile_n_tensors(m), n_tensors);
    (void)touch_all(m);
    modelfile_close(m);
}

static void expect_bad_folder(const char *dir, enum err err, const char *part)
{
    struct modelfile *m;
    struct error e;
    assert_int_equal(modelfile_open(dir, &m, &e), err);
    assert_null(m);
    expect_text(&e, part);
}

static void folders_without_an_index(void **state)
{
    (void)state;
    char *dir = dir_new();
    expect_bad_folder(dir, ERR_NOT_FOUND, "not a model folder");
    text_put(dir, "tokenizer.json", "{}");
    expect_folder(dir, 0);
    put_shard(dir, "b.safetensors", "b");
    put_shard(dir, "a.safetensors", "a");
    put_shard(dir, ".hidden.safetensors", "c");
    expect_folder(dir, 2);
    put_shard(dir, "model.safetensors", "m"); /* goes before all others */
    expect_folder(dir, 1);
    unlink(in_dir(dir, "model.safetensors"));
    put_shard(dir, "c.safetensors", "a");
    expect_bad_folder(dir, ERR_FORMAT, "two tensors are named a");
    text_put(dir, "c.safetensors", "no such thing");
    expect_bad_folder(dir, ERR_FORMAT, "c.safetensors: declares a header");
    dir_free(dir);
}

static void an_index_is_obeyed(void **state)
{
    (void)state;
    static const char index[] = "model.safetensors.index.json";
    char *dir = dir_new();
    put_shard(dir, "model-00001-of-00002.safetensors", "lm_head.weight");
    put_shard(dir, "model-00002-of-00002.safetensors", "model.norm.weight");
    put_shard(dir, "left-over.safetensors", "lm_head.weight");
    text_put(dir, index,
             "{\"metadata\":{\"total_size\":16},\"weight_map\":{"
             "\"lm_head.weight\":\"model-00001-of-00002.safetensors\","
             "\"model.norm.weight\":\"model-00002-of-00002.safetensors\"}}");
    expect_folder(dir, 2);
    text_put(dir, index,
             "{\"weight_map\":{"
             "\"lm_head.weight\":\"model-00002-of-00002.safetensors\","
             "\"model.norm.weight\":\"model-00001-of-00002.safetensors\"}}");
    expect_bad_folder(dir, ERR_FORMAT, "tensor lm_head.weight should be in model-00002-of-00002");
    text_put(dir, index, "{\"weight_map\":{\"gone\":\"model-00001-of-00002.safetensors\"}}");
    expect_bad_folder(dir, ERR_FORMAT, "tensor gone is not in model-00001-of-00002");
    text_put(dir, index, "{\"weight_map\":{\"a\":\"model-00003-of-00002.safetensors\"}}");
    expect_bad_folder(dir, ERR_NOT_FOUND, "model-00003-of-00002.safetensors: cannot open");
    put_shard(dir, "model.safetensors", "whole"); /* makes the index unimportant */
    expect_folder(dir, 1);
    dir_free(dir);
}

static void an_index_reaches_no_other_place(void **state)
{
    (void)state;
    static const char *const names[] = {
        "\"../secret.safetensors\"",
        "\"/etc/x.safetensors\"",
        "\"sub/x.safetensors\"",
        "\"..\"",
        "\"\"",
        "\".safetensors\"",
        "\"config.json\"",
        "5",
        "null",
        "[\"a.safetensors\"]",
    };
    char *dir = dir_new();
    put_shard(dir, "x.safetensors", "t");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char text[200];
        snprintf(text, sizeof(text), "{\"weight_map\":{\"t\":%s}}", names[i]);
        text_put(dir, "model.safetensors.index.json", text);
        expect_bad_folder(dir, ERR_FORMAT, "expected the plain name of a .safetensors file");
    }
    text_put(dir, "model.safetensors.index.json", "{\"weight_map\":{}}");
    expect_bad_folder(dir, ERR_FORMAT, "no object \"weight_map\"");
    text_put(dir, "model.safetensors.index.json", "{\"weight_map\":");
    expect_bad_folder(dir, ERR_FORMAT, "model.safetensors.index.json is not valid JSON");
    dir_free(dir);
}

static void one_file_alone(void **state)
{
    (void)state;
    char *dir = dir_new();
    struct modelfile *m;
    struct model_params p;
    struct error e;
    put_shard(dir, "adapter.safetensors", "model.norm.weight");
    assert_int_equal(modelfile_open(in_dir(dir, "adapter.safetensors"), &m, &e), OK);
    assert_non_null(modelfile_find(m, "output_norm.weight"));
    assert_int_equal(modelfile_params(m, &p, &e), ERR_NOT_FOUND);
    expect_text(&e, "no config.json beside the tensors");
    modelfile_close(m);
    assert_int_equal(modelfile_open(in_dir(dir, "gone.safetensors"), &m, &e), ERR_NOT_FOUND);
    dir_free(dir);
}

static void texts_are_handed_out(void **state)
{
    (void)state;
    char *dir = dir_new();
    struct modelfile *m;
    struct error e;
    size_t bytes;
    text_put(dir, "tokenizer.json", "{\"version\":\"1.0\"}");
    text_put(dir, "chat_template.jinja", "");
    text_put(dir, "README.md", "not for us");
    assert_int_equal(modelfile_open(dir, &m, &e), OK);
    const char *text = modelfile_text(m, "tokenizer.json", &bytes);
    assert_non_null(text);
    assert_int_equal(bytes, 17);
    assert_memory_equal(text, "{\"version\":\"1.0\"}", 17);
    assert_non_null(modelfile_text(m, "chat_template.jinja", &bytes));
    assert_int_equal(bytes, 0);
    assert_null(modelfile_text(m, "README.md", &bytes));
    assert_null(modelfile_text(m, "config.json", &bytes));
    modelfile_close(m);
    text_put(dir, "config.json", "{\"model_type\":\"llama\",}");
    expect_bad_folder(dir, ERR_FORMAT, "config.json is not valid JSON");
    dir_free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_file_is_read),
        cmocka_unit_test(truncations_and_bit_flips),
        cmocka_unit_test(headers_that_lie),
        cmocka_unit_test(deep_json_is_refused),
        cmocka_unit_test(tensors_that_lie),
        cmocka_unit_test(overlaps_and_duplicates),
        cmocka_unit_test(every_dtype_has_its_name_and_size),
        cmocka_unit_test(folders_without_an_index),
        cmocka_unit_test(an_index_is_obeyed),
        cmocka_unit_test(an_index_reaches_no_other_place),
        cmocka_unit_test(one_file_alone),
        cmocka_unit_test(texts_are_handed_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
