#include "sim/sim_cluster.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "pipeline/pipeline.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DELAY = 40, MAX_STAGES = 16 };

enum event_kind { EVENT_REQUEST, EVENT_CANCEL, EVENT_FRAME, EVENT_COMPUTE };

struct event {
    int64_t at;
    uint64_t order; /* events of one moment happen in the order in which they were planned */
    enum event_kind kind;
    int i; /* request or hop */
    struct frame *frame;
};

struct cluster {
    struct sim_cluster_options options;
    struct sim_request *requests;
    int n_requests;
    struct sim_outcome *outcome;
    struct sim_stage stages[MAX_STAGES]; /* the last is the lead's */
    struct link *first;
    struct inbox *lead_inbox;
    struct pipeline *pipeline;
    struct schedule *schedule;
    struct sim_stage draft_stage;
    struct draft_model *draft; /* NULL: none */
    struct sampler_scratch *scratch;
    struct sim_saboteur *saboteur;
    int *request_of;      /* per sequence name */
    int *sequence_of;     /* per request; -1: not there */
    struct event *events; /* heap, the next one first */
    int n_events, events_capacity;
    uint64_t n_planned;
    int64_t now;
    int64_t sent_at[SIM_MAX_FLIGHTS]; /* each flight's last step */
    int64_t last_arrival[MAX_STAGES]; /* per hop: streams keep their order */
    uint64_t random;
};

/* ---- time ---- */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void swap_events(struct event *a, struct event *b)
{
    struct event x = *a;
    *a = *b;
    *b = x;
}

static void plan(struct cluster *c, struct event event)
{
    if (c->n_events == c->events_capacity) {
        c->events_capacity = 2 * c->events_capacity + 64;
        c->events = xrealloc(c->events, (size_t)c->events_capacity * sizeof(event));
    }
    event.order = c->n_planned++;
    int i = c->n_events++;
    c->events[i] = event;
    for (; i > 0 && is_before(&c->events[i], &c->events[(i - 1) / 2]); i = (i - 1) / 2)
        swap_events(&c->events[i], &c->events[(i - 1) / 2]);
}

static struct event next_event(struct cluster *c)
{
    struct event first = c->events[0];
    c->events[0] = c->events[--c->n_events];
    for (int i = 0;;) {
        int least = i;
        for (int child = 2 * i + 1; child <= 2 * i + 2 && child < c->n_events; child++)
            if (is_before(&c->events[child], &c->events[least]))
                least = child;
        if (least == i)
            return first;
        swap_events(&c->events[i], &c->events[least]);
        i = least;
    }
}

static int64_t delay(struct cluster *c)
{
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return 1 + (int64_t)((c->random >> 33) % MAX_DELAY);
}

/* ---- frames ---- */

/* A frame sets off to stage `hop`. */
static void set_off(struct cluster *c, int hop, struct frame *f)
{
    struct frame *arriving[2];
    int n = sim_saboteur_wire(c->saboteur, hop, f, arriving);
    for (int i = 0; i < n; i++) {
        int64_t at = c->now + delay(c);
        if (at <= c->last_arrival[hop])
            at = c->last_arrival[hop] + 1;
        c->last_arrival[hop] = at;
        plan(c, (struct event){.at = at, .kind = EVENT_FRAME, .i = hop, .frame = arriving[i]});
    }
}

static enum err from_lead(void *context, struct inbox *to, struct frame *f)
{
    (void)to;
    set_off(context, 0, f);
    return OK;
}

static void end_request(struct cluster *c, int request, bool cancelled)
{
    schedule_end(c->schedule, c->sequence_of[request]);
    c->sequence_of[request] = -1;
    c->requests[request].ended = true;
    c->requests[request].cancelled = cancelled;
}

static enum err next_token(struct cluster *c, int sequence, float *logits, struct error *e)
{
    int request = c->request_of[sequence], n_tokens;
    struct sim_request *r = &c->requests[request];
    const int32_t *tokens = schedule_tokens(c->schedule, sequence, &n_tokens);
    int32_t token;
    const struct sampler_input in = {.sampling = &r->sampling,
                                     .logits = logits,
                                     .history = tokens,
                                     .n_history = n_tokens,
                                     .choice = r->choice,
                                     .position = (uint32_t)n_tokens};
    enum err err = sampler_choose(c->scratch, &in, &r->memory, &token, NULL, e);
    if (err != OK)
        return err;
    r->tokens[r->n_tokens++] = token;
    bool more = schedule_push(c->schedule, sequence, token);
    if (!more || token == SIM_END_TOKEN)
        end_request(c, request, false);
    return OK;
}

