#include "api/fake_engine_impl.h"

#include "base/panic.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int target(const struct fake_job *j)
{
    return j->options.max_tokens < 0 ? 3 : j->options.max_tokens;
}

/* Is there an event to send for this job? */
static bool can_go_on(const struct engine *g, const struct fake_job *j)
{
    return j->id != 0 &&
           (j->cancelled || j->emitted < g->allowed || (j->emitted >= target(j) && g->allowed > 0));
}

/* `text` goes out behind what is late; the second half of it will be. */
static void make_late(struct fake_job *j, char text[static 128])
{
    char all[192];
    size_t bytes = strlen(text), begin = strlen(j->late);
    ASSERT(bytes < sizeof j->late);
    snprintf(all, sizeof all, "%s%.*s", j->late, (int)(bytes / 2), text);
    snprintf(j->late, sizeof j->late, "%s", text + bytes / 2);
    ASSERT(begin + bytes / 2 < 128);
    memcpy(text, all, begin + bytes / 2 + 1);
}

static void send_token(struct engine *g, struct fake_job *j)
{
    char text[128];
    struct sampler_logprobs logprobs = {.chosen = -(float)j->emitted};
    snprintf(text, sizeof text, "%d.%d ", j->options.n_prompt, j->emitted);
    const char *given = g->text != NULL ? g->text : text;
    struct request_event event = {
        .token = j->emitted,
        .span = {j->text_bytes, j->text_bytes + strlen(given), j->text_bytes},
        .logprobs = j->options.logprobs ? &logprobs : NULL};
    j->text_bytes = event.span.end;
    if (g->late_text)
        make_late(j, text);
    event.text = given;
    event.text_bytes = strlen(given);
    j->emitted++;
    pthread_mutex_unlock(&g->lock);
    j->options.on_event(j->options.context, &event);
    pthread_mutex_lock(&g->lock);
}

static void send_end(struct engine *g, struct fake_job *j)
{
    struct error reason;
    error_set(&reason, ERR_UNREACHABLE, "node 2 is gone");
    struct request_timings timings = {.prefill_us = 1000,
                                      .decode_us = 1000,
                                      .n_prompt = j->options.n_prompt,
                                      .n_output = j->emitted};
    struct request_event event = {
        .token = -1, .timings = &timings, .finish = j->cancelled ? FINISH_CANCELLED : g->finish};
    char late[64];
    memcpy(late, j->late, sizeof late);
    event.text = late;
    event.text_bytes = strlen(late);
    event.error = event.finish == FINISH_ERROR ? &reason : NULL;
    struct request_options options = j->options;
    g->n_cancelled += j->cancelled;
    j->id = 0;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
    options.on_event(options.context, &event);
    pthread_mutex_lock(&g->lock);
}

static bool step(struct engine *g)
{
    bool worked = false;
    for (int i = 0; i < FAKE_JOBS; i++) {
        struct fake_job *j = &g->jobs[i];
        if (!can_go_on(g, j))
            continue;
        worked = true;
        if (j->cancelled || j->emitted >= target(j))
            send_end(g, j);
        else
            send_token(g, j);
    }
    return worked;
}

static void *run(void *argument)
{
    struct engine *g = argument;
    pthread_mutex_lock(&g->lock);
    while (!g->stopping)
        if (!step(g))
            pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

struct engine *fake_engine_new(void)
{
    struct engine *g = xcalloc(1, sizeof *g);
    g->max_jobs = FAKE_JOBS;
    g->allowed = INT_MAX;
    g->finish = FINISH_LENGTH;
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&g->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    ASSERT(pthread_create(&g->thread, NULL, run, g) == 0);
    return g;
}

void fake_engine_free(struct engine *g)
{
    fake_engine_set(g, g->stopping = true);
    pthread_join(g->thread, NULL);
    for (int i = 0; i < FAKE_JOBS; i++)
        ASSERT(g->jobs[i].id == 0); /* each request was ended */
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
    free(g);
}

bool fake_engine_await_cancelled(struct engine *g, int n)
{
    struct timespec deadline = clock_deadline(10 * 1000 * 1000);
    int failure = 0;
    pthread_mutex_lock(&g->lock);
    while (g->n_cancelled < n && failure == 0)
        failure = pthread_cond_timedwait(&g->changed, &g->lock, &deadline);
    bool good = g->n_cancelled == n;
    pthread_mutex_unlock(&g->lock);
    return good;
}

/* ---- engine.h ---- */

static enum err submit(struct engine *g, const struct request_options *o, uint64_t *id,
                       struct error *e)
{
    int n = 0, room = -1;
    for (int i = FAKE_JOBS - 1; i >= 0; i--) {
        n += g->jobs[i].id != 0;
        room = g->jobs[i].id == 0 ? i : room;
    }
    if (g->refusal != OK)
        return error_set(e, g->refusal, "refused as told");
    if (n >= g->max_jobs)
        return error_set(e, ERR_FULL, "%d requests are waiting", n);
    *id = ++g->last_id;
    g->jobs[room] = (struct fake_job){.id = *id, .options = *o};
    g->last = *o;
    g->n_submitted++;
    for (int i = 0; i < o->n_prompt && i < 64; i++)
        g->last_prompt[i] = o->prompt[i];
    pthread_cond_broadcast(&g->changed);
    return OK;
}

enum err engine_submit(struct engine *g, const struct request_options *o, uint64_t *id,
                       struct error *e)
{
    pthread_mutex_lock(&g->lock);
    enum err err = submit(g, o, id, e);
    pthread_mutex_unlock(&g->lock);
    return err;
}

void engine_cancel(struct engine *g, uint64_t id)
{
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < FAKE_JOBS; i++)
        if (g->jobs[i].id == id)
            g->jobs[i].cancelled = true;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

bool engine_failure(struct engine *g, struct error *reason)
{
    pthread_mutex_lock(&g->lock);
    bool failed = g->failed;
    pthread_mutex_unlock(&g->lock);
    if (failed)
        error_set(reason, ERR_UNREACHABLE, "node 2 is gone");
    return failed;
}

void engine_stats(struct engine *g, struct engine_stats *out)
{
    pthread_mutex_lock(&g->lock);
    *out = (struct engine_stats){.requests = (uint64_t)g->n_submitted};
    pthread_mutex_unlock(&g->lock);
}
