/* A cluster as the lead sees it: the worker processes, reached over gRPC.
 *
 * Two steps, because the plan needs to know the nodes and the nodes need to know the plan:
 * cluster_connect reaches every node and asks it to describe itself; cluster_assign tells each
 * which layers it holds, waits until all are loaded and lays the links of the ring. While assigned,
 * the lead serves FetchTensors to nodes that have no copy of the model.
 *
 * One thread uses a struct cluster, except cluster_check and cluster_stats: any thread. */
#ifndef SHOAL_NODE_CLUSTER_H
#define SHOAL_NODE_CLUSTER_H

#include "backend/backend.h"
#include "link/link.h"
#include "model/model.h"
#include "modelfile/modelfile.h"
#include "node/stage_time.h"
#include "plan/plan.h"

struct cluster;

/* What a node says of itself (Describe). */
struct node_info {
    char address[PLAN_MAX_ADDRESS];
    char version[32];
    char numerics_id[32];
    char backend[64]; /* "cpu avx512vnni" */
    int n_threads;
    uint64_t memory_total_bytes, memory_free_bytes; /* cgroup limits respected */
};

/* Reach all nodes ("H:P,H:P,…") in parallel. ERR_INVALID for a list that is none,
 * ERR_UNREACHABLE within 5 s, ERR_VERSION, each naming the node. */
enum err cluster_connect(const char *nodes, struct cluster **out, struct error *e);
int cluster_n_nodes(const struct cluster *c);
const struct node_info *cluster_node(const struct cluster *c, int node_i);

struct cluster_options {
    struct modelfile *file;  /* borrowed while assigned: FetchTensors reads from it */
    const struct plan *plan; /* node_i counts the nodes as connected; the last stage is the lead */
    const char *numerics_id; /* the lead's: a node with another one is refused (promise 1) */
    enum kv_type kv_type;
    int n_slots, n_blocks, max_rows, max_context;
    int credits;             /* frames that an inbox must have room for */
    uint64_t epoch;          /* not 0 */
    bool insecure;           /* serve tensors to workers on other machines, too: from a port on
                              * all addresses. Otherwise such workers need their own copy */
    model_progress progress; /* sum over all nodes; NULL allowed; called from the caller's thread */
    void *progress_context;
};

/* Give every worker its layers, wait until all have loaded, connect the ring. *first sends to stage
 * 0, frames of the stage before the lead arrive in *inbox; both belong to the cluster. Failure
 * names the node; nothing stays assigned. A plan with no worker stages is a bug. */
enum err cluster_assign(struct cluster *c, const struct cluster_options *o, struct link **first,
                        struct inbox **inbox, struct error *e);

/* Is a node gone, or has one reported a failure? OK, or the reason in *e. Cheap: reads what the
 * background watch found (a node that dies is noticed within 2 s). For pipeline_options.check. */
enum err cluster_check(struct cluster *c, struct error *e);

/* What a node has done since it was assigned (Stats). ERR_UNREACHABLE within 2 s. */
struct node_stats {
    uint64_t steps, rows;
    struct stage_sums time; /* where its thread's time went */
    uint64_t sent_bytes, received_bytes;
    uint64_t weight_bytes, kv_bytes, activation_bytes;
    uint64_t anon_bytes, anon_peak_bytes; /* of the process */
    bool fetched;                         /* weights came from the lead, not from a local file */
};
enum err cluster_stats(struct cluster *c, int node_i, struct node_stats *out, struct error *e);

/* Unassign all (workers free their memory and wait for the next lead), close links and channels. */
void cluster_close(struct cluster *c); /* NULL allowed */

#endif
