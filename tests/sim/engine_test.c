/* The engine with its thread, over rings of the hashing backend: tokens, text, stop rules,
 * cancelling, limits, the end of the ring. Built with TSan as well. */
#include "engine/engine.h"
#include "sim/sim_ring.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- a ring with an engine ---- */

struct rig {
    struct sim_ring *ring;
    struct sim_stage draft_stage;
    struct draft_model *draft; /* NULL: none */
    struct engine *engine;
};

struct rig_options {
    int n_stages, n_flights, max_rows, n_slots, n_blocks, max_queued, max_draft, window;
    int draft_blocks; /* > 0: a draft model guesses, as good as the model, with so many of them */
    int64_t pass_us;
    const struct tokenizer *tokenizer;
};

enum { CONTEXT = 128 };

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

static struct rig rig_start(struct rig_options o)
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

static void rig_stop(struct rig *rig)
{
    engine_free(rig->engine);
    sim_ring_stop(rig->ring);
    draft_model_free(rig->draft);
    sim_stage_close(&rig->draft_stage);
}

/* ---- what a request's owner heard ---- */

struct heard {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_tokens;
    int32_t tokens[CONTEXT];
    struct text_span spans[CONTEXT];
    float logprobs[CONTEXT]; /* 1: not told */
    char text[4096];
    size_t text_bytes;
    enum finish_reason finish;
    int n_last; /* events with finish */
    char stop[64];
    struct error error;
    struct request_timings timings;
    struct engine *engine; /* cancel there … */
    uint64_t id;           /* … this request … */
    int cancel_after;      /* … when so many tokens came; 0: never */
};

static void heard_init(struct heard *h)
{
    *h = (struct heard){0};
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
}

static void hear(void *context, const struct request_event *event)
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

