/* The worker: the service's methods over one struct assignment.
 *
 * Threads: gRPC's loop (accepts streams, posts events), the server's threads (unary calls; Assign
 * blocks one while loading), the control thread (reacts to events), the assignment's compute
 * thread. Two locks: `work` is held by whoever loads, links or frees an assignment, for as long as
 * that takes; `lock` guards the pointer to the current one and is never held for long. `work` comes
 * first. */
#include "node/worker.h"

#include "base/cpus.h"
#include "base/log.h"
#include "base/panic.h"
#include "node/assignment.h"
#include "node/machine.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_LISTEN "127.0.0.1:50100"

enum {
    MAX_EVENTS = 256,
    LEAD_WAIT_US = 30 * 1000000,
    TICK_US = 1000000,
    STOP_WAIT_S = 5, /* for a loading that is under way when told to stop */
};

struct worker {
    struct pool *pool;
    struct backend *backend;
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct queue *events; /* of struct event */
    pthread_t control;
    bool has_control;

    pthread_mutex_t work;

    pthread_mutex_t lock;
    struct assignment *current;
    time_us lead_us;      /* the last sign of the lead since current was loaded; 0: it is not yet */
    time_us lead_wait_us; /* for its stream */
    char failure[256];    /* why the current or last one was lost; cleared by the next Assign */
};

struct event {
    enum assignment_event what;
    uint64_t epoch;
    struct error why;
};

/* ---- the current assignment ---- */

/* The first reason counts: an Unassign often follows on its heels. `lock` is held. */
static void note_failure(struct worker *w, const char *why)
{
    if (w->failure[0] == 0)
        snprintf(w->failure, sizeof(w->failure), "%s", why);
}

/* Free the current one if it is of `epoch` (0: any). `work` is held. */
static bool drop(struct worker *w, uint64_t epoch, const char *why)
{
    pthread_mutex_lock(&w->lock);
    struct assignment *a = w->current;
    if (a != NULL && (epoch == 0 || assignment_epoch(a) == epoch)) {
        w->current = NULL;
        w->lead_us = 0;
        note_failure(w, why);
    } else {
        a = NULL;
    }
    pthread_mutex_unlock(&w->lock);
    if (a != NULL)
        log_info("epoch %llu: dropped%s%s", (unsigned long long)assignment_epoch(a),
                 why[0] != 0 ? ": " : "", why);
    assignment_free(a);
    return a != NULL;
}

/* Network or compute thread: leave a note for the control thread. */
static void post_event(void *context, uint64_t epoch, enum assignment_event what,
                       const struct error *why)
{
    struct worker *w = context;
    struct event *event = xcalloc(1, sizeof(*event));
    *event = (struct event){.what = what, .epoch = epoch};
    if (why != NULL) {
        event->why = *why;
        pthread_mutex_lock(&w->lock);
        note_failure(w, why->text);
        pthread_mutex_unlock(&w->lock);
    }
    /* An assignment posts a handful of events in its life: they always fit. */
    if (queue_try_push(w->events, event) != OK)
        free(event);
}

static void handle_event(struct worker *w, const struct event *event)
{
    pthread_mutex_lock(&w->work);
    if (event->what == ASSIGNMENT_LOST) {
        drop(w, event->epoch, event->why.text);
    } else {
        /* Whoever frees holds `work`: the pointer stays good. */
        pthread_mutex_lock(&w->lock);
        struct assignment *a = w->current;
        pthread_mutex_unlock(&w->lock);
        if (a != NULL && assignment_epoch(a) == event->epoch)
            assignment_connect(a);
    }
    pthread_mutex_unlock(&w->work);
}

/* A lead that assigned and then never came. While it waits for slower workers it asks for Stats. */
static void drop_forgotten(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    bool forgotten = w->current != NULL && w->lead_us != 0 && !assignment_has_lead(w->current) &&
                     clock_now_us() - w->lead_us > w->lead_wait_us;
    uint64_t epoch = forgotten ? assignment_epoch(w->current) : 0;
    pthread_mutex_unlock(&w->lock);
    if (!forgotten)
        return;
    pthread_mutex_lock(&w->work);
    drop(w, epoch, "the lead did not come back after Assign");
    pthread_mutex_unlock(&w->work);
}

static void *control(void *context)
{
    struct worker *w = context;
    void *item;
    enum err err;
    while ((err = queue_pop(w->events, &item, TICK_US)) != ERR_CLOSED) {
        if (err == OK) {
            handle_event(w, item);
            free(item);
        }
        drop_forgotten(w);
        machine_anonymous_bytes(); /* for its peak */
    }
    return NULL;
}

