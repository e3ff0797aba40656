/* Remote calls: a small shell over gRPC core's C surface. No gRPC type leaves src/rpc.
 *
 * Messages are bytes here; what is in them is the caller's affair (src/node speaks protobuf).
 *
 *   struct rpc_loop     one completion queue with its thread. Everything asynchronous of a process
 *                       (its server, its streams) shares one; callbacks run on that thread and must
 *                       not block, nor close streams.
 *   struct rpc_server   listens; unary and server-streaming calls run on a few threads of its own
 *                       and may block; bidirectional streams are handed over as rpc_stream.
 *   struct rpc_channel  to one node: one TCP connection of its own, made when first used and
 *                       again after it was lost. Calls on it block their thread.
 *   struct rpc_stream   one end of a bidirectional stream, the same on both sides.
 *
 * Failures of the other side arrive as `enum err` with its text: the codes travel as the nearest
 * gRPC status (rpc_status.c), so that any gRPC client understands them. No answer or connection is
 * ERR_UNREACHABLE, a passed deadline ERR_TIMEOUT. All texts name the address. Where gRPC gave up a
 * connection for no reason of connect's (rpc_status.c), calls and streams try it again a few times,
 * within 0.1 s, before anybody hears.
 *
 * Connections are watched with HTTP/2 pings every RPC_KEEPALIVE_MS, so a machine that vanished is
 * noticed within RPC_KEEPALIVE_MS + RPC_KEEPALIVE_TIMEOUT_MS; a process that died, at once. */
#ifndef SHOAL_RPC_RPC_H
#define SHOAL_RPC_RPC_H

#include "base/clock.h"
#include "base/error.h"
#include "rpc/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RPC_KEEPALIVE_MS = 1000,
    RPC_KEEPALIVE_TIMEOUT_MS = 2500,
    RPC_MAX_METADATA = 4,    /* pairs that a stream is opened with */
    RPC_MAX_VALUE = 64,      /* bytes of one value, with terminator */
    RPC_SERVER_THREADS = 4,  /* calls that run at the same time */
    RPC_SERVER_WAITING = 64, /* calls that wait for one of these; more are refused */
};

/* Say what the node is whose address begins the text: "127.0.0.1:1: gone" with "stage 3" becomes
 * "stage 3 127.0.0.1:1: gone". Texts that begin otherwise ("cannot reach …") stay. */
void rpc_error_role(struct error *e, const char *role);

struct rpc_loop;
enum err rpc_loop_start(struct rpc_loop **out, struct error *e);
void rpc_loop_stop(
    struct rpc_loop *l); /* its server and streams are closed already; NULL allowed */

/* ---- messages ---- */

/* Bytes that own their memory. */
struct rpc_buffer {
    uint8_t *data; /* malloc */
    size_t bytes;
};
void rpc_buffer_release(struct rpc_buffer *b); /* frees and empties */

/* A message that arrived on a stream, while the callback runs. Read front to back. */
struct rpc_message;
size_t rpc_message_left(const struct rpc_message *m);
/* The next n bytes; false (and nothing read) if fewer are left. */
bool rpc_message_read(struct rpc_message *m, void *into, size_t n);

/* A message to be sent: `head` is copied, `body` is not: release(body_context) is called once it is
 * no longer needed, whatever becomes of it. */
struct rpc_outgoing {
    const void *head;
    size_t head_bytes;
    const void *body;
    size_t body_bytes;
    void (*release)(void *body_context);
    void *body_context;
};

/* ---- calling ----
 * The text `method` is not copied: it outlives the call, reader or stream. */

struct rpc_channel;
/* Does not connect yet. ERR_INVALID for an address that is none. */
enum err rpc_channel_open(const char *address, struct rpc_channel **out, struct error *e);
void rpc_channel_close(struct rpc_channel *c); /* its calls and streams are over; NULL allowed */
const char *rpc_channel_address(const struct rpc_channel *c);

/* Call `method` ("/package.Service/Name") and wait for the answer at most timeout_us (<= 0: as long
 * as the connection lives). *answer is the caller's. Any thread; several at once. */
enum err rpc_unary(struct rpc_channel *c, const char *method, const void *request, size_t bytes,
                   time_us timeout_us, struct rpc_buffer *answer, struct error *e);

/* A server-streaming call, read message by message. One thread. */
struct rpc_reader;
enum err rpc_reader_open(struct rpc_channel *c, const char *method, const void *request,
                         size_t bytes, struct rpc_reader **out, struct error *e);
/* OK with a message; ERR_CLOSED at the regular end; ERR_TIMEOUT after timeout_us without one (the
 * call is cancelled); else what went wrong. */