static void wait_tokens(struct heard *h, int n)
{
    pthread_mutex_lock(&h->lock);
    while (h->n_tokens < n && h->finish == FINISH_NONE)
        pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

static enum finish_reason wait_end(struct heard *h)
{
    pthread_mutex_lock(&h->lock);
    while (h->finish == FINISH_NONE)
        pthread_cond_wait(&h->changed, &h->lock);
    enum finish_reason finish = h->finish;
    pthread_mutex_unlock(&h->lock);
    return finish;
}

/* ---- requests that are a function of their number ---- */

static struct request_options request_of(int i, int32_t *prompt, struct heard *h)
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

static uint64_t submit(struct engine *g, int i, struct heard *h)
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

enum { N_REQUESTS = 24 };
static struct heard alone[N_REQUESTS];

/* Each request for itself, one row at a time, on one stage: what all others must equal. */
static int compute_alone(void **state)
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

static void assert_as_alone(const struct heard *h, int i)
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

static void assert_all_free(struct engine *g)
{
    struct engine_stats stats;
    for (int i = 0; i < 2000; i++) { /* steps in flight still hold the blocks of ended requests */
        engine_stats(g, &stats);
        if (stats.blocks_used == 0 && stats.running == 0 && stats.queued == 0)
            return;
        clock_sleep_us(1000);
    }
    fail_msg("%d blocks used, %d running, %d queued", stats.blocks_used, stats.running,
             stats.queued);
}

static void tokens_do_not_depend_on_the_ring(void **state)
{
    (void)state;
    static const struct rig_options rings[] = {
        {.n_stages = 1},
        {.n_stages = 1, .n_flights = 3, .max_rows = 3},
        {.n_stages = 2},
        {.n_stages = 3, .max_rows = 5, .n_slots = 3},
        {.n_stages = 4, .n_blocks = 9, .n_flights = 2},
        {.n_stages = 2, .n_blocks = 5, .max_draft = 8}, /* they take the blocks from each other */
        {.n_stages = 1, .max_draft = 4, .draft_blocks = 40},
        {.n_stages = 4, .n_slots = 2, .max_draft = 4, .draft_blocks = 12},
        {.n_stages = 3, .n_slots = 1, .n_blocks = 6, .max_draft = 2, .draft_blocks = 4},
    };
    static struct heard heard[N_REQUESTS];
    for (size_t r = 0; r < sizeof(rings) / sizeof(rings[0]); r++) {
        struct rig rig = rig_start(rings[r]);
        for (int i = 0; i < N_REQUESTS; i++) {
            heard_init(&heard[i]);
            submit(rig.engine, i, &heard[i]);
        }
        for (int i = 0; i < N_REQUESTS; i++) {
            wait_end(&heard[i]);
            assert_as_alone(&heard[i], i);
        }
        struct engine_stats stats;
        engine_stats(rig.engine, &stats);
        assert_int_equal(stats.requests, N_REQUESTS);
        assert_true(stats.steps > 0 && stats.output_tokens > 0);
        assert_all_free(rig.engine);
        rig_stop(&rig);
    }
}

/* Several threads submit and cancel at the same time. */
struct client {
    struct rig *rig;
    int first;
    pthread_t thread;
};

enum { N_CLIENTS = 4, PER_CLIENT = N_REQUESTS / N_CLIENTS };

static void *client_main(void *context)
{
    struct client *c = context;
    struct heard heard[PER_CLIENT], cancelled;
    for (int i = 0; i < PER_CLIENT; i++) {
        heard_init(&heard[i]);
        heard_init(&cancelled);
        submit(c->rig->engine, c->first + i, &heard[i]);
        engine_cancel(c->rig->engine, submit(c->rig->engine, 5, &cancelled));
        enum finish_reason finish = wait_end(&cancelled);
        assert_true(finish == FINISH_CANCELLED || finish == FINISH_LENGTH);
    }
    for (int i = 0; i < PER_CLIENT; i++) {
        wait_end(&heard[i]);
        assert_as_alone(&heard[i], c->first + i);
    }
    return NULL;
}

static void many_threads_at_once(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 2, .n_slots = 5});
    struct client clients[N_CLIENTS];
    for (int i = 0; i < N_CLIENTS; i++) {
        clients[i] = (struct client){.rig = &rig, .first = i * PER_CLIENT};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    for (int i = 0; i < N_CLIENTS; i++)
        pthread_join(clients[i].thread, NULL);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* ---- what is computed once, or again ---- */

static struct request_options plain(int32_t *prompt, int n_prompt, int max_tokens, struct heard *h)
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

static uint64_t submit_options(struct engine *g, const struct request_options *o)
{
    struct error e = {.text = ""};
    uint64_t id;
    if (engine_submit(g, o, &id, &e) != OK)
        fail_msg("%s", e.text);
    return id;
}

static void a_prompt_is_computed_once(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 2});
    struct heard heard[4];
    int32_t prompt[CONTEXT];
    for (int i = 0; i < 4; i++) {
        heard_init(&heard[i]);
        struct request_options o = plain(prompt, 100, 3, &heard[i]);
        submit_options(rig.engine, &o);
        wait_end(&heard[i]);
        assert_int_equal(heard[i].timings.n_cached, i == 0 ? 0 : 96); /* whole blocks */
        assert_memory_equal(heard[i].tokens, heard[0].tokens, 3 * sizeof(heard[0].tokens[0]));
    }
    struct engine_stats stats;
    engine_stats(rig.engine, &stats);
    assert_int_equal(stats.cached_tokens, 3 * 96);
    assert_int_equal(stats.started_tokens, 400);
    assert_true(stats.rows <= 100 + 3 * 4 + 4 * 2);
    assert_int_equal(stats.prompt_rows, 100 + 3 * 4); /* the rest are of tokens after the first */
    assert_int_equal(stats.rows - stats.prompt_rows, 4 * 2);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* All kinds of time are seen sooner or later: on a busy machine a request may be there before the
 * engine had a moment without any. */
static void the_engine_says_where_its_time_went(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 2, .pass_us = 500});
    struct heard heard;
    int32_t prompt[CONTEXT];
    heard_init(&heard);
    struct request_options o = plain(prompt, 20, 8, &heard);
    submit_options(rig.engine, &o);
    wait_end(&heard);
    struct engine_stats stats = {0};
    time_us until = clock_now_us() + 20 * 1000 * 1000;
    while (stats.wait_us == 0 || stats.idle_us == 0 || stats.other_us == 0) {
        assert_true(clock_now_us() < until);
        clock_sleep_us(1000);
        engine_stats(rig.engine, &stats);
    }
    rig_stop(&rig);
}

/* Prompts of several windows and answers of several more, in pools that hold fewer positions than
 * one of them has: on every ring the tokens of one long sequence after the other, all blocks
 * kept. */
