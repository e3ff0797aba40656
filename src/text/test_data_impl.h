/* What the tests of this module read: files, JSON, the shared data (outside the repository; tests
 * that need it and do not find it are skipped with exit status 77). */
#ifndef SHOAL_TEXT_TEST_DATA_IMPL_H
#define SHOAL_TEXT_TEST_DATA_IMPL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "text/text_impl.h"

/* The shared folder: $SHOAL_SHARED_DIR, or the one that CMake knows. */
static inline const char *shared_dir(void)
{
    const char *dir = getenv("SHOAL_SHARED_DIR");
    return dir != NULL ? dir : SHOAL_SHARED_DIR;
}

/* A path inside the shared data, in one of four static buffers. */
static inline const char *shared_path(const char *name)
{
    static char paths[4][1024];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/data/%s", shared_dir(), name);
    return path;
}

/* For main of a test program that is nothing without the shared data. */
static inline void skip_without_shared_data(void)
{
    if (access(shared_path("README.md"), R_OK) == 0)
        return;
    printf("skipped: no shared data at %s (SHOAL_SHARED_DIR)\n", shared_dir());
    exit(77);
}

/* A whole file, malloc'ed and 0-terminated; fails the test if it cannot be read. */
static inline char *read_whole_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        fail_msg("cannot open %s", path);
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *data = malloc((size_t)n + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)n, f), n);
    data[n] = '\0';
    fclose(f);
    if (bytes != NULL)
        *bytes = (size_t)n;
    return data;
}

static inline json_t *read_json_file(const char *path)
{
    json_error_t je;
    json_t *v = json_load_file(path, 0, &je);
    if (v == NULL)
        fail_msg("%s: %s", path, je.text);
    return v;
}

/* Fails the test with the message of an error. */
#define ASSERT_OK(call) \
    do { \
        struct error error_ = {0}; \
        struct error *e = &error_; \
        enum err err_ = (call); \
        if (err_ != OK) \
            fail_msg("%s: %s", #call, error_.text); \
    } while (0)

/* Ids of a text as a list that the caller releases. */
static inline struct token_list encoded(const struct tokenizer *t, const char *text, size_t bytes,
                                        unsigned flags)
{
    struct token_list ids = {0};
    ASSERT_OK(tokenizer_encode(t, text, bytes, flags, &ids, e));
    return ids;
}

/* Text of ids as a malloc'ed string. */
static inline char *decoded(const struct tokenizer *t, const uint32_t *ids, size_t n,
                            unsigned flags)
{
    struct strbuf text;
    strbuf_init(&text, 1 << 24);
    ASSERT_OK(tokenizer_decode(t, ids, n, flags, &text, e));
    return strbuf_detach(&text);
}

/* Ids one by one must give what decoding all at once gives, and only whole characters. */
static inline void check_incremental(const struct tokenizer *t, const uint32_t *ids, size_t n)
{
    struct detokenizer d;
    struct strbuf text;
    strbuf_init(&text, 1 << 24);
    detokenizer_init(&d, t, 0);
    for (size_t i = 0; i < n; i++) {
        ASSERT_OK(detokenizer_push(&d, ids[i], &text, e));
        json_t *valid = json_stringn(text.data, text.bytes); /* NULL unless valid UTF-8 */
        assert_non_null(valid);
        json_decref(valid);
    }
    ASSERT_OK(detokenizer_finish(&d, &text, e));
    char *all = decoded(t, ids, n, 0);
    assert_string_equal(text.data, all);
    free(all);
    strbuf_release(&text);
}

#endif
