/* The server: accepts calls, finds their method, runs blocking handlers on a few threads.
 *
 * The loop thread takes a new call, reads its request (unary, produce) and puts it into a bounded
 * queue; a server thread runs the handler and answers. Streams are handed to their acceptor right
 * away. A call is freed when the last of its completions has come. */
#include "rpc/rpc_impl.h"

#include "base/panic.h"
#include "base/queue.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct rpc_server {
    struct rpc_loop *loop;
    grpc_server *server;
    const struct rpc_method *methods;
    void *context;
    char address[ADDRESS_MAX];
    int port;
    struct queue *work; /* of struct rpc_call, read by the threads */
    pthread_t threads[RPC_SERVER_THREADS];
    int n_threads;
    struct rpc_tag on_new, on_shutdown;

    /* The call that gRPC fills next; loop thread. */
    grpc_call *next_call;
    grpc_call_details details;
    grpc_metadata_array metadata;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_stopping;
    bool is_asking; /* on_new is under way */
    bool is_shut;   /* on_shutdown came */
    int n_calls;    /* struct rpc_call alive */
};

struct rpc_call {
    struct rpc_server *server;
    const struct rpc_method *method;
    grpc_call *call;
    char peer_host[256];
    struct rpc_tag on_receive, on_end, on_send, on_finish;
    grpc_byte_buffer *incoming;
    int was_cancelled;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_pending;
    bool is_sending, sent_ok;
    bool has_started; /* initial metadata was sent */
    bool is_over;     /* the end came: finished, or the caller has gone */
    bool is_left;     /* no handler holds it any more: the last completion frees it */
};

/* ---- one call ---- */

