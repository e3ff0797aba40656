/* Client side: channels, blocking calls, blocking readers of server streams.
 *
 * A blocking call has a small completion queue of its own, from which its thread plucks: it needs
 * no other thread and cannot be held up by one. */
#include "rpc/rpc_impl.h"

#include "base/panic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum err rpc_channel_open(const char *address, struct rpc_channel **out, struct error *e)
{
    *out = NULL;
    struct address parsed;
    enum err err = address_parse(address, &parsed, e);
    if (err != OK)
        return err;
    struct rpc_channel *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a channel");
    address_format(&parsed, c->address);
    rpc_library_open();
    grpc_arg args[RPC_N_ARGS];
    int n = rpc_common_args(args);
    /* Channels to one node keep apart: control, activations and weights do not wait for each
     * other. Retrying is the callers' decision; a proxy from the environment is not for us. */
    args[n++] = rpc_int_arg("grpc.use_local_subchannel_pool", 1);
    args[n++] = rpc_int_arg("grpc.enable_retries", 0);
    args[n++] = rpc_int_arg("grpc.enable_http_proxy", 0);
    args[n++] = rpc_int_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    ASSERT(n <= RPC_N_ARGS);
    grpc_channel_args all = {.num_args = (size_t)n, .args = args};
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    c->channel = grpc_channel_create(c->address, plain, &all);
    grpc_channel_credentials_release(plain);
    *out = c;
    return OK;
}

void rpc_channel_close(struct rpc_channel *c)
{
    if (c == NULL)
        return;
    grpc_channel_destroy(c->channel);
    grpc_shutdown();
    free(c);
}

const char *rpc_channel_address(const struct rpc_channel *c)
{
    return c->address;
}

grpc_call *rpc_call_new(struct rpc_channel *c, grpc_completion_queue *cq, const char *method,
                        gpr_timespec deadline)
{
    grpc_slice path = grpc_slice_from_copied_string(method);
    grpc_call *call = grpc_channel_create_call(c->channel, NULL, 0, cq, path, NULL, deadline, NULL);
    grpc_slice_unref(path);
    return call;
}

gpr_timespec rpc_deadline_in(time_us timeout_us)
{
    if (timeout_us <= 0)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_micros(timeout_us, GPR_TIMESPAN));
}

/* ---- one blocking call: the reader is the general case, a unary call reads one answer ---- */

struct rpc_reader {
    struct rpc_channel *channel;
    const char *method;
    grpc_byte_buffer *request;
    gpr_timespec deadline;
    grpc_completion_queue *cq;
    int n_calls;     /* made so far, to try again after a false alarm */
    time_us wait_us; /* for the connection of the next */
    bool has_answer;

    /* the call now */
    grpc_call *call;
    struct rpc_tag start, receive, end; /* only their addresses count */
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *sending, *incoming;
    grpc_status_code status;
    grpc_slice status_text;
    bool ended; /* the status is known */
};

static void begin_call(struct rpc_reader *r)
{
    r->n_calls++;
    r->ended = false;
    r->status_text = grpc_empty_slice();
    grpc_metadata_array_init(&r->initial);
    grpc_metadata_array_init(&r->trailing);
    r->call = rpc_call_new(r->channel, r->cq, r->method, r->deadline);
    r->sending = grpc_byte_buffer_copy(r->request); /* gRPC empties what it sends */
    grpc_op begin[4] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                        {.op = GRPC_OP_SEND_MESSAGE},
                        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
                        {.op = GRPC_OP_RECV_INITIAL_METADATA}};
    begin[1].data.send_message.send_message = r->sending;
    begin[3].data.recv_initial_metadata.recv_initial_metadata = &r->initial;
    rpc_start(r->call, begin, 4, &r->start);
    grpc_op end = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    end.data.recv_status_on_client.trailing_metadata = &r->trailing;
    end.data.recv_status_on_client.status = &r->status;
    end.data.recv_status_on_client.status_details = &r->status_text;
    rpc_start(r->call, &end, 1, &r->end);
}

static enum err reader_open(struct rpc_channel *c, const char *method, const void *request,
                            size_t bytes, time_us timeout_us, struct rpc_reader **out,
                            struct error *e)
{
    *out = NULL;
    struct rpc_reader *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a call");
    r->channel = c;
    r->method = method;
    r->request = rpc_bytes_buffer(request, bytes);
    r->deadline = rpc_deadline_in(timeout_us);
    r->cq = grpc_completion_queue_create_for_pluck(NULL);
    r->wait_us = RPC_FIRST_WAIT_US;
    begin_call(r);
    *out = r;
    return OK;
}

enum err rpc_reader_open(struct rpc_channel *c, const char *method, const void *request,
                         size_t bytes, struct rpc_reader **out, struct error *e)
{
    return reader_open(c, method, request, bytes, 0, out, e);
}

static bool pluck(struct rpc_reader *r, struct rpc_tag *tag, time_us timeout_us)
{
    grpc_event event = grpc_completion_queue_pluck(r->cq, tag, rpc_deadline_in(timeout_us), NULL);
    return event.type == GRPC_OP_COMPLETE;
}

