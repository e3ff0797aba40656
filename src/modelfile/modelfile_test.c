/* The view over any format: identity, look-up of very many names, remote models, giving memory
 * back. */
#include "modelfile/test_model_impl.h"

#include <pthread.h>
#include <sys/mman.h>

static struct modelfile *open_good(const char *path)
{
    struct modelfile *m;
    struct error e;
    if (modelfile_open(path, &m, &e) != OK)
        fail_msg("%s", e.text);
    return m;
}

static struct model_identity identity_of(const char *path)
{
    struct model_identity id;
    struct modelfile *m = open_good(path);
    modelfile_identity(m, &id);
    modelfile_close(m);
    return id;
}

static bool same_identity(struct model_identity a, struct model_identity b)
{
    return a.total_bytes == b.total_bytes && a.hash[0] == b.hash[0] && a.hash[1] == b.hash[1];
}

static void write_gguf(struct blob *b, const char *name, size_t data_bytes)
{
    gguf_start(b, 3, 2, 1);
    meta_string(b, "general.name", name);
    tensor2_put(b, "a", 8, 1, DTYPE_F32, 0);
    tensor2_put(b, "b", 8, 2, DTYPE_F32, 32);
    put_pad(b, 32);
    put_pattern(b, data_bytes);
}

static void identity_is_of_headers_and_sizes(void **state)
{
    (void)state;
    char *dir = dir_new(), *other = dir_new();
    struct blob b = {0}, renamed = {0}, longer = {0};
    write_gguf(&b, "name", 96);
    write_gguf(&renamed, "nome", 96);
    write_gguf(&longer, "name", 97);
    file_put(dir, "one.gguf", b.data, b.bytes);
    struct model_identity id = identity_of(in_dir(dir, "one.gguf"));
    assert_int_equal(id.total_bytes, b.bytes);
    file_put(other, "copy.gguf", b.data, b.bytes);
    assert_true(same_identity(id, identity_of(in_dir(other, "copy.gguf"))));
    file_put(dir, "two.gguf", renamed.data, renamed.bytes);
    assert_false(same_identity(id, identity_of(in_dir(dir, "two.gguf"))));
    file_put(dir, "three.gguf", longer.data, longer.bytes);
    assert_false(same_identity(id, identity_of(in_dir(dir, "three.gguf"))));
    b.data[b.bytes - 1] ^= 1; /* tensor data is not read for it, on purpose */
    file_put(dir, "four.gguf", b.data, b.bytes);
    assert_true(same_identity(id, identity_of(in_dir(dir, "four.gguf"))));
    blob_free(&b);
    blob_free(&renamed);
    blob_free(&longer);
    dir_free(dir);
    dir_free(other);
}

static void identity_of_a_folder_has_its_configuration(void **state)
{
    (void)state;
    char *dir = dir_new();
    struct blob b = {0};
    safetensors_put(&b, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    file_put(dir, "model.safetensors", b.data, b.bytes);
    struct model_identity none = identity_of(dir);
    text_put(dir, "config.json", "{\"model_type\":\"llama\"}");
    struct model_identity llama = identity_of(dir);
    text_put(dir, "config.json", "{\"model_type\":\"qwen2\"}");
    struct model_identity qwen2 = identity_of(dir);
    assert_int_equal(llama.total_bytes, none.total_bytes + 22);
    assert_false(same_identity(none, llama));
    assert_false(same_identity(llama, qwen2));
    text_put(dir, "tokenizer.json", "{}"); /* no worker needs it: no part of the identity */
    assert_true(same_identity(qwen2, identity_of(dir)));
    blob_free(&b);
    dir_free(dir);
}

static void very_many_names_are_found(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct blob b = {0};
    struct modelfile *m;
    struct error e;
    char name[32];
    gguf_start(&b, 3, N, 0);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "blk.%d.w", i);
        tensor2_put(&b, name, 1, 1, DTYPE_F32, (uint64_t)i * 32);
    }
    put_pad(&b, 32);
    put_pattern(&b, (size_t)N * 32);
    assert_int_equal(modelfile_open_memory("many", b.data, b.bytes, &m, &e), OK);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "blk.%d.w", i);
        assert_ptr_equal(modelfile_find(m, name), modelfile_tensor(m, i));
        snprintf(name, sizeof(name), "blk.%d.x", i);
        assert_null(modelfile_find(m, name));
    }
    modelfile_close(m);
    blob_free(&b);
}

