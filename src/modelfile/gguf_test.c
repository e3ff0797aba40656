/* The GGUF reader on files written here byte by byte: what a good one must give, and that every
 * kind of lie, every truncation and every flipped bit is refused or harmless. */
#include "modelfile/test_model_impl.h"

#include <sys/mman.h>

/* One file with everything in it: all value types, arrays, three tensors of three types. */
static size_t write_rich(struct blob *b, uint32_t version)
{
    gguf_start(b, version, 3, 17);
    meta_string(b, "general.architecture", "test");
    const uint8_t u8 = 200;
    const int8_t i8 = -5;
    const uint16_t u16 = 60000;
    const int16_t i16 = -300;
    const int32_t i32 = -70000;
    const uint64_t u64 = UINT64_MAX - 1;
    const int64_t i64 = INT64_MIN;
    const double f64 = 0.1;
    meta_value_put(b, "a.u8", T_U8, &u8, 1);
    meta_value_put(b, "a.i8", T_I8, &i8, 1);
    meta_value_put(b, "a.u16", T_U16, &u16, 2);
    meta_value_put(b, "a.i16", T_I16, &i16, 2);
    meta_u32(b, "a.u32", 4000000000u);
    meta_value_put(b, "a.i32", T_I32, &i32, 4);
    meta_f32(b, "a.f32", 1.5f);
    meta_value_put(b, "a.bool", T_BOOL, "\1", 1);
    meta_value_put(b, "a.u64", T_U64, &u64, 8);
    meta_value_put(b, "a.i64", T_I64, &i64, 8);
    meta_value_put(b, "a.f64", T_F64, &f64, 8);
    meta_array(b, "a.strings", T_STRING, 3);
    put_string(b, "one");
    put_string(b, "");
    put_string(b, "three");
    meta_array(b, "a.floats", T_F32, 2);
    const float floats[] = {2.5f, -1};
    put(b, floats, sizeof(floats));
    meta_array(b, "a.bools", T_BOOL, 3);
    put(b, "\1\0\1", 3);
    meta_array(b, "a.nested", T_ARRAY, 2); /* [[1, 2], ["x"]] */
    put_u32(b, T_U8);
    put_u64(b, 2);
    put(b, "\1\2", 2);
    put_u32(b, T_STRING);
    put_u64(b, 1);
    put_string(b, "x");
    meta_array(b, "a.none", T_STRING, 0);
    tensor2_put(b, "plain", 3, 2, DTYPE_F32, 0);
    tensor2_put(b, "blocks", 64, 2, DTYPE_Q8_0, 32);
    const uint64_t dims[] = {2, 2, 2, 2};
    tensor_put(b, "four", 4, dims, DTYPE_BF16, 192);
    put_pad(b, 32);
    size_t header_bytes = b->bytes;
    put_pattern(b, 192 + 32);
    return header_bytes;
}

static struct modelfile *open_rich(struct blob *b, uint32_t version, size_t *header_bytes)
{
    struct modelfile *m;
    struct error e;
    *header_bytes = write_rich(b, version);
    enum err err = modelfile_open_memory("rich", b->data, b->bytes, &m, &e);
    if (err != OK)
        fail_msg("%s", e.text);
    return m;
}

static struct meta_value value_of(const struct modelfile *m, const char *key, enum meta_type type)
{
    struct meta_value v;
    assert_true(modelfile_meta(m, key, &v));
    assert_int_equal(v.type, type);
    return v;
}

