/* Opening models while the n-th allocation fails, for every n until none does: each time an error
 * in words, no crash and (under AddressSanitizer) nothing left behind. The linker sends this
 * module's allocations here (--wrap). Not jansson's: its parser (2.14) does not survive it. */
#include "modelfile/test_model_impl.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *p, size_t bytes);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);
char *__wrap_strdup(const char *text);

static long left = -1; /* allocations until the one that fails; negative: none does */

static bool fails(void)
{
    return left >= 0 && left-- == 0;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails() ? NULL : __real_calloc(n, bytes);
}

void *__wrap_realloc(void *p, size_t bytes)
{
    return fails() ? NULL : __real_realloc(p, bytes);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

/* Fail at every allocation of opening `path` in turn. */
static void starve(const char *path, long at_least)
{
    long n = 0;
    enum err err;
    do {
        struct modelfile *m;
        struct error e = {.text = ""};
        left = n;
        err = modelfile_open(path, &m, &e);
        bool was_hit = left < 0;
        left = -1;
        assert_true((err == OK) == (m != NULL));
        if (err != OK) {
            assert_int_equal(e.code, err);
            assert_true(strlen(e.text) > 10);
        }
        modelfile_close(m);
        if (!was_hit)
            break;
        n++;
    } while (n < 100000);
    assert_int_equal(err, OK); /* the last one had all it asked for */
    assert_true(n >= at_least);
}

static void gguf_without_memory(void **state)
{
    (void)state;
    struct blob b = {0};
    char *dir = dir_new(), path[600];
    gguf_start(&b, 3, 40, 40);
    for (int i = 0; i < 40; i++) {
        char key[300];
        memset(key, 'k', 250);
        snprintf(key + 250, 50, "%d", i);
        meta_u32(&b, key, 1);
    }
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof(name), "t%d", i);
        tensor2_put(&b, name, 8, 1, DTYPE_F32, (uint64_t)i * 32);
    }
    put_pad(&b, 32);
    put_pattern(&b, 40 * 32);
    file_put(dir, "m.gguf", b.data, b.bytes);
    snprintf(path, sizeof(path), "%s/m.gguf", dir);
    starve(path, 10);
    blob_free(&b);
    dir_free(dir);
}

static void folder_without_memory(void **state)
{
    (void)state;
    struct blob b = {0};
    char *dir = dir_new();
    safetensors_put(
        &b, "{\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    file_put(dir, "a.safetensors", b.data, b.bytes);
    text_put(dir, "model.safetensors.index.json",
             "{\"weight_map\":{\"lm_head.weight\":\"a.safetensors\"}}");
    text_put(dir, "config.json", "{\"model_type\":\"llama\",\"tie_word_embeddings\":true}");
    text_put(dir, "tokenizer.json", "{}");
    starve(dir, 10);
    blob_free(&b);
    dir_free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_without_memory),
        cmocka_unit_test(folder_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