static void a_long_path_leaves_room_for_the_cause(void **state)
{
    (void)state;
    char path[1000];
    struct modelfile *m;
    struct error e;
    memset(path, 'p', sizeof(path));
    for (size_t i = 0; i < sizeof(path); i += 100)
        path[i] = '/';
    path[sizeof(path) - 1] = 0;
    assert_int_equal(modelfile_open(path, &m, &e), ERR_NOT_FOUND);
    expect_text(&e, "cannot open: No such file");
    assert_int_equal(modelfile_open(path, &m, NULL), ERR_NOT_FOUND);
}

/* ---- remote ---- */

static const struct modelfile_remote_tensor remote[] = {
    {"token_embd.weight", DTYPE_Q8_0, 2, {64, 10, 1, 1}},
    {"blk.0.attn_norm.weight", DTYPE_F32, 1, {64, 1, 1, 1}},
    {"big", DTYPE_F32, 2, {1024, 1024, 1, 1}},
};

static struct modelfile *remote_new(void)
{
    struct modelfile *m;
    struct error e;
    const struct model_params p = {.n_layers = 1, .hidden = 64};
    if (modelfile_new_remote("lead:1", &p, remote, 3, &m, &e) != OK)
        fail_msg("%s", e.text);
    return m;
}

static void remote_models_look_like_files(void **state)
{
    (void)state;
    struct modelfile *m = remote_new();
    struct model_params p;
    struct error e;
    assert_int_equal(modelfile_n_tensors(m), 3);
    assert_int_equal(modelfile_params(m, &p, &e), OK);
    assert_int_equal(p.hidden, 64);
    assert_string_equal(modelfile_path(m), "lead:1");
    for (int i = 0; i < 3; i++) {
        const struct model_tensor *t = modelfile_find(m, remote[i].name);
        assert_ptr_equal(t, modelfile_tensor(m, i));
        uint8_t *buffer = modelfile_remote_buffer(m, t);
        assert_int_equal((uintptr_t)buffer % 4096, 0);
        memset(buffer, i + 1, t->bytes);
    }
    assert_int_equal(modelfile_tensor(m, 0)->bytes, 680);
    for (int i = 0; i < 3; i++) {
        const uint8_t *data = modelfile_data(m, modelfile_tensor(m, i));
        assert_int_equal(data[0], i + 1);
        assert_int_equal(data[modelfile_tensor(m, i)->bytes - 1], i + 1);
    }
    modelfile_close(m);
}

static size_t resident_pages(const void *start, size_t bytes)
{
    unsigned char pages[2048];
    size_t n = 0;
    assert_true((bytes + 4095) / 4096 <= sizeof(pages));
    assert_int_equal(mincore((void *)(uintptr_t)start, bytes, pages), 0);
    for (size_t i = 0; i < (bytes + 4095) / 4096; i++)
        n += pages[i] & 1;
    return n;
}

static void discarded_remote_tensors_give_memory_back(void **state)
{
    (void)state;
    struct modelfile *m = remote_new();
    const struct model_tensor *big = modelfile_find(m, "big");
    const struct model_tensor *norm = modelfile_find(m, "blk.0.attn_norm.weight");
    uint8_t *data = modelfile_remote_buffer(m, big);
    assert_int_equal(resident_pages(data, big->bytes), 0); /* reserved, not yet held */
    memset(data, 1, big->bytes);
    memset(modelfile_remote_buffer(m, norm), 2, norm->bytes);
    assert_int_equal(resident_pages(data, big->bytes), 1024);
    modelfile_advise(m, big, false); /* must not lose what nobody could read again */
    assert_int_equal(data[0], 1);
    modelfile_discard(m, big);
    assert_int_equal(resident_pages(data, big->bytes), 0);
    assert_int_equal(*(const uint8_t *)modelfile_data(m, norm), 2);
    modelfile_close(m);
}

struct fetcher {
    int n_calls;
    enum err err;
};

static enum err fetch_one(void *context, const struct model_tensor *t, void *into, struct error *e)
{
    struct fetcher *f = context;
    f->n_calls++;
    if (f->err != OK)
        return error_set(e, f->err, "tensor %s: the lead is gone", t->name);
    memset(into, 0x5a, t->bytes);
    return OK;
}

static void remote_tensors_come_when_needed(void **state)
{
    (void)state;
    struct modelfile *m = remote_new();
    struct fetcher f = {0};
    struct error e;
    const struct model_tensor *big = modelfile_find(m, "big");
    const uint8_t *data = modelfile_data(m, big);
    assert_int_equal(modelfile_need(m, big, &e), OK); /* nobody to ask: what is there */
    modelfile_set_fetch(m, fetch_one, &f);
    assert_int_equal(f.n_calls, 0);
    assert_int_equal(modelfile_need(m, big, &e), OK);
    assert_int_equal(f.n_calls, 1);
    assert_int_equal(data[0], 0x5a);
    assert_int_equal(data[big->bytes - 1], 0x5a);
    assert_int_equal(resident_pages(modelfile_data(m, modelfile_tensor(m, 0)), 680), 0);
    modelfile_discard(m, big);
    assert_int_equal(resident_pages(data, big->bytes), 0);
    f.err = ERR_UNREACHABLE;
    assert_int_equal(modelfile_need(m, big, &e), ERR_UNREACHABLE);
    expect_text(&e, "tensor big: the lead is gone");
    modelfile_close(m);
}