static void windows_go_over_small_pools(void **state)
{
    (void)state;
    enum { N = 10, WINDOW = 20 };
    static const struct rig_options rings[] = {
        {.n_stages = 1, .max_rows = 1, .n_slots = 1, .window = WINDOW}, /* the others' measure */
        {.n_stages = 1, .n_blocks = 3, .window = WINDOW},
        {.n_stages = 1, .n_blocks = 5, .n_flights = 3, .max_rows = 7, .window = WINDOW},
        {.n_stages = 2, .n_blocks = 4, .max_draft = 8, .window = WINDOW},
        {.n_stages = 3, .n_blocks = 6, .n_slots = 3, .max_draft = 4, .window = WINDOW},
        {.n_stages = 4, .n_blocks = 7, .n_flights = 5, .max_draft = 8, .window = WINDOW},
        {.n_stages = 2}, /* without a window: others */
    };
    enum { N_RINGS = sizeof(rings) / sizeof(rings[0]) };
    static struct heard heard[N_RINGS][N];
    static const struct logit_bias few[] = {{.token = 3, .bias = 3}, {.token = 9, .bias = 3}};
    for (size_t r = 0; r < N_RINGS; r++) {
        struct rig rig = rig_start(rings[r]);
        int n_different = 0;
        for (int i = 0; i < N; i++) {
            int32_t prompt[CONTEXT];
            heard_init(&heard[r][i]);
            struct request_options o = plain(prompt, 45 + 3 * (i % 4), 65, &heard[r][i]);
            prompt[i % 3] = i % 2; /* some begin alike */
            o.sampling.temperature = i % 2 == 0 ? 0 : 1;
            o.sampling.seed = (uint64_t)i;
            if (i % 3 == 0) {
                o.sampling.logit_bias = few;
                o.sampling.n_logit_bias = 2;
            }
            submit_options(rig.engine, &o);
        }
        for (int i = 0; i < N; i++) {
            assert_int_equal(wait_end(&heard[r][i]), FINISH_LENGTH);
            assert_int_equal(heard[r][i].n_tokens, 65);
            n_different +=
                memcmp(heard[r][i].tokens, heard[0][i].tokens, 65 * sizeof(int32_t)) != 0;
        }
        if (rings[r].window > 0)
            assert_int_equal(n_different, 0);
        else
            assert_true(n_different > N / 2);
        assert_all_free(rig.engine);
        rig_stop(&rig);
    }
}

/* A stream that repeats itself takes fewer steps than it has tokens, and has the same tokens. */
static void guessing_ahead_saves_steps(void **state)
{
    (void)state;
    static const struct logit_bias few[] = {{.token = 3, .bias = 100}, {.token = 9, .bias = 99.5f}};
    struct heard heard[2];
    uint64_t steps[2];
    for (int draft = 0; draft < 2; draft++) {
        /* Steps that take a while, whatever is in them: rows are seen to be cheap. */
        struct rig rig =
            rig_start((struct rig_options){.n_stages = 1, .max_draft = 8 * draft, .pass_us = 1500});
        int32_t prompt[CONTEXT];
        heard_init(&heard[draft]);
        struct request_options o = plain(prompt, 10, 100, &heard[draft]);
        o.sampling.logit_bias = few;
        o.sampling.n_logit_bias = 2;
        submit_options(rig.engine, &o);
        wait_end(&heard[draft]);
        assert_int_equal(heard[draft].n_tokens, 100);
        struct engine_stats stats;
        engine_stats(rig.engine, &stats);
        steps[draft] = stats.steps;
        assert_int_equal(heard[draft].timings.n_guessed[GUESS_LOOKUP] > 0, draft);
        assert_int_equal(stats.right[GUESS_LOOKUP], heard[draft].timings.n_right[GUESS_LOOKUP]);
        rig_stop(&rig);
    }
    assert_memory_equal(heard[0].tokens, heard[1].tokens, 100 * sizeof(heard[0].tokens[0]));
    assert_int_equal(steps[0], 100);
    assert_true(steps[1] < 80);
}

/* Microseconds that 60 tokens of one stream take on three stages of 3 ms and a lead. */
static time_us time_of_one_stream(struct rig_options o, struct heard *h, struct engine_stats *stats)
{
    int32_t prompt[CONTEXT];
    o.n_stages = 4;
    o.pass_us = 3000;
    struct rig rig = rig_start(o);
    heard_init(h);
    struct request_options request = plain(prompt, 10, 60, h);
    submit_options(rig.engine, &request);
    assert_int_equal(wait_end(h), FINISH_LENGTH);
    engine_stats(rig.engine, stats);
    rig_stop(&rig);
    return h->timings.decode_us;
}

/* Going by the times that it sees itself, the engine sends further guesses while the first are on
 * their way, where a draft model knows them; the stream has its tokens sooner. */
static void one_stream_keeps_all_stages_at_work(void **state)
{
    (void)state;
    static struct heard plain_one, one, several;
    struct engine_stats stats;
    time_us plain_us = time_of_one_stream((struct rig_options){.n_flights = 5}, &plain_one, &stats);
    struct rig_options o = {.max_draft = 2, .draft_blocks = 20, .n_flights = 1};
    time_us one_us = time_of_one_stream(o, &one, &stats);
    assert_int_equal(stats.shares_ahead, 0);
    o.n_flights = 5;
    time_us several_us = time_of_one_stream(o, &several, &stats);
    assert_true(stats.shares_ahead > 5);
    assert_memory_equal(one.tokens, plain_one.tokens, 60 * sizeof(int32_t));
    assert_memory_equal(several.tokens, plain_one.tokens, 60 * sizeof(int32_t));
    print_message("one stream: %lld us without guesses, %lld with one step at a time, %lld with "
                  "several\n",
                  (long long)plain_us, (long long)one_us, (long long)several_us);
    assert_true(several_us < plain_us); /* which of the others is faster: sim_test, without noise */
}

