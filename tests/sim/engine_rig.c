#include "engine_rig.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- a ring with an engine ---- */

static void start_draft(struct rig *rig, struct sim_shape shape, int n_blocks)
{
    shape.n_stages = 1;
    shape.n_blocks = n_blocks;
    shape.pass_us = 0;
    assert_int_equal(sim_stage_open(&shape, 0, &rig->draft_stage, NULL), OK);
    rig->draft = draft_model_new(&(struct draft_model_options){.stage = rig->draft_stage.stage,
                                                               .vocab = SIM_VOCAB,
                                                               .epoch = SIM_EPOCH,
                                                               .n_slots = shape.n_slots,
                                                               .n_blocks = n_blocks,
                                                               .max_context = CONTEXT,
                                                               .max_rows = shape.max_rows});
}

struct rig rig_start(struct rig_options o)
{
    struct rig rig = {0};
    struct error e;
    struct sim_ring_options ring = {.shape = {.model_seed = 3,
                                              .n_layers = 3,
                                              .n_stages = o.n_stages,
                                              .n_blocks = o.n_blocks > 0 ? o.n_blocks : 64,
                                              .n_slots = o.n_slots > 0 ? o.n_slots : 8,
                                              .max_rows = o.max_rows > 0 ? o.max_rows : 16,
                                              .max_context = CONTEXT,
                                              .window = o.window,
                                              .pass_us = o.pass_us},
                                    .credits = 8,
                                    .timeout_us = 20 * 1000 * 1000};
    assert_int_equal(sim_ring_start(&ring, &rig.ring, &e), OK);
    if (o.draft_blocks > 0)
        start_draft(&rig, ring.shape, o.draft_blocks);
    struct engine_options engine = {.draft = rig.draft,
                                    .pipeline = sim_ring_pipeline(rig.ring),
                                    .tokenizer = o.tokenizer,
                                    .vocab = SIM_VOCAB,
                                    .max_context = CONTEXT,
                                    .window = o.window,
                                    .n_blocks = ring.shape.n_blocks,
                                    .n_slots = ring.shape.n_slots,
                                    .max_rows = ring.shape.max_rows,
                                    .n_flights = o.n_flights,
                                    .max_draft = o.max_draft,
                                    .max_queued = o.max_queued > 0 ? o.max_queued : 100};
    assert_int_equal(engine_new(&engine, &rig.engine, &e), OK);
    return rig;
}

void rig_stop(struct rig *rig)
{
    engine_free(rig->engine);
    sim_ring_stop(rig->ring);
    draft_model_free(rig->draft);
    sim_stage_close(&rig->draft_stage);
}

void assert_all_free(struct engine *g)
{
    struct engine_stats stats;
    for (int i = 0; i < 2000; i++) {
        engine_stats(g, &stats);
        if (stats.blocks_used == 0 && stats.running == 0 && stats.queued == 0)
            return;
        clock_sleep_us(1000);
    }
    fail_msg("%d blocks used, %d running, %d queued", stats.blocks_used, stats.running,
             stats.queued);
}

/* ---- what a request's owner heard ---- */

void heard_init(struct heard *h)
{
    *h = (struct heard){0};
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
}

void hear(void *context, const struct request_event *event)
{
    struct heard *h = context;
    pthread_mutex_lock(&h->lock);
    if (event->token >= 0 && h->n_tokens < CONTEXT) {
        h->spans[h->n_tokens] = event->span;
        h->logprobs[h->n_tokens] = event->logprobs != NULL ? event->logprobs->chosen : 1;
        h->tokens[h->n_tokens++] = event->token;
    }
    if (h->text_bytes + event->text_bytes < sizeof(h->text)) {
        memcpy(h->text + h->text_bytes, event->text, event->text_bytes);
        h->text_bytes += event->text_bytes;
    }
    if (event->finish != FINISH_NONE) {
        h->n_last++;
        h->finish = event->finish;
        if (event->stop != NULL)
            snprintf(h->stop, sizeof(h->stop), "%s", event->stop);
        if (event->error != NULL)
            h->error = *event->error;
        h->timings = *event->timings;
    }
    pthread_cond_broadcast(&h->changed);
    bool cancel = h->cancel_after > 0 && h->n_tokens == h->cancel_after;
    uint64_t id = h->id;
    pthread_mutex_unlock(&h->lock);
    if (cancel)
        engine_cancel(h->engine, id);
}

