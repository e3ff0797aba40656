/* The engine's shell: one thread around the pure schedule (schedule.c) and the life of requests
 * (request.c). It takes messages, keeps the flights full, collects finished steps and samples.
 *
 *   other threads ──messages──▶ engine thread ──▶ schedule_next ──▶ pipeline_submit
 *        ▲                            ▲                                    │
 *        └──────── on_event ─ sampler_choose ◀── schedule_returned ◀── pipeline_collect
 *
 * A message is a request handed over, or just "look": cancelling and stopping set flags under the
 * lock and wake the thread. There is room in the queue for all of them, so nobody ever waits. */
#include "engine/engine.h"

#include "base/log.h"
#include "base/panic.h"
#include "base/queue.h"
#include "engine/request_impl.h"
#include "engine/schedule.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    IDLE_LOOK_US = 500 * 1000,  /* when idle, ring and accounts are looked at this often */
    WAIT_FREE_FLIGHT_US = 1000, /* collecting, while a new request could start at once */
    WAIT_FULL_US = 20 * 1000,   /* collecting, while nothing could */
};

struct engine {
    struct engine_options options;
    struct queue *messages; /* struct request *, or the engine itself: look at the flags */
    pthread_t thread;

    pthread_mutex_t lock;  /* guards what follows, up to the thread's own */
    struct request **live; /* accepted and not ended, [max_live] */
    int n_live, max_live;
    uint64_t next_id;
    bool looked_for;           /* the engine itself is in the queue */
    bool stopping;             /* engine_free was called */
    bool closed;               /* nothing is accepted any more */
    struct error failure;      /* code OK while none */
    struct engine_stats stats; /* as the thread published them last, but for the next two */
    uint64_t n_refused, n_prompt_tokens;

    /* The thread's own. */
    struct engine_stats counts; /* what stats will be */
    time_us began_us;
    time_us next_deadline_us; /* of those that live, at the earliest; 0: none */
    struct schedule *schedule;
    int n_flights;
    struct request **by_sequence; /* [max_live] */
    struct sampler_scratch *scratch;
};

static void *engine_main(void *context);

/* ---- life ---- */