/* ---- a crowd ---- */

enum { N_CROWD = 500 };

/* 500 requests at once against 6 blocks: each is answered, or refused at the door; the order in
 * which the answers begin is that of arrival. */
static void a_crowd_is_answered_or_refused(void **state)
{
    (void)state;
    static struct heard heard[N_CROWD];
    struct rig rig = rig_start((struct rig_options){
        .n_stages = 3, .n_blocks = 6, .n_slots = 6, .max_queued = 300, .max_draft = 4});
    bool refused[N_CROWD];
    int n_refused = 0;
    for (int i = 0; i < N_CROWD; i++) {
        int32_t prompt[64];
        heard_init(&heard[i]);
        struct request_options o = request_of(i % N_REQUESTS, prompt, &heard[i]);
        uint64_t id;
        struct error e;
        enum err err = engine_submit(rig.engine, &o, &id, &e);
        assert_true(err == OK || err == ERR_FULL);
        refused[i] = err != OK;
        n_refused += refused[i];
    }
    time_us longest = 0;
    for (int i = 0; i < N_CROWD; i++) {
        if (refused[i]) {
            assert_int_equal(heard[i].n_last, 0);
            continue;
        }
        wait_end(&heard[i]);
        assert_as_alone(&heard[i], i % N_REQUESTS);
        /* Nobody is overtaken by more than those who run beside it. */
        assert_true(heard[i].timings.queued_us >= longest - 2000000);
        longest = heard[i].timings.queued_us > longest ? heard[i].timings.queued_us : longest;
    }
    assert_in_range(n_refused, 1, N_CROWD - 306);
    struct engine_stats stats;
    engine_stats(rig.engine, &stats);
    assert_int_equal(stats.refused, n_refused);
    assert_int_equal(stats.requests, N_CROWD - n_refused);
    assert_int_equal(stats.ended[FINISH_LENGTH], N_CROWD - n_refused);
    assert_int_equal(stats.whole.n, N_CROWD - n_refused);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* Six long answers in the memory of two: they take turns, and lose nothing by it. */
static void who_gives_way_loses_no_token(void **state)
{
    (void)state;
    enum { N = 6, TOKENS = 70 };
    static struct heard heard[2][N];
    for (int small = 0; small < 2; small++) {
        struct rig rig = rig_start((struct rig_options){
            .n_stages = 2, .n_blocks = small ? 10 : 60, .n_slots = N, .max_draft = 4});
        for (int i = 0; i < N; i++) {
            int32_t prompt[CONTEXT];
            heard_init(&heard[small][i]);
            struct request_options o = plain(prompt, 5 + i, TOKENS, &heard[small][i]);
            o.sampling.temperature = 1;
            o.sampling.seed = (uint64_t)i;
            submit_options(rig.engine, &o);
        }
        int n_preempted = 0;
        for (int i = 0; i < N; i++) {
            assert_int_equal(wait_end(&heard[small][i]), FINISH_LENGTH);
            assert_int_equal(heard[small][i].n_tokens, TOKENS);
            n_preempted += heard[small][i].timings.n_preempted;
        }
        assert_int_equal(n_preempted > 0, small);
        assert_int_equal(heard[small][0].timings.n_preempted, 0); /* the first never gives way */
        assert_all_free(rig.engine);
        rig_stop(&rig);
    }
    for (int i = 0; i < N; i++)
        assert_memory_equal(heard[0][i].tokens, heard[1][i].tokens, TOKENS * sizeof(int32_t));
}

static void priorities_and_deadlines(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 1, .n_slots = 1, .pass_us = 6000});
    struct heard slow, late, urgent, overdue;
    int32_t prompt[CONTEXT];
    heard_init(&slow);
    heard_init(&late);
    heard_init(&urgent);
    heard_init(&overdue);
    struct request_options o = plain(prompt, 5, 60, &slow);
    submit_options(rig.engine, &o);
    wait_tokens(&slow, 1);
    o = plain(prompt, 6, 60, &late);
    o.deadline_us = 30000;
    submit_options(rig.engine, &o); /* waits behind the first until it is too late */
    o = plain(prompt, 7, 5, &urgent);
    o.priority = 1;
    submit_options(rig.engine, &o); /* takes the slot of the first */
    assert_int_equal(wait_end(&urgent), FINISH_LENGTH);
    assert_int_equal(slow.finish, FINISH_NONE);
    assert_int_equal(wait_end(&late), FINISH_ERROR);
    assert_int_equal(late.error.code, ERR_TIMEOUT);
    assert_non_null(strstr(late.error.text, "30 ms"));
    assert_int_equal(late.n_tokens, 0);
    assert_int_equal(wait_end(&slow), FINISH_LENGTH);
    assert_int_equal(slow.n_tokens, 60);
    assert_int_equal(slow.timings.n_preempted, 1);
    assert_true(slow.timings.stalled_us > 0);
    o = plain(prompt, 5, -1, &overdue);
    o.deadline_us = 100000;
    submit_options(rig.engine, &o); /* runs, but not that long */
    assert_int_equal(wait_end(&overdue), FINISH_ERROR);
    assert_in_range(overdue.n_tokens, 1, 60);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* ---- limits ---- */

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 1, .n_blocks = 4});
    struct heard h;
    heard_init(&h);
    int32_t prompt[CONTEXT + 1] = {0};
    struct request_options good = request_of(1, prompt, &h), o;
    uint64_t id;
    struct error e;
    o = good, o.n_prompt = 0;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    o = good, o.max_tokens = -2;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    o = good, o.sampling.top_p = 1.5f;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "top_p"));
    o = good, o.n_stop = 1, o.stop = (const char *const[]){"x"}; /* without a tokenizer */
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    prompt[0] = SIM_VOCAB;
    assert_int_equal(engine_submit(rig.engine, &good, &id, &e), ERR_INVALID);
    prompt[0] = 0;
    o = good, o.n_prompt = CONTEXT + 1;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "129"));
    o = good, o.n_prompt = 65; /* 4 blocks hold 64 */
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "65"));
    assert_int_equal(h.n_last, 0);
    rig_stop(&rig);
}

