/* Loading a part of a model and computing with it. */
#include "node/assignment.h"

#include "base/bounds.h"
#include "base/log.h"
#include "base/panic.h"
#include "base/size.h"
#include "node/machine.h"
#include "node/stage_time.h"
#include "node/tensor_fetch.h"
#include "stage/stage.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONNECT_US = 5 * 1000000, /* to be accepted by the next stage */
    POLL_US = 2000,
    /* A neighbour's death is told by the lead's own stream to it first: that names the culprit. */
    BLAME_PAUSE_US = 100 * 1000,
};

struct assignment {
    struct assignment_options o;
    shoal_v1_AssignRequest request; /* without its tensors */
    struct tensor_list tensors;
    bool is_fetched;
    struct tensor_source source;
    struct modelfile *file;
    struct model *model;
    struct stage *stage;
    int hidden;
    struct inbox *inbox;
    struct rpc_channel *next_channel;
    pthread_t thread;
    bool has_thread;

    _Atomic int state; /* enum node_state */
    _Atomic uint64_t load_done, load_total;
    _Atomic uint64_t steps, rows, bytes_in, bytes_out;
    _Atomic uint64_t weight_bytes, kv_bytes, activation_bytes;

    pthread_mutex_t lock; /* guards the links */
    struct link_grpc *lead, *previous, *next;
    bool had_lead, had_previous;
    _Atomic bool next_is_down;

    pthread_mutex_t time_lock; /* guards the next, which the compute thread keeps */
    struct stage_time time;
};

/* ---- checks ---- */

static enum err check_range(const char *name, uint64_t value, uint64_t least, uint64_t most,
                            struct error *e)
{
    if (value >= least && value <= most)
        return OK;
    return error_set(e, ERR_INVALID, "Assign: %s is %llu, expected %llu to %llu", name,
                     (unsigned long long)value, (unsigned long long)least,
                     (unsigned long long)most);
}

static enum err check_request(const shoal_v1_AssignRequest *r, struct error *e)
{
    if (r->protocol != NODE_PROTOCOL || strcmp(r->version, SHOAL_VERSION) != 0)
        return error_set(e, ERR_VERSION,
                         "the lead runs Shoal %s (protocol %u), this node %s (protocol %d)",
                         r->version, r->protocol, SHOAL_VERSION, NODE_PROTOCOL);
    if (!r->has_identity || !r->has_params)
        return error_set(e, ERR_INVALID, "Assign: identity and hyper-parameters are missing");
    const struct {
        const char *name;
        uint64_t value, least, most;
    } ranges[] = {
        {"epoch", r->epoch, 1, UINT64_MAX},
        {"the stage", r->stage, 0, RING_MAX_STAGES - 1},
        {"the last layer", r->last, 1, SHAPE_MAX_LAYERS},
        {"the first layer", r->first, 0, r->last - 1},
        {"the KV type", r->kv_type, 0, N_KV_TYPES - 1},
        {"the number of KV blocks", r->n_blocks, 1, KV_MAX_BLOCKS},
        {"the number of slots", r->n_slots, 1, SLOT_MAX},
        {"rows of a step", r->max_rows, 1, STEP_MAX_ROWS},
        {"the context", r->max_context, 1, SHAPE_MAX_CONTEXT},
        {"credits", r->credits, 1, 4 * RING_MAX_STAGES},
        {"the port to fetch from", r->fetch_port, 0, 65535},
    };
    enum err err = OK;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]) && err == OK; i++)
        err = check_range(ranges[i].name, ranges[i].value, ranges[i].least, ranges[i].most, e);
    if (err == OK && (r->stage == 0) != (r->first == 0))
        err =
            error_set(e, ERR_INVALID, "Assign: stage %u begins with layer %u", r->stage, r->first);
    return err;
}