void wait_tokens(struct heard *h, int n)
{
    pthread_mutex_lock(&h->lock);
    while (h->n_tokens < n && h->finish == FINISH_NONE)
        pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

enum finish_reason wait_end(struct heard *h)
{
    pthread_mutex_lock(&h->lock);
    while (h->finish == FINISH_NONE)
        pthread_cond_wait(&h->changed, &h->lock);
    enum finish_reason finish = h->finish;
    pthread_mutex_unlock(&h->lock);
    return finish;
}

/* ---- requests ---- */

struct request_options plain(int32_t *prompt, int n_prompt, int max_tokens, struct heard *h)
{
    for (int j = 0; j < n_prompt; j++)
        prompt[j] = (7 * j + j * j) % SIM_VOCAB;
    return (struct request_options){.prompt = prompt,
                                    .n_prompt = n_prompt,
                                    .max_tokens = max_tokens,
                                    .sampling = SAMPLING_GREEDY,
                                    .ignore_eos = true,
                                    .on_event = hear,
                                    .context = h};
}

uint64_t submit_options(struct engine *g, const struct request_options *o)
{
    struct error e = {.text = ""};
    uint64_t id;
    if (engine_submit(g, o, &id, &e) != OK)
        fail_msg("%s", e.text);
    return id;
}

struct request_options request_of(int i, int32_t *prompt, struct heard *h)
{
    int n_prompt = 1 + i * 7 % 40;
    for (int j = 0; j < n_prompt; j++)
        prompt[j] = (i * 31 + j * j + 3) % SIM_VOCAB;
    struct request_options o = {.prompt = prompt,
                                .n_prompt = n_prompt,
                                .max_tokens = 1 + i * 5 % 30,
                                .sampling = SAMPLING_GREEDY,
                                .logprobs = i % 2 == 0,
                                .choice = (uint32_t)i % 2,
                                .ignore_eos = true,
                                .on_event = hear,
                                .context = h};
    if (i % 3 == 1) {
        o.sampling.temperature = 0.8f;
        o.sampling.seed = (uint64_t)i;
        o.sampling.top_k = i % 2 == 0 ? 20 : 0;
        o.sampling.top_p = 0.9f;
        o.sampling.repetition_penalty = 1.3f;
    }
    return o;
}

uint64_t submit(struct engine *g, int i, struct heard *h)
{
    int32_t prompt[64];
    struct request_options o = request_of(i, prompt, h);
    struct error e = {.text = ""};
    uint64_t id;
    enum err err = engine_submit(g, &o, &id, &e);
    if (err != OK)
        fail_msg("request %d: %s", i, e.text);
    return id;
}

struct heard alone[N_REQUESTS];

int compute_alone(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 1, .max_rows = 1, .n_slots = 1});
    for (int i = 0; i < N_REQUESTS; i++) {
        heard_init(&alone[i]);
        submit(rig.engine, i, &alone[i]);
        wait_end(&alone[i]);
    }
    rig_stop(&rig);
    return 0;
}

void assert_as_alone(const struct heard *h, int i)
{
    assert_int_equal(h->finish, FINISH_LENGTH);
    assert_int_equal(h->n_last, 1);
    assert_int_equal(h->n_tokens, 1 + i * 5 % 30);
    assert_int_equal(h->n_tokens, alone[i].n_tokens);
    assert_memory_equal(h->tokens, alone[i].tokens, (size_t)h->n_tokens * sizeof(h->tokens[0]));
    assert_memory_equal(h->logprobs, alone[i].logprobs,
                        (size_t)h->n_tokens * sizeof(h->logprobs[0]));
    for (int t = 0; t < h->n_tokens; t++)
        assert_true(i % 2 == 0 ? h->logprobs[t] < 0 : h->logprobs[t] > 0);
    assert_int_equal(h->timings.n_output, h->n_tokens);
    assert_int_equal(h->timings.n_prompt, 1 + i * 7 % 40);
    assert_true(h->timings.queued_us >= 0 && h->timings.prefill_us >= 0);
    assert_true(h->timings.decode_us >= 0);
}