static void the_context_ends_a_request(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 1});
    struct heard h;
    int32_t prompt[CONTEXT] = {0};
    uint64_t id;
    struct error e;
    static const struct {
        int n_prompt, max_tokens, expected;
    } cases[] = {{100, -1, 28}, {100, 50, 28}, {100, 20, 20}, {127, 5, 1}, {128, 5, 0}, {9, 0, 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        heard_init(&h);
        struct request_options o = request_of(0, prompt, &h);
        o.n_prompt = cases[i].n_prompt;
        o.max_tokens = cases[i].max_tokens;
        assert_int_equal(engine_submit(rig.engine, &o, &id, &e), OK);
        assert_int_equal(wait_end(&h), FINISH_LENGTH);
        assert_int_equal(h.n_tokens, cases[i].expected);
    }
    rig_stop(&rig);
}

static void a_full_house_says_so(void **state)
{
    (void)state;
    struct rig rig = rig_start(
        (struct rig_options){.n_stages = 1, .n_slots = 1, .max_queued = 2, .pass_us = 60000});
    struct heard heard[4];
    uint64_t ids[3];
    for (int i = 0; i < 4; i++)
        heard_init(&heard[i]);
    for (int i = 0; i < 3; i++)
        ids[i] = submit(rig.engine, 5, &heard[i]);
    int32_t prompt[64];
    struct request_options o = request_of(5, prompt, &heard[3]);
    uint64_t id;
    struct error e;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_FULL);
    engine_cancel(rig.engine, ids[1]); /* waits for a slot */
    assert_int_equal(wait_end(&heard[1]), FINISH_CANCELLED);
    assert_int_equal(heard[1].n_tokens, 0);
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), OK);
    engine_cancel(rig.engine, 999); /* nobody */
    engine_free(rig.engine);
    int n_cancelled = 0;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heard[i].n_last, 1);
        n_cancelled += heard[i].finish == FINISH_CANCELLED;
    }
    assert_in_range(n_cancelled, 3, 4);
    sim_ring_stop(rig.ring);
}

static void cancelled_from_its_own_event(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 3});
    struct heard h, other;
    heard_init(&h);
    heard_init(&other);
    h.engine = rig.engine;
    h.cancel_after = 3;
    pthread_mutex_lock(&h.lock); /* the id must be known before the event needs it */
    h.id = submit(rig.engine, 11, &h);
    pthread_mutex_unlock(&h.lock);
    submit(rig.engine, 10, &other);
    assert_int_equal(wait_end(&h), FINISH_CANCELLED);
    assert_in_range(h.n_tokens, 3, 4);
    assert_memory_equal(h.tokens, alone[11].tokens, 3 * sizeof(h.tokens[0]));
    wait_end(&other);
    assert_as_alone(&other, 10);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* ---- the end of the ring ---- */