/* The oldest step, if it has arrived at the lead. */
static enum err collect(struct cluster *c, struct error *e)
{
    struct pipeline_result result;
    enum err err = pipeline_collect(c->pipeline, &result, 0, e);
    if (err != OK)
        return err == ERR_TIMEOUT ? OK : err;
    /* What the clock on the wall says would make a run other than the one before. */
    int64_t way = c->now - c->sent_at[result.step.flight];
    int64_t busy = c->options.seed % 2 == 0 ? way : way / 4;
    struct step_times times = {.busy_us = (uint32_t)busy,
                               .slowest_us = (uint32_t)(busy / c->options.shape.n_stages)};
    int n = schedule_returned(c->schedule, &times);
    ASSERT(n == result.n_wanted);
    for (int i = 0; i < n && err == OK; i++) {
        int sequence = schedule_owner(c->schedule, i);
        if (sequence >= 0)
            err = next_token(c, sequence, result.logits + (size_t)i * SIM_VOCAB, e);
    }
    return err;
}

static enum err frame_arrives(struct cluster *c, int hop, struct frame *f, struct error *e)
{
    if (hop == c->options.shape.n_stages - 1) {
        enum err full = inbox_put_frame(c->lead_inbox, f);
        return full == OK ? collect(c, e) : error_set(e, full, "the lead's inbox: credits broken");
    }
    struct frame *out;
    const struct step *inside = sim_saboteur_inside(c->saboteur, hop, f);
    int next_first = sim_stage_first_layer(&c->options.shape, hop + 1);
    enum err err = sim_stage_relay(&c->stages[hop], f, next_first, inside, &out, e);
    frame_free(f);
    if (err != OK) {
        error_prefix(e, "stage %d", hop);
        return err;
    }
    set_off(c, hop + 1, out);
    return OK;
}

/* ---- requests and steps ---- */

static enum err request_comes(struct cluster *c, int request, struct error *e)
{
    struct sim_request *r = &c->requests[request];
    int room, sequence;
    enum err err = schedule_room(c->schedule, r->n_prompt, r->max_tokens, &room, e);
    if (err != OK)
        return err;
    if (room == 0) {
        r->ended = true;
        return OK;
    }
    struct sequence_options o = {.prompt = r->prompt,
                                 .n_prompt = r->n_prompt,
                                 .room = room,
                                 .priority = r->priority,
                                 .no_draft = r->no_draft};
    err = schedule_add(c->schedule, &o, &sequence, e);
    if (err != OK)
        return err;
    c->request_of[sequence] = request;
    c->sequence_of[request] = sequence;
    return OK;
}

static enum err handle(struct cluster *c, const struct event *event, struct error *e)
{
    switch (event->kind) {
    case EVENT_REQUEST: return request_comes(c, event->i, e);
    case EVENT_CANCEL:
        if (c->sequence_of[event->i] >= 0)
            end_request(c, event->i, true);
        return OK;
    case EVENT_FRAME: return frame_arrives(c, event->i, event->frame, e);
    case EVENT_COMPUTE: return collect(c, e);
    }
    PANIC("event %d", (int)event->kind);
}

static enum err submit_steps(struct cluster *c, struct error *e)
{
    struct step step;
    enum err err = OK;
    for (;;) {
        int n_timed; /* it takes no time here */
        if (c->draft != NULL)
            err = draft_model_serve(c->draft, c->schedule, &n_timed, e);
        if (err != OK || !schedule_next(c->schedule, &step))
            return err;
        c->sent_at[step.flight] = c->now;
        c->outcome->n_steps++;
        c->outcome->n_rows += step.n_rows;
        err = pipeline_submit(c->pipeline, &step, e);
        if (err != OK)
            return err;
        if (c->options.shape.n_stages == 1)
            plan(c, (struct event){.at = c->now + delay(c), .kind = EVENT_COMPUTE});
    }
}

/* ---- the whole ---- */

static enum err build_draft(struct cluster *c, struct error *e)
{
    struct sim_shape shape = c->options.shape;
    shape.model_seed = c->options.draft_seed;
    shape.n_stages = 1;
    shape.n_blocks = c->options.draft_blocks;
    enum err err = sim_stage_open(&shape, 0, &c->draft_stage, e);
    if (err == OK)
        c->draft = draft_model_new(&(struct draft_model_options){.stage = c->draft_stage.stage,
                                                                 .vocab = SIM_VOCAB,
                                                                 .epoch = SIM_EPOCH,
                                                                 .n_slots = shape.n_slots,
                                                                 .n_blocks = shape.n_blocks,
                                                                 .max_context = shape.max_context,
                                                                 .max_rows = shape.max_rows});
    return err;
}