static void every_value_type_is_read(void **state)
{
    (void)state;
    struct blob b = {0};
    size_t header_bytes;
    struct modelfile *m = open_rich(&b, 3, &header_bytes);
    assert_int_equal(modelfile_format(m), MODEL_GGUF);
    assert_int_equal(modelfile_n_meta(m), 17);
    assert_string_equal(modelfile_meta_key(m, 0), "general.architecture");
    struct meta_value v = value_of(m, "general.architecture", META_STRING);
    assert_int_equal(v.bytes, 4);
    assert_memory_equal(v.string, "test", 4);
    assert_int_equal(value_of(m, "a.u8", META_UINT).u, 200);
    assert_int_equal(value_of(m, "a.i8", META_INT).i, -5);
    assert_int_equal(value_of(m, "a.u16", META_UINT).u, 60000);
    assert_int_equal(value_of(m, "a.i16", META_INT).i, -300);
    assert_int_equal(value_of(m, "a.u32", META_UINT).u, 4000000000u);
    assert_int_equal(value_of(m, "a.u32", META_UINT).i, 4000000000);
    assert_int_equal(value_of(m, "a.i32", META_INT).i, -70000);
    assert_true(value_of(m, "a.f32", META_FLOAT).f == 1.5);
    assert_int_equal(value_of(m, "a.bool", META_BOOL).u, 1);
    assert_true(value_of(m, "a.u64", META_UINT).u == UINT64_MAX - 1);
    assert_true(value_of(m, "a.i64", META_INT).i == INT64_MIN);
    assert_true(value_of(m, "a.f64", META_FLOAT).f == 0.1);
    assert_false(modelfile_meta(m, "a.other", &v));
    assert_false(modelfile_meta_at(m, 17, &v));
    modelfile_close(m);
    blob_free(&b);
}

static void arrays_are_read(void **state)
{
    (void)state;
    struct blob b = {0};
    size_t header_bytes;
    struct modelfile *m = open_rich(&b, 3, &header_bytes);
    struct meta_value v = value_of(m, "a.floats", META_ARRAY);
    float floats[2];
    assert_int_equal(v.elem, META_FLOAT);
    assert_int_equal(v.elem_bytes, 4);
    assert_int_equal(v.n_elems, 2);
    memcpy(floats, v.elems, sizeof(floats));
    assert_true(floats[0] == 2.5f && floats[1] == -1);
    v = value_of(m, "a.bools", META_ARRAY);
    assert_int_equal(v.elem, META_BOOL);
    assert_memory_equal(v.elems, "\1\0\1", 3);
    v = value_of(m, "a.nested", META_ARRAY);
    assert_int_equal(v.elem, META_ARRAY);
    assert_int_equal(v.n_elems, 2);
    modelfile_close(m);
    blob_free(&b);
}

static void string_arrays_are_walked(void **state)
{
    (void)state;
    static const char *const want[] = {"one", "", "three"};
    struct blob b = {0};
    size_t header_bytes;
    const void *cursor = NULL;
    const char *text;
    uint64_t bytes;
    struct modelfile *m = open_rich(&b, 3, &header_bytes);
    struct meta_value v = value_of(m, "a.strings", META_ARRAY);
    for (uint64_t i = 0; i < 3; i++) {
        assert_true(modelfile_array_string(&v, i, &cursor, &text, &bytes));
        assert_int_equal(bytes, strlen(want[i]));
        assert_memory_equal(text, want[i], bytes);
        assert_true(modelfile_array_string(&v, 2 - i, NULL, &text, &bytes));
        assert_int_equal(bytes, strlen(want[2 - i]));
        assert_memory_equal(text, want[2 - i], bytes);
    }
    assert_false(modelfile_array_string(&v, 3, &cursor, &text, &bytes));
    assert_false(modelfile_array_string(&v, 3, NULL, &text, &bytes));
    v = value_of(m, "a.none", META_ARRAY);
    assert_false(modelfile_array_string(&v, 0, NULL, &text, &bytes));
    v = value_of(m, "a.floats", META_ARRAY);
    assert_false(modelfile_array_string(&v, 0, NULL, &text, &bytes));
    modelfile_close(m);
    blob_free(&b);
}