static void release(struct engine *g)
{
    schedule_free(g->schedule);
    sampler_scratch_free(g->scratch);
    queue_free(g->messages);
    free(g->live);
    free(g->by_sequence);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static void build_schedule(struct engine *g)
{
    const struct engine_options *o = &g->options;
    int n_stages = pipeline_n_stages(o->pipeline);
    /* One stage has nothing to overlap: a second flight would only halve its batches. */
    g->n_flights = o->n_flights > 0 ? o->n_flights : n_stages == 1 ? 1 : n_stages + 1;
    g->schedule = schedule_new(&(struct schedule_options){.max_context = o->max_context,
                                                          .window = o->window,
                                                          .n_blocks = o->n_blocks,
                                                          .n_slots = o->n_slots,
                                                          .max_rows = o->max_rows,
                                                          .n_flights = g->n_flights,
                                                          .fit_flights = o->n_flights <= 0,
                                                          .n_stages = n_stages,
                                                          .max_sequences = g->max_live,
                                                          .max_draft = o->max_draft,
                                                          .max_itl_us = o->max_itl_us,
                                                          .max_stretch = o->max_stretch,
                                                          .cache_key = o->cache_key,
                                                          .no_reuse = o->no_reuse});
    g->counts = (struct engine_stats){
        .blocks_total = o->n_blocks, .n_slots = o->n_slots, .n_flights = g->n_flights};
    g->stats = g->counts;
}

enum err engine_new(const struct engine_options *o, struct engine **out, struct error *e)
{
    ASSERT(o->pipeline != NULL && o->vocab >= 1 && o->max_queued >= 0 && o->n_slots >= 1);
    *out = NULL;
    struct engine *g = xcalloc(1, sizeof(*g));
    g->options = *o;
    g->max_live = o->n_slots + o->max_queued;
    g->live = xcalloc((size_t)g->max_live, sizeof(struct request *));
    g->by_sequence = xcalloc((size_t)g->max_live, sizeof(struct request *));
    g->messages = queue_new(g->max_live + 1);
    g->scratch = sampler_scratch_new(o->vocab);
    pthread_mutex_init(&g->lock, NULL);
    build_schedule(g);
    g->began_us = clock_now_us();
    int failed = pthread_create(&g->thread, NULL, engine_main, g);
    if (failed != 0) {
        release(g);
        return error_errno(e, ERR_MEMORY, failed, "cannot start the engine's thread");
    }
    *out = g;
    return OK;
}

/* Make the thread look at its flags. The lock is held. */
static void wake(struct engine *g)
{
    if (g->looked_for)
        return;
    g->looked_for = true;
    enum err err = queue_try_push(g->messages, g);
    ASSERT(err == OK);
}

void engine_free(struct engine *g)
{
    if (g == NULL)
        return;
    pthread_mutex_lock(&g->lock);
    g->stopping = true;
    wake(g);
    pthread_mutex_unlock(&g->lock);
    pthread_join(g->thread, NULL);
    release(g);
}

/* ---- what other threads call ---- */

/* Enter a checked request into the books, or say why not. The lock is held. */
static enum err accept(struct engine *g, struct request *r, struct error *e)
{
    if (g->failure.code != OK)
        return error_set(e, ERR_CLOSED, "the engine has stopped: %s", g->failure.text);
    if (g->stopping || g->closed)
        return error_set(e, ERR_CLOSED, "the engine is stopping");
    if (g->n_live == g->max_live) {
        g->n_refused++;
        return error_set(e, ERR_FULL, "%d requests run or wait already", g->n_live);
    }
    r->id = ++g->next_id;
    g->live[g->n_live++] = r;
    g->n_prompt_tokens += (uint64_t)r->n_prompt;
    enum err err = queue_try_push(g->messages, r);
    ASSERT(err == OK); /* one place per live request, one for the engine */
    return OK;
}

/* How many tokens of its prompt a request wants to keep; more than it has where it says nothing. */
static enum err limit_prompt(const struct engine *g, const struct request_options *o, int *most,
                             struct error *e)
{
    int all = schedule_most(g->schedule), reserved = o->max_tokens >= 0 ? o->max_tokens : 1;
    *most = o->truncate_to > 0 ? o->truncate_to : INT_MAX;
    if (!o->truncate)
        return OK;
    if (reserved >= all)
        return error_set(e, ERR_INVALID,
                         "truncate: max_tokens of %d leave no room for a prompt, the context is %d "
                         "tokens long",
                         reserved, all);
    if (*most > all - reserved)
        *most = all - reserved;
    return OK;
}

enum err engine_submit(struct engine *g, const struct request_options *o, uint64_t *id,
                       struct error *e)
{
    struct request *r;
    int most_prompt;
    *id = 0;
    enum err err = limit_prompt(g, o, &most_prompt, e);
    if (err == OK)
        err = request_new(o, most_prompt, g->options.tokenizer, g->options.vocab, &r, e);
    if (err != OK)
        return err;
    err = schedule_room(g->schedule, r->n_prompt, o->max_tokens, &r->room, e); /* reads constants */
    if (err == OK) {
        r->submitted_us = clock_now_us();
        if (r->deadline_us > 0)
            r->deadline_at_us = r->submitted_us + r->deadline_us;
        pthread_mutex_lock(&g->lock);
        err = accept(g, r, e);
        if (err == OK)
            *id = r->id; /* before unlocking: r may be gone right after */
        pthread_mutex_unlock(&g->lock);
    }
    if (err != OK)
        request_free(r);
    return err;
}

void engine_cancel(struct engine *g, uint64_t id)
{
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < g->n_live; i++) {
        if (g->live[i]->id == id) {
            g->live[i]->cancelled = true;
            wake(g);
        }
    }
    pthread_mutex_unlock(&g->lock);
}

bool engine_failure(struct engine *g, struct error *reason)
{
    pthread_mutex_lock(&g->lock);
    bool failed = g->failure.code != OK;
    if (failed)
        *reason = g->failure;
    pthread_mutex_unlock(&g->lock);
    return failed;
}

void engine_stats(struct engine *g, struct engine_stats *out)
{
    pthread_mutex_lock(&g->lock);
    *out = g->stats;
    out->queued = g->n_live - g->stats.running;
    out->requests = g->next_id;
    out->refused = g->n_refused;
    out->prompt_tokens = g->n_prompt_tokens;
    pthread_mutex_unlock(&g->lock);
}

