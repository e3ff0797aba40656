/* The partition planner: which node of the ring gets which layers. A pure function of sizes.
 *
 * The ring's nodes stand in order; the lead comes last and always holds the final norm and the
 * head. Workers hold layers and no head; the first in the ring also holds the embedding. By default
 * layers go in proportion to each node's memory (largest remainders, so that the counts add up), a
 * worker gets at least one, the lead may get none; nobody gets more than fits its memory. */
#ifndef SHOAL_PLAN_PLAN_H
#define SHOAL_PLAN_PLAN_H

#include "base/bounds.h"
#include "base/error.h"

#include <stdint.h>

enum { PLAN_MAX_ADDRESS = 256 };

struct plan_model {
    int n_layers;
    const uint64_t *layer_bytes; /* [n_layers]: weights of each, in the file: packed ones are about
                                  * as large */
    uint64_t embedding_bytes;
    uint64_t head_bytes;
    uint64_t shared_bytes; /* in both of these and held once by a node with both: a tied head */
    uint64_t kv_bytes_per_layer; /* for the context and slots asked for */
    uint64_t fixed_bytes;        /* of every node: activations, program */
};

struct plan_node {
    char address[PLAN_MAX_ADDRESS]; /* "host:port"; "" is the lead */
    uint64_t memory_bytes;          /* that the model may use */
};

struct plan_stage {
    int node_i;      /* index into the nodes given */
    int first, last; /* layers [first, last) */
    uint64_t bytes;  /* of this stage */
};

struct plan {
    int n_stages; /* the lead's is the last */
    struct plan_stage stages[RING_MAX_STAGES];
};

/* nodes[n_nodes - 1] is the lead. ERR_LIMIT when the model does not fit: the text says how much is
 * needed and there. ERR_INVALID when there are more workers than layers. */
enum err plan_by_memory(const struct plan_model *model, const struct plan_node *nodes, int n_nodes,
                        struct plan *out, struct error *e);

/* By hand. `list` is "H:P=a-b,H:P=c-d,…" with inclusive layer numbers ("H:P=3" is one layer). Every
 * node named must be among `nodes`, ranges must not overlap and together with the lead's
 * ("lead=a-b"; what no worker is given at the end belongs to the lead if it is not named) cover
 * every layer once. The ring's order is that of the layers. Workers among `nodes` that the list
 * leaves out are an error: name every node. */
enum err plan_by_hand(const struct plan_model *model, const char *list,
                      const struct plan_node *nodes, int n_nodes, struct plan *out,
                      struct error *e);

#endif