enum err rpc_reader_next(struct rpc_reader *r, time_us timeout_us, struct rpc_buffer *out,
                         struct error *e);
void rpc_reader_close(struct rpc_reader *r); /* NULL allowed */

/* ---- streams ---- */

struct rpc_metadata {
    char key[RPC_MAX_VALUE]; /* lower-case letters, digits, '-' */
    char value[RPC_MAX_VALUE];
};

struct rpc_stream;
struct rpc_stream_handler {
    /* Loop thread, one at a time per stream. An error ends the stream with it, on both sides. */
    enum err (*on_message)(void *context, struct rpc_message *m, struct error *e);
    /* Loop thread, once, after the last message: the stream is over, however (ERR_CLOSED when the
     * peer ended it in good order). Not called when rpc_stream_close came first. */
    void (*on_down)(void *context, const struct error *reason);
    void *context;
};

/* Open a stream. It connects in the background: a failure arrives as on_down. */
enum err rpc_stream_open(struct rpc_loop *l, struct rpc_channel *c, const char *method,
                         const struct rpc_metadata *metadata, int n_metadata,
                         const struct rpc_stream_handler *handler, int max_queued,
                         struct rpc_stream **out, struct error *e);

/* Send, or queue behind what is being sent, and until the peer accepts: never blocks. ERR_FULL past
 * max_queued, ERR_CLOSED when the stream is over. Takes the message in every case. Any thread. */
enum err rpc_stream_send(struct rpc_stream *s, const struct rpc_outgoing *m);

/* How long, all in all, messages of this end have waited for the network to take them. Any thread.
 */
time_us rpc_stream_sending_us(struct rpc_stream *s);

/* Inside a server's accept callback: take the stream. ERR_MEMORY. */
enum err rpc_stream_accept(struct rpc_stream *s, const struct rpc_stream_handler *handler,
                           int max_queued, struct error *e);

/* Has the peer accepted it (a server's end always has)? */
bool rpc_stream_is_accepted(struct rpc_stream *s);
const char *rpc_stream_peer(const struct rpc_stream *s); /* address of the other side */

/* End the stream and free it: what was queued is still sent (for a second at most), a server end
 * tells the peer `status` (NULL: all is well). No callback runs any more when this returns. Not
 * from the loop thread. NULL stream allowed. */
void rpc_stream_close(struct rpc_stream *s, const struct error *status);

/* ---- serving ---- */

struct rpc_server;
struct rpc_call; /* a unary or server-streaming call that is being answered */

struct rpc_method {
    const char *path; /* "/package.Service/Name"; NULL ends the table */
    /* Exactly one of the three. */

    /* Server thread. Fill *answer (malloc'ed; freed by the server) or answer an error. */
    enum err (*unary)(void *context, struct rpc_call *call, const void *request, size_t bytes,
                      struct rpc_buffer *answer, struct error *e);
    /* Server thread. Send messages with rpc_call_send, then return how it ended. */
    enum err (*produce)(void *context, struct rpc_call *call, const void *request, size_t bytes,
                        struct error *e);
    /* Loop thread, must not block. Either rpc_stream_accept and answer OK: from then on the stream
     * is the acceptor's to close; or answer an error, which the peer hears. */
    enum err (*accept)(void *context, struct rpc_stream *s, const struct rpc_metadata *metadata,
                       int n_metadata, struct error *e);
};

struct rpc_server_options {
    const char *listen;               /* HOST:PORT; port 0 picks a free one */
    const struct rpc_method *methods; /* lives as long as the server */
    void *context;
};

/* ERR_INVALID (address), ERR_IO "cannot listen on …: why". */
enum err rpc_server_start(struct rpc_loop *l, const struct rpc_server_options *o,
                          struct rpc_server **out, struct error *e);
/* Refuse new calls, cancel the running ones, wait for their handlers. Accepted streams are ended;
 * their owners have closed them or do so at once. Not from the loop thread. NULL allowed. */
void rpc_server_stop(struct rpc_server *s);
const char *rpc_server_address(const struct rpc_server *s); /* with the real port */
int rpc_server_port(const struct rpc_server *s);

/* Send one message of a server-streaming call; waits until gRPC has taken it (so the reader's pace
 * is kept). ERR_CANCELLED when the caller has gone. */
enum err rpc_call_send(struct rpc_call *c, const struct rpc_outgoing *m);
bool rpc_call_is_cancelled(struct rpc_call *c);           /* the caller has gone */
const char *rpc_call_peer_host(const struct rpc_call *c); /* where the call came from, no port */

#endif
