#include "sim/sim_ring.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <pthread.h>
#include <stdlib.h>

struct worker {
    struct sim_stage stage;
    struct inbox *inbox;
    struct link *next;
    int next_first;
    pthread_t thread;
    bool started;
};

struct sim_ring {
    struct sim_ring_options options;
    struct worker workers[RING_MAX_STAGES]; /* n_stages - 1 of them */
    struct sim_stage lead;
    struct inbox *lead_inbox;
    struct link *first;
    struct pipeline *pipeline;
};

/* A worker's life: frames in, frames on, until its inbox closes or something is wrong. Closing the
 * link is how the next stage learns of the end. */
static void *worker_main(void *context)
{
    struct worker *w = context;
    struct inbox_event event;
    enum err err = OK;
    while (err == OK && inbox_take(w->inbox, &event, -1) == OK && event.kind == INBOX_FRAME) {
        struct frame *out;
        struct error e;
        err = sim_stage_relay(&w->stage, event.frame, w->next_first, NULL, &out, &e);
        frame_free(event.frame);
        if (err == OK)
            err = link_send(w->next, out);
    }
    link_close(w->next);
    return NULL;
}

static enum err open_pipeline(struct sim_ring *r, struct error *e)
{
    const struct sim_ring_options *o = &r->options;
    int n = o->shape.n_stages;
    return pipeline_new(&(struct pipeline_options){.stage = r->lead.stage,
                                                   .vocab = SIM_VOCAB,
                                                   .hidden = SIM_HIDDEN,
                                                   .first = r->first,
                                                   .inbox = r->lead_inbox,
                                                   .n_stages = n,
                                                   .first_layer = sim_stage_first_layer(&o->shape,
                                                                                        n - 1),
                                                   .credits = o->credits,
                                                   .max_rows = o->shape.max_rows,
                                                   .epoch = SIM_EPOCH,
                                                   .timeout_us = o->timeout_us,
                                                   .check = o->check,
                                                   .check_context = o->check_context},
                        &r->pipeline, e);
}

static enum err start_worker(struct sim_ring *r, int i, struct error *e)
{
    struct worker *w = &r->workers[i];
    int n_workers = r->options.shape.n_stages - 1;
    w->next_first = sim_stage_first_layer(&r->options.shape, i + 1);
    w->next = link_inproc_new(i + 1 < n_workers ? r->workers[i + 1].inbox : r->lead_inbox);
    int failed = pthread_create(&w->thread, NULL, worker_main, w);
    if (failed != 0) {
        link_close(w->next);
        return error_errno(e, ERR_MEMORY, failed, "cannot start the thread of stage %d", i);
    }
    w->started = true;
    return OK;
}

enum err sim_ring_start(const struct sim_ring_options *o, struct sim_ring **out, struct error *e)
{
    int n_workers = o->shape.n_stages - 1;
    ASSERT(n_workers >= 0 && n_workers < RING_MAX_STAGES);
    *out = NULL;
    struct sim_ring *r = xcalloc(1, sizeof(*r));
    r->options = *o;
    enum err err = sim_stage_open(&o->shape, n_workers, &r->lead, e);
    for (int i = 0; i < n_workers && err == OK; i++) {
        r->workers[i].inbox = inbox_new(o->credits);
        err = sim_stage_open(&o->shape, i, &r->workers[i].stage, e);
    }
    if (n_workers > 0 && err == OK) {
        r->lead_inbox = inbox_new(o->credits);
        r->first = link_inproc_new_hooked(r->workers[0].inbox, o->hook, o->hook_context);
    }
    for (int i = 0; i < n_workers && err == OK; i++)
        err = start_worker(r, i, e);
    if (err == OK)
        err = open_pipeline(r, e);
    if (err != OK) {
        sim_ring_stop(r);
        return err;
    }
    *out = r;
    return OK;
}

struct pipeline *sim_ring_pipeline(struct sim_ring *r)
{
    return r->pipeline;
}

struct inbox *sim_ring_lead_inbox(struct sim_ring *r)
{
    return r->lead_inbox;
}

void sim_ring_kill(struct sim_ring *r, int stage_i)
{
    ASSERT(stage_i >= 0 && stage_i < r->options.shape.n_stages - 1);
    inbox_close(r->workers[stage_i].inbox);
}

void sim_ring_stop(struct sim_ring *r)
{
    if (r == NULL)
        return;
    link_close(r->first);
    for (int i = 0; i < RING_MAX_STAGES && r->workers[i].inbox != NULL; i++) {
        inbox_close(r->workers[i].inbox);
        if (r->workers[i].started)
            pthread_join(r->workers[i].thread, NULL);
    }
    for (int i = 0; i < RING_MAX_STAGES && r->workers[i].inbox != NULL; i++) {
        inbox_free(r->workers[i].inbox);
        sim_stage_close(&r->workers[i].stage);
    }
    pipeline_free(r->pipeline);
    inbox_free(r->lead_inbox);
    sim_stage_close(&r->lead);
    free(r);
}