/* ---- methods; server threads ---- */

static enum err describe(void *context, struct rpc_call *call, const void *request, size_t bytes,
                         struct rpc_buffer *answer, struct error *e)
{
    struct worker *w = context;
    struct machine_memory memory;
    int first = 0, last = 0;
    struct node_report stats = {0};
    (void)call;
    (void)request;
    (void)bytes;
    machine_memory(&memory);
    pthread_mutex_lock(&w->lock);
    if (w->current != NULL) {
        assignment_layers(w->current, &first, &last);
        assignment_stats(w->current, &stats);
    }
    pthread_mutex_unlock(&w->lock);
    shoal_v1_DescribeResponse m = {
        .version = SHOAL_VERSION,
        .protocol = NODE_PROTOCOL,
        .threads = (uint32_t)pool_n_threads(w->pool),
        .cores = (uint32_t)cpus_usable(),
        .memory_total = memory.total_bytes,
        .memory_available = memory.available_bytes,
        .state = (shoal_v1_State)stats.state,
        .epoch = stats.epoch,
        .first = (uint32_t)first,
        .last = (uint32_t)last,
    };
    snprintf(m.backend, sizeof(m.backend), "%s", w->backend->name);
    snprintf(m.variant, sizeof(m.variant), "%s", w->backend->variant);
    snprintf(m.numerics_id, sizeof(m.numerics_id), "%s", w->backend->numerics_id);
    return message_encode(shoal_v1_DescribeResponse_fields, &m, answer, e);
}

static enum err stats(void *context, struct rpc_call *call, const void *request, size_t bytes,
                      struct rpc_buffer *answer, struct error *e)
{
    struct worker *w = context;
    struct node_report s = {0};
    shoal_v1_StatsResponse m = {0};
    (void)call;
    (void)request;
    (void)bytes;
    pthread_mutex_lock(&w->lock);
    if (w->lead_us != 0)
        w->lead_us = clock_now_us();
    if (w->current != NULL)
        assignment_stats(w->current, &s);
    else
        memcpy(m.failure, w->failure, sizeof(m.failure));
    pthread_mutex_unlock(&w->lock);
    m.state = (shoal_v1_State)s.state;
    m.epoch = s.epoch;
    m.load_done = s.load_done;
    m.load_total = s.load_total;
    m.fetched_bytes = s.fetched_bytes;
    m.weight_bytes = s.weight_bytes;
    m.kv_bytes = s.kv_bytes;
    m.activation_bytes = s.activation_bytes;
    m.fetched = s.is_fetched;
    m.anonymous_bytes = machine_anonymous_bytes();
    m.anonymous_peak_bytes = machine_anonymous_peak_bytes();
    m.steps = s.steps;
    m.rows = s.rows;
    m.compute_us = (uint64_t)s.time.busy_us;
    m.input_wait_us = (uint64_t)s.time.input_wait_us;
    m.send_wait_us = (uint64_t)s.time.send_wait_us;
    m.other_us = (uint64_t)s.time.other_us;
    m.bytes_in = s.bytes_in;
    m.bytes_out = s.bytes_out;
    return message_encode(shoal_v1_StatsResponse_fields, &m, answer, e);
}

/* `work` is held, and there is no current assignment. Publishes it while it loads, for Stats. */
static enum err load(struct worker *w, struct assignment *a, struct rpc_call *call, struct error *e)
{
    pthread_mutex_lock(&w->lock);
    w->current = a;
    w->lead_us = 0;
    w->failure[0] = 0;
    pthread_mutex_unlock(&w->lock);
    time_us start = clock_now_us();
    enum err err = assignment_load(a, e);
    pool_unbind_caller(w->pool); /* this thread is gRPC's */
    if (err == OK && rpc_call_is_cancelled(call))
        err = error_set(e, ERR_CANCELLED, "the lead went away while its layers were loaded");
    if (err != OK) {
        drop(w, 0, e->text);
        return err;
    }
    pthread_mutex_lock(&w->lock);
    w->lead_us = clock_now_us();
    pthread_mutex_unlock(&w->lock);
    int first, last;
    assignment_layers(a, &first, &last);
    log_info("epoch %llu: layers %d-%d loaded %s in %.2f s",
             (unsigned long long)assignment_epoch(a), first, last - 1,
             assignment_is_fetched(a) ? "from the lead" : "from the file here",
             (double)(clock_now_us() - start) / 1e6);
    return OK;
}

