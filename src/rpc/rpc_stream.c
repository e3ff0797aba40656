/* A bidirectional stream, the same machine on both sides.
 *
 * At most one send, one receive and the end are under way in gRPC at a time; each counts in
 * `n_pending`, and the last to complete lets rpc_stream_close go on. Sends behind the one under way
 * wait in a ring of our own.
 *
 *     open ──(message …)──▶ down ──▶ closed          down: on_down was or is being called
 *       └── rpc_stream_close: flush, half-close or status, wait; cancel after FLUSH_US
 *
 * Where gRPC gave the connection of a client's end up by mistake (rpc_is_false_alarm), the owner
 * hears nothing: once all of that call is over, the channel is connected again and another call
 * takes its place. So that no message is lost with the first, none is sent before acceptance.
 *
 * The lock guards every field below it and every start of a batch. Callbacks run without it. */
#include "rpc/rpc_impl.h"

#include "base/panic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLUSH_US = 1000000 };

struct rpc_stream {
    struct rpc_loop *loop;
    grpc_call *call;
    bool is_server;
    struct rpc_stream_handler handler;
    char peer[ADDRESS_MAX];
    struct rpc_tag on_start, on_accepted, on_receive, on_send, on_finish, on_end, on_connected;
    grpc_metadata_array initial, trailing;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_pending; /* completions that are still to come, and callbacks that run */
    bool is_accepted;
    bool is_sending;
    time_us sending_since_us, sent_us; /* what now is being sent began; all before it took */
    bool is_closing;                   /* rpc_stream_close was called: no callbacks, flush */
    bool is_finishing;                 /* half-close or status was started */
    bool is_down;
    bool is_refused;          /* never accepted: frees itself */
    bool is_stranded;         /* a false alarm: another call follows when this one is over */
    grpc_byte_buffer **queue; /* ring of n_places: max_queued, and one that could be under way */
    int queue_first, n_queued, n_places;
    grpc_byte_buffer *sending, *incoming;
    grpc_status_code status; /* received; a server's own to send in finish_status */
    grpc_slice status_text;
    int was_cancelled;
    struct error finish_reason;
    bool has_reason;

    /* A client's: what it takes to call again. */
    struct rpc_channel *channel;
    const char *method;
    struct rpc_metadata metadata[RPC_MAX_METADATA];
    int n_metadata, n_attempts;
    time_us wait_us; /* how long the next connection is waited for, at most until: */
    gpr_timespec connect_until;
};

static void init_call(struct rpc_stream *s, grpc_call *call)
{
    s->call = call;
    s->status_text = grpc_empty_slice();
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);
}

static void release_call(struct rpc_stream *s)
{
    if (s->call == NULL)
        return;
    grpc_call_unref(s->call);
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_slice_unref(s->status_text);
}

static void free_stream(struct rpc_stream *s)
{
    ASSERT(s->n_pending == 0);
    for (int i = 0; i < s->n_queued; i++)
        grpc_byte_buffer_destroy(s->queue[(s->queue_first + i) % s->n_places]);
    if (s->sending != NULL)
        grpc_byte_buffer_destroy(s->sending);
    if (s->incoming != NULL)
        grpc_byte_buffer_destroy(s->incoming);
    release_call(s);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s->queue);
    free(s);
}

/* ---- batches; the lock is held ---- */

static void begin(struct rpc_stream *s, const grpc_op *op, struct rpc_tag *tag)
{
    s->n_pending++;
    rpc_start(s->call, op, 1, tag);
}

static void begin_receive(struct rpc_stream *s)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &s->incoming;
    begin(s, &op, &s->on_receive);
}