/* ---- the thread: the end of requests ---- */

/* What has been counted becomes visible to others: once a step, not once a token. */
static void publish(struct engine *g)
{
    struct engine_stats *c = &g->counts;
    struct schedule_counts counts;
    schedule_count(g->schedule, &counts);
    c->running = counts.running;
    c->in_flight = counts.in_flight;
    c->blocks_used = counts.blocks_used;
    c->blocks_idle = counts.blocks_idle;
    c->rows = counts.rows;
    c->prompt_rows = counts.prompt_rows;
    c->preempted = counts.preempted;
    c->cached_tokens = counts.cached_tokens;
    c->started_tokens = counts.prompt_tokens;
    memcpy(c->guessed, counts.guessed, sizeof(c->guessed));
    memcpy(c->right, counts.right, sizeof(c->right));
    c->shares_ahead = counts.shares_ahead;
    c->n_decode_flights = counts.n_decode_flights;
    c->way_us = counts.way_us;
    c->computed_us = counts.computed_us;
    struct pipeline_stats own;
    pipeline_stats(g->options.pipeline, &own);
    c->busy_us = own.busy_us;
    c->send_wait_us = own.send_wait_us;
    time_us known = c->busy_us + c->wait_us + c->idle_us, all = clock_now_us() - g->began_us;
    if (c->other_us < all - known) /* idle and waiting times come in when they are over */
        c->other_us = all - known;
    pthread_mutex_lock(&g->lock);
    g->stats = *c;
    pthread_mutex_unlock(&g->lock);
}

static void account_end(struct engine *g, const struct request *r, enum finish_reason finish,
                        time_us now)
{
    struct engine_stats *c = &g->counts;
    struct request_timings t;
    request_timings(r, now, &t);
    c->ended[finish]++;
    if (r->n_output == 0)
        return;
    histogram_add(&c->whole, now - r->submitted_us);
    histogram_add(&c->queue, t.queued_us);
    histogram_add(&c->prefill, t.prefill_us);
    histogram_add(&c->decode, t.decode_us);
}

/* The request leaves schedule and books, then hears its last event, and is gone. */
static void end_request(struct engine *g, struct request *r, enum finish_reason finish,
                        int32_t token, const char *stop, const struct error *error)
{
    time_us now = clock_now_us();
    schedule_clock(g->schedule, now);
    if (r->sequence >= 0) {
        schedule_account(g->schedule, r->sequence, &r->account);
        g->by_sequence[r->sequence] = NULL;
        schedule_end(g->schedule, r->sequence);
    }
    account_end(g, r, finish, now);
    pthread_mutex_lock(&g->lock);
    int i = 0;
    while (g->live[i] != r)
        i++;
    g->live[i] = g->live[--g->n_live];
    pthread_mutex_unlock(&g->lock);
    publish(g);
    request_finish(r, finish, token, stop, error, now);
    request_free(r);
}

/* ---- the thread: messages ---- */

static enum err add_sequence(struct engine *g, struct request *r, struct error *e)
{
    struct sequence_options o = {.prompt = r->prompt,
                                 .n_prompt = r->n_prompt,
                                 .room = r->room,
                                 .priority = r->priority,
                                 .no_draft = r->no_draft};
    r->added_us = clock_now_us();
    schedule_clock(g->schedule, r->added_us);
    return schedule_add(g->schedule, &o, &r->sequence, e);
}

/* A new request: into the schedule, unless it is over before it begins. */
static void start_request(struct engine *g, struct request *r)
{
    pthread_mutex_lock(&g->lock);
    bool cancelled = r->cancelled;
    pthread_mutex_unlock(&g->lock);
    struct error e;
    if (cancelled) {
        end_request(g, r, FINISH_CANCELLED, -1, NULL, NULL);
    } else if (r->room == 0) {
        end_request(g, r, FINISH_LENGTH, -1, NULL, NULL);
    } else if (add_sequence(g, r, &e) != OK) {
        end_request(g, r, FINISH_ERROR, -1, NULL, &e);
    } else {
        g->by_sequence[r->sequence] = r;
        free(r->prompt);
        r->prompt = NULL;
        if (r->deadline_at_us > 0 &&
            (g->next_deadline_us == 0 || r->deadline_at_us < g->next_deadline_us))
            g->next_deadline_us = r->deadline_at_us;
    }
}

