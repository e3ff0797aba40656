/* Slots with their block tables. Free slots are a stack, so that a slot freed last is used first
 * and low load touches few tables on the stages. */
#include "kv/slot_book.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "kv/prefix_index.h"

#include <stdlib.h>

enum {
    /* Blocks that one call of slot_book_reuse takes over: each is an update, and those of a step
     * are bounded. The next step goes on. */
    MAX_REUSED = 8192,
};

struct slot {
    bool open;
    int n_blocks;
    int32_t *blocks;         /* the table, [max_blocks] */
    int n_named;             /* leading blocks that are full and have had their turn to be named */
    struct prefix_hash name; /* of the last of them, or the root */
    int waited;              /* at so many tokens it was told to wait; -1: never */
};

struct slot_book {
    struct slot_book_options options;
    int n_free;
    int max_blocks; /* of one slot */
    struct slot *slots;
    int *free; /* stack of closed slots */
    int32_t *tables;
    struct block_pool *pool;
    struct prefix_index *index;
};

int slot_book_blocks_for(int n_positions)
{
    return (int)(((long long)n_positions + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
}

struct slot_book *slot_book_new(const struct slot_book_options *o)
{
    ASSERT(o->n_slots >= 1 && o->max_positions >= 1 && o->change != NULL);
    struct slot_book *b = xcalloc(1, sizeof(*b));
    b->options = *o;
    b->n_free = o->n_slots;
    b->max_blocks = slot_book_blocks_for(o->max_positions);
    if (b->max_blocks > o->n_blocks)
        b->max_blocks = o->n_blocks;
    b->slots = xcalloc((size_t)o->n_slots, sizeof(b->slots[0]));
    b->free = xcalloc((size_t)o->n_slots, sizeof(b->free[0]));
    b->tables = xcalloc((size_t)o->n_slots * (size_t)b->max_blocks, sizeof(b->tables[0]));
    b->pool = block_pool_new(o->n_blocks);
    b->index = prefix_index_new(o->n_blocks);
    for (int i = 0; i < o->n_slots; i++) {
        b->free[i] = o->n_slots - 1 - i;
        b->slots[i].blocks = b->tables + (size_t)i * (size_t)b->max_blocks;
    }
    return b;
}

void slot_book_free(struct slot_book *b)
{
    if (b == NULL)
        return;
    block_pool_free(b->pool);
    prefix_index_free(b->index);
    free(b->slots);
    free(b->free);
    free(b->tables);
    free(b);
}

static struct slot *open_slot(const struct slot_book *b, int slot)
{
    ASSERT(slot >= 0 && slot < b->options.n_slots);
    ASSERT(b->slots[slot].open);
    return &b->slots[slot];
}

static void tell(const struct slot_book *b, struct slot_change change)
{
    b->options.change(b->options.context, &change);
}

int slot_book_open(struct slot_book *b)
{
    if (b->n_free == 0)
        return -1;
    int slot = b->free[--b->n_free];
    struct slot *s = &b->slots[slot];
    *s = (struct slot){.open = true,
                       .blocks = s->blocks,
                       .name = prefix_hash_root(b->options.cache_key),
                       .waited = -1};
    tell(b, (struct slot_change){.kind = SLOT_OPEN, .slot = slot});
    return slot;
}

static void append(struct slot_book *b, int slot, int32_t block)
{
    struct slot *s = &b->slots[slot];
    ASSERT(s->n_blocks < b->max_blocks);
    s->blocks[s->n_blocks++] = block;
    tell(b, (struct slot_change){.kind = SLOT_APPEND, .slot = slot, .block = block});
}

/* A block for new contents; -1 when all are held. */
static int32_t take(struct slot_book *b)
{
    int32_t block = block_pool_take(b->pool);
    if (block >= 0)
        prefix_index_forget(b->index, block);
    return block;
}

static void drop(struct slot_book *b, int32_t block)
{
    if (block_pool_drop(b->pool, block))
        prefix_index_forget(b->index, block);
}

int slot_book_extend(struct slot_book *b, int slot, int n_positions)
{
    struct slot *s = open_slot(b, slot);
    int n_blocks = slot_book_blocks_for(n_positions);
    ASSERT(n_blocks <= b->max_blocks);
    while (s->n_blocks < n_blocks) {
        int32_t block = take(b);
        if (block < 0)
            return s->n_blocks * KV_BLOCK_TOKENS;
        append(b, slot, block);
    }
    return n_positions;
}

/* ---- reuse ---- */

/* Whole blocks that are known by name. `most` bounds the tokens. */
static int share_blocks(struct slot_book *b, int slot, const int32_t *tokens, int n_done, int most)
{
    struct slot *s = &b->slots[slot];
    for (int n = 0; n < MAX_REUSED && n_done + KV_BLOCK_TOKENS <= most; n++) {
        struct prefix_hash name = prefix_hash_next(s->name, tokens + n_done);
        int32_t block = prefix_index_find(b->index, name, tokens + n_done);
        if (block < 0)
            break;
        block_pool_share(b->pool, block);
        append(b, slot, block);
        s->name = name;
        s->n_named++;
        n_done += KV_BLOCK_TOKENS;
    }
    return n_done;
}

/* The beginning of a block whose end is another's: a copy of it. */
static int copy_block(struct slot_book *b, int slot, int32_t from, int n_tokens, int n_done)
{
    block_pool_share(b->pool, from); /* so that it is not taken */
    int32_t block = take(b);
    drop(b, from);
    if (block < 0)
        return n_done;
    tell(b, (struct slot_change){.kind = SLOT_COPY, .block = block, .from = from});
    append(b, slot, block);
    return n_done + n_tokens;
}

struct slot_reuse slot_book_reuse(struct slot_book *b, int slot, const int32_t *tokens, int n_done,
                                  int most, uint64_t step)
{
    struct slot *s = open_slot(b, slot);
    struct slot_reuse result = {.n_done = n_done};
    if (b->options.no_reuse || n_done != s->n_blocks * KV_BLOCK_TOKENS || n_done >= most)
        return result; /* only at the edge of a block */
    ASSERT(s->n_named == s->n_blocks);
    n_done = share_blocks(b, slot, tokens, n_done, most);
    int left = most - n_done < KV_BLOCK_TOKENS ? most - n_done : KV_BLOCK_TOKENS;
    struct prefix_part part =
        prefix_index_find_part(b->index, s->name, tokens + n_done, left, step);
    /* Once only: whoever is waited for may be writing a token a step, for as long as ours are his.
     */
    result.wait = part.n_soon > part.n_now && s->waited < n_done;
    if (result.wait) {
        s->waited = n_done;
    } else if (part.n_now > 0) {
        n_done = copy_block(b, slot, part.block, part.n_now, n_done);
        slot_book_fill(b, slot, tokens, n_done, step);
    }
    result.n_done = n_done;
    return result;
}

void slot_book_fill(struct slot_book *b, int slot, const int32_t *tokens, int n, uint64_t step)
{
    struct slot *s = open_slot(b, slot);
    ASSERT(n <= s->n_blocks * KV_BLOCK_TOKENS);
    for (int begin = s->n_named * KV_BLOCK_TOKENS; begin < n && !b->options.no_reuse;
         begin += KV_BLOCK_TOKENS) {
        int filled = n - begin < KV_BLOCK_TOKENS ? n - begin : KV_BLOCK_TOKENS;
        int32_t block = s->blocks[begin / KV_BLOCK_TOKENS];
        if (prefix_index_fill(b->index, block, s->name, tokens + begin, filled, step))
            block_pool_keep(b->pool, block);
        if (filled < KV_BLOCK_TOKENS)
            return;
        s->name = prefix_hash_next(s->name, tokens + begin);
        s->n_named++;
    }
}

int slot_book_n_shareable(const struct slot_book *b, const int32_t *tokens, int n)
{
    struct prefix_hash name = prefix_hash_root(b->options.cache_key);
    int n_held = 0;
    for (int begin = 0; begin + KV_BLOCK_TOKENS <= n && !b->options.no_reuse;
         begin += KV_BLOCK_TOKENS) {
        name = prefix_hash_next(name, tokens + begin);
        int32_t block = prefix_index_find(b->index, name, tokens + begin);
        if (block < 0)
            break;
        n_held += block_pool_refs(b->pool, block) > 0;
    }
    return n_held;
}

/* ---- the rest ---- */

/* The last block first: of blocks that lie idle, the end of a prefix is to go before its
 * beginning. */
void slot_book_close(struct slot_book *b, int slot)
{
    struct slot *s = open_slot(b, slot);
    for (int i = s->n_blocks - 1; i >= 0; i--)
        drop(b, s->blocks[i]);
    s->open = false;
    s->n_blocks = 0;
    b->free[b->n_free++] = slot;
    tell(b, (struct slot_change){.kind = SLOT_CLOSE, .slot = slot});
}

int slot_book_n_open(const struct slot_book *b)
{
    return b->options.n_slots - b->n_free;
}

int slot_book_covers(const struct slot_book *b, int slot)
{
    return open_slot(b, slot)->n_blocks * KV_BLOCK_TOKENS;
}

int slot_book_table(const struct slot_book *b, int slot, const int32_t **blocks)
{
    const struct slot *s = open_slot(b, slot);
    *blocks = s->blocks;
    return s->n_blocks;
}

const struct block_pool *slot_book_pool(const struct slot_book *b)
{
    return b->pool;
}
