/* The lead's view of the ring. Steps on their way stand in a circle of `credits` places, oldest
 * first; each place keeps a copy of what was submitted, because that, and not what comes back, is
 * what the lead's own stage computes: a frame must state the very same rows or the ring is broken.
 */
#include "pipeline/pipeline.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHECK_EVERY_US = 50 * 1000,   /* how often `check` is asked while waiting */
    LOSS_REASON_US = 1000 * 1000, /* how long the reason of a closed link is waited for */
};

/* A step on its way. */
struct voyage {
    struct step step; /* its arrays point at the two below */
    struct step_row *rows;
    struct step_update *updates;
    uint32_t updates_capacity;
};

struct pipeline {
    _Atomic uint64_t steps, rows; /* of the lead's own stage, and the time it took */
    _Atomic time_us busy_us, send_wait_us;
    struct pipeline_options options;
    struct voyage *voyages; /* circle of `credits` */
    int oldest, n_voyages;
    uint64_t next_number;
    time_us last_heard_us; /* when the ring was last seen to move */
    struct error failure;  /* code OK while all is well */
    float *logits;
    size_t logits_capacity; /* floats */
};

enum err pipeline_new(const struct pipeline_options *o, struct pipeline **out, struct error *e)
{
    ASSERT(o->credits >= 1 && o->n_stages >= 1 && o->vocab >= 1);
    ASSERT(o->max_rows >= 1 && o->max_rows <= STEP_MAX_ROWS);
    ASSERT((o->n_stages == 1) == (o->first == NULL) && (o->first == NULL) == (o->inbox == NULL));
    *out = NULL;
    struct pipeline *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return error_set(e, ERR_MEMORY, "no memory for the pipeline");
    p->options = *o;
    p->voyages = calloc((size_t)o->credits, sizeof(p->voyages[0]));
    for (int i = 0; p->voyages != NULL && i < o->credits; i++) {
        p->voyages[i].rows = calloc((size_t)o->max_rows, sizeof(struct step_row));
        if (p->voyages[i].rows == NULL)
            break;
        if (i == o->credits - 1) {
            *out = p;
            return OK;
        }
    }
    pipeline_free(p);
    return error_set(e, ERR_MEMORY, "no memory for %d steps of %d rows", o->credits, o->max_rows);
}

void pipeline_free(struct pipeline *p)
{
    if (p == NULL)
        return;
    for (int i = 0; p->voyages != NULL && i < p->options.credits; i++) {
        free(p->voyages[i].rows);
        free(p->voyages[i].updates);
    }
    free(p->voyages);
    free(p->logits);
    free(p);
}

int pipeline_n_stages(const struct pipeline *p)
{
    return p->options.n_stages;
}

int pipeline_in_flight(const struct pipeline *p)
{
    return p->n_voyages;
}

/* Remember the failure: the ring is not used again. */
static enum err fail(struct pipeline *p, enum err code, const struct error *reason, struct error *e)
{
    p->failure = *reason;
    p->failure.code = code;
    if (e != NULL)
        *e = p->failure;
    return code;
}

static enum err failed_before(const struct pipeline *p, struct error *e)
{
    if (p->failure.code != OK && e != NULL)
        *e = p->failure;
    return p->failure.code;
}

static enum err keep_copy(struct voyage *v, const struct step *step, struct error *e)
{
    if (step->n_updates > v->updates_capacity) {
        void *bigger = realloc(v->updates, step->n_updates * sizeof(v->updates[0]));
        if (bigger == NULL)
            return error_set(e, ERR_MEMORY, "no memory for %u updates", step->n_updates);
        v->updates = bigger;
        v->updates_capacity = step->n_updates;
    }
    if (step->n_rows > 0)
        memcpy(v->rows, step->rows, step->n_rows * sizeof(v->rows[0]));
    if (step->n_updates > 0)
        memcpy(v->updates, step->updates, step->n_updates * sizeof(v->updates[0]));
    v->step = *step;
    v->step.rows = v->rows;
    v->step.updates = v->updates;
    return OK;
}

/* The step as a frame to stage 0: no payload, boundary 0. ERR_CLOSED: the link is down. */
static enum err send_off(struct pipeline *p, const struct step *step, struct error *e)
{
    struct step outward = *step;
    outward.boundary = 0;
    outward.hidden = 0;
    float *payload;
    struct frame *f = step_write(&outward, &payload);
    if (f == NULL)
        return error_set(e, ERR_MEMORY, "no memory for the frame of step %llu",
                         (unsigned long long)step->number);
    frame_seal(f);
    enum err err = link_send(p->options.first, f);
    if (err != OK)
        error_set(e, err, "cannot send step %llu to the first stage: %s",
                  (unsigned long long)step->number, err_text(err));
    return err;
}

static enum err why_lost(struct pipeline *p, enum err err, struct error *e);

