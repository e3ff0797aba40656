/* The completion queue thread, and what every client and server of the process sets alike. */
#include "rpc/rpc_impl.h"

#include "base/bounds.h"
#include "base/log.h"
#include "base/panic.h"

#include <grpc/support/log.h>
#include <stdlib.h>
#include <string.h>

/* gRPC's own messages are for its developers; ours say what happened to the user. */
static void log_of_grpc(gpr_log_func_args *args)
{
    log_debug("grpc: %s", args->message);
}

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void library_setup(void)
{
    gpr_set_log_function(log_of_grpc);
    gpr_set_log_verbosity(log_enabled(LOG_DEBUG) ? GPR_LOG_SEVERITY_INFO : GPR_LOG_SEVERITY_ERROR);
}

void rpc_library_open(void)
{
    pthread_once(&library_once, library_setup);
    grpc_init();
}

static void *loop_run(void *context)
{
    struct rpc_loop *l = context;
    for (;;) {
        grpc_event event =
            grpc_completion_queue_next(l->cq, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (event.type != GRPC_OP_COMPLETE)
            continue;
        struct rpc_tag *tag = event.tag;
        tag->done(tag, event.success != 0);
    }
}

enum err rpc_loop_start(struct rpc_loop **out, struct error *e)
{
    *out = NULL;
    struct rpc_loop *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a completion queue");
    rpc_library_open();
    l->cq = grpc_completion_queue_create_for_next(NULL);
    int err = pthread_create(&l->thread, NULL, loop_run, l);
    if (err != 0) {
        grpc_completion_queue_shutdown(l->cq);
        grpc_completion_queue_destroy(l->cq);
        grpc_shutdown();
        free(l);
        return error_errno(e, ERR_MEMORY, err, "cannot start the network thread");
    }
    *out = l;
    return OK;
}

void rpc_loop_stop(struct rpc_loop *l)
{
    if (l == NULL)
        return;
    grpc_completion_queue_shutdown(l->cq);
    pthread_join(l->thread, NULL);
    grpc_completion_queue_destroy(l->cq);
    grpc_shutdown();
    free(l);
}

void rpc_start(grpc_call *call, const grpc_op *ops, size_t n_ops, struct rpc_tag *tag)
{
    grpc_call_error error = grpc_call_start_batch(call, ops, n_ops, tag, NULL);
    if (error != GRPC_CALL_OK)
        PANIC("gRPC refuses a batch: %s", grpc_call_error_to_string(error));
}

grpc_arg rpc_int_arg(const char *key, int value)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

int rpc_common_args(grpc_arg args[static RPC_N_ARGS])
{
    /* The largest frame and its prefix; a few bytes more cost nothing. */
    enum { MESSAGE_MAX = FRAME_MAX_BYTES + 64, STREAM_WINDOW = 16 << 20 };
    int n = 0;
    args[n++] = rpc_int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, MESSAGE_MAX);
    args[n++] = rpc_int_arg(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, MESSAGE_MAX);
    args[n++] = rpc_int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, RPC_KEEPALIVE_MS);
    args[n++] = rpc_int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, RPC_KEEPALIVE_TIMEOUT_MS);
    args[n++] = rpc_int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    args[n++] = rpc_int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    args[n++] = rpc_int_arg(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, STREAM_WINDOW);
    args[n++] = rpc_int_arg(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
    /* A message that inflates could pass every limit on lengths; activations do not compress. */
    args[n++] = rpc_int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0);
    args[n++] = rpc_int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    return n;
}
