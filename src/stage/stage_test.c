/* Promise 1 at the level of stages: the logits of a sequence, bit for bit, do not depend on where
 * the layers are cut, on how the prompt is chunked, on what else is in the batch, on block ids or
 * threads. */
#include "stage/stage.h"

#include "base/bounds.h"
#include "base/pool.h"
#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    LAYERS = 4,
    HIDDEN = 64,
    VOCAB = 100,
    LENGTH = 41, /* crosses two block borders */
    MAX_ROWS = 64,
    MAX_STAGES = 4,
    N_BLOCKS = 32,
    N_SLOTS = 3,
};

static struct tiny_shape shape(enum dtype type)
{
    return (struct tiny_shape){.n_layers = LAYERS,
                               .hidden = HIDDEN,
                               .ffn = 96,
                               .n_heads = 4,
                               .n_kv_heads = 2,
                               .head_size = 16,
                               .vocab = VOCAB,
                               .type = type};
}

/* The model cut into stages behind the layers given, all in this process. */
struct ring {
    struct pool *pool;
    struct backend *backend;
    struct modelfile *file;
    struct model *models[MAX_STAGES];
    struct stage *stages[MAX_STAGES];
    int n;
    uint64_t number;
    float hidden[2][MAX_ROWS * HIDDEN];
};

static void ring_open(struct ring *r, enum dtype type, int threads, const int *cuts, int n_cuts,
                      enum kv_type kv)
{
    struct error e;
    struct tiny_shape s = shape(type);
    *r = (struct ring){.n = n_cuts + 1};
    assert_int_equal(pool_new(threads, &r->pool, &e), OK);
    assert_int_equal(backend_cpu_open(r->pool, &r->backend, &e), OK);
    r->file = tiny_model(&s, 7);
    for (int i = 0; i < r->n; i++) {
        struct model_part part = {.first = i == 0 ? 0 : cuts[i - 1],
                                  .last = i == n_cuts ? LAYERS : cuts[i],
                                  .embedding = i == 0,
                                  .head = i == n_cuts};
        /* Loading gives a tensor's memory back, so every part has its own copy of the file. */
        struct modelfile *file = tiny_model(&s, 7);
        assert_int_equal(model_load(file, r->backend, &part, NULL, NULL, &r->models[i], &e), OK);
        modelfile_close(file);
        struct stage_options o = {.model = r->models[i],
                                  .backend = r->backend,
                                  .max_rows = MAX_ROWS,
                                  .n_slots = N_SLOTS,
                                  .n_blocks = N_BLOCKS,
                                  .max_context = 64,
                                  .kv_type = kv,
                                  .epoch = 5};
        assert_int_equal(stage_new(&o, &r->stages[i], &e), OK);
    }
}

static void ring_close(struct ring *r)
{
    for (int i = 0; i < r->n; i++) {
        stage_free(r->stages[i]);
        model_free(r->models[i]);
    }
    modelfile_close(r->file);
    r->backend->ops->free(r->backend);
    pool_free(r->pool);
}

static void ring_step(struct ring *r, struct step *step, float *logits)
{
    struct error e;
    step->epoch = 5;
    step->number = r->number++;
    for (int i = 0; i < r->n; i++) {
        step->boundary = (uint32_t)model_part(r->models[i])->first;
        float *out = i == r->n - 1 ? logits : r->hidden[i % 2];
        if (stage_forward(r->stages[i], step, i == 0 ? NULL : r->hidden[(i + 1) % 2], out, &e) !=
            OK)
            fail_msg("%s", e.text);
    }
}

static uint32_t token_at(int position, int sequence)
{
    return (uint32_t)(position * 37 + sequence * 11 + 5) % VOCAB;
}

static uint32_t open_slot(struct step_update *u, uint32_t slot, const uint32_t *blocks)
{
    u[0] = (struct step_update){UPDATE_OPEN, slot, 0, 0};
    for (uint32_t i = 0; i < 3; i++)
        u[1 + i] = (struct step_update){UPDATE_APPEND, slot, blocks[i], 0};
    return 4;
}

/* All logits of sequence 0, its rows fed `chunk` at a time, with `others` more sequences running
 * beside it in every step. */
static void run(struct ring *r, int chunk, int others, const uint32_t (*blocks)[3], float *logits)
{
    static float all[MAX_ROWS * VOCAB];
    for (int done = 0; done < LENGTH; done += chunk) {
        struct step_update updates[4 * N_SLOTS];
        struct step_row rows[MAX_ROWS];
        struct step step = {.updates = updates, .rows = rows};
        int n = LENGTH - done < chunk ? LENGTH - done : chunk;
        for (int s = others; s >= 0; s--) { /* sequence 0 comes last in the batch */
            if (done == 0)
                step.n_updates += open_slot(updates + step.n_updates, (uint32_t)s, blocks[s]);
            for (int i = 0; i < n; i++)
                rows[step.n_rows++] = (struct step_row){token_at(done + i, s), (uint32_t)(done + i),
                                                        (uint32_t)s, WANT_LOGITS};
        }
        ring_step(r, &step, all);
        memcpy(logits + done * VOCAB, all + others * n * VOCAB,
               (size_t)(n * VOCAB) * sizeof(float));
    }
}