static void free_call(struct rpc_call *c)
{
    struct rpc_server *s = c->server;
    if (c->incoming != NULL)
        grpc_byte_buffer_destroy(c->incoming);
    grpc_call_unref(c->call);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
    pthread_mutex_lock(&s->lock);
    s->n_calls--;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void begin(struct rpc_call *c, const grpc_op *ops, size_t n_ops, struct rpc_tag *tag)
{
    c->n_pending++;
    rpc_start(c->call, ops, n_ops, tag);
}

static void end_pending(struct rpc_call *c)
{
    c->n_pending--;
    bool free_now = c->n_pending == 0 && c->is_left;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (free_now)
        free_call(c);
}

static void done_finish(struct rpc_tag *t, bool ok)
{
    (void)ok;
    struct rpc_call *c = t->owner;
    pthread_mutex_lock(&c->lock);
    end_pending(c);
}

static void done_end(struct rpc_tag *t, bool ok)
{
    (void)ok;
    struct rpc_call *c = t->owner;
    pthread_mutex_lock(&c->lock);
    c->is_over = true;
    end_pending(c);
}

static void done_send(struct rpc_tag *t, bool ok)
{
    struct rpc_call *c = t->owner;
    pthread_mutex_lock(&c->lock);
    c->is_sending = false;
    c->sent_ok = ok;
    end_pending(c);
}

/* Answer with `message` (unary; may be NULL) and how it ended; the call is left to itself. */
static void finish(struct rpc_call *c, grpc_byte_buffer *message, const struct error *why)
{
    grpc_op ops[3] = {0};
    size_t n = 0;
    grpc_slice text = grpc_slice_from_copied_string(why->code != OK ? why->text : "");
    pthread_mutex_lock(&c->lock);
    if (!c->has_started)
        ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (message != NULL) {
        ops[n].op = GRPC_OP_SEND_MESSAGE;
        ops[n++].data.send_message.send_message = message;
    }
    ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[n].data.send_status_from_server.status = rpc_status_of(why->code);
    ops[n++].data.send_status_from_server.status_details = &text;
    begin(c, ops, n, &c->on_finish);
    c->is_left = true;
    pthread_mutex_unlock(&c->lock);
    grpc_slice_unref(text);
    if (message != NULL)
        grpc_byte_buffer_destroy(message); /* gRPC has taken its slices */
}

static void refuse(struct rpc_call *c, enum err code, const char *text)
{
    struct error why;
    error_set(&why, code, "%s", text);
    finish(c, NULL, &why);
}

static void done_receive(struct rpc_tag *t, bool ok)
{
    struct rpc_call *c = t->owner;
    if (!ok || c->incoming == NULL)
        refuse(c, ERR_INVALID, "a call without a request");
    else if (queue_try_push(c->server->work, c) != OK)
        refuse(c, ERR_FULL, "the node is busy: too many calls are waiting");
    pthread_mutex_lock(&c->lock);
    end_pending(c);
}

/* A call whose request is to be read. Takes the gRPC call. */
static void call_start(struct rpc_server *s, const struct rpc_method *method, grpc_call *call)
{
    struct rpc_call *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        grpc_call_cancel_with_status(call, GRPC_STATUS_RESOURCE_EXHAUSTED, "no memory", NULL);
        grpc_call_unref(call);
        return;
    }
    *c = (struct rpc_call){.server = s,
                           .method = method,
                           .call = call,
                           .on_receive = {done_receive, c},
                           .on_end = {done_end, c},
                           .on_send = {done_send, c},
                           .on_finish = {done_finish, c}};
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    struct address peer;
    char text[ADDRESS_MAX];
    rpc_peer_text(call, text);
    if (address_parse(text, &peer, NULL) == OK)
        memcpy(c->peer_host, peer.host, sizeof(c->peer_host));
    pthread_mutex_lock(&s->lock);
    s->n_calls++;
    pthread_mutex_unlock(&s->lock);

    pthread_mutex_lock(&c->lock);
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &c->was_cancelled;
    begin(c, &op, 1, &c->on_end);
    if (method == NULL) {
        pthread_mutex_unlock(&c->lock);
        refuse(c, ERR_UNSUPPORTED, "no such method");
        return;
    }
    op = (grpc_op){.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &c->incoming;
    begin(c, &op, 1, &c->on_receive);
    pthread_mutex_unlock(&c->lock);
}

static void run_call(struct rpc_call *c)
{
    struct error why = {.code = OK};
    struct rpc_buffer request, answer = {0};
    grpc_byte_buffer *message = NULL;
    enum err err = rpc_buffer_copy(c->incoming, &request, &why);
    if (err == OK && c->method->unary != NULL) {
        err = c->method->unary(c->server->context, c, request.data, request.bytes, &answer, &why);
        if (err == OK)
            message = rpc_outgoing_buffer(&(struct rpc_outgoing){.body = answer.data,
                                                                 .body_bytes = answer.bytes,
                                                                 .release = free,
                                                                 .body_context = answer.data});
    } else if (err == OK) {
        err = c->method->produce(c->server->context, c, request.data, request.bytes, &why);
    }
    ASSERT((err == OK) == (why.code == OK));
    rpc_buffer_release(&request);
    finish(c, message, &why);
}

static void *serve_calls(void *context)
{
    struct rpc_server *s = context;
    void *item;
    while (queue_pop(s->work, &item, -1) == OK)
        run_call(item);
    return NULL;
}

enum err rpc_call_send(struct rpc_call *c, const struct rpc_outgoing *m)
{
    grpc_byte_buffer *message = rpc_outgoing_buffer(m);
    grpc_op ops[2] = {{.op = GRPC_OP_SEND_MESSAGE}, {.op = GRPC_OP_SEND_INITIAL_METADATA}};
    ops[0].data.send_message.send_message = message;
    pthread_mutex_lock(&c->lock);
    c->is_sending = true;
    begin(c, ops, c->has_started ? 1 : 2, &c->on_send);
    c->has_started = true;
    while (c->is_sending)
        pthread_cond_wait(&c->changed, &c->lock);
    bool sent = c->sent_ok && !c->is_over;
    pthread_mutex_unlock(&c->lock);
    grpc_byte_buffer_destroy(message);
    return sent ? OK : ERR_CANCELLED;
}

bool rpc_call_is_cancelled(struct rpc_call *c)
{
    pthread_mutex_lock(&c->lock);
    bool over = c->is_over;
    pthread_mutex_unlock(&c->lock);
    return over;
}

const char *rpc_call_peer_host(const struct rpc_call *c)
{
    return c->peer_host;
}

/* ---- new calls; loop thread ---- */

static void ask_for_call(struct rpc_server *s)
{
    grpc_call_details_init(&s->details);
    grpc_metadata_array_init(&s->metadata);
    s->next_call = NULL;
    grpc_call_error error = grpc_server_request_call(
        s->server, &s->next_call, &s->details, &s->metadata, s->loop->cq, s->loop->cq, &s->on_new);
    if (error != GRPC_CALL_OK)
        PANIC("gRPC refuses to serve: %s", grpc_call_error_to_string(error));
}

static bool slice_is(grpc_slice slice, const char *text)
{
    size_t n = strlen(text);
    return GRPC_SLICE_LENGTH(slice) == n && memcmp(GRPC_SLICE_START_PTR(slice), text, n) == 0;
}

static const struct rpc_method *find_method(const struct rpc_server *s)
{
    for (const struct rpc_method *m = s->methods; m->path != NULL; m++)
        if (slice_is(s->details.method, m->path))
            return m;
    return NULL;
}

static bool copy_value(grpc_slice from, char to[static RPC_MAX_VALUE])
{
    size_t n = GRPC_SLICE_LENGTH(from);
    if (n >= RPC_MAX_VALUE)
        return false;
    memcpy(to, GRPC_SLICE_START_PTR(from), n);
    to[n] = 0;
    return true;
}

/* The pairs of ours ("shoal-…"); whatever else a client sends along is ignored. */
static int collect_metadata(const struct rpc_server *s, struct rpc_metadata out[RPC_MAX_METADATA])
{
    int n = 0;
    for (size_t i = 0; i < s->metadata.count && n < RPC_MAX_METADATA; i++) {
        const grpc_metadata *pair = &s->metadata.metadata[i];
        if (copy_value(pair->key, out[n].key) && copy_value(pair->value, out[n].value) &&
            strncmp(out[n].key, "shoal-", 6) == 0)
            n++;
    }
    return n;
}

static void start_stream(struct rpc_server *s, const struct rpc_method *method, grpc_call *call)
{
    struct rpc_metadata metadata[RPC_MAX_METADATA];
    int n = collect_metadata(s, metadata);
    struct rpc_stream *stream = rpc_stream_new_server(s->loop, call);
    struct error why = {.code = OK};
    if (stream == NULL) {
        grpc_call_cancel_with_status(call, GRPC_STATUS_RESOURCE_EXHAUSTED, "no memory", NULL);
        grpc_call_unref(call);
        return;
    }
    if (method->accept(s->context, stream, metadata, n, &why) != OK)
        rpc_stream_refuse(stream, &why);
}

static void done_new(struct rpc_tag *t, bool ok)
{
    struct rpc_server *s = t->owner;
    if (ok) {
        const struct rpc_method *method = find_method(s);
        if (method != NULL && method->accept != NULL)
            start_stream(s, method, s->next_call);
        else
            call_start(s, method, s->next_call);
    }
    grpc_metadata_array_destroy(&s->metadata);
    grpc_call_details_destroy(&s->details);
    pthread_mutex_lock(&s->lock);
    bool again = ok && !s->is_stopping;
    if (again)
        ask_for_call(s);
    else
        s->is_asking = false;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void done_shutdown(struct rpc_tag *t, bool ok)
{
    (void)ok;
    struct rpc_server *s = t->owner;
    pthread_mutex_lock(&s->lock);
    s->is_shut = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* ---- start and stop ---- */

/* gRPC only logs why it cannot listen: ask the system once more, for the message. */
static enum err why_not(const struct address *a, const char *text, struct error *e)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    char port[8];
    snprintf(port, sizeof(port), "%d", a->port);
    int err = getaddrinfo(a->host, port, &hints, &list);
    if (err != 0)
        return error_set(e, ERR_IO, "cannot listen on %s: %s", text, gai_strerror(err));
    int fd = socket(list->ai_family, list->ai_socktype, list->ai_protocol), code = 0, one = 1;
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, 1) != 0)
        code = errno;
    if (fd >= 0)
        close(fd);
    freeaddrinfo(list);
    if (code != 0)
        return error_errno(e, ERR_IO, code, "cannot listen on %s", text);
    return error_set(e, ERR_IO, "cannot listen on %s", text);
}

