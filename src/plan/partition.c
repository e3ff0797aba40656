/* Layers in proportion to memory: each node's share is n_layers * memory / total; floors first, then
 * the largest remainders get one more (the method of Hamilton), then minimums and memory limits move
 * single layers from node to node. Contiguous ranges follow from the counts. */
#include "plan/plan.h"

#include "base/panic.h"
#include "plan/plan_impl.h"

static uint64_t mean_layer_bytes(const struct plan_model *m)
{
    uint64_t sum = 0;
    for (int i = 0; i < m->n_layers; i++)
        sum += m->layer_bytes[i];
    return m->n_layers > 0 ? sum / (uint64_t)m->n_layers + m->kv_bytes_per_layer : 0;
}

/* What a node has for layers once its fixed parts are in. */
static uint64_t room_for_layers(const struct plan_model *m, const struct plan_node *node,
                                bool is_first, bool is_lead)
{
    uint64_t fixed = m->fixed_bytes;
    if (is_first)
        fixed += m->embedding_bytes;
    if (is_lead)
        fixed += is_first && m->head_bytes == 0 ? 0 : m->head_bytes;
    return node->memory_bytes > fixed ? node->memory_bytes - fixed : 0;
}

uint64_t plan_stage_bytes(const struct plan_model *m, int first, int last, bool is_lead)
{
    uint64_t bytes = m->fixed_bytes;
    for (int i = first; i < last; i++)
        bytes += m->layer_bytes[i] + m->kv_bytes_per_layer;
    if (first == 0)
        bytes += m->embedding_bytes;
    if (is_lead)
        bytes += m->head_bytes;
    return bytes;
}

/* One more layer for the node with the largest remainder of its share that is below its most. */
static int neediest(const uint64_t *room, const int *count, const int *most, int n, uint64_t total,
                    int n_layers)
{
    int best = -1;
    double best_missing = 0;
    for (int i = 0; i < n; i++) {
        double share = total > 0 ? (double)n_layers * ((double)room[i] / (double)total) : 0;
        double missing = share - count[i];
        if (count[i] < most[i] && (best < 0 || missing > best_missing)) {
            best = i;
            best_missing = missing;
        }
    }
    return best;
}

/* Move single layers, from whoever can spare the most, until every worker has one. The lead can
 * spare all it has, a worker all but one. */
static bool give_each_worker_one(int *count, const int *most, int n)
{
    for (int i = 0; i < n - 1; i++) {
        if (count[i] > 0)
            continue;
        int giver = n - 1, spare = count[n - 1];
        for (int j = 0; j < n - 1; j++)
            if (count[j] - 1 > spare) {
                giver = j;
                spare = count[j] - 1;
            }
        if (most[i] < 1 || spare < 1)
            return false;
        count[giver]--;
        count[i] = 1;
    }
    return true;
}

static enum err too_small(const struct plan_model *m, const struct plan_node *nodes, int n_nodes,
                          struct error *e)
{
    uint64_t there = 0;
    for (int i = 0; i < n_nodes; i++)
        there += nodes[i].memory_bytes;
    uint64_t need = plan_stage_bytes(m, 0, m->n_layers, true) +
                    (uint64_t)(n_nodes - 1) * m->fixed_bytes;
    return error_set(e, ERR_LIMIT,
                     "the model does not fit: %.1f MB needed on %d nodes, %.1f MB there",
                     (double)need / 1e6, n_nodes, (double)there / 1e6);
}

enum err plan_by_memory(const struct plan_model *m, const struct plan_node *nodes, int n_nodes,
                        struct plan *out, struct error *e)
{
    ASSERT(n_nodes >= 1);
    if (n_nodes > RING_MAX_STAGES)
        return error_set(e, ERR_LIMIT, "nodes: expected at most %d, found %d", RING_MAX_STAGES,
                         n_nodes);
    if (n_nodes - 1 > m->n_layers)
        return error_set(e, ERR_INVALID, "%d workers for %d layers: expected at most one a layer",
                         n_nodes - 1, m->n_layers);
    uint64_t room[RING_MAX_STAGES], total = 0, layer = mean_layer_bytes(m);
    int count[RING_MAX_STAGES] = {0}, most[RING_MAX_STAGES];
    for (int i = 0; i < n_nodes; i++) {
        room[i] = room_for_layers(m, &nodes[i], i == 0, i == n_nodes - 1);
        total += room[i];
        uint64_t fits = layer > 0 ? room[i] / layer : (uint64_t)m->n_layers;
        most[i] = fits < (uint64_t)m->n_layers ? (int)fits : m->n_layers;
    }
    for (int given = 0; given < m->n_layers; given++) {
        int i = neediest(room, count, most, n_nodes, total, m->n_layers);
        if (i < 0)
            return too_small(m, nodes, n_nodes, e);
        count[i]++;
    }
    if (!give_each_worker_one(count, most, n_nodes))
        return too_small(m, nodes, n_nodes, e);
    *out = (struct plan){.n_stages = n_nodes};
    for (int i = 0, first = 0; i < n_nodes; first += count[i++])
        out->stages[i] = (struct plan_stage){
            .node_i = i,
            .first = first,
            .last = first + count[i],
            .bytes = plan_stage_bytes(m, first, first + count[i], i == n_nodes - 1)};
    return OK;
}
