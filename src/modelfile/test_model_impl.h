/* For this module's tests: model files put together in memory, temporary folders to put them in,
 * and a walk over an opened model that touches every byte it promises. Static inline so that each
 * test program takes what it needs. */
#ifndef SHOAL_MODELFILE_TEST_MODEL_IMPL_H
#define SHOAL_MODELFILE_TEST_MODEL_IMPL_H

#include "modelfile/modelfile_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- bytes ---- */

struct blob {
    uint8_t *data;
    size_t bytes, capacity;
};

static inline void put(struct blob *b, const void *data, size_t bytes)
{
    if (b->bytes + bytes > b->capacity) {
        b->capacity = 2 * (b->bytes + bytes);
        b->data = realloc(b->data, b->capacity);
        assert_non_null(b->data);
    }
    memcpy(b->data + b->bytes, data, bytes);
    b->bytes += bytes;
}

static inline void put_u8(struct blob *b, uint8_t v)
{
    put(b, &v, sizeof(v));
}

static inline void put_u32(struct blob *b, uint32_t v)
{
    put(b, &v, sizeof(v));
}

static inline void put_u64(struct blob *b, uint64_t v)
{
    put(b, &v, sizeof(v));
}

static inline void put_string(struct blob *b, const char *text)
{
    put_u64(b, strlen(text));
    put(b, text, strlen(text));
}

static inline void put_pad(struct blob *b, size_t alignment)
{
    while (b->bytes % alignment != 0)
        put_u8(b, 0);
}

/* n bytes that differ from place to place. */
static inline void put_pattern(struct blob *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put_u8(b, (uint8_t)(i * 7 + 1));
}

static inline void blob_free(struct blob *b)
{
    free(b->data);
    *b = (struct blob){0};
}

/* ---- GGUF ---- */

enum {
    T_U8,
    T_I8,
    T_U16,
    T_I16,
    T_U32,
    T_I32,
    T_F32,
    T_BOOL,
    T_STRING,
    T_ARRAY,
    T_U64,
    T_I64,
    T_F64
};

static inline void gguf_start(struct blob *b, uint32_t version, uint64_t n_tensors, uint64_t n_meta)
{
    put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_meta);
}

static inline void meta_value_put(struct blob *b, const char *key, uint32_t type, const void *value,
                                  size_t bytes)
{
    put_string(b, key);
    put_u32(b, type);
    put(b, value, bytes);
}

static inline void meta_u32(struct blob *b, const char *key, uint32_t v)
{
    meta_value_put(b, key, T_U32, &v, sizeof(v));
}

static inline void meta_f32(struct blob *b, const char *key, float v)
{
    meta_value_put(b, key, T_F32, &v, sizeof(v));
}

static inline void meta_string(struct blob *b, const char *key, const char *text)
{
    put_string(b, key);
    put_u32(b, T_STRING);
    put_string(b, text);
}

static inline void meta_array(struct blob *b, const char *key, uint32_t elem_type, uint64_t n)
{
    put_string(b, key);
    put_u32(b, T_ARRAY);
    put_u32(b, elem_type);
    put_u64(b, n);
}