/* A scheduled request whose cancellation was asked for; NULL when there is none left. */
static struct request *next_cancelled(struct engine *g)
{
    struct request *found = NULL;
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < g->n_live && found == NULL; i++)
        if (g->live[i]->cancelled && g->live[i]->sequence >= 0)
            found = g->live[i];
    pthread_mutex_unlock(&g->lock);
    return found;
}

/* Whose deadline has passed; NULL when there is none left, and then the next one is known. */
static struct request *next_overdue(struct engine *g, time_us now)
{
    struct request *found = NULL;
    time_us next = 0;
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < g->n_live && found == NULL; i++) {
        struct request *r = g->live[i];
        if (r->sequence < 0 || r->deadline_at_us == 0)
            continue;
        if (r->deadline_at_us <= now)
            found = r;
        else if (next == 0 || r->deadline_at_us < next)
            next = r->deadline_at_us;
    }
    pthread_mutex_unlock(&g->lock);
    if (found == NULL)
        g->next_deadline_us = next;
    return found;
}

static void end_overdue(struct engine *g)
{
    time_us now = clock_now_us();
    if (g->next_deadline_us == 0 || now < g->next_deadline_us)
        return;
    for (struct request *r; (r = next_overdue(g, now)) != NULL;) {
        struct error e;
        error_set(&e, ERR_TIMEOUT, "the deadline of %lld ms has passed after %d tokens",
                  (long long)(r->deadline_us / 1000), r->n_output);
        end_request(g, r, FINISH_ERROR, -1, NULL, &e);
    }
}

/* Heed the flags; true when the engine is to stop. */
static bool look(struct engine *g)
{
    pthread_mutex_lock(&g->lock);
    g->looked_for = false;
    bool stopping = g->stopping;
    pthread_mutex_unlock(&g->lock);
    struct request *r;
    while (!stopping && (r = next_cancelled(g)) != NULL)
        end_request(g, r, FINISH_CANCELLED, -1, NULL, NULL);
    return stopping;
}

/* How long the thread may sleep for a message: not at all while there is work. */
static time_us idle_time(const struct engine *g)
{
    struct schedule_counts counts;
    schedule_count(g->schedule, &counts);
    return counts.waiting + counts.running + counts.in_flight > 0 ? 0 : IDLE_LOOK_US;
}

/* Handle all messages that are there; true when the engine is to stop. */
static bool take_messages(struct engine *g)
{
    void *message;
    bool stopping = false;
    time_us begin = clock_now_us(), wait = idle_time(g);
    bool idle = wait != 0;
    while (queue_pop(g->messages, &message, wait) == OK) {
        if (idle)
            g->counts.idle_us += clock_now_us() - begin;
        idle = false;
        wait = 0;
        if (message == g)
            stopping |= look(g);
        else
            start_request(g, message);
    }
    if (idle) {
        g->counts.idle_us += clock_now_us() - begin;
        publish(g);
    }
    end_overdue(g);
    return stopping;
}

/* ---- the thread: steps ---- */

/* The draft model says what it thinks, where that pays; the time that it takes is part of the
 * question. */
static enum err guess_ahead(struct engine *g, struct error *e)
{
    if (g->options.draft == NULL)
        return OK;
    int n_timed;
    time_us begin = clock_now_us();
    enum err err = draft_model_serve(g->options.draft, g->schedule, &n_timed, e);
    time_us now = clock_now_us();
    schedule_clock(g->schedule, now);
    if (n_timed > 0)
        schedule_offer_time(g->schedule, n_timed, now - begin);
    g->counts.draft_us += now - begin;
    return err;
}

static enum err submit_steps(struct engine *g, struct error *e)
{
    struct step step;
    schedule_clock(g->schedule, clock_now_us());
    for (;;) {
        enum err err = guess_ahead(g, e);
        if (err != OK || !schedule_next(g->schedule, &step))
            return err;
        err = pipeline_submit(g->options.pipeline, &step, e);
        if (err != OK)
            return err;
        g->counts.steps++;
        publish(g);
    }
}

