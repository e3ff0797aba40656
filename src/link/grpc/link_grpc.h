/* Links over a Forward stream: each end may send frames and receive them.
 *
 * The side that opens the stream says in metadata what it is for:
 *     shoal-epoch  decimal number; the acceptor refuses an epoch that it does not hold
 *     shoal-role   "lead" (from the lead to every worker: steps down to stage 0, the last worker's
 *                  hidden states up; the others' carry nothing, but their end tells that the other
 *                  side died, and why) or "stage" (from a worker to the next one)
 *
 * A frame travels as `message Frame { bytes frame = 1; }` whose few bytes in front are written by
 * hand; the frame itself is handed to gRPC without a copy, and copied once, aligned, on arrival. */
#ifndef SHOAL_LINK_GRPC_LINK_GRPC_H
#define SHOAL_LINK_GRPC_LINK_GRPC_H

#include "link/link.h"
#include "rpc/rpc.h"

#include <stdatomic.h>

#define LINK_GRPC_METHOD "/shoal.v1.Node/Forward"

enum link_role { LINK_ROLE_LEAD, LINK_ROLE_STAGE };

struct link_grpc_options {
    const char *peer;    /* who is there, put before its address in messages: "stage 1"; copied */
    struct inbox *inbox; /* hears when the stream is over, and takes what arrives; borrowed */
    bool receives;       /* frames may arrive; otherwise one is the peer's error */
    int max_queued;      /* frames that may wait to be sent: the ring's credits */
    /* NULL, or called in the network thread when the stream is over, before the inbox hears. */
    void (*on_down)(void *context, const struct error *reason);
    void *context;
};

/* The address of `struct link` inside is a link like any other: link_close frees it. */
struct link_grpc;

/* Open one to the node behind `channel`. Connecting goes on in the background. */
enum err link_grpc_open(struct rpc_loop *loop, struct rpc_channel *channel, uint64_t epoch,
                        enum link_role role, const struct link_grpc_options *o,
                        struct link_grpc **out, struct error *e);

/* What the opener of a stream said. ERR_INVALID names what is missing or malformed. */
enum err link_grpc_metadata(const struct rpc_metadata *metadata, int n_metadata, uint64_t *epoch,
                            enum link_role *role, struct error *e);

/* Inside a server's accept callback: the accepting end. */
enum err link_grpc_accept(struct rpc_stream *stream, const struct link_grpc_options *o,
                          struct link_grpc **out, struct error *e);

struct link *link_grpc_link(struct link_grpc *l);
bool link_grpc_is_accepted(struct link_grpc *l); /* by the peer */

/* As link_close, telling the peer why (accepting end only). NULL reason: all is well. Not from the
 * network thread. NULL link allowed. */
void link_grpc_close(struct link_grpc *l, const struct error *reason);

struct link_grpc_counts {
    uint64_t frames_sent, bytes_sent, frames_received, bytes_received;
};
void link_grpc_counts(struct link_grpc *l, struct link_grpc_counts *out);

#endif
