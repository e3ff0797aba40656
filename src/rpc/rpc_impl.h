/* What the files of src/rpc share: tags, the loop, byte buffers, status codes. */
#ifndef SHOAL_RPC_RPC_IMPL_H
#define SHOAL_RPC_RPC_IMPL_H

#include "rpc/rpc.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>

#include <pthread.h>

/* What a completion queue hands back: the address of a tag inside the object that waits. */
struct rpc_tag {
    void (*done)(struct rpc_tag *t, bool ok);
    void *owner;
};

struct rpc_loop {
    grpc_completion_queue *cq;
    pthread_t thread;
};

struct rpc_channel {
    grpc_channel *channel;
    char address[ADDRESS_MAX];
};

struct rpc_message {
    grpc_byte_buffer_reader reader;
    grpc_slice slice; /* the one being read, its first `at` bytes done */
    size_t at;
    bool has_slice;
    size_t left;
};

/* grpc_init with our log function; every successful user calls grpc_shutdown. */
void rpc_library_open(void);

/* NULL without memory; takes the message either way. */
grpc_byte_buffer *rpc_outgoing_buffer(const struct rpc_outgoing *m);
grpc_byte_buffer *rpc_bytes_buffer(const void *data, size_t bytes); /* copies */
/* Copy into one piece. ERR_MEMORY. */
enum err rpc_buffer_copy(grpc_byte_buffer *from, struct rpc_buffer *out, struct error *e);
void rpc_message_init(struct rpc_message *m, grpc_byte_buffer *from);
void rpc_message_release(struct rpc_message *m);

grpc_status_code rpc_status_of(enum err code);
/* The error that a status is: its text behind "address: ". OK for GRPC_STATUS_OK. */
enum err rpc_status_error(grpc_status_code status, grpc_slice text, const char *address,
                          struct error *e);
/* Whether this status says that connecting failed although it had not: try again. */
bool rpc_is_false_alarm(grpc_status_code status, grpc_slice text);

/* "ipv4:127.0.0.1:4711" as gRPC writes peers, as an address; text that is none stays as it is. */
void rpc_peer_text(grpc_call *call, char out[static ADDRESS_MAX]);

grpc_call *rpc_call_new(struct rpc_channel *c, grpc_completion_queue *cq, const char *method,
                        gpr_timespec deadline);
gpr_timespec rpc_deadline_in(time_us timeout_us); /* <= 0: never */

/* After a false alarm: how often a call or stream is tried in all, and how long the connection is
 * waited for before the next try: 5, 20, 80 ms. */
enum { RPC_ATTEMPTS = 4, RPC_FIRST_WAIT_US = 5000, RPC_WAIT_GROWTH = 4 };
/* Connect, and hear by `tag` of the next change of the connection's state (or of the deadline: not
 * ok). False if there is nothing to wait for: connected, or closed. */
bool rpc_channel_watch(struct rpc_channel *c, gpr_timespec deadline, grpc_completion_queue *cq,
                       struct rpc_tag *tag);

/* Start a batch; our batches are always well formed, so anything but OK is a bug of ours. */
void rpc_start(grpc_call *call, const grpc_op *ops, size_t n_ops, struct rpc_tag *tag);

/* The stream of an incoming call, not yet accepted (rpc_stream.c). Takes the call; NULL without
 * memory. */
struct rpc_stream *rpc_stream_new_server(struct rpc_loop *l, grpc_call *call);
/* The acceptor refused it: tell the peer; it frees itself. */
void rpc_stream_refuse(struct rpc_stream *s, const struct error *why);

/* Channel arguments common to clients and servers. */
enum { RPC_N_ARGS = 16 };
int rpc_common_args(grpc_arg args[static RPC_N_ARGS]);
grpc_arg rpc_int_arg(const char *key, int value);

#endif
