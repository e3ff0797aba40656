/* Models against their oracles: greedy ids of every case, and the logits after every prompt. The
 * trained ones of the shared data, by an independent program in double precision, and one with a
 * sliding window, by transformers (tools/window_model). Keys and values in f32. */
#include "model/model.h"

#include "base/bounds.h"
#include "base/pool.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_POSITIONS = 256, N_BLOCKS = MAX_POSITIONS / KV_BLOCK_TOKENS };

struct runner {
    struct pool *pool;
    struct backend *backend;
    struct modelfile *file;
    struct model *model;
    struct model_scratch *scratch;
    struct kv_store *kv;
    int32_t table[N_BLOCKS];
    float *logits;
};

static void runner_open(struct runner *r, const char *path)
{
    struct error e = {OK, ""};
    struct model_params p;
    *r = (struct runner){0};
    assert_int_equal(pool_new(2, &r->pool, &e), OK);
    assert_int_equal(backend_cpu_open(r->pool, &r->backend, &e), OK);
    if (modelfile_open(path, &r->file, &e) != OK || model_check(r->file, &e) != OK)
        fail_msg("%s", e.text);
    assert_int_equal(modelfile_params(r->file, &p, &e), OK);
    struct model_part all = {.last = p.n_layers, .embedding = true, .head = true};
    if (model_load(r->file, r->backend, &all, NULL, NULL, &r->model, &e) != OK)
        fail_msg("%s", e.text);
    assert_int_equal(model_scratch_new(r->model, MAX_POSITIONS, &r->scratch, &e), OK);
    struct kv_shape shape;
    model_kv_shape(r->model, N_BLOCKS, KV_F32, &shape);
    assert_int_equal(r->backend->ops->kv_new(r->backend, &shape, &r->kv, &e), OK);
    for (int i = 0; i < N_BLOCKS; i++)
        r->table[i] = N_BLOCKS - 1 - i; /* any order will do */
    r->logits = calloc((size_t)p.vocab, sizeof *r->logits);
}

static void runner_close(struct runner *r)
{
    r->backend->ops->kv_free(r->backend, r->kv);
    model_scratch_free(r->scratch);
    model_free(r->model);
    modelfile_close(r->file);
    r->backend->ops->free(r->backend);
    pool_free(r->pool);
    free(r->logits);
}

/* Run n tokens from `position` on and leave the last one's logits. */
static void run(struct runner *r, const int32_t *tokens, int n, int position)
{
    int32_t positions[MAX_POSITIONS], last = n - 1;
    const int32_t *tables[MAX_POSITIONS];
    for (int i = 0; i < n; i++) {
        positions[i] = position + i;
        tables[i] = r->table;
    }
    struct batch batch = {.n = n, .positions = positions, .tables = tables};
    model_forward(r->model, r->scratch, r->kv,
                  &(struct model_io){.batch = &batch,
                                     .tokens = tokens,
                                     .wanted = &last,
                                     .n_wanted = 1,
                                     .logits = r->logits});
}

static int32_t best(const float *logits, int n)
{
    int b = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[b])
            b = i;
    return b;
}

static void check_case(struct runner *r, const json_t *c)
{
    int32_t ids[MAX_POSITIONS];
    int n = 0, vocab = model_params(r->model)->vocab;
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(c, "prompt_ids"), i, v) ids[n++] =
        (int32_t)json_integer_value(v);
    run(r, ids, n, 0);
    json_array_foreach(json_object_get(c, "top5_next"), i, v)
    {
        double expected = json_number_value(json_array_get(v, 1));
        float found = r->logits[json_integer_value(json_array_get(v, 0))];
        assert_true(fabs((double)found - expected) < 2e-3);
    }
    json_array_foreach(json_object_get(c, "greedy_ids"), i, v)
    {
        int32_t id = best(r->logits, vocab);
        assert_int_equal(id, json_integer_value(v));
        ids[n] = id;
        run(r, &ids[n], 1, n);
        n++;
    }
}

static void check_model(const char *folder, const char *model, const char *oracle)
{
    char path[1024];
    json_error_t reason;
    snprintf(path, sizeof path, "%s/%s", folder, oracle);
    json_t *cases = json_load_file(path, 0, &reason);
    assert_non_null(cases);
    snprintf(path, sizeof path, "%s/%s", folder, model);
    struct runner r;
    runner_open(&r, path);
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(cases, "cases"), i, c) check_case(&r, c);
    assert_true(i >= 4);
    runner_close(&r);
    json_decref(cases);
}

static void check_shared(const char *model, const char *oracle)
{
    if (access(SHOAL_SHARED_DIR "/data/models", R_OK) != 0)
        skip();
    check_model(SHOAL_SHARED_DIR "/data/models", model, oracle);
}

static void stories260k(void **state)
{
    (void)state;
    check_shared("stories260K/stories260K.gguf", "stories260K/greedy.json");
}

static void story_656k_hf(void **state)
{
    (void)state;
    check_shared("story-656k-hf", "story-656k-hf/greedy.json");
}

static void sliding_window(void **state)
{
    (void)state;
    check_model(SHOAL_SOURCE_DIR "/tests/golden/window", ".", "golden.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories260k),
        cmocka_unit_test(story_656k_hf),
        cmocka_unit_test(sliding_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