enum err pipeline_submit(struct pipeline *p, struct step *step, struct error *e)
{
    const struct pipeline_options *o = &p->options;
    ASSERT(step->n_rows <= (uint32_t)o->max_rows && step->n_updates <= STEP_MAX_UPDATES);
    if (failed_before(p, e) != OK)
        return p->failure.code;
    if (p->n_voyages == o->credits)
        return error_set(e, ERR_FULL, "%d steps are on their way already", o->credits);
    step->epoch = o->epoch;
    step->number = p->next_number;
    step->boundary = (uint32_t)o->first_layer;
    step->times = (struct step_times){0};
    step->hidden = o->first != NULL ? (uint32_t)o->hidden : 0;
    struct voyage *v = &p->voyages[(p->oldest + p->n_voyages) % o->credits];
    struct error reason;
    enum err err = keep_copy(v, step, &reason);
    if (err == OK && o->first != NULL)
        err = send_off(p, &v->step, &reason);
    if (err == ERR_CLOSED)
        err = why_lost(p, err, &reason);
    if (err != OK)
        return fail(p, err, &reason, e);
    if (p->n_voyages == 0)
        p->last_heard_us = clock_now_us();
    p->next_number++;
    p->n_voyages++;
    return OK;
}

/* Room for the logits of n rows. */
static enum err grow_logits(struct pipeline *p, int n, struct error *e)
{
    size_t needed = (size_t)n * (size_t)p->options.vocab;
    if (needed <= p->logits_capacity)
        return OK;
    float *bigger = realloc(p->logits, needed * sizeof(float));
    if (bigger == NULL)
        return error_set(e, ERR_MEMORY, "no memory for the logits of %d rows", n);
    p->logits = bigger;
    p->logits_capacity = needed;
    return OK;
}

/* The lead's own stage finishes the oldest step, which took the stages before it `times`. */
static enum err finish(struct pipeline *p, const float *hidden, const struct step_times *times,
                       struct pipeline_result *out, struct error *e)
{
    struct voyage *v = &p->voyages[p->oldest];
    int n_wanted = step_n_wanted(&v->step);
    enum err err = grow_logits(p, n_wanted, e);
    time_us begin = clock_now_us();
    if (err == OK)
        err = stage_forward(p->options.stage, &v->step, hidden, p->logits, e);
    if (err != OK)
        return err;
    /* Relaxed: three counters for accounting, each right by itself. */
    time_us us = clock_now_us() - begin;
    atomic_fetch_add_explicit(&p->busy_us, us, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->rows, v->step.n_rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->steps, 1, memory_order_relaxed);
    *out = (struct pipeline_result){.step = v->step, .n_wanted = n_wanted, .logits = p->logits};
    out->step.times = *times;
    step_times_add(&out->step.times, us);
    p->oldest = (p->oldest + 1) % p->options.credits;
    p->n_voyages--;
    return OK;
}

/* Is the frame the oldest step on its way, as it was sent? */
static enum err check_arrival(const struct pipeline *p, const struct step *got, struct error *e)
{
    unsigned long long number = (unsigned long long)got->number;
    if (got->epoch != p->options.epoch)
        return error_set(e, ERR_FORMAT, "step %llu: expected epoch %llu, found %llu", number,
                         (unsigned long long)p->options.epoch, (unsigned long long)got->epoch);
    if (p->n_voyages == 0)
        return error_set(e, ERR_FORMAT, "step %llu arrived, but none is on its way", number);
    const struct step *sent = &p->voyages[p->oldest].step;
    if (got->number != sent->number)
        return error_set(e, ERR_FORMAT, "expected step %llu back, found %llu",
                         (unsigned long long)sent->number, number);
    if (got->flight != sent->flight || got->boundary != sent->boundary)
        return error_set(e, ERR_FORMAT,
                         "step %llu: expected flight %u at layer boundary %u, found %u at %u",
                         number, sent->flight, sent->boundary, got->flight, got->boundary);
    if (got->n_rows != sent->n_rows || got->n_updates != sent->n_updates)
        return error_set(e, ERR_FORMAT,
                         "step %llu: expected %u rows and %u updates back, found %u and %u", number,
                         sent->n_rows, sent->n_updates, got->n_rows, got->n_updates);
    for (uint32_t i = 0; i < got->n_rows; i++)
        if (memcmp(&got->rows[i], &sent->rows[i], sizeof(got->rows[i])) != 0)
            return error_set(e, ERR_FORMAT, "step %llu: row %u came back changed", number, i);
    for (uint32_t i = 0; i < got->n_updates; i++)
        if (memcmp(&got->updates[i], &sent->updates[i], sizeof(got->updates[i])) != 0)
            return error_set(e, ERR_FORMAT, "step %llu: update %u came back changed", number, i);
    return OK;
}

static enum err handle_frame(struct pipeline *p, const struct frame *f, struct pipeline_result *out,
                             struct error *e)
{
    struct step got;
    const float *payload;
    enum err err = step_read(f->data, f->bytes, (uint32_t)p->options.hidden, &got, &payload, e);
    if (err == OK)
        err = check_arrival(p, &got, e);
    if (err != OK) {
        error_prefix(e, "from the stage before the lead");
        return err;
    }
    return finish(p, payload, &got.times, out, e);
}

