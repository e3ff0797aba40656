/* A lead alone, or with a worker in this process, put together from a model in memory; each way
 * that can fail leaves nothing behind (seen by the leak checker). Whole clusters: tests/e2e and
 * src/node.
 */
#include "lead/lead.h"

#include "node/worker.h"
#include "tiny_model.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct tiny_shape shape = {.n_layers = 3,
                                        .hidden = 64,
                                        .ffn = 96,
                                        .n_heads = 4,
                                        .n_kv_heads = 2,
                                        .head_size = 16,
                                        .vocab = 100,
                                        .type = DTYPE_F32};

static struct lead_options options(struct modelfile *file)
{
    return (struct lead_options){
        .file = file, .threads = 2, .n_slots = 2, .max_rows = 8, .context = 40, .no_engine = true};
}

/* One step of three rows through lead->pipeline; the logits of the last in logits[100]. */
static void run_step(struct lead *lead, float *logits)
{
    const struct step_update updates[] = {{.kind = UPDATE_OPEN},
                                          {.kind = UPDATE_APPEND, .block = 4}};
    const struct step_row rows[] = {{.token = 5, .position = 0},
                                    {.token = 99, .position = 1},
                                    {.token = 7, .position = 2, .want = WANT_LOGITS}};
    struct step step = {.updates = updates, .n_updates = 2, .rows = rows, .n_rows = 3};
    struct pipeline_result result;
    assert_int_equal(pipeline_submit(lead->pipeline, &step, NULL), OK);
    assert_int_equal(pipeline_collect(lead->pipeline, &result, 1000000, NULL), OK);
    assert_int_equal(result.n_wanted, 1);
    memcpy(logits, result.logits, 100 * sizeof *logits);
}

static void a_lead_alone_computes(void **state)
{
    (void)state;
    float logits[2][100];
    for (int i = 0; i < 2; i++) {
        struct modelfile *file = tiny_model(&shape, 1); /* loading gives a tensor's memory back */
        struct lead_options o = options(file);
        o.threads = i + 1;
        struct lead lead;
        assert_int_equal(lead_open(&o, &lead, NULL), OK);
        assert_int_equal(lead.context, 40);
        assert_int_equal(lead.n_blocks, 2 * 3);
        assert_int_equal(lead.plan.n_stages, 1);
        assert_int_equal(lead.plan.stages[0].last, 3);
        assert_string_equal(lead_stage_name(&lead, 0), "lead");
        assert_int_equal(pool_n_threads(lead.pool), i + 1);
        assert_null(lead.engine);
        assert_true(lead.free_bytes > 1 << 20 && lead.load_us > 0);
        run_step(&lead, logits[i]);
        lead_close(&lead);
        modelfile_close(file);
    }
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    assert_memory_not_equal(logits[0], logits[0] + 1, 99 * sizeof(float));
}

static void a_plan_loads_nothing(void **state)
{
    (void)state;
    struct modelfile *file = tiny_model(&shape, 1);
    struct lead_options o = options(file);
    struct lead lead;
    o.layers = "lead=0-2";
    assert_int_equal(lead_plan(&o, &lead, NULL), OK);
    assert_null(lead.model);
    assert_null(lead.pipeline);
    assert_int_equal(lead.plan.stages[0].last, 3);
    assert_true(lead.plan.stages[0].bytes > 64 << 20);
    lead_close(&lead);
    modelfile_close(file);
}

/* What the opening thread is told. */
struct told {
    pthread_t opener;
    bool elsewhere, backwards;
    uint64_t done_bytes, total_bytes;
};

static void note_progress(uint64_t done_bytes, uint64_t total_bytes, void *context)
{
    struct told *t = context;
    t->elsewhere |= !pthread_equal(t->opener, pthread_self());
    t->backwards |= done_bytes < t->done_bytes;
    t->done_bytes = done_bytes;
    t->total_bytes = total_bytes;
}

static uint64_t bytes_of(const struct modelfile *file)
{
    uint64_t bytes = 0;
    for (int i = 0; i < modelfile_n_tensors(file); i++)
        bytes += modelfile_tensor(file, i)->bytes;
    return bytes;
}

/* A lead's options for layer 0 on the worker and the rest here. */
static struct lead_options shared_options(struct modelfile *file, const struct worker *w,
                                          char layers[128])
{
    struct lead_options o = options(file);
    snprintf(layers, 128, "%s=0-0,lead=1-2", worker_address(w));
    o.nodes = worker_address(w);
    o.layers = layers;
    return o;
}