/* What depends on the model: the layers are there, a frame and the KV store have a sane size. */
static enum err check_shape(const shoal_v1_AssignRequest *r, const struct model_params *p,
                            struct error *e)
{
    enum err err = check_range("the last layer", r->last, 1, (uint64_t)p->n_layers, e);
    if (err != OK)
        return err;
    uint64_t payload = (uint64_t)r->max_rows * (uint64_t)p->hidden * sizeof(float);
    if (payload > FRAME_MAX_BYTES / 2)
        return error_set(e, ERR_LIMIT, "Assign: steps of %u rows of %d are %llu bytes, limit %d",
                         r->max_rows, p->hidden, (unsigned long long)payload, FRAME_MAX_BYTES / 2);
    uint64_t block = kv_block_bytes((enum kv_type)r->kv_type, p->n_kv_heads, p->head_size);
    uint64_t kv = (uint64_t)r->n_blocks * (r->last - r->first);
    struct machine_memory memory;
    machine_memory(&memory);
    if (!size_mul(kv, block, &kv) || (memory.total_bytes > 0 && kv > memory.total_bytes))
        return error_set(e, ERR_LIMIT,
                         "Assign: a KV store of %u blocks for %u layers does not fit "
                         "into %llu MB",
                         r->n_blocks, r->last - r->first,
                         (unsigned long long)(memory.total_bytes >> 20));
    return OK;
}

/* ---- loading ---- */