static void tensors_have_shape_and_place(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct blob b = {0};
        size_t header_bytes;
        struct modelfile *m = open_rich(&b, version, &header_bytes);
        assert_int_equal(modelfile_n_tensors(m), 3);
        const struct model_tensor *t = modelfile_tensor(m, 1);
        assert_string_equal(t->name, "blocks");
        assert_int_equal(t->type, DTYPE_Q8_0);
        assert_int_equal(t->n_dims, 2);
        assert_int_equal(t->n_cols, 64);
        assert_int_equal(t->n_rows, 2);
        assert_int_equal(t->dims[2], 1);
        assert_int_equal(t->bytes, 136);
        assert_int_equal(t->file_offset, header_bytes + 32);
        assert_ptr_equal(modelfile_data(m, t), b.data + header_bytes + 32);
        t = modelfile_find(m, "four");
        assert_non_null(t);
        assert_int_equal(t->n_rows, 8);
        assert_int_equal(t->bytes, 32);
        assert_null(modelfile_find(m, "fou"));
        assert_null(modelfile_find(m, ""));
        (void)touch_all(m);
        modelfile_close(m);
        blob_free(&b);
    }
}

static void truncations_and_bit_flips(void **state)
{
    (void)state;
    struct blob b = {0};
    size_t header_bytes = write_rich(&b, 3);
    size_t n_refused = torture(&b, header_bytes);
    /* Most header bits are lengths, types and counts, whose flips cannot go unnoticed. */
    assert_true(n_refused > 8 * header_bytes / 3);
    blob_free(&b);
}

/* ---- lies, one at a time ---- */