static void expect_remote(struct modelfile_remote_tensor t, enum err err, const char *part)
{
    struct modelfile_remote_tensor pair[2] = {remote[1], t};
    const struct model_params p = {0};
    struct modelfile *m;
    struct error e;
    assert_int_equal(modelfile_new_remote("lead:1", &p, pair, 2, &m, &e), err);
    assert_null(m);
    expect_text(&e, part);
}

static void remote_descriptions_that_lie(void **state)
{
    (void)state;
    struct modelfile_remote_tensor unterminated = {.type = DTYPE_F32, .n_dims = 1, .dims = {1}};
    memset(unterminated.name, 'x', sizeof(unterminated.name));
    expect_remote(unterminated, ERR_LIMIT, "lead:1: tensor");
    expect_remote(remote[1], ERR_FORMAT, "two tensors are named blk.0.attn_norm.weight");
    expect_remote((struct modelfile_remote_tensor){"t", 77, 1, {1}}, ERR_UNSUPPORTED, "type 77");
    expect_remote((struct modelfile_remote_tensor){"t", DTYPE_F32, -1, {1}}, ERR_FORMAT, "dimen");
    expect_remote((struct modelfile_remote_tensor){"t", DTYPE_F32, 5, {1, 1, 1, 1}}, ERR_FORMAT,
                  "more than 4 dimensions");
    expect_remote((struct modelfile_remote_tensor){"t", DTYPE_F32, 2, {1ull << 40, 1ull << 40}},
                  ERR_FORMAT, "overflow");
    expect_remote((struct modelfile_remote_tensor){"t", DTYPE_I8, 1, {1ull << 63}}, ERR_FORMAT,
                  "its size overflows");
    expect_remote((struct modelfile_remote_tensor){"t", DTYPE_I8, 1, {INT64_MAX}}, ERR_LIMIT,
                  "overflow together");
    expect_remote((struct modelfile_remote_tensor){"t", DTYPE_I8, 1, {1ull << 60}}, ERR_MEMORY,
                  "cannot reserve");
}

/* ---- mapped ---- */

static void mapped_tensors_survive_advice(void **state)
{
    (void)state;
    char *dir = dir_new();
    struct blob b = {0};
    write_gguf(&b, "name", 96);
    file_put(dir, "m.gguf", b.data, b.bytes);
    struct modelfile *m = open_good(in_dir(dir, "m.gguf"));
    uint64_t sum = touch_all(m);
    for (int i = 0; i < modelfile_n_tensors(m); i++) {
        assert_int_equal(modelfile_need(m, modelfile_tensor(m, i), NULL), OK);
        modelfile_advise(m, modelfile_tensor(m, i), false);
        modelfile_discard(m, modelfile_tensor(m, i));
    }
    assert_int_equal(touch_all(m), sum);
    modelfile_close(m);
    blob_free(&b);
    dir_free(dir);
}

static void *read_all(void *m)
{
    return (void *)(uintptr_t)touch_all(m);
}

static void many_threads_may_read(void **state)
{
    (void)state;
    struct blob b = {0};
    struct modelfile *m;
    struct error e;
    pthread_t threads[4];
    write_gguf(&b, "name", 96);
    assert_int_equal(modelfile_open_memory("shared", b.data, b.bytes, &m, &e), OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, m), 0);
    for (int i = 0; i < 4; i++) {
        void *sum;
        assert_int_equal(pthread_join(threads[i], &sum), 0);
        assert_int_equal((uintptr_t)sum, touch_all(m));
    }
    modelfile_close(m);
    modelfile_close(NULL);
    blob_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity_is_of_headers_and_sizes),
        cmocka_unit_test(identity_of_a_folder_has_its_configuration),
        cmocka_unit_test(very_many_names_are_found),
        cmocka_unit_test(a_long_path_leaves_room_for_the_cause),
        cmocka_unit_test(remote_models_look_like_files),
        cmocka_unit_test(discarded_remote_tensors_give_memory_back),
        cmocka_unit_test(remote_tensors_come_when_needed),
        cmocka_unit_test(remote_descriptions_that_lie),
        cmocka_unit_test(mapped_tensors_survive_advice),
        cmocka_unit_test(many_threads_may_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