static inline void tensor_put(struct blob *b, const char *name, int n_dims, const uint64_t *dims,
                              uint32_t type, uint64_t offset)
{
    put_string(b, name);
    put_u32(b, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++)
        put_u64(b, dims[i]);
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void tensor2_put(struct blob *b, const char *name, uint64_t n_cols, uint64_t n_rows,
                               uint32_t type, uint64_t offset)
{
    const uint64_t dims[] = {n_cols, n_rows};
    tensor_put(b, name, 2, dims, type, offset);
}

/* ---- safetensors ---- */

static inline void safetensors_put(struct blob *b, const char *header, size_t data_bytes)
{
    put_string(b, header); /* a length of 8 bytes in front: the same as in GGUF */
    put_pattern(b, data_bytes);
}

/* ---- temporary folders ---- */

static inline char *dir_new(void)
{
    const char *base = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof(path), "%s/shoal-modelfile-XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(path));
    return strdup(path);
}

static inline const char *in_dir(const char *dir, const char *name)
{
    static char path[1024];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static inline void file_put(const char *dir, const char *name, const void *data, size_t bytes)
{
    FILE *f = fopen(in_dir(dir, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static inline void text_put(const char *dir, const char *name, const char *text)
{
    file_put(dir, name, text, strlen(text));
}

static inline void dir_free(char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL)
        (void)unlink(in_dir(path, entry->d_name)); /* "." and ".." fail */
    closedir(dir);
    assert_int_equal(rmdir(path), 0);
    free(path);
}

/* ---- expectations ---- */

static inline void expect_text(const struct error *e, const char *part)
{
    if (strstr(e->text, part) == NULL)
        fail_msg("expected \"%s\" in the error \"%s\"", part, e->text);
    assert_true(strlen(e->text) < sizeof(e->text));
    assert_null(strchr(e->text, '\n'));
}

/* Open a copy of exactly that many bytes, so that the sanitizer sees a read past the end. */
static inline enum err open_bytes(const void *data, size_t bytes, struct modelfile **m,
                                  uint8_t **copy, struct error *e)
{
    *copy = malloc(bytes + 1);
    assert_non_null(*copy);
    uint8_t *at = *copy + 1; /* odd address: nothing may rely on alignment */
    if (bytes > 0)
        memcpy(at, data, bytes);
    e->text[0] = 0;
    enum err err = modelfile_open_memory("test", at, bytes, m, e);
    assert_true((err == OK) == (*m != NULL));
    if (err != OK) {
        assert_int_equal(e->code, err);
        assert_true(strlen(e->text) > 10);
    }
    return err;
}

static inline void expect_refused(const struct blob *b, enum err wanted, const char *part)
{
    struct modelfile *m;
    struct error e;
    uint8_t *copy;
    enum err err = open_bytes(b->data, b->bytes, &m, &copy, &e);
    modelfile_close(m);
    free(copy);
    if (err != wanted)
        fail_msg("expected error %d (…%s…), got %d: %s", wanted, part, err, err ? e.text : "");
    expect_text(&e, part);
}

/* Read whatever an opened model offers; the sum keeps the compiler from leaving it out. */
static inline uint64_t touch_all(const struct modelfile *m)
{
    uint64_t sum = 0;
    for (int i = 0; i < modelfile_n_tensors(m); i++) {
        const struct model_tensor *t = modelfile_tensor(m, i);
        const uint8_t *data = modelfile_data(m, t);
        assert_ptr_equal(modelfile_find(m, t->name), t);
        for (uint64_t at = 0; at < t->bytes; at++)
            sum += data[at];
    }
    for (int i = 0; i < modelfile_n_meta(m); i++) {
        struct meta_value v;
        assert_true(modelfile_meta(m, modelfile_meta_key(m, i), &v));
        const uint8_t *bytes = v.type == META_STRING ? (const uint8_t *)v.string : v.elems;
        for (uint64_t at = 0; at < v.bytes; at++)
            sum += bytes[at];
        const void *cursor = NULL;
        const char *string;
        uint64_t n_bytes;
        for (uint64_t elem_i = 0; v.type == META_ARRAY && elem_i < v.n_elems; elem_i++) {
            if (modelfile_array_string(&v, elem_i, &cursor, &string, &n_bytes) && n_bytes > 0)
                sum += (uint8_t)string[n_bytes - 1];
        }
    }
    return sum;
}

/* Every prefix must be refused; every single flipped bit must be refused or leave a model whose
 * every promise can be read. Returns how many flips were refused. */
static inline size_t torture(const struct blob *b, size_t header_bytes)
{
    struct modelfile *m;
    struct error e;
    uint8_t *copy;
    size_t n_refused = 0;
    for (size_t n = 0; n < b->bytes; n++) {
        if (open_bytes(b->data, n, &m, &copy, &e) == OK)
            fail_msg("the first %zu of %zu bytes were taken for a model", n, b->bytes);
        free(copy);
    }
    for (size_t bit = 0; bit < 8 * header_bytes; bit++) {
        b->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (open_bytes(b->data, b->bytes, &m, &copy, &e) == OK)
            (void)touch_all(m);
        else
            n_refused++;
        modelfile_close(m);
        free(copy);
        b->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    return n_refused;
}

#endif