static void a_dead_node_ends_every_request(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 3, .n_slots = 2, .pass_us = 3000});
    struct heard heard[4];
    for (int i = 0; i < 4; i++) {
        heard_init(&heard[i]);
        submit(rig.engine, 11, &heard[i]);
    }
    wait_tokens(&heard[0], 2);
    struct error e;
    assert_false(engine_failure(rig.engine, &e));
    sim_ring_kill(rig.ring, 1);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(wait_end(&heard[i]), FINISH_ERROR);
        assert_int_equal(heard[i].n_last, 1);
        assert_int_equal(heard[i].error.code, ERR_CLOSED);
    }
    assert_true(engine_failure(rig.engine, &e));
    assert_string_equal(e.text, heard[0].error.text);
    int32_t prompt[64];
    struct request_options o = request_of(1, prompt, &heard[0]);
    uint64_t id;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_CLOSED);
    rig_stop(&rig);
}

static void a_dead_node_is_noticed_when_idle(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 2});
    struct error e = {.text = ""};
    sim_ring_kill(rig.ring, 0);
    for (int i = 0; i < 500 && !engine_failure(rig.engine, &e); i++)
        clock_sleep_us(10000);
    assert_int_equal(e.code, ERR_CLOSED);
    rig_stop(&rig);
}

/* ---- text ---- */

enum { ID_BOS = 1, ID_EOS = 2, N_PIECES = 60 }; /* fewer than the model's 64: padded */

/* Words, letters, and the four bytes of an emoji one by one. */
static struct tokenizer *small_tokenizer(void)
{
    static float scores[N_PIECES];
    static uint8_t types[N_PIECES];
    struct tokenizer_vocab v = {.kind = VOCAB_SPM,
                                .space = VOCAB_SPACE_EVERY,
                                .scores = scores,
                                .types = types,
                                .bos = ID_BOS,
                                .eos = ID_EOS,
                                .eot = TOKEN_NONE,
                                .unknown = 0};
    for (int i = 0; i < N_PIECES; i++) {
        static const char *const special[] = {"<unk>",  "<s>",    "</s>",  "<0xF0>",
                                              "<0x9F>", "<0x98>", "<0x80>"};
        char piece[16];
        if (i < 7)
            snprintf(piece, sizeof(piece), "%s", special[i]);
        else
            snprintf(piece, sizeof(piece), "%s%c%c", i % 3 == 0 ? "▁" : "", 'a' + i % 26,
                     'a' + i / 26 * 7);
        types[i] = i == 0  ? VOCAB_UNKNOWN
                   : i < 3 ? VOCAB_CONTROL
                   : i < 7 ? VOCAB_BYTE
                           : VOCAB_NORMAL;
        assert_int_equal(string_table_append(&v.tokens, piece, strlen(piece), NULL), OK);
    }
    struct tokenizer *t;
    struct error e = {.text = ""};
    if (tokenizer_new_vocab(&v, &t, &e) != OK)
        fail_msg("%s", e.text);
    string_table_release(&v.tokens);
    return t;
}

/* Run one request of 30 tokens with changes made by `change`; what was heard. */
static void run_text(const struct tokenizer *t, const char *const *stops, int n_stop, int variant,
                     struct heard *h)
{
    struct rig rig = rig_start((struct rig_options){.n_stages = 2, .tokenizer = t});
    int32_t prompt[64];
    heard_init(h);
    struct request_options o = request_of(variant, prompt, h);
    o.max_tokens = 40;
    o.stop = stops;
    o.n_stop = n_stop;
    uint64_t id;
    struct error e = {.text = ""};
    if (engine_submit(rig.engine, &o, &id, &e) != OK)
        fail_msg("%s", e.text);
    wait_end(h);
    rig_stop(&rig);
}

/* Where each token's text stands: spans follow each other, and hold what the token says. */
static void assert_spans(const struct tokenizer *t, const struct heard *h)
{
    size_t at = 0;
    for (int i = 0; i < h->n_tokens; i++) {
        const struct text_span *s = &h->spans[i];
        assert_true(s->begin == at || s->begin + 1 == at); /* there the one before ended inside */
        size_t counted = 0, bytes;
        for (size_t k = 0; k < s->begin; k++)
            counted += ((unsigned char)h->text[k] & 0xC0) != 0x80;
        assert_int_equal(s->characters, counted);
        const char *piece =
            h->tokens[i] < N_PIECES ? tokenizer_piece(t, (uint32_t)h->tokens[i], &bytes) : NULL;
        if (h->tokens[i] >= 7 && piece != NULL && s->end - s->begin == bytes)
            assert_memory_equal(h->text + s->begin, piece, bytes);
        if (h->tokens[i] >= 7 && piece != NULL) /* behind a broken character stands its U+FFFD */
            assert_true(s->end - s->begin == bytes || s->end - s->begin == bytes + 3);
        at = s->end;
    }
}