static void a_worker_loads_while_the_lead_does(void **state)
{
    (void)state;
    struct worker_options options_w = {.listen = "127.0.0.1:0", .threads = 1};
    struct told told = {.opener = pthread_self()};
    struct worker *w;
    struct lead lead;
    struct error e;
    char layers[128];
    float alone[100], shared[100];
    struct modelfile *file = tiny_model(&shape, 1);
    struct lead_options o = options(file);
    assert_int_equal(lead_open(&o, &lead, NULL), OK);
    run_step(&lead, alone);
    lead_close(&lead);
    modelfile_close(file);

    file = tiny_model(&shape, 1);
    assert_int_equal(worker_start(&options_w, &w, NULL), OK);
    o = shared_options(file, w, layers);
    o.progress = note_progress;
    o.progress_context = &told;
    if (lead_open(&o, &lead, &e) != OK)
        fail_msg("%s", e.text);
    assert_int_equal(lead.plan.n_stages, 2);
    assert_int_equal(told.total_bytes, bytes_of(file));
    assert_int_equal(told.done_bytes, told.total_bytes);
    assert_false(told.elsewhere);
    assert_false(told.backwards);
    run_step(&lead, shared);
    assert_memory_equal(alone, shared, sizeof alone);
    lead_close(&lead);
    worker_stop(w);
    modelfile_close(file);
}

/* The bytes of a tiny model are there already; one tensor's cannot be had. */
static enum err fail_for_one(void *context, const struct model_tensor *t, void *into,
                             struct error *e)
{
    (void)into;
    if (strcmp(t->name, context) == 0)
        return error_set(e, ERR_IO, "tensor %s: the disk is gone", t->name);
    return OK;
}

static void a_lead_that_cannot_load_lets_the_worker_go(void **state)
{
    (void)state;
    struct worker_options options_w = {.listen = "127.0.0.1:0", .threads = 1};
    struct worker *w;
    struct lead lead;
    struct error e;
    char layers[128];
    assert_int_equal(worker_start(&options_w, &w, NULL), OK);
    for (int fails = 1; fails >= 0; fails--) {
        struct modelfile *file = tiny_model(&shape, 1);
        struct lead_options o = shared_options(file, w, layers);
        char tensor[] = "blk.2.ffn_down.weight";
        if (fails)
            modelfile_set_fetch(file, fail_for_one, tensor);
        assert_int_equal(lead_open(&o, &lead, &e), fails ? ERR_IO : OK);
        if (fails)
            assert_string_equal(e.text, "tensor blk.2.ffn_down.weight: the disk is gone");
        else
            lead_close(&lead);
        modelfile_close(file);
    }
    worker_stop(w);
}

static void refused(const struct tiny_shape *s, struct lead_options o, enum err code,
                    const char *reason)
{
    struct error e;
    struct lead lead;
    o.file = tiny_model(s, 1);
    assert_int_equal(lead_open(&o, &lead, &e), code);
    assert_string_equal(e.text, reason);
    modelfile_close(o.file);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct lead_options o = options(NULL);
    o.layers = "lead=0-1";
    refused(&shape, o, ERR_INVALID, "--layers: layer 2 is given to no node");
    o = options(NULL);
    o.context = 1025;
    refused(&shape, o, ERR_LIMIT, "context of 1025 positions: the model was trained for 1024");
    o = options(NULL);
    o.kv_bytes = 10000;
    refused(&shape, o, ERR_LIMIT,
            "keys and values of 40 positions need 0.0 MB, 0.0 MB are there for them");
    o = options(NULL);
    o.threads = POOL_MAX_THREADS + 1;
    refused(&shape, o, ERR_INVALID, "threads: expected 1 to 256, found 257");
    o = options(NULL);
    o.nodes = "127.0.0.1:1";
    refused(&shape, o, ERR_UNREACHABLE, "cannot reach 127.0.0.1:1: Connection refused");
    struct tiny_shape s = shape;
    s.extra = "blk.0.attn_q.bias";
    refused(&s, options(NULL), ERR_UNSUPPORTED,
            "tensor blk.0.attn_q.bias: architecture llama with 3 layers has no such tensor");
}

/* ---- a draft model ---- */

struct heard {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int32_t tokens[32];
    int n;
    bool ended;
    struct request_timings timings;
};