/* The call's own end: waits for the status, which comes in every case. */
static enum err reader_status(struct rpc_reader *r, struct error *e)
{
    if (!r->ended)
        pluck(r, &r->end, 0);
    r->ended = true;
    return rpc_status_error(r->status, r->status_text, r->channel->address, e);
}

static void end_call(struct rpc_reader *r)
{
    reader_status(r, NULL);
    pluck(r, &r->start, 0);
    grpc_call_unref(r->call);
    grpc_byte_buffer_destroy(r->sending);
    grpc_metadata_array_destroy(&r->initial);
    grpc_metadata_array_destroy(&r->trailing);
    grpc_slice_unref(r->status_text);
}

bool rpc_channel_watch(struct rpc_channel *c, gpr_timespec deadline, grpc_completion_queue *cq,
                       struct rpc_tag *tag)
{
    grpc_connectivity_state s = grpc_channel_check_connectivity_state(c->channel, 1);
    if (s == GRPC_CHANNEL_READY || s == GRPC_CHANNEL_SHUTDOWN)
        return false;
    grpc_channel_watch_connectivity_state(c->channel, s, deadline, cq, tag);
    return true;
}

/* Connect again at once, and wait for it a while. (gRPC connects only while somebody polls.) */
static void connect_again(struct rpc_channel *c, time_us timeout_us)
{
    struct rpc_tag tag; /* only its address counts */
    gpr_timespec deadline = rpc_deadline_in(timeout_us), never = rpc_deadline_in(0);
    grpc_completion_queue *cq = grpc_completion_queue_create_for_pluck(NULL);
    grpc_channel_reset_connect_backoff(c->channel);
    while (rpc_channel_watch(c, deadline, cq, &tag) &&
           grpc_completion_queue_pluck(cq, &tag, never, NULL).success)
        ;
    grpc_completion_queue_shutdown(cq);
    grpc_completion_queue_destroy(cq);
}

static enum err next_of_call(struct rpc_reader *r, time_us timeout_us, struct rpc_buffer *out,
                             struct error *e)
{
    if (!r->ended) {
        grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
        op.data.recv_message.recv_message = &r->incoming;
        rpc_start(r->call, &op, 1, &r->receive);
        if (!pluck(r, &r->receive, timeout_us)) {
            grpc_call_cancel(r->call, NULL);
            pluck(r, &r->receive, 0);
            reader_status(r, NULL);
            if (r->incoming != NULL)
                grpc_byte_buffer_destroy(r->incoming);
            r->incoming = NULL;
            return error_set(e, ERR_TIMEOUT, "%s: silent for %lld ms", r->channel->address,
                             (long long)(timeout_us / 1000));
        }
    }
    if (r->incoming != NULL) {
        enum err err = rpc_buffer_copy(r->incoming, out, e);
        grpc_byte_buffer_destroy(r->incoming);
        r->incoming = NULL;
        r->has_answer = true;
        return err;
    }
    enum err err = reader_status(r, e);
    return err != OK ? err : error_set(e, ERR_CLOSED, "%s: end of the answer", r->channel->address);
}

static bool is_worth_another_call(const struct rpc_reader *r)
{
    return r->ended && !r->has_answer && r->n_calls < RPC_ATTEMPTS &&
           rpc_is_false_alarm(r->status, r->status_text);
}

/* After a false alarm nothing was sent: the call can be made again. */
enum err rpc_reader_next(struct rpc_reader *r, time_us timeout_us, struct rpc_buffer *out,
                         struct error *e)
{
    struct error why;
    *out = (struct rpc_buffer){0};
    enum err err = next_of_call(r, timeout_us, out, &why);
    for (; is_worth_another_call(r); r->wait_us *= RPC_WAIT_GROWTH) {
        end_call(r);
        connect_again(r->channel, r->wait_us);
        begin_call(r);
        err = next_of_call(r, timeout_us, out, &why);
    }
    if (err != OK && e != NULL)
        *e = why;
    return err;
}

void rpc_reader_close(struct rpc_reader *r)
{
    if (r == NULL)
        return;
    if (!r->ended)
        grpc_call_cancel(r->call, NULL);
    end_call(r);
    grpc_completion_queue_shutdown(r->cq);
    while (
        grpc_completion_queue_pluck(r->cq, NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
        GRPC_QUEUE_SHUTDOWN)
        ;
    grpc_completion_queue_destroy(r->cq);
    grpc_byte_buffer_destroy(r->request);
    free(r);
}

enum err rpc_unary(struct rpc_channel *c, const char *method, const void *request, size_t bytes,
                   time_us timeout_us, struct rpc_buffer *answer, struct error *e)
{
    struct rpc_reader *r;
    *answer = (struct rpc_buffer){0};
    enum err err = reader_open(c, method, request, bytes, timeout_us, &r, e);
    if (err != OK)
        return err;
    err = rpc_reader_next(r, 0, answer, e);
    if (err == OK) {
        err = reader_status(r, e);
        if (err != OK)
            rpc_buffer_release(answer);
    } else if (err == ERR_CLOSED && r->status == GRPC_STATUS_OK) {
        err = error_set(e, ERR_FORMAT, "%s: %s gave no answer", c->address, method);
    }
    rpc_reader_close(r);
    return err;
}