static void headers_that_lie(void **state)
{
    (void)state;
    static const struct {
        uint32_t version;
        uint64_t n_tensors, n_meta;
        enum err err;
        const char *part;
    } cases[] = {
        {1, 0, 0, ERR_UNSUPPORTED, "GGUF version 1, supported are 2 and 3"},
        {4, 0, 0, ERR_UNSUPPORTED, "GGUF version 4"},
        {0, 0, 0, ERR_UNSUPPORTED, "GGUF version 0"},
        {0x03000000, 0, 0, ERR_UNSUPPORTED, "big-endian"},
        {0x02000000, 0, 0, ERR_UNSUPPORTED, "big-endian"},
        {3, UINT64_MAX, 0, ERR_LIMIT, "declares 18446744073709551615 tensors"},
        {3, 0, UINT64_MAX, ERR_LIMIT, "metadata pairs"},
        {3, 1, 0, ERR_FORMAT, "tensor table at byte 24 goes past the end of the file (24 bytes)"},
        {3, 0, 1, ERR_FORMAT, "a metadata key at byte 24"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct blob b = {0};
        gguf_start(&b, cases[i].version, cases[i].n_tensors, cases[i].n_meta);
        expect_refused(&b, cases[i].err, cases[i].part);
        blob_free(&b);
    }
}

static void an_empty_model_opens(void **state)
{
    (void)state;
    struct blob b = {0};
    struct modelfile *m;
    struct model_params p;
    struct error e;
    gguf_start(&b, 3, 0, 0);
    assert_int_equal(modelfile_open_memory("empty", b.data, b.bytes, &m, &e), OK);
    assert_int_equal(modelfile_n_tensors(m), 0);
    assert_int_equal(modelfile_params(m, &p, &e), ERR_NOT_FOUND);
    expect_text(&e, "no tensors");
    modelfile_close(m);
    blob_free(&b);
}

static void metadata_that_lies(void **state)
{
    (void)state;
    struct blob b = {0};
    gguf_start(&b, 3, 0, 1);
    put_u64(&b, UINT64_MAX); /* key length */
    put(&b, "abcdefgh", 8);
    expect_refused(&b, ERR_FORMAT, "a metadata key");
    blob_free(&b);

    gguf_start(&b, 3, 0, 1);
    put_string(&b, "k");
    put_u32(&b, T_STRING);
    put_u64(&b, (uint64_t)1 << 63);
    expect_refused(&b, ERR_FORMAT, "metadata k: its string");
    blob_free(&b);

    gguf_start(&b, 3, 0, 1);
    put_string(&b, "k");
    put_u32(&b, 13);
    put_u64(&b, 0);
    expect_refused(&b, ERR_FORMAT, "unknown value type 13");
    blob_free(&b);

    gguf_start(&b, 3, 0, 1);
    meta_value_put(&b, "k", T_BOOL, "\2", 1);
    expect_refused(&b, ERR_FORMAT, "a boolean is 2");
    blob_free(&b);

    gguf_start(&b, 3, 0, 1);
    put_u64(&b, 0); /* an empty key */
    expect_refused(&b, ERR_FORMAT, "a metadata key has 0 bytes");
    blob_free(&b);

    gguf_start(&b, 3, 0, 1);
    put_u64(&b, 3);
    put(&b, "a\0b", 3);
    expect_refused(&b, ERR_FORMAT, "metadata key \"a\" has byte 0x00 in it");
    blob_free(&b);

    gguf_start(&b, 3, 0, 2);
    meta_u32(&b, "same", 1);
    meta_u32(&b, "same", 1);
    expect_refused(&b, ERR_FORMAT, "metadata same stands twice");
    blob_free(&b);
}

static void arrays_that_lie(void **state)
{
    (void)state;
    static const struct {
        uint32_t elem;
        uint64_t n;
        enum err err;
        const char *part;
    } cases[] = {
        {T_U64, UINT64_MAX, ERR_LIMIT, "18446744073709551615 elements"},
        {T_U64, MODEL_MAX_ARRAY, ERR_FORMAT, "an array at byte"},
        {T_U8, MODEL_MAX_ARRAY + 1, ERR_LIMIT, "16777217 elements, limit 16777216"},
        {T_U8, 100, ERR_FORMAT, "goes past the end"},
        {T_STRING, 3, ERR_FORMAT, "a string at byte"},
        {T_ARRAY, 3, ERR_FORMAT, "an array at byte"},
        {99, 1, ERR_FORMAT, "unknown type 99"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct blob b = {0};
        gguf_start(&b, 3, 0, 1);
        meta_array(&b, "k", cases[i].elem, cases[i].n);
        put_u64(&b, 0); /* something of what it promises */
        expect_refused(&b, cases[i].err, cases[i].part);
        blob_free(&b);
    }
    struct blob b = {0};
    gguf_start(&b, 3, 0, 1);
    meta_array(&b, "k", T_ARRAY, 1);
    for (int depth = 0; depth < 100000; depth++) { /* would overflow the stack if followed */
        put_u32(&b, T_ARRAY);
        put_u64(&b, 1);
    }
    expect_refused(&b, ERR_LIMIT, "nested more than 4 deep");
    blob_free(&b);
    gguf_start(&b, 3, 0, 1);
    meta_array(&b, "k", T_BOOL, 2);
    put(&b, "\1\3", 2);
    expect_refused(&b, ERR_FORMAT, "boolean 1 of an array is 3");
    blob_free(&b);
}

static void expect_tensor(const char *name, int n_dims, const uint64_t *dims, uint32_t type,
                          uint64_t offset, enum err err, const char *part)
{
    struct blob b = {0};
    gguf_start(&b, 3, 1, 0);
    tensor_put(&b, name, n_dims, dims, type, offset);
    put_pad(&b, 32);
    put_pattern(&b, 256);
    expect_refused(&b, err, part);
    blob_free(&b);
}

static void tensors_that_lie(void **state)
{
    (void)state;
    const uint64_t fine[] = {32, 2, 1, 1, 1}, wrong[] = {33, 2}, zero[] = {32, 0};
    const uint64_t wrap[] = {(uint64_t)1 << 33, (uint64_t)1 << 33};
    const uint64_t wrap_bytes[] = {(uint64_t)1 << 31, (uint64_t)1 << 31};
    const uint64_t wrap_rows[] = {1, (uint64_t)1 << 40, (uint64_t)1 << 40, 1};
    expect_tensor("t", 5, fine, DTYPE_F32, 0, ERR_FORMAT, "tensor t: more than 4 dimensions");
    expect_tensor("t", 2, zero, DTYPE_F32, 0, ERR_FORMAT, "dimension 1 is 0");
    expect_tensor("t", 2, fine, 77, 0, ERR_UNSUPPORTED, "tensor t: unknown element type 77");
    expect_tensor("t", 2, fine, DTYPE_U8, 0, ERR_UNSUPPORTED, "unknown element type 257");
    expect_tensor("t", 2, wrong, DTYPE_Q8_0, 0, ERR_FORMAT,
                  "rows of 33 elements, Q8_0 needs multiples of 32");
    expect_tensor("t", 2, fine, DTYPE_Q6_K, 0, ERR_FORMAT, "Q6_K needs multiples of 256");
    expect_tensor("t", 2, wrap, DTYPE_F32, 0, ERR_FORMAT, "overflow");
    expect_tensor("t", 2, wrap_bytes, DTYPE_F32, 0, ERR_FORMAT, "overflow");
    expect_tensor("t", 4, wrap_rows, DTYPE_F32, 0, ERR_FORMAT, "overflow");
    expect_tensor("t", 2, fine, DTYPE_F32, 8, ERR_FORMAT, "no multiple of the alignment 32");
    expect_tensor("t", 2, fine, DTYPE_F32, 32, ERR_FORMAT, "truncated?");
    expect_tensor("t", 2, fine, DTYPE_F32, (uint64_t)0 - 32, ERR_FORMAT, "overflows");
    expect_tensor("", 2, fine, DTYPE_F32, 0, ERR_FORMAT, "empty name");
    expect_tensor("a\nb", 2, fine, DTYPE_F32, 0, ERR_FORMAT, "byte 0x0a in its name");
    expect_tensor("a\xc3\xa9", 2, fine, DTYPE_F32, 0, ERR_FORMAT, "byte 0xc3 in its name");
    char long_name[MODEL_MAX_NAME + 1];
    memset(long_name, 'n', MODEL_MAX_NAME);
    long_name[MODEL_MAX_NAME] = 0;
    expect_tensor(long_name, 2, fine, DTYPE_F32, 0, ERR_LIMIT, "a name of 256 bytes, limit 255");
}

static void tensors_that_collide(void **state)
{
    (void)state;
    struct blob b = {0};
    gguf_start(&b, 3, 2, 0);
    tensor2_put(&b, "a", 16, 1, DTYPE_F32, 0);
    tensor2_put(&b, "b", 16, 1, DTYPE_F32, 32);
    put_pad(&b, 32);
    put_pattern(&b, 96);
    expect_refused(&b, ERR_FORMAT, "tensors a and b overlap");
    blob_free(&b);
    gguf_start(&b, 3, 2, 0);
    tensor2_put(&b, "same", 16, 1, DTYPE_F32, 0);
    tensor2_put(&b, "same", 16, 1, DTYPE_F32, 64);
    put_pad(&b, 32);
    put_pattern(&b, 128);
    expect_refused(&b, ERR_FORMAT, "two tensors are named same");
    blob_free(&b);
}

static void alignment_is_obeyed(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 24, 3, 1u << 21};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct blob b = {0};
        gguf_start(&b, 3, 0, 1);
        meta_u32(&b, "general.alignment", bad[i]);
        expect_refused(&b, ERR_FORMAT, "expected a power of two");
        blob_free(&b);
    }
    struct blob b = {0};
    gguf_start(&b, 3, 0, 1);
    meta_string(&b, "general.alignment", "32");
    expect_refused(&b, ERR_FORMAT, "general.alignment");
    blob_free(&b);

    struct modelfile *m;
    struct error e;
    gguf_start(&b, 3, 1, 1);
    meta_u32(&b, "general.alignment", 256);
    tensor2_put(&b, "t", 4, 1, DTYPE_F32, 256);
    put_pad(&b, 256);
    size_t data_start = b.bytes;
    put_pattern(&b, 256 + 16);
    assert_int_equal(modelfile_open_memory("aligned", b.data, b.bytes, &m, &e), OK);
    assert_int_equal(modelfile_tensor(m, 0)->file_offset, data_start + 256);
    modelfile_close(m);
    blob_free(&b);
}