/* The code of a lost node or link: a time-out of theirs must not read as "nothing is wrong". */
static enum err gone_code(enum err code)
{
    return code == OK || code == ERR_TIMEOUT ? ERR_UNREACHABLE : code;
}

/* Nothing arrived for a moment: is that still fine? */
static enum err check_silence(const struct pipeline *p, time_us now, struct error *e)
{
    const struct pipeline_options *o = &p->options;
    if (o->check != NULL) {
        struct error found = {.code = OK};
        enum err err = o->check(o->check_context, &found);
        if (err != OK) {
            *e = found;
            return gone_code(err);
        }
    }
    if (o->timeout_us > 0 && p->n_voyages > 0 && now - p->last_heard_us > o->timeout_us)
        return error_set(e, ERR_UNREACHABLE,
                         "step %llu did not come back within %.1f s: a node hangs or is cut off",
                         (unsigned long long)p->voyages[p->oldest].step.number,
                         (double)o->timeout_us / 1e6);
    return OK;
}

/* A send met a closed link. Who is gone arrives in the inbox, or is found by `check`, at about the
 * same time: wait for that a moment, because it names the node. Without it *e stays as it is. */
static enum err why_lost(struct pipeline *p, enum err err, struct error *e)
{
    time_us until = clock_now_us() + LOSS_REASON_US;
    while (clock_now_us() < until) {
        struct inbox_event event;
        enum err taken = inbox_take(p->options.inbox, &event, CHECK_EVERY_US);
        if (taken == OK && event.kind == INBOX_DOWN) {
            *e = event.reason;
            return gone_code(event.reason.code);
        }
        if (taken == OK)
            frame_free(event.frame); /* the ring has failed: nothing in it counts any more */
        struct error found;
        enum err gone = check_silence(p, clock_now_us(), &found);
        if (gone != OK) {
            *e = found;
            return gone;
        }
        if (taken == ERR_CLOSED)
            break;
    }
    return err;
}

/* Wait for one event of the ring; ERR_TIMEOUT when `until` has come. */
static enum err wait_event(struct pipeline *p, struct inbox_event *event, time_us until,
                           struct error *e)
{
    for (;;) {
        time_us now = clock_now_us(), left = until > now ? until - now : 0;
        enum err err =
            inbox_take(p->options.inbox, event, left < CHECK_EVERY_US ? left : CHECK_EVERY_US);
        if (err == OK)
            return OK;
        if (err == ERR_CLOSED)
            return error_set(e, ERR_CLOSED, "the lead's inbox was closed");
        now = clock_now_us();
        err = check_silence(p, now, e);
        if (err != OK)
            return err;
        if (now >= until)
            return error_set(e, ERR_TIMEOUT, "no step finished in time");
    }
}

static enum err collect_from_ring(struct pipeline *p, struct pipeline_result *out, time_us wait_us,
                                  struct error *e)
{
    struct inbox_event event;
    time_us sending_us = link_sending_us(p->options.first);
    enum err err = wait_event(p, &event, clock_now_us() + wait_us, e);
    atomic_fetch_add_explicit(&p->send_wait_us, link_sending_us(p->options.first) - sending_us,
                              memory_order_relaxed);
    if (err != OK)
        return err;
    if (event.kind == INBOX_DOWN) {
        *e = event.reason;
        return gone_code(event.reason.code);
    }
    p->last_heard_us = clock_now_us();
    err = handle_frame(p, event.frame, out, e);
    frame_free(event.frame);
    return err;
}

enum err pipeline_collect(struct pipeline *p, struct pipeline_result *out, time_us wait_us,
                          struct error *e)
{
    ASSERT(wait_us >= 0);
    *out = (struct pipeline_result){0};
    if (failed_before(p, e) != OK)
        return p->failure.code;
    struct error reason = {.code = OK};
    enum err err;
    if (p->options.first != NULL)
        err = collect_from_ring(p, out, wait_us, &reason);
    else if (p->n_voyages > 0)
        err = finish(p, NULL, &(struct step_times){0}, out, &reason);
    else
        err = error_set(&reason, ERR_TIMEOUT, "no step is on its way");
    if (err == OK)
        return OK;
    if (err != ERR_TIMEOUT)
        return fail(p, err, &reason, e);
    if (e != NULL)
        *e = reason;
    return err;
}

void pipeline_stats(const struct pipeline *p, struct pipeline_stats *out)
{
    *out = (struct pipeline_stats){
        .steps = atomic_load_explicit(&p->steps, memory_order_relaxed),
        .rows = atomic_load_explicit(&p->rows, memory_order_relaxed),
        .busy_us = atomic_load_explicit(&p->busy_us, memory_order_relaxed),
        .send_wait_us = atomic_load_explicit(&p->send_wait_us, memory_order_relaxed)};
}
