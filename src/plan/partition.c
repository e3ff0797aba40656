/* Layers in proportion to memory: each node's share is n_layers * memory / total; floors first,
 * then the largest remainders get one more (the method of Hamilton), then minimums and memory
 * limits move single layers from node to node. Contiguous ranges follow from the counts. */
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

static uint64_t largest_layer_bytes(const struct plan_model *m)
{
    uint64_t largest = 0;
    for (int i = 0; i < m->n_layers; i++)
        largest = m->layer_bytes[i] > largest ? m->layer_bytes[i] : largest;
    return largest + m->kv_bytes_per_layer;
}

/* What a node holds besides layers. */
static uint64_t ends_bytes(const struct plan_model *m, bool is_first, bool is_lead)
{
    uint64_t bytes = m->fixed_bytes;
    if (is_first)
        bytes += m->embedding_bytes;
    if (is_lead)
        bytes += m->head_bytes - (is_first ? m->shared_bytes : 0);
    return bytes;
}

/* What a node has for layers. Nodes say themselves what they have: no sum of such numbers may wrap.
 */
static uint64_t room_for_layers(const struct plan_model *m, const struct plan_node *node,
                                bool is_first, bool is_lead)
{
    uint64_t ends = ends_bytes(m, is_first, is_lead);
    uint64_t room = node->memory_bytes > ends ? node->memory_bytes - ends : 0;
    return room < UINT64_MAX / RING_MAX_STAGES ? room : UINT64_MAX / RING_MAX_STAGES;
}

uint64_t plan_stage_bytes(const struct plan_model *m, int first, int last, bool is_lead)
{
    uint64_t bytes = ends_bytes(m, first == 0, is_lead);
    for (int i = first; i < last; i++)
        bytes += m->layer_bytes[i] + m->kv_bytes_per_layer;
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
    double there = 0, need = (double)plan_stage_bytes(m, 0, m->n_layers, true);
    for (int i = 0; i < n_nodes; i++)
        there += (double)nodes[i].memory_bytes;
    for (int i = 0; i < n_nodes - 1; i++)
        need += (double)m->fixed_bytes;
    return error_set(e, ERR_LIMIT,
                     "the model does not fit: %.1f MB needed on %d nodes, %.1f MB there",
                     need / 1e6, n_nodes, there / 1e6);
}

/* How many layers each node gets if every layer takes `layer` bytes; false where they do not fit.
 */
static bool count_layers(const struct plan_model *m, const struct plan_node *nodes, int n,
                         uint64_t layer, int *count)
{
    uint64_t room[RING_MAX_STAGES], total = 0;
    int most[RING_MAX_STAGES];
    for (int i = 0; i < n; i++) {
        room[i] = room_for_layers(m, &nodes[i], i == 0, i == n - 1);
        total += room[i];
        uint64_t fits = layer > 0 ? room[i] / layer : (uint64_t)m->n_layers;
        most[i] = fits < (uint64_t)m->n_layers ? (int)fits : m->n_layers;
        count[i] = 0;
    }
    for (int given = 0; given < m->n_layers; given++) {
        int i = neediest(room, count, most, n, total, m->n_layers);
        if (i < 0)
            return false;
        count[i]++;
    }
    return give_each_worker_one(count, most, n);
}

/* Lay contiguous ranges of these counts; does each stage fit its node? */
static bool lay_stages(const struct plan_model *m, const struct plan_node *nodes, int n,
                       const int *count, struct plan *out)
{
    bool fits = true;
    *out = (struct plan){.n_stages = n};
    for (int i = 0, first = 0; i < n; first += count[i++]) {
        out->stages[i] =
            (struct plan_stage){.node_i = i,
                                .first = first,
                                .last = first + count[i],
                                .bytes = plan_stage_bytes(m, first, first + count[i], i == n - 1)};
        fits &= out->stages[i].bytes <= nodes[i].memory_bytes;
    }
    return fits;
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
    /* Layers of mixed types differ in size. Their mean gives the better plan; where a node's own
     * layers turn out larger than that and too large, all are taken to be as large as the largest.
     */
    const uint64_t sizes[] = {mean_layer_bytes(m), largest_layer_bytes(m)};
    for (int i = 0; i < 2; i++) {
        int count[RING_MAX_STAGES];
        if (count_layers(m, nodes, n_nodes, sizes[i], count) &&
            lay_stages(m, nodes, n_nodes, count, out))
            return OK;
    }
    return too_small(m, nodes, n_nodes, e);
}