static const uint32_t straight[N_SLOTS][3] = {{0, 1, 2}, {3, 4, 5}, {6, 7, 8}};
static const uint32_t crossed[N_SLOTS][3] = {{17, 3, 31}, {9, 30, 0}, {2, 25, 11}};

static void check_type(enum dtype type, enum kv_type kv)
{
    static float expected[LENGTH * VOCAB], found[LENGTH * VOCAB];
    static const struct {
        int threads, n_cuts, cuts[3], chunk, others;
        const uint32_t (*blocks)[3];
    } variants[] = {
        {1, 0, {0}, 1, 0, straight},      {2, 0, {0}, 7, 0, crossed},
        {1, 1, {1}, LENGTH, 0, straight}, {2, 1, {3}, 16, 0, crossed},
        {1, 2, {1, 2}, 5, 2, crossed},    {3, 3, {1, 2, 3}, 20, 2, straight},
        {2, 2, {2, 4}, 13, 1, crossed},   {1, 3, {0, 2, 2}, 3, 0, straight},
    };
    struct ring r;
    ring_open(&r, type, 1, NULL, 0, kv);
    run(&r, LENGTH, 0, straight, expected);
    ring_close(&r);
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        ring_open(&r, type, variants[i].threads, variants[i].cuts, variants[i].n_cuts, kv);
        run(&r, variants[i].chunk, variants[i].others, variants[i].blocks, found);
        ring_close(&r);
        assert_memory_equal(found, expected, sizeof found);
    }
    for (int i = 1; i < LENGTH; i++) /* and they say something */
        assert_memory_not_equal(expected + i * VOCAB, expected, VOCAB * sizeof(float));
}

static void float_weights(void **state)
{
    (void)state;
    check_type(DTYPE_F32, KV_F16);
    check_type(DTYPE_F32, KV_F32);
}

static void quantised_weights(void **state)
{
    (void)state;
    check_type(DTYPE_Q8_0, KV_F16);
}

/* Copy-on-write: a copied block continues as the original would. */
static void a_copied_block_is_the_same(void **state)
{
    (void)state;
    static float expected[VOCAB], found[VOCAB];
    struct ring r;
    for (int copies = 0; copies < 2; copies++) {
        ring_open(&r, DTYPE_F32, 1, (int[]){2}, 1, KV_F16);
        const struct step_update open[] = {{UPDATE_OPEN, 0, 0, 0}, {UPDATE_APPEND, 0, 4, 0}};
        struct step_row rows[3];
        for (uint32_t i = 0; i < 3; i++)
            rows[i] = (struct step_row){token_at((int)i, 0), i, 0, WANT_NONE};
        struct step step = {.updates = open, .n_updates = 2, .rows = rows, .n_rows = 3};
        ring_step(&r, &step, found);
        const struct step_update copy[] = {
            {UPDATE_COPY, 0, 9, 4}, {UPDATE_OPEN, 1, 0, 0}, {UPDATE_APPEND, 1, 9, 0}};
        struct step_row next = {8, 3, copies == 0 ? 0 : 1, WANT_LOGITS};
        step = (struct step){
            .updates = copy, .n_updates = copies == 0 ? 0 : 3, .rows = &next, .n_rows = 1};
        ring_step(&r, &step, copies == 0 ? expected : found);
        ring_close(&r);
    }
    assert_memory_equal(found, expected, sizeof found);
}

static void refused(struct ring *r, struct step step, const char *reason)
{
    struct error e;
    float logits[VOCAB];
    assert_int_equal(stage_forward(r->stages[0], &step, NULL, logits, &e), ERR_FORMAT);
    assert_string_equal(e.text, reason);
}

static void steps_out_of_order_are_refused(void **state)
{
    (void)state;
    struct ring r;
    ring_open(&r, DTYPE_F32, 1, NULL, 0, KV_F16);
    refused(&r, (struct step){.epoch = 4}, "step 0: expected epoch 5, found 4");
    refused(&r, (struct step){.epoch = 5, .number = 1}, "expected step 0, found 1");
    refused(&r, (struct step){.epoch = 5, .boundary = 2},
            "step 0: expected layer boundary 0, found 2");
    refused(&r, (struct step){.epoch = 5, .n_rows = 65},
            "step 0: expected at most 64 rows, found 65");
    refused(&r, (struct step){.epoch = 5, .n_rows = 1, .rows = &(struct step_row){0}},
            "step 0: row 0: slot 0 is not open");
    struct step empty = {0};
    ring_step(&r, &empty, NULL);
    ring_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_weights),
        cmocka_unit_test(quantised_weights),
        cmocka_unit_test(a_copied_block_is_the_same),
        cmocka_unit_test(steps_out_of_order_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