static void every_type_is_listed_and_judged_by_name(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < N_GGUF_DTYPES; type++) {
        const struct dtype_info *info = dtype_info(type);
        if (info == NULL)
            continue;
        struct blob b = {0};
        struct modelfile *m;
        struct error e;
        gguf_start(&b, 3, 1, 0);
        tensor2_put(&b, "w", (uint64_t)info->block_elems * 2, 3, type, 0);
        put_pad(&b, 32);
        put_pattern(&b, (size_t)info->block_bytes * 6);
        assert_int_equal(modelfile_open_memory("types", b.data, b.bytes, &m, &e), OK);
        const struct model_tensor *t = modelfile_tensor(m, 0);
        assert_int_equal(t->bytes, info->block_bytes * 6);
        if (info->computable) {
            assert_int_equal(modelfile_computable(t, &e), OK);
        } else {
            assert_int_equal(modelfile_computable(t, &e), ERR_UNSUPPORTED);
            expect_text(&e, info->name);
            expect_text(&e, "tensor w has type");
            expect_text(&e, "F32, F16, Q4_0, Q8_0, Q4_K, Q6_K, BF16");
        }
        modelfile_close(m);
        blob_free(&b);
    }
}

/* ---- split models ---- */

static void write_part(const char *dir, int part, int n_parts, int says_part, int says_total)
{
    struct blob b = {0};
    char name[64], tensor[16];
    const uint16_t no = (uint16_t)says_part, count = (uint16_t)n_parts;
    const int32_t total = says_total;
    snprintf(name, sizeof(name), "m-%05d-of-%05d.gguf", part + 1, n_parts);
    snprintf(tensor, sizeof(tensor), "t%d", part);
    gguf_start(&b, 3, 1, 3);
    meta_value_put(&b, "split.no", T_U16, &no, 2);
    meta_value_put(&b, "split.count", T_U16, &count, 2);
    meta_value_put(&b, "split.tensors.count", T_I32, &total, 4);
    tensor2_put(&b, tensor, 8, 1, DTYPE_F32, 0);
    put_pad(&b, 32);
    for (int i = 0; i < 32; i++)
        put_u8(&b, (uint8_t)(part + 1));
    file_put(dir, name, b.data, b.bytes);
    blob_free(&b);
}

