/* Two hash tables over one array with an entry per block: by name (full blocks, one per name) and
 * by parent (all known blocks, the newest first). Chains run through the entries; nothing is
 * allocated after the start. */
#include "kv/prefix_index.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the hash with a seed, on our stack */
#include <xxhash.h>

enum { MAX_SIBLINGS_SEEN = 4 /* of blocks with one parent, how many are compared */ };

struct entry {
    struct prefix_hash parent, name;
    int32_t tokens[KV_BLOCK_TOKENS];
    uint64_t step;          /* that filled it last */
    int n_filled, n_before; /* with that step and without */
    bool known, named;      /* in the table by parent, by name */
    int32_t sibling_before, sibling_after;
    int32_t next_named;
};

struct prefix_index {
    struct entry *entries; /* [n_blocks] */
    int n_blocks;
    uint32_t mask; /* of both tables */
    int32_t *by_parent, *by_name;
};

/* ---- names ---- */

static struct prefix_hash hash_of(const void *data, size_t bytes)
{
    XXH128_hash_t hash = XXH3_128bits(data, bytes);
    return (struct prefix_hash){.low = hash.low64, .high = hash.high64};
}

static bool is_same(struct prefix_hash a, struct prefix_hash b)
{
    return a.low == b.low && a.high == b.high;
}

struct prefix_hash prefix_hash_root(uint64_t key)
{
    return hash_of(&key, sizeof(key));
}

struct prefix_hash prefix_hash_next(struct prefix_hash parent, const int32_t *tokens)
{
    struct {
        struct prefix_hash parent;
        int32_t tokens[KV_BLOCK_TOKENS];
    } link = {.parent = parent};
    memcpy(link.tokens, tokens, sizeof(link.tokens));
    return hash_of(&link, sizeof(link));
}

/* ---- the tables ---- */

struct prefix_index *prefix_index_new(int n_blocks)
{
    ASSERT(n_blocks >= 1);
    struct prefix_index *x = xcalloc(1, sizeof(*x));
    uint32_t size = 1;
    while (size < (uint32_t)n_blocks)
        size *= 2;
    x->n_blocks = n_blocks;
    x->mask = size - 1;
    x->entries = xcalloc((size_t)n_blocks, sizeof(x->entries[0]));
    x->by_parent = xcalloc(size, sizeof(x->by_parent[0]));
    x->by_name = xcalloc(size, sizeof(x->by_name[0]));
    for (uint32_t i = 0; i < size; i++)
        x->by_parent[i] = x->by_name[i] = -1;
    return x;
}

void prefix_index_free(struct prefix_index *x)
{
    if (x == NULL)
        return;
    free(x->entries);
    free(x->by_parent);
    free(x->by_name);
    free(x);
}

static int32_t *chain_of(const struct prefix_index *x, int32_t *table, struct prefix_hash hash)
{
    return &table[hash.low & x->mask];
}

static void add_sibling(struct prefix_index *x, int32_t block)
{
    struct entry *b = &x->entries[block];
    int32_t *chain = chain_of(x, x->by_parent, b->parent);
    b->sibling_before = -1;
    b->sibling_after = *chain;
    if (*chain >= 0)
        x->entries[*chain].sibling_before = block;
    *chain = block;
    b->known = true;
}

static void remove_sibling(struct prefix_index *x, int32_t block)
{
    struct entry *b = &x->entries[block];
    *(b->sibling_before >= 0 ? &x->entries[b->sibling_before].sibling_after
                             : chain_of(x, x->by_parent, b->parent)) = b->sibling_after;
    if (b->sibling_after >= 0)
        x->entries[b->sibling_after].sibling_before = b->sibling_before;
    b->known = false;
}

static void remove_name(struct prefix_index *x, int32_t block)
{
    int32_t *at = chain_of(x, x->by_name, x->entries[block].name);
    while (*at != block)
        at = &x->entries[*at].next_named;
    *at = x->entries[block].next_named;
    x->entries[block].named = false;
}

static struct entry *entry_at(const struct prefix_index *x, int32_t block)
{
    ASSERT(block >= 0 && block < x->n_blocks);
    return &x->entries[block];
}

void prefix_index_forget(struct prefix_index *x, int32_t block)
{
    struct entry *b = entry_at(x, block);
    if (b->named)
        remove_name(x, block);
    if (b->known)
        remove_sibling(x, block);
}

/* ---- filling and finding ---- */

static bool give_name(struct prefix_index *x, int32_t block)
{
    struct entry *b = &x->entries[block];
    b->name = prefix_hash_next(b->parent, b->tokens);
    if (prefix_index_find(x, b->name, b->tokens) >= 0)
        return false;
    int32_t *chain = chain_of(x, x->by_name, b->name);
    b->next_named = *chain;
    *chain = block;
    b->named = true;
    return true;
}

bool prefix_index_fill(struct prefix_index *x, int32_t block, struct prefix_hash parent,
                       const int32_t *tokens, int n, uint64_t step)
{
    struct entry *b = entry_at(x, block);
    ASSERT(n >= 1 && n <= KV_BLOCK_TOKENS);
    if (!b->known) {
        *b = (struct entry){.parent = parent, .step = step};
        add_sibling(x, block);
    }
    ASSERT(n >= b->n_filled && is_same(b->parent, parent) && !b->named);
    if (b->step != step) {
        b->step = step;
        b->n_before = b->n_filled;
    }
    memcpy(b->tokens + b->n_filled, tokens + b->n_filled,
           (size_t)(n - b->n_filled) * sizeof(tokens[0]));
    b->n_filled = n;
    return n == KV_BLOCK_TOKENS && give_name(x, block);
}

int32_t prefix_index_find(const struct prefix_index *x, struct prefix_hash name,
                          const int32_t *tokens)
{
    for (int32_t i = *chain_of(x, x->by_name, name); i >= 0; i = x->entries[i].next_named) {
        const struct entry *b = &x->entries[i];
        if (is_same(b->name, name) && memcmp(b->tokens, tokens, sizeof(b->tokens)) == 0)
            return i;
    }
    return -1;
}

static int n_alike(const int32_t *a, const int32_t *b, int most)
{
    int n = 0;
    while (n < most && a[n] == b[n])
        n++;
    return n;
}

struct prefix_part prefix_index_find_part(const struct prefix_index *x, struct prefix_hash parent,
                                          const int32_t *tokens, int n, uint64_t step)
{
    struct prefix_part best = {.block = -1};
    int n_seen = 0;
    for (int32_t i = *chain_of(x, x->by_parent, parent); i >= 0 && n_seen < MAX_SIBLINGS_SEEN;
         i = x->entries[i].sibling_after) {
        const struct entry *b = &x->entries[i];
        if (!is_same(b->parent, parent))
            continue;
        n_seen++;
        int alike = n_alike(b->tokens, tokens, n < b->n_filled ? n : b->n_filled);
        int before = b->step == step ? b->n_before : b->n_filled;
        if (alike > best.n_soon)
            best = (struct prefix_part){
                .block = i, .n_now = alike < before ? alike : before, .n_soon = alike};
    }
    return best;
}