/* A client's call; the one before it is over. */
static void begin_call(struct rpc_stream *s)
{
    release_call(s);
    init_call(s, rpc_call_new(s->channel, s->loop->cq, s->method, rpc_deadline_in(0)));
    grpc_metadata pairs[RPC_MAX_METADATA] = {0};
    for (int i = 0; i < s->n_metadata; i++) {
        pairs[i].key = grpc_slice_from_copied_string(s->metadata[i].key);
        pairs[i].value = grpc_slice_from_copied_string(s->metadata[i].value);
    }
    s->n_attempts++;
    grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    op.data.send_initial_metadata.count = (size_t)s->n_metadata;
    op.data.send_initial_metadata.metadata = pairs;
    begin(s, &op, &s->on_start);
    op = (grpc_op){.op = GRPC_OP_RECV_INITIAL_METADATA};
    op.data.recv_initial_metadata.recv_initial_metadata = &s->initial;
    begin(s, &op, &s->on_accepted);
    op = (grpc_op){.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    op.data.recv_status_on_client.trailing_metadata = &s->trailing;
    op.data.recv_status_on_client.status = &s->status;
    op.data.recv_status_on_client.status_details = &s->status_text;
    begin(s, &op, &s->on_end);
    begin_receive(s);
    for (int i = 0; i < s->n_metadata; i++) {
        grpc_slice_unref(pairs[i].key);
        grpc_slice_unref(pairs[i].value);
    }
}

static void begin_send(struct rpc_stream *s, grpc_byte_buffer *message)
{
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
    s->sending = message;
    s->is_sending = true;
    s->sending_since_us = clock_now_us();
    op.data.send_message.send_message = message;
    begin(s, &op, &s->on_send);
}

/* Say goodbye: a client that it sends no more, a server how it ended. */
static void begin_finish(struct rpc_stream *s)
{
    if (s->is_finishing)
        return;
    s->is_finishing = true;
    if (!s->is_server) {
        grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
        begin(s, &op, &s->on_finish);
        return;
    }
    grpc_slice text = grpc_slice_from_copied_string(s->has_reason ? s->finish_reason.text : "");
    grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
    op.data.send_status_from_server.status =
        s->has_reason ? rpc_status_of(s->finish_reason.code) : GRPC_STATUS_OK;
    op.data.send_status_from_server.status_details = &text;
    begin(s, &op, &s->on_finish);
    grpc_slice_unref(text);
}

/* What waits is next; then, if the owner is closing, the goodbye. */
static void send_next(struct rpc_stream *s)
{
    if (s->n_queued > 0 && !s->is_finishing) {
        grpc_byte_buffer *next = s->queue[s->queue_first];
        s->queue_first = (s->queue_first + 1) % s->n_places;
        s->n_queued--;
        begin_send(s, next);
    } else if (s->is_closing) {
        begin_finish(s);
    }
}

/* Call again once the channel is connected, or when it has had its time: what the call then ends
 * with says why not. */
static void await_connection(struct rpc_stream *s)
{
    if (rpc_channel_watch(s->channel, s->connect_until, s->loop->cq, &s->on_connected))
        s->n_pending++;
    else
        begin_call(s);
}

static void connect_again(struct rpc_stream *s)
{
    s->is_stranded = false;
    s->connect_until = rpc_deadline_in(s->wait_us);
    s->wait_us *= RPC_WAIT_GROWTH;
    grpc_channel_reset_connect_backoff(s->channel->channel);
    await_connection(s);
}

/* ---- completions; loop thread ---- */

/* One pending thing is over. Unlocks. The last one goes on where a call was stranded, wakes who
 * closes, or frees a refused stream. */
static void end_pending(struct rpc_stream *s)
{
    s->n_pending--;
    if (s->n_pending == 0 && s->is_stranded && !s->is_closing)
        connect_again(s);
    bool free_now = s->n_pending == 0 && s->is_refused;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (free_now)
        free_stream(s);
}

/* The stream is over because of `why`: tell the owner once. Holds the lock, lets go meanwhile. */
static void go_down(struct rpc_stream *s, const struct error *why)
{
    if (s->is_down)
        return;
    s->is_down = true;
    if (s->is_closing || s->is_refused || s->handler.on_down == NULL)
        return;
    s->n_pending++; /* the callback: rpc_stream_close waits for it */
    pthread_mutex_unlock(&s->lock);
    s->handler.on_down(s->handler.context, why);
    pthread_mutex_lock(&s->lock);
    s->n_pending--;
}

static void done_plain(struct rpc_tag *t, bool ok)
{
    (void)ok;
    struct rpc_stream *s = t->owner;
    pthread_mutex_lock(&s->lock);
    end_pending(s);
}

/* A refused stream has initial metadata too, so acceptance is said in words. */
static const char accepted_key[] = "shoal-accepted";

static bool says_accepted(const grpc_metadata_array *metadata)
{
    for (size_t i = 0; i < metadata->count; i++)
        if (grpc_slice_str_cmp(metadata->metadata[i].key, accepted_key) == 0)
            return true;
    return false;
}

static void done_accepted(struct rpc_tag *t, bool ok)
{
    struct rpc_stream *s = t->owner;
    pthread_mutex_lock(&s->lock);
    s->is_accepted = ok && says_accepted(&s->initial);
    if (s->is_accepted)
        send_next(s);
    end_pending(s);
}

static void done_connected(struct rpc_tag *t, bool ok)
{
    struct rpc_stream *s = t->owner;
    pthread_mutex_lock(&s->lock);
    if (!s->is_closing && ok)
        await_connection(s);
    else if (!s->is_closing)
        begin_call(s);
    end_pending(s);
}

static void done_send(struct rpc_tag *t, bool ok)
{
    (void)ok; /* a failed send is followed by the end, which has the reason */
    struct rpc_stream *s = t->owner;
    pthread_mutex_lock(&s->lock);
    grpc_byte_buffer_destroy(s->sending);
    s->sending = NULL;
    s->is_sending = false;
    s->sent_us += clock_now_us() - s->sending_since_us;
    send_next(s);
    end_pending(s);
}

static enum err hand_over(struct rpc_stream *s, struct error *e)
{
    struct rpc_message m;
    rpc_message_init(&m, s->incoming);
    enum err err = s->handler.on_message(s->handler.context, &m, e);
    rpc_message_release(&m);
    return err;
}

/* The receiver does not want what came: end the call with that, on both sides. */
static void reject(struct rpc_stream *s, const struct error *why)
{
    if (s->is_server && !s->is_finishing) {
        s->finish_reason = *why;
        s->has_reason = true;
        begin_finish(s);
    } else if (!s->is_server) {
        grpc_call_cancel_with_status(s->call, rpc_status_of(why->code), why->text, NULL);
    }
    go_down(s, why);
}

static void end_of_messages(struct rpc_stream *s)
{
    /* A client hears the status next. A server that lost its peer hears so next, too. */
    if (!s->is_server || grpc_call_failed_before_recv_message(s->call))
        return;
    struct error why;
    error_set(&why, ERR_CLOSED, "%s: closed by the peer", s->peer);
    go_down(s, &why);
    begin_finish(s);
}

static void done_receive(struct rpc_tag *t, bool ok)
{
    (void)ok;
    struct rpc_stream *s = t->owner;
    struct error why = {.code = OK};
    enum err err = OK;
    pthread_mutex_lock(&s->lock);
    if (s->incoming == NULL) {
        end_of_messages(s);
        end_pending(s);
        return;
    }
    bool wanted = !s->is_closing && !s->is_down;
    pthread_mutex_unlock(&s->lock);
    if (wanted)
        err = hand_over(s, &why);
    pthread_mutex_lock(&s->lock);
    grpc_byte_buffer_destroy(s->incoming);
    s->incoming = NULL;
    if (err != OK)
        reject(s, &why);
    else
        begin_receive(s); /* also when closing: the end of messages is found by reading on */
    end_pending(s);
}

static bool is_worth_another_call(const struct rpc_stream *s)
{
    return !s->is_server && !s->is_accepted && s->n_attempts < RPC_ATTEMPTS &&
           rpc_is_false_alarm(s->status, s->status_text);
}

static void done_end(struct rpc_tag *t, bool ok)
{
    (void)ok;
    struct rpc_stream *s = t->owner;
    struct error why;
    pthread_mutex_lock(&s->lock);
    if (s->is_server)
        error_set(&why, ERR_UNREACHABLE, "%s: connection lost", s->peer);
    else if (rpc_status_error(s->status, s->status_text, s->peer, &why) == OK)
        error_set(&why, ERR_CLOSED, "%s: closed by the peer", s->peer);
    s->is_stranded = is_worth_another_call(s);
    if (!s->is_stranded)
        go_down(s, &why);
    end_pending(s);
}

/* ---- making ---- */

static struct rpc_stream *new_stream(struct rpc_loop *l, bool is_server)
{
    struct rpc_stream *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    s->loop = l;
    s->is_server = is_server;
    s->on_start = s->on_finish = (struct rpc_tag){done_plain, s};
    s->on_accepted = (struct rpc_tag){done_accepted, s};
    s->on_receive = (struct rpc_tag){done_receive, s};
    s->on_send = (struct rpc_tag){done_send, s};
    s->on_end = (struct rpc_tag){done_end, s};
    s->on_connected = (struct rpc_tag){done_connected, s};
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return s;
}

static bool set_handler(struct rpc_stream *s, const struct rpc_stream_handler *handler,
                        int max_queued)
{
    ASSERT(max_queued >= 1);
    s->handler = *handler;
    s->n_places = max_queued + 1;
    s->queue = calloc((size_t)s->n_places, sizeof(*s->queue));
    return s->queue != NULL;
}

enum err rpc_stream_open(struct rpc_loop *l, struct rpc_channel *c, const char *method,
                         const struct rpc_metadata *metadata, int n_metadata,
                         const struct rpc_stream_handler *handler, int max_queued,
                         struct rpc_stream **out, struct error *e)
{
    ASSERT(n_metadata <= RPC_MAX_METADATA);
    *out = NULL;
    struct rpc_stream *s = new_stream(l, false);
    if (s == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a stream");
    memcpy(s->peer, c->address, sizeof(s->peer));
    s->channel = c;
    s->method = method;
    s->n_metadata = n_metadata;
    for (int i = 0; i < n_metadata; i++)
        s->metadata[i] = metadata[i];
    s->wait_us = RPC_FIRST_WAIT_US;
    if (!set_handler(s, handler, max_queued)) {
        free_stream(s);
        return error_set(e, ERR_MEMORY, "no memory for a stream");
    }
    /* The owner must know the stream before its first callback can come. */
    *out = s;
    pthread_mutex_lock(&s->lock);
    begin_call(s);
    pthread_mutex_unlock(&s->lock);
    return OK;
}

struct rpc_stream *rpc_stream_new_server(struct rpc_loop *l, grpc_call *call)
{
    struct rpc_stream *s = new_stream(l, true);
    if (s == NULL)
        return NULL;
    init_call(s, call);
    rpc_peer_text(call, s->peer);
    return s;
}

static void start_server(struct rpc_stream *s)
{
    grpc_metadata accepted = {.key = grpc_slice_from_static_string(accepted_key),
                              .value = grpc_slice_from_static_string("1")};
    grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    op.data.send_initial_metadata.count = 1;
    op.data.send_initial_metadata.metadata = &accepted;
    begin(s, &op, &s->on_start);
    op = (grpc_op){.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &s->was_cancelled;
    begin(s, &op, &s->on_end);
}

enum err rpc_stream_accept(struct rpc_stream *s, const struct rpc_stream_handler *handler,
                           int max_queued, struct error *e)
{
    if (!set_handler(s, handler, max_queued))
        return error_set(e, ERR_MEMORY, "no memory for a stream");
    pthread_mutex_lock(&s->lock);
    s->is_accepted = true;
    start_server(s);
    begin_receive(s);
    pthread_mutex_unlock(&s->lock);
    return OK;
}

void rpc_stream_refuse(struct rpc_stream *s, const struct error *why)
{
    pthread_mutex_lock(&s->lock);
    s->is_refused = s->is_closing = true;
    s->finish_reason = *why;
    s->has_reason = true;
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &s->was_cancelled;
    begin(s, &op, &s->on_end);
    op = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    begin(s, &op, &s->on_start);
    begin_finish(s);
    pthread_mutex_unlock(&s->lock);
}

/* ---- using ---- */

/* What becomes of a message; the lock is held. The buffer is taken only with OK. */
static enum err enqueue(struct rpc_stream *s, grpc_byte_buffer *message)
{
    if (s->is_down || s->is_closing || s->is_finishing)
        return ERR_CLOSED;
    if (s->is_accepted && !s->is_sending) {
        begin_send(s, message);
        return OK;
    }
    if (s->n_queued + s->is_sending == s->n_places)
        return ERR_FULL;
    s->queue[(s->queue_first + s->n_queued++) % s->n_places] = message;
    return OK;
}

enum err rpc_stream_send(struct rpc_stream *s, const struct rpc_outgoing *m)
{
    grpc_byte_buffer *message = rpc_outgoing_buffer(m);
    pthread_mutex_lock(&s->lock);
    enum err err = enqueue(s, message);
    pthread_mutex_unlock(&s->lock);
    if (err != OK)
        grpc_byte_buffer_destroy(message);
    return err;
}

time_us rpc_stream_sending_us(struct rpc_stream *s)
{
    pthread_mutex_lock(&s->lock);
    time_us us = s->sent_us + (s->is_sending ? clock_now_us() - s->sending_since_us : 0);
    pthread_mutex_unlock(&s->lock);
    return us;
}

bool rpc_stream_is_accepted(struct rpc_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool accepted = s->is_accepted;
    pthread_mutex_unlock(&s->lock);
    return accepted;
}

const char *rpc_stream_peer(const struct rpc_stream *s)
{
    return s->peer;
}

void rpc_stream_close(struct rpc_stream *s, const struct error *status)
{
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_closing = true;
    if (status != NULL && !s->has_reason) {
        s->finish_reason = *status;
        s->has_reason = true;
    }
    if (!s->is_sending && s->n_queued == 0)
        begin_finish(s);
    struct timespec until = clock_deadline(FLUSH_US);
    while (s->n_pending > 0 && pthread_cond_timedwait(&s->changed, &s->lock, &until) == 0)
        ;
    if (s->n_pending > 0)
        grpc_call_cancel(s->call, NULL);
    while (s->n_pending > 0)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    free_stream(s);
}