static void expect_split(const char *dir, const char *name, enum err err, const char *part)
{
    struct modelfile *m;
    struct error e;
    assert_int_equal(modelfile_open(in_dir(dir, name), &m, &e), err);
    assert_null(m);
    expect_text(&e, part);
}

static void split_models_are_one(void **state)
{
    (void)state;
    static const char first[] = "m-00001-of-00003.gguf";
    char *dir = dir_new();
    struct modelfile *m;
    struct error e;
    for (int part = 0; part < 3; part++)
        write_part(dir, part, 3, part, 3);
    assert_int_equal(modelfile_open(in_dir(dir, first), &m, &e), OK);
    assert_int_equal(modelfile_n_tensors(m), 3);
    for (int i = 0; i < 3; i++) {
        const struct model_tensor *t = modelfile_tensor(m, i);
        assert_int_equal(t->file_i, i);
        assert_int_equal(*(const uint8_t *)modelfile_data(m, t), i + 1);
    }
    modelfile_close(m);

    expect_split(dir, "m-00002-of-00003.gguf", ERR_INVALID, "part 2 of 3 of a split model: give");
    write_part(dir, 2, 3, 1, 3);
    expect_split(dir, first, ERR_MISMATCH, "part 3 of 3: says it is part 2 of 3");
    unlink(in_dir(dir, "m-00003-of-00003.gguf"));
    expect_split(dir, first, ERR_NOT_FOUND, "part 3 of 3: cannot open");
    write_part(dir, 2, 3, 2, 3);
    write_part(dir, 0, 3, 0, 4);
    expect_split(dir, first, ERR_MISMATCH, "3 parts hold 3 tensors, split.tensors.count is 4");
    dir_free(dir);
}

static void a_split_model_under_another_name(void **state)
{
    (void)state;
    char *dir = dir_new(), from[600];
    write_part(dir, 0, 3, 0, 3);
    snprintf(from, sizeof(from), "%s/m-00001-of-00003.gguf", dir);
    assert_int_equal(rename(from, in_dir(dir, "renamed.gguf")), 0);
    expect_split(dir, "renamed.gguf", ERR_INVALID, "must be named …-00001-of-00003.gguf");
    dir_free(dir);
}