static void text_is_that_of_the_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    for (int variant = 0; variant < 6; variant++) {
        struct heard h;
        run_text(t, NULL, 0, variant, &h);
        assert_int_equal(h.finish, FINISH_LENGTH);
        assert_spans(t, &h);
        int32_t prompt[64];
        struct request_options o = request_of(variant, prompt, &h);
        uint32_t ids[CONTEXT];
        size_t n = 0;
        for (int i = 0; i < o.n_prompt; i++) /* ids beyond the tokenizer have no text */
            if (prompt[i] < N_PIECES)
                ids[n++] = (uint32_t)prompt[i];
        struct strbuf before, all;
        strbuf_init(&before, 10000);
        strbuf_init(&all, 10000);
        assert_int_equal(tokenizer_decode(t, ids, n, TOKENIZER_SKIP_SPECIAL, &before, NULL), OK);
        for (int i = 0; i < h.n_tokens; i++)
            if (h.tokens[i] < N_PIECES)
                ids[n++] = (uint32_t)h.tokens[i];
        assert_int_equal(tokenizer_decode(t, ids, n, TOKENIZER_SKIP_SPECIAL, &all, NULL), OK);
        /* The prompt's own text may end in an unfinished character, shown as U+FFFD. */
        assert_true(h.text_bytes > 10 && h.text_bytes <= all.bytes);
        assert_memory_equal(h.text, all.data + all.bytes - h.text_bytes, h.text_bytes);
        if (before.bytes + h.text_bytes != all.bytes)
            assert_true(before.bytes + h.text_bytes <= all.bytes + 3);
        strbuf_release(&before);
        strbuf_release(&all);
    }
    tokenizer_close(t);
}

static void stop_strings_across_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    struct heard whole, cut;
    run_text(t, NULL, 0, 0, &whole);
    int n_cut = 0;
    for (size_t at = 0; at + 7 < whole.text_bytes; at += 5) {
        if (((unsigned char)whole.text[at] & 0xC0) == 0x80)
            continue; /* a stop string begins with a whole character */
        char stop[8] = "";
        memcpy(stop, whole.text + at, 7); /* longer than any piece: spans tokens */
        if (memchr(stop, 0, 7) != NULL)
            continue;
        run_text(t, (const char *const[]){"never~seen", stop}, 2, 0, &cut);
        assert_int_equal(cut.finish, FINISH_STOP);
        assert_string_equal(cut.stop, stop);
        const char *first = memmem(whole.text, whole.text_bytes, stop, 7);
        assert_int_equal(cut.text_bytes, first - whole.text);
        assert_memory_equal(cut.text, whole.text, cut.text_bytes);
        assert_memory_equal(cut.tokens, whole.tokens, (size_t)cut.n_tokens * sizeof(int32_t));
        n_cut++;
    }
    assert_true(n_cut >= 4);
    tokenizer_close(t);
}

static void end_tokens_end_unless_ignored(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    struct rig rig = rig_start((struct rig_options){.n_stages = 1, .tokenizer = t});
    const struct logit_bias favour = {.token = ID_EOS, .bias = 100};
    for (int ignore = 0; ignore <= 1; ignore++) {
        for (int special = 0; special <= 1; special++) {
            struct heard h;
            heard_init(&h);
            int32_t prompt[64];
            struct request_options o = request_of(0, prompt, &h);
            prompt[0] = 10; /* a whole word */
            o.max_tokens = 3;
            o.sampling.logit_bias = &favour;
            o.sampling.n_logit_bias = 1;
            o.ignore_eos = ignore != 0;
            o.special_text = special != 0;
            uint64_t id;
            assert_int_equal(engine_submit(rig.engine, &o, &id, NULL), OK);
            wait_end(&h);
            assert_int_equal(h.finish, ignore ? FINISH_LENGTH : FINISH_STOP);
            assert_int_equal(h.n_tokens, ignore ? 3 : 1);
            assert_int_equal(h.tokens[0], ID_EOS);
            assert_int_equal(h.text_bytes, ignore && special ? 12 : 0); /* "</s></s></s>" */
            assert_string_equal(h.stop, "");
        }
    }
    rig_stop(&rig);
    tokenizer_close(t);
}

/* ---- prompts that are too long ---- */

enum { LONG = 300 };

