/* Asking a node: the unary calls of the service as functions over plain structs. Blocking, any
 * thread. Failures name the address (src/rpc). */
#ifndef SHOAL_NODE_CLIENT_H
#define SHOAL_NODE_CLIENT_H

#include "base/clock.h"
#include "base/error.h"
#include "node/stage_time.h"
#include "rpc/rpc.h"

#include <stdbool.h>
#include <stdint.h>

enum node_state { NODE_IDLE, NODE_LOADING, NODE_LOADED, NODE_LINKED };
const char *node_state_name(enum node_state s);

struct node_description {
    char address[ADDRESS_MAX];
    char version[32];
    int protocol;
    int threads, cores;
    uint64_t memory_total, memory_available;
    char backend[32], variant[64], numerics_id[64];
    enum node_state state;
    uint64_t epoch; /* 0: holds nothing */
    int first, last;
};

/* What Stats answers. */
struct node_report {
    enum node_state state;
    uint64_t epoch;
    char failure[256];
    uint64_t load_done, load_total, fetched_bytes;
    bool is_fetched;
    uint64_t weight_bytes, kv_bytes, activation_bytes, anonymous_bytes, anonymous_peak_bytes;
    uint64_t steps, rows;
    struct stage_sums time;
    uint64_t bytes_in, bytes_out;
};

struct node_probe {
    time_us round_trip_us; /* the whole call */
    time_us handling_us;   /* of it inside the node */
    uint64_t bytes_there, bytes_back;
};

enum err node_describe(struct rpc_channel *c, time_us timeout_us, struct node_description *out,
                       struct error *e);
enum err node_ask_report(struct rpc_channel *c, time_us timeout_us, struct node_report *out,
                         struct error *e);
enum err node_unassign(struct rpc_channel *c, uint64_t epoch, time_us timeout_us, struct error *e);
/* Send `bytes_there`, have `bytes_back` sent back (each at most PROBE_MAX_BYTES). */
enum err node_ask_probe(struct rpc_channel *c, uint32_t bytes_there, uint32_t bytes_back,
                        time_us timeout_us, struct node_probe *out, struct error *e);

#endif