static enum err answer_assign(struct assignment *a, struct rpc_buffer *answer, struct error *e)
{
    struct node_report s = {0};
    assignment_stats(a, &s);
    shoal_v1_AssignResponse m = {.fetched = assignment_is_fetched(a),
                                 .weight_bytes = s.weight_bytes,
                                 .kv_bytes = s.kv_bytes,
                                 .activation_bytes = s.activation_bytes};
    return message_encode(shoal_v1_AssignResponse_fields, &m, answer, e);
}

static enum err assign(void *context, struct rpc_call *call, const void *request, size_t bytes,
                       struct rpc_buffer *answer, struct error *e)
{
    struct worker *w = context;
    struct tensor_list tensors;
    struct assignment *a;
    shoal_v1_AssignRequest *r = malloc(sizeof(*r));
    if (r == NULL)
        return error_set(e, ERR_MEMORY, "no memory for an assignment");
    struct assignment_options o = {.backend = w->backend,
                                   .loop = w->loop,
                                   .caller_host = rpc_call_peer_host(call),
                                   .on_event = post_event,
                                   .context = w};
    enum err err = assign_decode(request, bytes, r, &tensors, e);
    if (err == OK)
        err = assignment_new(r, &tensors, &o, &a, e);
    free(r);
    if (err != OK)
        return err;
    pthread_mutex_lock(&w->work);
    drop(w, 0, "");
    err = load(w, a, call, e);
    if (err == OK)
        err = answer_assign(a, answer, e);
    pthread_mutex_unlock(&w->work);
    return err;
}

static enum err unassign(void *context, struct rpc_call *call, const void *request, size_t bytes,
                         struct rpc_buffer *answer, struct error *e)
{
    struct worker *w = context;
    shoal_v1_UnassignRequest r = {0};
    (void)call;
    enum err err =
        message_decode(shoal_v1_UnassignRequest_fields, &r, request, bytes, "Unassign", e);
    if (err == OK && r.epoch == 0)
        err = error_set(e, ERR_INVALID, "Unassign: which epoch?");
    if (err != OK)
        return err;
    pthread_mutex_lock(&w->work);
    shoal_v1_UnassignResponse m = {.dropped = drop(w, r.epoch, "")};
    pthread_mutex_unlock(&w->work);
    return message_encode(shoal_v1_UnassignResponse_fields, &m, answer, e);
}