static enum err open_port(struct rpc_server *s, const char *listen_text, struct error *e)
{
    struct address a;
    enum err err = address_parse(listen_text, &a, e);
    if (err != OK)
        return err;
    address_format(&a, s->address);
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    s->port = grpc_server_add_http2_port(s->server, s->address, plain);
    grpc_server_credentials_release(plain);
    if (s->port == 0)
        return why_not(&a, s->address, e);
    a.port = s->port;
    address_format(&a, s->address);
    return OK;
}

static grpc_server *make_server(void)
{
    grpc_arg args[RPC_N_ARGS];
    int n = rpc_common_args(args);
    args[n++] = rpc_int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0); /* a port in use is an error */
    args[n++] =
        rpc_int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, RPC_KEEPALIVE_MS / 4);
    args[n++] = rpc_int_arg(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
    args[n++] = rpc_int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, 256);
    ASSERT(n <= RPC_N_ARGS);
    return grpc_server_create(&(grpc_channel_args){.num_args = (size_t)n, .args = args}, NULL);
}

static void shut_down(struct rpc_server *s)
{
    grpc_server_shutdown_and_notify(s->server, s->loop->cq, &s->on_shutdown);
    grpc_server_cancel_all_calls(s->server);
    pthread_mutex_lock(&s->lock);
    while (!s->is_shut || s->is_asking)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static enum err start_threads(struct rpc_server *s, struct error *e)
{
    for (; s->n_threads < RPC_SERVER_THREADS; s->n_threads++) {
        int err = pthread_create(&s->threads[s->n_threads], NULL, serve_calls, s);
        if (err != 0)
            return error_errno(e, ERR_MEMORY, err, "cannot start server threads");
    }
    return OK;
}

enum err rpc_server_start(struct rpc_loop *l, const struct rpc_server_options *o,
                          struct rpc_server **out, struct error *e)
{
    *out = NULL;
    struct rpc_server *s = calloc(1, sizeof(*s));
    struct queue *work = s != NULL ? queue_new(RPC_SERVER_WAITING) : NULL;
    if (work == NULL) {
        free(s);
        return error_set(e, ERR_MEMORY, "no memory for a server");
    }
    *s = (struct rpc_server){.loop = l,
                             .methods = o->methods,
                             .context = o->context,
                             .work = work,
                             .on_new = {done_new, s},
                             .on_shutdown = {done_shutdown, s}};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    rpc_library_open();
    s->server = make_server();
    grpc_server_register_completion_queue(s->server, l->cq, NULL);
    enum err err = open_port(s, o->listen, e);
    if (err == OK)
        err = start_threads(s, e);
    grpc_server_start(s->server);
    if (err != OK) {
        rpc_server_stop(s);
        return err;
    }
    s->is_asking = true;
    ask_for_call(s);
    *out = s;
    return OK;
}

void rpc_server_stop(struct rpc_server *s)
{
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_stopping = true;
    pthread_mutex_unlock(&s->lock);
    shut_down(s);
    queue_close(s->work); /* what waits is still answered: a cancelled call ends quickly */
    for (int i = 0; i < s->n_threads; i++)
        pthread_join(s->threads[i], NULL);
    pthread_mutex_lock(&s->lock);
    while (s->n_calls > 0)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    grpc_server_destroy(s->server);
    queue_free(s->work);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    grpc_shutdown();
    free(s);
}

const char *rpc_server_address(const struct rpc_server *s)
{
    return s->address;
}

int rpc_server_port(const struct rpc_server *s)
{
    return s->port;
}