static void account_token(struct engine *g, const struct request *r, time_us now)
{
    g->counts.output_tokens++;
    if (r->n_output == 0)
        histogram_add(&g->counts.first_token, now - r->submitted_us);
    else
        histogram_add(&g->counts.between_tokens, now - r->last_us);
}

/* Sample one sequence's next token and tell its owner. */
static void next_token(struct engine *g, struct request *r, float *logits)
{
    int n_tokens;
    const int32_t *tokens = schedule_tokens(g->schedule, r->sequence, &n_tokens);
    int32_t token;
    struct error e;
    const struct sampler_input in = {.sampling = &r->sampling,
                                     .logits = logits,
                                     .history = tokens,
                                     .n_history = n_tokens,
                                     .choice = r->choice,
                                     .position = (uint32_t)n_tokens};
    enum err err = sampler_choose(g->scratch, &in, &r->memory, &token,
                                  r->wants_logprobs ? &r->logprobs : NULL, &e);
    if (err != OK) {
        end_request(g, r, FINISH_ERROR, -1, NULL, &e);
        return;
    }
    bool last = !schedule_push(g->schedule, r->sequence, token);
    const char *stop;
    time_us now = clock_now_us();
    account_token(g, r, now);
    enum finish_reason finish = request_token(r, token, last, now, &stop, &e);
    if (finish == FINISH_ERROR)
        end_request(g, r, finish, -1, NULL, &e);
    else if (finish != FINISH_NONE)
        end_request(g, r, finish, token, stop, NULL);
}

/* Wait for the oldest step, and account for the time: the lead's stage computed, or nothing came.
 */
static enum err wait_for_step(struct engine *g, struct pipeline_result *result, struct error *e)
{
    struct schedule_counts counts;
    schedule_count(g->schedule, &counts);
    time_us wait = counts.in_flight == g->n_flights ? WAIT_FULL_US : WAIT_FREE_FLIGHT_US;
    if (counts.in_flight == 0)
        wait = 0; /* idle: does the ring still stand? */
    struct pipeline_stats before, after;
    pipeline_stats(g->options.pipeline, &before);
    time_us begin = clock_now_us();
    enum err err = pipeline_collect(g->options.pipeline, result, wait, e);
    time_us end = clock_now_us();
    pipeline_stats(g->options.pipeline, &after);
    g->counts.wait_us += end - begin - (after.busy_us - before.busy_us);
    schedule_clock(g->schedule, end);
    return err;
}

static enum err collect_step(struct engine *g, struct error *e)
{
    struct pipeline_result result;
    enum err err = wait_for_step(g, &result, e);
    if (err == ERR_TIMEOUT)
        return OK;
    if (err != OK)
        return err;
    int n = schedule_returned(g->schedule, &result.step.times);
    ASSERT(n == result.n_wanted);
    for (int i = 0; i < n; i++) {
        int sequence = schedule_owner(g->schedule, i);
        if (sequence >= 0)
            next_token(g, g->by_sequence[sequence],
                       result.logits + (size_t)i * (size_t)g->options.vocab);
    }
    publish(g);
    return OK;
}

/* Nothing is accepted from now on; whatever lives ends with `finish`. */
static void wind_down(struct engine *g, enum finish_reason finish, const struct error *error)
{
    pthread_mutex_lock(&g->lock);
    g->closed = true;
    if (error != NULL)
        g->failure = *error;
    pthread_mutex_unlock(&g->lock);
    for (;;) {
        pthread_mutex_lock(&g->lock);
        struct request *r = g->n_live > 0 ? g->live[0] : NULL;
        pthread_mutex_unlock(&g->lock);
        if (r == NULL)
            return;
        end_request(g, r, finish, -1, NULL, error);
    }
}

static void *engine_main(void *context)
{
    struct engine *g = context;
    struct error e = {.code = OK};
    while (!take_messages(g)) {
        enum err err = submit_steps(g, &e);
        if (err == OK)
            err = collect_step(g, &e);
        if (err != OK) {
            log_error("the ring has failed: %s", e.text);
            wind_down(g, FINISH_ERROR, &e);
            return NULL;
        }
    }
    wind_down(g, FINISH_CANCELLED, NULL);
    return NULL;
}