enum err assignment_new(const shoal_v1_AssignRequest *request, struct tensor_list *tensors,
                        const struct assignment_options *o, struct assignment **out,
                        struct error *e)
{
    *out = NULL;
    enum err err = check_request(request, e);
    struct assignment *a = err == OK ? calloc(1, sizeof(*a)) : NULL;
    if (err == OK && a == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for an assignment");
    if (err != OK) {
        tensor_list_release(tensors);
        return err;
    }
    a->o = *o;
    a->o.caller_host = NULL;
    a->request = *request;
    if (a->request.fetch_host[0] == 0)
        snprintf(a->request.fetch_host, sizeof(a->request.fetch_host), "%s", o->caller_host);
    a->tensors = *tensors;
    *tensors = (struct tensor_list){0};
    a->state = NODE_LOADING;
    a->inbox = inbox_new((int)request->credits);
    pthread_mutex_init(&a->lock, NULL);
    pthread_mutex_init(&a->time_lock, NULL);
    *out = a;
    return OK;
}

/* The same model at the path that the lead named? Then nothing needs to travel. */
static bool open_here(struct assignment *a)
{
    struct error why;
    struct model_identity identity;
    if (modelfile_open(a->request.path, &a->file, &why) != OK) {
        log_info("no copy of the model here (%s)", why.text);
        return false;
    }
    modelfile_identity(a->file, &identity);
    if (identity_equals(&identity, &a->request.identity))
        return true;
    log_info("%s is another model than the lead's", a->request.path);
    modelfile_close(a->file);
    a->file = NULL;
    return false;
}

static enum err open_remote(struct assignment *a, struct error *e)
{
    const shoal_v1_AssignRequest *r = &a->request;
    struct model_params params;
    if (r->fetch_port == 0)
        return error_set(e, ERR_NOT_FOUND,
                         "no copy of %s here, and the lead serves none (only with "
                         "--insecure does it serve other machines)",
                         r->path);
    enum err err = params_from_message(&r->params, &params, e);
    if (err == OK)
        err = check_shape(r, &params, e);
    if (err == OK)
        err = modelfile_new_remote(r->path, &params, a->tensors.items, a->tensors.n, &a->file, e);
    if (err != OK)
        return err;
    struct address from = {.port = (int)r->fetch_port};
    char address[ADDRESS_MAX];
    memcpy(from.host, r->fetch_host, sizeof(from.host));
    address_format(&from, address);
    struct model_identity identity = {r->identity.total_bytes,
                                      {r->identity.hash_low, r->identity.hash_high}};
    err = tensor_source_open(&a->source, address, &identity, e);
    if (err != OK)
        return err;
    a->is_fetched = true;
    modelfile_set_fetch(a->file, tensor_source_fetch, &a->source);
    log_info("fetching %d tensors from %s", a->tensors.n, address);
    return OK;
}

static void note_progress(uint64_t done_bytes, uint64_t total_bytes, void *context)
{
    struct assignment *a = context;
    a->load_done = done_bytes;
    a->load_total = total_bytes;
    machine_anonymous_bytes(); /* for its peak */
}

static enum err load_model(struct assignment *a, struct error *e)
{
    struct model_params params;
    struct model_part part = {.first = (int)a->request.first,
                              .last = (int)a->request.last,
                              .embedding = a->request.first == 0};
    enum err err = modelfile_params(a->file, &params, e);
    if (err == OK)
        err = check_shape(&a->request, &params, e);
    if (err == OK)
        err = model_load(a->file, a->o.backend, &part, note_progress, a, &a->model, e);
    if (err == OK)
        a->hidden = params.hidden;
    return err;
}

enum err assignment_load(struct assignment *a, struct error *e)
{
    const shoal_v1_AssignRequest *r = &a->request;
    enum err err = open_here(a) ? OK : open_remote(a, e);
    if (err == OK)
        err = load_model(a, e);
    /* Once packed, nothing of the file or the source is needed any more. */
    if (err == OK && a->is_fetched) {
        rpc_channel_close(a->source.channel);
        a->source.channel = NULL;
    }
    tensor_list_release(&a->tensors);
    if (err != OK)
        return err;
    struct stage_options o = {.model = a->model,
                              .backend = a->o.backend,
                              .max_rows = (int)r->max_rows,
                              .n_slots = (int)r->n_slots,
                              .n_blocks = (int)r->n_blocks,
                              .max_context = (int)r->max_context,
                              .kv_type = (enum kv_type)r->kv_type,
                              .epoch = r->epoch};
    err = stage_new(&o, &a->stage, e);
    if (err != OK)
        return err;
    a->weight_bytes = model_weight_bytes(a->model);
    a->kv_bytes = stage_kv_bytes(a->stage);
    a->activation_bytes = stage_activation_bytes(a->stage);
    machine_anonymous_bytes();
    a->state = NODE_LOADED;
    return OK;
}

/* ---- links ---- */

/* The lead's stream ended by itself: the lead is gone, or gave this epoch up. Network thread. */
static void lead_is_down(void *context, const struct error *reason)
{
    struct assignment *a = context;
    a->o.on_event(a->o.context, a->request.epoch, ASSIGNMENT_LOST, reason);
}

enum err assignment_accept(struct assignment *a, struct rpc_stream *stream, enum link_role role,
                           struct error *e)
{
    bool from_lead = role == LINK_ROLE_LEAD, is_first = a->request.stage == 0;
    char peer[32];
    snprintf(peer, sizeof(peer), from_lead ? "lead" : "stage %u", a->request.stage - 1);
    struct link_grpc_options o = {.peer = peer,
                                  .inbox = a->inbox,
                                  .receives = from_lead == is_first,
                                  .max_queued = (int)a->request.credits,
                                  .on_down = from_lead ? lead_is_down : NULL,
                                  .context = a};
    if (a->state != NODE_LOADED && a->state != NODE_LINKED)
        return error_set(e, ERR_CLOSED, "epoch %llu is still being loaded",
                         (unsigned long long)a->request.epoch);
    if (!from_lead && is_first)
        return error_set(e, ERR_INVALID, "stage 0 takes its steps from the lead");
    pthread_mutex_lock(&a->lock);
    enum err err = OK;
    if (from_lead ? a->had_lead : a->had_previous)
        err =
            error_set(e, ERR_MISMATCH, "epoch %llu has its %s already",
                      (unsigned long long)a->request.epoch, from_lead ? "lead" : "previous stage");
    if (err == OK)
        err = link_grpc_accept(stream, &o, from_lead ? &a->lead : &a->previous, e);
    if (err == OK)
        *(from_lead ? &a->had_lead : &a->had_previous) = true;
    pthread_mutex_unlock(&a->lock);
    if (err == OK && from_lead)
        a->o.on_event(a->o.context, a->request.epoch, ASSIGNMENT_LEAD_HERE, NULL);
    return err;
}

/* Tell the lead why this epoch cannot go on, then the owner. */
static void fail(struct assignment *a, const struct error *why)
{
    struct error reason = *why;
    error_prefix(&reason, "stage %u", a->request.stage);
    /* An orderly goodbye of a neighbour is how every ring ends. */
    log_at(why->code == ERR_CLOSED ? LOG_INFO : LOG_WARN, "epoch %llu: %s",
           (unsigned long long)a->request.epoch, reason.text);
    pthread_mutex_lock(&a->lock);
    struct link_grpc *lead = a->lead;
    a->lead = NULL;
    pthread_mutex_unlock(&a->lock);
    link_grpc_close(lead, &reason);
    a->o.on_event(a->o.context, a->request.epoch, ASSIGNMENT_LOST, &reason);
}

/* ---- computing; its own thread ---- */

/* Where the hidden states go: to the next stage, or as an answer to the lead. `lock` is held. */
static struct link *link_out_locked(const struct assignment *a)
{
    struct link_grpc *l = a->request.next[0] != 0 ? a->next : a->lead;
    return l != NULL ? link_grpc_link(l) : NULL;
}

static struct link *link_out(struct assignment *a)
{
    pthread_mutex_lock(&a->lock);
    struct link *l = link_out_locked(a);
    pthread_mutex_unlock(&a->lock);
    return l;
}

static time_us sending_us(struct assignment *a)
{
    pthread_mutex_lock(&a->lock);
    time_us us = link_sending_us(link_out_locked(a));
    pthread_mutex_unlock(&a->lock);
    return us;
}

/* The compute thread begins with something else. */
static void turn_to(struct assignment *a, enum stage_doing next)
{
    time_us sending = sending_us(a);
    pthread_mutex_lock(&a->time_lock);
    stage_time_turn(&a->time, next, clock_now_us(), sending);
    pthread_mutex_unlock(&a->time_lock);
}

static enum err check_step(const struct assignment *a, const struct step *step, struct error *e)
{
    if (step->boundary != a->request.first)
        return error_set(e, ERR_FORMAT, "frame: expected boundary %u, found %u", a->request.first,
                         step->boundary);
    if (step->n_rows > a->request.max_rows)
        return error_set(e, ERR_FORMAT, "frame: at most %u rows expected, found %u",
                         a->request.max_rows, step->n_rows);
    return OK;
}

/* The frame that follows from `in`. */
static enum err compute(struct assignment *a, const struct frame *in, struct frame **out,
                        struct error *e)
{
    struct step step, next;
    const float *hidden_in;
    float *hidden_out;
    uint32_t expected = a->request.first == 0 ? 0 : (uint32_t)a->hidden;
    enum err err = step_read(in->data, in->bytes, expected, &step, &hidden_in, e);
    if (err == OK)
        err = check_step(a, &step, e);
    if (err != OK)
        return err;
    next = step;
    next.boundary = a->request.last;
    next.hidden = (uint32_t)a->hidden;
    *out = step_write(&next, &hidden_out);
    if (*out == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a frame of %u rows", step.n_rows);
    turn_to(a, STAGE_COMPUTES);
    time_us begin = clock_now_us();
    err = stage_forward(a->stage, &step, hidden_in, hidden_out, e);
    step_times_add(&next.times, clock_now_us() - begin);
    turn_to(a, STAGE_HANDS_OVER);
    if (err != OK) {
        frame_free(*out);
        *out = NULL;
        return err;
    }
    frame_set_times(*out, &next.times);
    frame_seal(*out);
    a->rows += step.n_rows;
    return OK;
}

static enum err pass_on(struct assignment *a, struct frame *f, struct error *e)
{
    struct link *out = link_out(a);
    a->bytes_out += f->bytes;
    if (out == NULL) {
        frame_free(f);
        return error_set(e, ERR_CLOSED, "nobody to send to");
    }
    enum err err = link_send(out, f);
    return err == OK ? OK : error_set(e, err, "cannot send on: %s", err_text(err));
}

static enum err do_step(struct assignment *a, struct frame *in, struct error *e)
{
    struct frame *out = NULL;
    a->bytes_in += in->bytes;
    turn_to(a, STAGE_HANDS_OVER);
    enum err err = compute(a, in, &out, e);
    frame_free(in);
    a->steps++;
    if (err == OK)
        err = pass_on(a, out, e);
    turn_to(a, STAGE_WAITS);
    return err;
}

static void *compute_steps(void *context)
{
    struct assignment *a = context;
    struct inbox_event event;
    struct error why = {.code = OK};
    while (inbox_take(a->inbox, &event, -1) == OK) {
        if (event.kind == INBOX_DOWN) {
            clock_sleep_us(BLAME_PAUSE_US);
            fail(a, &event.reason);
            break;
        }
        if (do_step(a, event.frame, &why) != OK) {
            fail(a, &why);
            break;
        }
    }
    return NULL;
}

/* ---- connecting ---- */

/* The stream to the next stage ended by itself. The inbox hears why, the compute thread reports. */
static void next_is_down(void *context, const struct error *reason)
{
    struct assignment *a = context;
    (void)reason;
    a->next_is_down = true;
}

static enum err await_acceptance(struct assignment *a, struct error *e)
{
    for (time_us waited = 0; waited < CONNECT_US && !a->next_is_down; waited += POLL_US) {
        if (link_grpc_is_accepted(a->next)) {
            a->state = NODE_LINKED;
            return OK;
        }
        clock_sleep_us(POLL_US);
    }
    return a->next_is_down ? OK
                           : error_set(e, ERR_TIMEOUT, "stage %u (%s) does not answer",
                                       a->request.stage + 1, a->request.next);
}

static enum err link_next(struct assignment *a, struct error *e)
{
    char peer[32];
    snprintf(peer, sizeof(peer), "stage %u", a->request.stage + 1);
    struct link_grpc_options o = {.peer = peer,
                                  .inbox = a->inbox,
                                  .max_queued = (int)a->request.credits,
                                  .on_down = next_is_down,
                                  .context = a};
    struct link_grpc *next;
    enum err err = rpc_channel_open(a->request.next, &a->next_channel, e);
    if (err == OK)
        err = link_grpc_open(a->o.loop, a->next_channel, a->request.epoch, LINK_ROLE_STAGE, &o,
                             &next, e);
    if (err != OK)
        return err;
    pthread_mutex_lock(&a->lock);
    a->next = next;
    pthread_mutex_unlock(&a->lock);
    return await_acceptance(a, e);
}

void assignment_connect(struct assignment *a)
{
    struct error why = {.code = OK};
    ASSERT(!a->has_thread);
    pthread_mutex_lock(&a->time_lock);
    stage_time_open(&a->time, clock_now_us());
    pthread_mutex_unlock(&a->time_lock);
    /* The compute thread first: it hears from the inbox when linking fails. */
    int err = pthread_create(&a->thread, NULL, compute_steps, a);
    if (err != 0) {
        error_errno(&why, ERR_MEMORY, err, "cannot start a thread");
        fail(a, &why);
        return;
    }
    a->has_thread = true;
    if (a->request.next[0] == 0)
        a->state = NODE_LINKED;
    else if (link_next(a, &why) != OK)
        fail(a, &why);
}

void assignment_free(struct assignment *a)
{
    if (a == NULL)
        return;
    inbox_close(a->inbox);
    if (a->has_thread)
        pthread_join(a->thread, NULL);
    link_grpc_close(a->next, NULL);
    link_grpc_close(a->lead, NULL);
    link_grpc_close(a->previous, NULL);
    rpc_channel_close(a->next_channel);
    inbox_free(a->inbox);
    stage_free(a->stage);
    model_free(a->model);
    modelfile_close(a->file);
    tensor_source_close(&a->source);
    tensor_list_release(&a->tensors);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->time_lock);
    free(a);
    malloc_trim(0); /* the next epoch may need other pieces: give all of it back */
}

/* ---- looking at it ---- */

uint64_t assignment_epoch(const struct assignment *a)
{
    return a->request.epoch;
}

void assignment_layers(const struct assignment *a, int *first, int *last)
{
    *first = (int)a->request.first;
    *last = (int)a->request.last;
}

bool assignment_has_lead(struct assignment *a)
{
    pthread_mutex_lock(&a->lock);
    bool had = a->had_lead;
    pthread_mutex_unlock(&a->lock);
    return had;
}

bool assignment_is_fetched(const struct assignment *a)
{
    return a->is_fetched;
}

void assignment_stats(struct assignment *a, struct node_report *out)
{
    out->state = (enum node_state)a->state;
    out->epoch = a->request.epoch;
    out->load_done = a->load_done;
    out->load_total = a->load_total;
    out->fetched_bytes = a->source.fetched_bytes;
    out->is_fetched = a->is_fetched;
    out->weight_bytes = a->weight_bytes;
    out->kv_bytes = a->kv_bytes;
    out->activation_bytes = a->activation_bytes;
    out->steps = a->steps;
    out->rows = a->rows;
    time_us sending = sending_us(a);
    pthread_mutex_lock(&a->time_lock);
    if (a->time.since_us > 0) /* it is linked: its account is open */
        out->time = stage_time_sums(&a->time, clock_now_us(), sending);
    pthread_mutex_unlock(&a->time_lock);
    out->bytes_in = a->bytes_in;
    out->bytes_out = a->bytes_out;
}
