/* The layer list of --layers: "host:port=a-b,…", checked against the nodes and the layer count. */
#include "plan/plan.h"

#include "base/panic.h"
#include "plan/plan_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* A decimal number below `limit` at *at, which moves behind it; -1 if there is none. */
static int read_number(const char **at, int limit)
{
    if (!isdigit((unsigned char)**at))
        return -1;
    long n = 0;
    while (isdigit((unsigned char)**at)) {
        n = n * 10 + (**at - '0');
        if (n >= limit)
            return -1;
        (*at)++;
    }
    return (int)n;
}

static int find_node(const struct plan_node *nodes, int n_nodes, const char *name, size_t bytes)
{
    if (bytes == 4 && memcmp(name, "lead", 4) == 0)
        return n_nodes - 1;
    for (int i = 0; i < n_nodes - 1; i++)
        if (strlen(nodes[i].address) == bytes && memcmp(nodes[i].address, name, bytes) == 0)
            return i;
    return -1;
}

/* One "H:P=a-b" of `bytes` bytes. */
static enum err read_entry(const char *entry, size_t bytes, int n_layers,
                           const struct plan_node *nodes, int n_nodes, struct plan_stage *out,
                           struct error *e)
{
    const char *equals = memchr(entry, '=', bytes);
    if (equals == NULL)
        return error_set(e, ERR_INVALID, "--layers: expected HOST:PORT=FIRST-LAST, found \"%.*s\"",
                         (int)bytes, entry);
    int node_i = find_node(nodes, n_nodes, entry, (size_t)(equals - entry));
    if (node_i < 0)
        return error_set(e, ERR_INVALID, "--layers: node %.*s is not among --nodes",
                         (int)(equals - entry), entry);
    const char *at = equals + 1;
    int first = read_number(&at, n_layers);
    int last = first;
    if (first >= 0 && *at == '-') {
        at++;
        last = read_number(&at, n_layers);
    }
    if (first < 0 || last < first || at != entry + bytes)
        return error_set(e, ERR_INVALID,
                         "--layers: expected FIRST-LAST within 0-%d after %.*s=, found \"%.*s\"",
                         n_layers - 1, (int)(equals - entry), entry,
                         (int)(entry + bytes - equals - 1), equals + 1);
    *out = (struct plan_stage){.node_i = node_i, .first = first, .last = last + 1};
    return OK;
}

static int by_layer(const void *a, const void *b)
{
    const struct plan_stage *x = a, *y = b;
    return x->first - y->first;
}

static enum err read_entries(const char *list, int n_layers, const struct plan_node *nodes,
                             int n_nodes, struct plan *out, struct error *e)
{
    bool named[RING_MAX_STAGES] = {false};
    for (const char *at = list;; at++) {
        size_t bytes = strcspn(at, ",");
        if (out->n_stages == RING_MAX_STAGES)
            return error_set(e, ERR_LIMIT, "--layers: at most %d entries expected",
                             RING_MAX_STAGES);
        struct plan_stage *stage = &out->stages[out->n_stages];
        enum err err = read_entry(at, bytes, n_layers, nodes, n_nodes, stage, e);
        if (err != OK)
            return err;
        if (named[stage->node_i])
            return error_set(e, ERR_INVALID,
                             "--layers: one range a node expected, found two for %.*s",
                             (int)strcspn(at, "="), at);
        named[stage->node_i] = true;
        out->n_stages++;
        at += bytes;
        if (*at == 0)
            break;
    }
    for (int i = 0; i < n_nodes - 1; i++)
        if (!named[i])
            return error_set(e, ERR_INVALID, "--layers: node %s of --nodes is given no layers",
                             nodes[i].address);
    return OK;
}

enum err plan_by_hand(const struct plan_model *m, const char *list, const struct plan_node *nodes,
                      int n_nodes, struct plan *out, struct error *e)
{
    ASSERT(n_nodes >= 1 && n_nodes <= RING_MAX_STAGES);
    *out = (struct plan){0};
    enum err err = read_entries(list, m->n_layers, nodes, n_nodes, out, e);
    if (err != OK)
        return err;
    qsort(out->stages, (size_t)out->n_stages, sizeof out->stages[0], by_layer);
    int covered = 0;
    for (int i = 0; i < out->n_stages; covered = out->stages[i++].last)
        if (out->stages[i].first != covered)
            return error_set(e, ERR_INVALID, "--layers: layer %d is given to %s",
                             out->stages[i].first < covered ? out->stages[i].first : covered,
                             out->stages[i].first < covered ? "two nodes" : "no node");
    bool lead_named = false;
    for (int i = 0; i < out->n_stages; i++)
        lead_named |= out->stages[i].node_i == n_nodes - 1;
    if (lead_named && out->stages[out->n_stages - 1].node_i != n_nodes - 1)
        return error_set(e, ERR_INVALID,
                         "--layers: the lead is the last stage: expected its layers "
                         "after all others");
    if (lead_named && covered < m->n_layers)
        return error_set(e, ERR_INVALID, "--layers: layer %d is given to no node", covered);
    if (!lead_named)
        out->stages[out->n_stages++] =
            (struct plan_stage){.node_i = n_nodes - 1, .first = covered, .last = m->n_layers};
    for (int i = 0; i < out->n_stages; i++)
        out->stages[i].bytes =
            plan_stage_bytes(m, out->stages[i].first, out->stages[i].last, i == out->n_stages - 1);
    return OK;
}