static enum err probe(void *context, struct rpc_call *call, const void *request, size_t bytes,
                      struct rpc_buffer *answer, struct error *e)
{
    time_us start = clock_now_us();
    struct byte_field payload = {.data = calloc(1, PROBE_MAX_BYTES), .capacity = PROBE_MAX_BYTES};
    uint32_t answer_bytes;
    (void)context;
    (void)call;
    if (payload.data == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a probe");
    enum err err = probe_request_decode(request, bytes, &answer_bytes, &payload, e);
    if (err == OK && answer_bytes > 0)
        payload.bytes = answer_bytes;
    if (err == OK)
        err = probe_response_encode((uint64_t)(clock_now_us() - start), &payload, answer, e);
    free(payload.data);
    return err;
}

static enum err fetch(void *context, struct rpc_call *call, const void *request, size_t bytes,
                      struct error *e)
{
    (void)context;
    (void)call;
    (void)request;
    (void)bytes;
    return error_set(e, ERR_UNSUPPORTED, "FetchTensors: this is a worker; ask the lead");
}

static enum err check_health(void *context, struct rpc_call *call, const void *request,
                             size_t bytes, struct rpc_buffer *answer, struct error *e)
{
    (void)context;
    (void)call;
    grpc_health_v1_HealthCheckRequest r = grpc_health_v1_HealthCheckRequest_init_zero;
    enum err err =
        message_decode(grpc_health_v1_HealthCheckRequest_fields, &r, request, bytes, "Check", e);
    if (err != OK)
        return err;
    if (r.service[0] != 0 && strcmp(r.service, "shoal.v1.Node") != 0)
        return error_set(e, ERR_NOT_FOUND, "no service %s here", r.service);
    grpc_health_v1_HealthCheckResponse m = {
        .status = grpc_health_v1_HealthCheckResponse_ServingStatus_SERVING};
    return message_encode(grpc_health_v1_HealthCheckResponse_fields, &m, answer, e);
}

/* Network thread. */
static enum err forward(void *context, struct rpc_stream *stream,
                        const struct rpc_metadata *metadata, int n_metadata, struct error *e)
{
    struct worker *w = context;
    uint64_t epoch;
    enum link_role role;
    enum err err = link_grpc_metadata(metadata, n_metadata, &epoch, &role, e);
    if (err != OK)
        return err;
    pthread_mutex_lock(&w->lock);
    if (w->current == NULL || assignment_epoch(w->current) != epoch)
        err = error_set(e, ERR_NOT_FOUND, "nothing is assigned here for epoch %llu",
                        (unsigned long long)epoch);
    else
        err = assignment_accept(w->current, stream, role, e);
    pthread_mutex_unlock(&w->lock);
    return err;
}

static const struct rpc_method methods[] = {
    {.path = NODE_SERVICE "Describe", .unary = describe},
    {.path = NODE_SERVICE "Assign", .unary = assign},
    {.path = NODE_SERVICE "Unassign", .unary = unassign},
    {.path = NODE_SERVICE "Forward", .accept = forward},
    {.path = NODE_SERVICE "FetchTensors", .produce = fetch},
    {.path = NODE_SERVICE "Probe", .unary = probe},
    {.path = NODE_SERVICE "Stats", .unary = stats},
    {.path = "/grpc.health.v1.Health/Check", .unary = check_health},
    {.path = NULL},
};

/* ---- start and stop ---- */

static enum err check_listen(const char *listen, bool insecure, struct error *e)
{
    struct address a;
    enum err err = address_parse(listen, &a, e);
    if (err != OK || insecure || address_is_loopback(&a))
        return err;
    return error_set(e, ERR_INVALID,
                     "%s can be reached by other machines, and connections are neither "
                     "encrypted nor authenticated: say --insecure if that is meant",
                     listen);
}

static enum err open_parts(struct worker *w, const struct worker_options *o, const char *listen,
                           struct error *e)
{
    struct pool_options pool = {.n_threads = o->threads > 0 ? o->threads : pool_default_threads(),
                                .pin = o->pin};
    enum err err = pool_open(&pool, &w->pool, e);
    if (err == OK)
        err = backend_open(&o->backend, w->pool, &w->backend, e);
    if (err == OK)
        err = rpc_loop_start(&w->loop, e);
    if (err != OK)
        return err;
    int failed = pthread_create(&w->control, NULL, control, w);
    if (failed != 0)
        return error_errno(e, ERR_MEMORY, failed, "cannot start a thread");
    w->has_control = true;
    struct rpc_server_options server = {.listen = listen, .methods = methods, .context = w};
    return rpc_server_start(w->loop, &server, &w->server, e);
}

enum err worker_start(const struct worker_options *o, struct worker **out, struct error *e)
{
    *out = NULL;
    const char *listen = o->listen != NULL ? o->listen : DEFAULT_LISTEN;
    enum err err = check_listen(listen, o->insecure, e);
    if (err != OK)
        return err;
    struct worker *w = xcalloc(1, sizeof(*w));
    w->lead_wait_us = o->lead_wait_us > 0 ? o->lead_wait_us : LEAD_WAIT_US;
    w->events = queue_new(MAX_EVENTS);
    pthread_mutex_init(&w->work, NULL);
    pthread_mutex_init(&w->lock, NULL);
    err = open_parts(w, o, listen, e);
    if (err != OK) {
        worker_stop(w);
        return err;
    }
    *out = w;
    return OK;
}

const char *worker_address(const struct worker *w)
{
    return rpc_server_address(w->server);
}

void worker_stop(struct worker *w)
{
    if (w == NULL)
        return;
    void *item;
    pthread_mutex_lock(&w->work);
    drop(w, 0, "this worker is stopping");
    pthread_mutex_unlock(&w->work);
    rpc_server_stop(w->server);
    queue_close(w->events);
    if (w->has_control)
        pthread_join(w->control, NULL);
    /* What a call that was just running may have loaded meanwhile. */
    drop(w, 0, "this worker is stopping");
    rpc_loop_stop(w->loop);
    while (queue_pop(w->events, &item, 0) == OK)
        free(item);
    queue_free(w->events);
    if (w->backend != NULL)
        w->backend->ops->free(w->backend);
    pool_free(w->pool);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->work);
    free(w);
}

/* A loading cannot be interrupted: past a few seconds, leave without ceremony. */
static void stop_or_leave(struct worker *w)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_WAIT_S;
    if (pthread_mutex_timedlock(&w->work, &until) != 0) {
        log_warn("leaving while layers are being loaded");
        fflush(NULL);
        _exit(0);
    }
    pthread_mutex_unlock(&w->work);
    worker_stop(w);
}

enum err worker_run(const struct worker_options *o, struct error *e)
{
    sigset_t signals;
    int got;
    struct worker *w;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    enum err err = worker_start(o, &w, e);
    if (err != OK)
        return err;
    printf("listening on %s\n", worker_address(w));
    fflush(stdout);
    sigwait(&signals, &got);
    log_info("signal %d: stopping", got);
    stop_or_leave(w);
    return OK;
}