/* ---- what opening reads ---- */

static void opening_leaves_the_data_alone(void **state)
{
    (void)state;
    enum { N_TENSORS = 16, TENSOR_BYTES = 64 << 20 };
    char *dir = dir_new(), path[600];
    struct blob b = {0};
    struct modelfile *m;
    struct error e;
    gguf_start(&b, 3, N_TENSORS, 0);
    for (int i = 0; i < N_TENSORS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "t%d", i);
        tensor2_put(&b, name, TENSOR_BYTES / 4, 1, DTYPE_F32, (uint64_t)i * TENSOR_BYTES);
    }
    put_pad(&b, 4096);
    file_put(dir, "sparse.gguf", b.data, b.bytes);
    snprintf(path, sizeof(path), "%s/sparse.gguf", dir);
    assert_int_equal(truncate(path, (off_t)b.bytes + (off_t)N_TENSORS * TENSOR_BYTES), 0);
    assert_int_equal(modelfile_open(path, &m, &e), OK);

    /* One tensor is read; only its pages (and read-ahead behind it) may come into memory. */
    const volatile uint8_t *data = modelfile_data(m, modelfile_tensor(m, 3));
    for (size_t at = 0; at < 1 << 20; at += 4096)
        assert_int_equal(data[at], 0);
    size_t n_pages = TENSOR_BYTES / 4096;
    unsigned char *resident = malloc(n_pages);
    assert_non_null(resident);
    for (int i = 0; i < N_TENSORS; i++) {
        const uint8_t *start = modelfile_data(m, modelfile_tensor(m, i));
        start += (4096 - (uintptr_t)start % 4096) % 4096;
        size_t n_resident = 0;
        assert_int_equal(mincore((void *)(uintptr_t)start, TENSOR_BYTES - 8192, resident), 0);
        for (size_t page = 0; page < n_pages - 2; page++)
            n_resident += resident[page] & 1;
        assert_true(i == 3 ? n_resident >= 128 : n_resident < n_pages / 16);
    }
    free(resident);
    modelfile_close(m);
    blob_free(&b);
    dir_free(dir);
}

static void paths_that_are_no_files(void **state)
{
    (void)state;
    char *dir = dir_new();
    expect_split(dir, "nothing.gguf", ERR_NOT_FOUND, "cannot open: No such file");
    text_put(dir, "short.gguf", "GG");
    expect_split(dir, "short.gguf", ERR_FORMAT, "has 2 bytes, too short");
    text_put(dir, "empty.gguf", "");
    expect_split(dir, "empty.gguf", ERR_FORMAT, "has 0 bytes, too short");
    text_put(dir, "other.gguf",
             "\x7f"
             "ELF with more behind it");
    expect_split(dir, "other.gguf", ERR_FORMAT, "begins with 7f 45 4c 46, expected \"GGUF\"");
    assert_int_equal(mkfifo(in_dir(dir, "pipe.gguf"), 0600), 0);
    expect_split(dir, "pipe.gguf", ERR_INVALID, "not a regular file");
    dir_free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_type_is_read),
        cmocka_unit_test(arrays_are_read),
        cmocka_unit_test(string_arrays_are_walked),
        cmocka_unit_test(tensors_have_shape_and_place),
        cmocka_unit_test(truncations_and_bit_flips),
        cmocka_unit_test(headers_that_lie),
        cmocka_unit_test(an_empty_model_opens),
        cmocka_unit_test(metadata_that_lies),
        cmocka_unit_test(arrays_that_lie),
        cmocka_unit_test(tensors_that_lie),
        cmocka_unit_test(tensors_that_collide),
        cmocka_unit_test(alignment_is_obeyed),
        cmocka_unit_test(every_type_is_listed_and_judged_by_name),
        cmocka_unit_test(split_models_are_one),
        cmocka_unit_test(a_split_model_under_another_name),
        cmocka_unit_test(opening_leaves_the_data_alone),
        cmocka_unit_test(paths_that_are_no_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