static void hear(void *context, const struct request_event *event)
{
    struct heard *h = context;
    pthread_mutex_lock(&h->lock);
    if (event->token >= 0)
        h->tokens[h->n++] = event->token;
    h->ended = event->finish != FINISH_NONE;
    if (h->ended)
        h->timings = *event->timings;
    pthread_cond_signal(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

/* 30 tokens of a model in memory, with another from `draft_seed` to guess ahead; 0: none. */
static void generate(uint64_t draft_seed, struct heard *h)
{
    static const int32_t prompt[] = {5, 99, 7};
    struct lead_options o = options(tiny_model(&shape, 1));
    o.no_engine = false;
    o.max_draft = draft_seed > 0 ? 4 : 0;
    o.draft_file = draft_seed > 0 ? tiny_model(&shape, draft_seed) : NULL;
    struct lead lead;
    struct error e;
    if (lead_open(&o, &lead, &e) != OK)
        fail_msg("%s", e.text);
    *h = (struct heard){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct request_options request = {.prompt = prompt,
                                      .n_prompt = 3,
                                      .max_tokens = 30,
                                      .sampling = SAMPLING_GREEDY,
                                      .ignore_eos = true,
                                      .on_event = hear,
                                      .context = h};
    uint64_t id;
    assert_int_equal(engine_submit(lead.engine, &request, &id, NULL), OK);
    pthread_mutex_lock(&h->lock);
    while (!h->ended)
        pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
    assert_int_equal(lead.draft.n_blocks > 0, draft_seed > 0);
    lead_close(&lead);
    modelfile_close(o.draft_file);
    modelfile_close(o.file);
}

static void a_draft_model_changes_no_token(void **state)
{
    (void)state;
    static struct heard plain, same, other;
    generate(0, &plain);
    generate(1, &same);
    generate(2, &other);
    assert_int_equal(plain.n, 30);
    assert_memory_equal(same.tokens, plain.tokens, 30 * sizeof(int32_t));
    assert_memory_equal(other.tokens, plain.tokens, 30 * sizeof(int32_t));
    assert_true(same.timings.n_guessed[GUESS_MODEL] > 0);
    assert_int_equal(same.timings.n_right[GUESS_MODEL], same.timings.n_guessed[GUESS_MODEL]);
    assert_true(other.timings.n_guessed[GUESS_MODEL] > other.timings.n_right[GUESS_MODEL]);
}

static void an_unfit_draft_model_is_refused(void **state)
{
    (void)state;
    struct tiny_shape s = shape;
    struct lead_options o = options(NULL);
    o.no_engine = false;
    s.vocab = 90;
    o.draft_file = tiny_model(&s, 2);
    refused(&shape, o, ERR_MISMATCH,
            "the draft model: another vocabulary: expected 100 logits, as the model has, found 90");
    modelfile_close(o.draft_file);
    s = shape;
    s.without = "blk.0.attn_q.weight";
    o.draft_file = tiny_model(&s, 2);
    refused(
        &shape, o, ERR_NOT_FOUND,
        "the draft model: tensor blk.0.attn_q.weight is missing (architecture llama, 3 layers)");
    modelfile_close(o.draft_file);
    s = shape;
    s.n_layers = 9; /* nine layers' keys and values in a quarter of what three layers' have */
    o.kv_bytes = 40000;
    o.draft_file = tiny_model(&s, 2);
    refused(&shape, o, ERR_LIMIT,
            "the draft model: keys and values of 40 positions need 0.1 MB, 0.0 MB are there for "
            "them");
    modelfile_close(o.draft_file);
}

static void a_bad_instruction_set_is_refused(void **state)
{
    (void)state;
    struct error e;
    struct lead lead;
    struct lead_options o = options(tiny_model(&shape, 1));
    setenv("SHOAL_CPU", "z80", 1);
    assert_int_equal(lead_open(&o, &lead, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "z80"));
    unsetenv("SHOAL_CPU");
    modelfile_close(o.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lead_alone_computes),
        cmocka_unit_test(a_worker_loads_while_the_lead_does),
        cmocka_unit_test(a_lead_that_cannot_load_lets_the_worker_go),
        cmocka_unit_test(a_plan_loads_nothing),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(a_draft_model_changes_no_token),
        cmocka_unit_test(an_unfit_draft_model_is_refused),
        cmocka_unit_test(a_bad_instruction_set_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