static enum err build(struct cluster *c, struct error *e)
{
    const struct sim_cluster_options *o = &c->options;
    const struct sim_shape *shape = &o->shape;
    int n_stages = shape->n_stages;
    ASSERT(n_stages <= MAX_STAGES);
    enum err err = OK;
    for (int i = 0; i < n_stages && err == OK; i++)
        err = sim_stage_open(shape, i, &c->stages[i], e);
    if (err != OK)
        return err;
    if (n_stages > 1) {
        c->lead_inbox = inbox_new(o->n_flights);
        c->first = link_inproc_new_hooked(c->lead_inbox, from_lead, c);
    }
    c->scratch = sampler_scratch_new(SIM_VOCAB);
    c->saboteur = sim_saboteur_new(&o->fault, shape->n_slots, shape->n_blocks, SIM_HIDDEN);
    c->schedule = schedule_new(&(struct schedule_options){.max_context = shape->max_context,
                                                          .n_blocks = shape->n_blocks,
                                                          .window = shape->window,
                                                          .n_slots = shape->n_slots,
                                                          .max_rows = shape->max_rows,
                                                          .n_flights = o->n_flights,
                                                          .fit_flights = o->fit_flights,
                                                          .n_stages = n_stages,
                                                          .max_sequences = c->n_requests,
                                                          .min_chunk = o->min_chunk,
                                                          .max_draft = o->max_draft,
                                                          .max_itl_us = o->max_itl,
                                                          .max_stretch = o->max_stretch,
                                                          .no_reuse = o->no_reuse});
    if (o->draft_blocks > 0)
        err = build_draft(c, e);
    if (err != OK)
        return err;
    return pipeline_new(
        &(struct pipeline_options){.stage = c->stages[n_stages - 1].stage,
                                   .vocab = SIM_VOCAB,
                                   .hidden = SIM_HIDDEN,
                                   .first = c->first,
                                   .inbox = c->lead_inbox,
                                   .n_stages = n_stages,
                                   .first_layer = sim_stage_first_layer(shape, n_stages - 1),
                                   .credits = o->n_flights,
                                   .max_rows = shape->max_rows,
                                   .epoch = SIM_EPOCH},
        &c->pipeline, e);
}

static void release(struct cluster *c)
{
    for (int i = 0; i < c->n_events; i++)
        frame_free(c->events[i].frame);
    pipeline_free(c->pipeline);
    link_close(c->first);
    inbox_free(c->lead_inbox);
    schedule_free(c->schedule);
    draft_model_free(c->draft);
    sim_stage_close(&c->draft_stage);
    sampler_scratch_free(c->scratch);
    sim_saboteur_free(c->saboteur);
    for (int i = 0; i < MAX_STAGES; i++)
        sim_stage_close(&c->stages[i]);
    free(c->events);
    free(c->request_of);
    free(c->sequence_of);
}

static void plan_requests(struct cluster *c)
{
    for (int i = 0; i < c->n_requests; i++) {
        struct sim_request *r = &c->requests[i];
        ASSERT(r->max_tokens >= 1 && r->max_tokens <= SIM_MAX_TOKENS);
        r->n_tokens = 0;
        r->memory = (struct sampler_memory){0};
        r->ended = r->cancelled = false;
        c->sequence_of[i] = -1;
        plan(c, (struct event){.at = r->arrives_at, .kind = EVENT_REQUEST, .i = i});
        if (r->cancelled_at >= 0)
            plan(c, (struct event){.at = r->cancelled_at, .kind = EVENT_CANCEL, .i = i});
    }
}

/* Until nothing is planned any more: then nothing may be left to do. */
static enum err run(struct cluster *c, struct error *e)
{
    enum err err = OK;
    while (err == OK && c->n_events > 0) {
        struct event event = next_event(c);
        c->now = event.at;
        schedule_clock(c->schedule, c->now);
        err = handle(c, &event, e);
        if (err == OK)
            err = submit_steps(c, e);
    }
    schedule_count(c->schedule, &c->outcome->left);
    if (err == OK && c->outcome->left.in_flight > 0)
        return error_set(e, ERR_UNREACHABLE, "%d steps never came back",
                         c->outcome->left.in_flight);
    return err;
}

enum err sim_cluster_run(const struct sim_cluster_options *o, struct sim_request *requests,
                         int n_requests, struct sim_outcome *out, struct error *e)
{
    ASSERT(n_requests >= 1);
    *out = (struct sim_outcome){0};
    struct cluster *c = xcalloc(1, sizeof(*c));
    *c = (struct cluster){.options = *o,
                          .requests = requests,
                          .n_requests = n_requests,
                          .outcome = out,
                          .random = o->seed};
    c->request_of = xcalloc((size_t)n_requests, sizeof(int));
    c->sequence_of = xcalloc((size_t)n_requests, sizeof(int));
    enum err err = build(c, e);
    if (err == OK) {
        plan_requests(c);
        err = run(c, e);
        out->ended_at = c->now;
        out->fault_happened = sim_saboteur_done(c->saboteur);
    }
    release(c);
    free(c);
    return err;
}