/* Run a prompt with these limits and the same one as it should be cut: both get the same tokens. */
static void assert_cut(struct rig *rig, const int32_t *prompt, struct request_options limits,
                       const int32_t *cut, int n_cut)
{
    struct heard h[2];
    for (int i = 0; i < 2; i++) {
        struct request_options o = i == 0 ? limits : (struct request_options){0};
        uint64_t id;
        struct error e = {.text = ""};
        heard_init(&h[i]);
        o.prompt = i == 0 ? prompt : cut;
        o.n_prompt = i == 0 ? LONG : n_cut;
        o.max_tokens = limits.max_tokens;
        o.sampling = SAMPLING_GREEDY;
        o.ignore_eos = true;
        o.on_event = hear;
        o.context = &h[i];
        if (engine_submit(rig->engine, &o, &id, &e) != OK)
            fail_msg("%s", e.text);
        wait_end(&h[i]);
    }
    assert_int_equal(h[0].timings.n_prompt, n_cut);
    assert_int_equal(h[0].timings.n_truncated, LONG - n_cut);
    assert_int_equal(h[1].timings.n_truncated, 0);
    assert_true(h[0].n_tokens > 0);
    assert_int_equal(h[0].n_tokens, h[1].n_tokens);
    assert_memory_equal(h[0].tokens, h[1].tokens, (size_t)h[0].n_tokens * sizeof(int32_t));
    assert_int_equal(h[0].text_bytes, h[1].text_bytes);
    assert_memory_equal(h[0].text, h[1].text, h[0].text_bytes);
}

static void a_prompt_is_cut_to_fit(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    struct rig rig = rig_start((struct rig_options){.n_stages = 2, .tokenizer = t});
    struct rig small = rig_start((struct rig_options){.n_stages = 1, .n_blocks = 4});
    int32_t prompt[LONG], cut[CONTEXT];
    for (int i = 0; i < LONG; i++)
        prompt[i] = (i * i + 11) % 50 + 7;
    const int32_t *end = prompt + LONG;
    assert_cut(&rig, prompt, (struct request_options){.truncate = true, .max_tokens = 20},
               end - (CONTEXT - 20), CONTEXT - 20);
    assert_cut(&rig, prompt, (struct request_options){.truncate = true, .max_tokens = -1},
               end - (CONTEXT - 1), CONTEXT - 1);
    assert_cut(&rig, prompt, (struct request_options){.truncate_to = 5, .max_tokens = 9}, end - 5,
               5);
    assert_cut(&rig, prompt,
               (struct request_options){.truncate = true, .truncate_to = 200, .max_tokens = 100},
               end - (CONTEXT - 100), CONTEXT - 100);
    /* All blocks together hold 64 tokens. Without a tokenizer no token is BOS. */
    prompt[0] = ID_BOS;
    assert_cut(&small, prompt, (struct request_options){.truncate = true, .max_tokens = 4},
               end - 60, 60);
    memcpy(cut, end - 40, 40 * sizeof cut[0]);
    cut[0] = ID_BOS; /* it stays in front */
    assert_cut(&rig, prompt, (struct request_options){.truncate_to = 40, .max_tokens = 9}, cut, 40);
    assert_cut(&rig, prompt, (struct request_options){.truncate_to = 1, .max_tokens = 9}, end - 1,
               1);

    struct request_options o = {.prompt = prompt, .n_prompt = LONG, .max_tokens = 1};
    struct error e;
    uint64_t id;
    o.sampling = SAMPLING_GREEDY;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "300 tokens"));
    assert_non_null(strstr(e.text, "only 128"));
    o.truncate_to = 200; /* still too long */
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "200 tokens"));
    o.truncate = true;
    o.max_tokens = CONTEXT;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "max_tokens of 128"));
    o.truncate_to = -1;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    rig_stop(&rig);
    rig_stop(&small);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_do_not_depend_on_the_ring),
        cmocka_unit_test(windows_go_over_small_pools),
        cmocka_unit_test(many_threads_at_once),
        cmocka_unit_test(a_prompt_is_computed_once),
        cmocka_unit_test(the_engine_says_where_its_time_went),
        cmocka_unit_test(guessing_ahead_saves_steps),
        cmocka_unit_test(one_stream_keeps_all_stages_at_work),
        cmocka_unit_test(a_crowd_is_answered_or_refused),
        cmocka_unit_test(who_gives_way_loses_no_token),
        cmocka_unit_test(priorities_and_deadlines),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(the_context_ends_a_request),
        cmocka_unit_test(a_full_house_says_so),
        cmocka_unit_test(cancelled_from_its_own_event),
        cmocka_unit_test(a_dead_node_ends_every_request),
        cmocka_unit_test(a_dead_node_is_noticed_when_idle),
        cmocka_unit_test(text_is_that_of_the_tokens),
        cmocka_unit_test(stop_strings_across_tokens),
        cmocka_unit_test(end_tokens_end_unless_ignored),
        cmocka_unit_test(a_prompt_is_cut_to_fit),
    };
    return cmocka_run_group_tests(tests, compute_alone, NULL);
}
