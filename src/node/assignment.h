/* What a worker holds for one epoch: the layers, their stage, its links and the thread that
 * computes.
 *
 *     new ── load ──▶ LOADED ── accept(lead) ── connect ──▶ LINKED ──▶ steps … ── free
 *
 * Life goes on in four kinds of threads: `load`, `connect` and `free` block and are called by
 * whoever owns the assignment (the worker, under its work lock); `accept` runs in the network
 * thread; the compute thread is the assignment's own; statistics may be read by anybody meanwhile.
 * A failure (a bad frame, a lost neighbour) ends the stream to the lead with the reason and then
 * reports ASSIGNMENT_LOST: the owner frees it. */
#ifndef SHOAL_NODE_ASSIGNMENT_H
#define SHOAL_NODE_ASSIGNMENT_H

#include "backend/backend.h"
#include "link/grpc/link_grpc.h"
#include "node/client.h"
#include "node/messages.h"

struct assignment;

enum assignment_event {
    ASSIGNMENT_LEAD_HERE, /* the lead's stream stands: connect */
    ASSIGNMENT_LOST,      /* with why: free it */
};

struct assignment_options {
    struct backend *backend;
    struct rpc_loop *loop;
    const char *caller_host; /* where the Assign came from */
    /* Network or compute thread; must not block or call back. */
    void (*on_event)(void *context, uint64_t epoch, enum assignment_event event,
                     const struct error *why);
    void *context;
};

/* Check all that can be checked without the model; takes the tensors over (also on failure). */
enum err assignment_new(const shoal_v1_AssignRequest *request, struct tensor_list *tensors,
                        const struct assignment_options *o, struct assignment **out,
                        struct error *e);
/* From a file here that is the same model, or from the lead. */
enum err assignment_load(struct assignment *a, struct error *e);
/* A Forward stream for this epoch. Network thread. */
enum err assignment_accept(struct assignment *a, struct rpc_stream *stream, enum link_role role,
                           struct error *e);
/* The lead is here: link to the next stage and start to compute. Failures are reported to the lead
 * and as ASSIGNMENT_LOST. */
void assignment_connect(struct assignment *a);
void assignment_free(struct assignment *a); /* NULL allowed */

uint64_t assignment_epoch(const struct assignment *a);
void assignment_layers(const struct assignment *a, int *first, int *last);
bool assignment_has_lead(struct assignment *a);
bool assignment_is_fetched(const struct assignment *a);
/* State, loading, sizes and counters; the rest of *out stays as it is. */
void assignment_stats(struct assignment *a, struct node_report *out);

#endif
