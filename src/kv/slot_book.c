/* Slots with their block tables. Free slots are a stack, so that a slot freed last is used first
 * and low load touches few tables on the stages. */
#include "kv/slot_book.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "base/window.h"
#include "kv/prefix_index.h"

#include <stdlib.h>

enum {
    /* Blocks that one call of slot_book_reuse takes over: each is an update, and those of a step
     * are bounded. The next step goes on. */
    MAX_REUSED = 8192,
};

struct slot {
    bool open;
    int n_blocks, n_holes;   /* of the table: its length, and its leading entries without a block */
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
    int32_t *found; /* [max_blocks], scratch of find_run */
    struct block_pool *pool;
    struct prefix_index *index;
};

int slot_book_blocks_for(int n_positions)
{
    return (int)(((long long)n_positions + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
}

int slot_book_blocks_at_once(const struct slot_book *b, int n_rows)
{
    ASSERT(n_rows >= 1);
    if (b->options.window == 0)
        return b->max_blocks;
    int n = window_blocks(b->options.window, n_rows);
    return n < b->max_blocks ? n : b->max_blocks;
}

/* The first block that a row at this position reads. */
static int first_needed(const struct slot_book *b, int position)
{
    return window_first(b->options.window, position) / KV_BLOCK_TOKENS;
}

struct slot_book *slot_book_new(const struct slot_book_options *o)
{
    ASSERT(o->n_slots >= 1 && o->max_positions >= 1 && o->window >= 0 && o->change != NULL);
    struct slot_book *b = xcalloc(1, sizeof(*b));
    b->options = *o;
    b->n_free = o->n_slots;
    b->max_blocks = slot_book_blocks_for(o->max_positions);
    if (o->window == 0 && b->max_blocks > o->n_blocks)
        b->max_blocks = o->n_blocks;
    b->found = xcalloc((size_t)b->max_blocks, sizeof(b->found[0]));
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
    free(b->found);
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

/* A block for new contents at a sequence's end; -1 when all are held. */
static int32_t take(struct slot_book *b, const struct slot *s)
{
    int32_t last = s->n_blocks > 0 ? s->blocks[s->n_blocks - 1] : -1;
    int32_t block = block_pool_take(b->pool, last, s->n_blocks);
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
        int32_t block = take(b, s);
        if (block < 0)
            return s->n_blocks * KV_BLOCK_TOKENS;
        append(b, slot, block);
    }
    return n_positions;
}

/* ---- reuse ---- */

/* Blocks [first, end) of a sequence: known by name, and all that the row behind them reads but for
 * what the sequence has itself. Those before `first` need not be there. */
struct run {
    int first, end;
    struct prefix_hash name; /* of the last, where there is one */
};

/* The longest run (of at most `most_blocks`) behind the `n_before` blocks that the sequence has,
 * the last of them called `name`, among its first n tokens. What is found is in b->found. Only at
 * the beginning of a sequence is a run looked for behind a gap: the search is as long as the
 * prompt. */
static struct run find_run(struct slot_book *b, struct prefix_hash name, int n_before,
                           const int32_t *tokens, int n, int most_blocks)
{
    struct run run = {.first = n_before, .end = n_before, .name = name};
    int gap_end = n_before; /* behind the last that was not found */
    for (int i = n_before; (i + 1) * KV_BLOCK_TOKENS <= n && i < b->max_blocks; i++) {
        const int32_t *at = tokens + (size_t)i * KV_BLOCK_TOKENS;
        name = prefix_hash_next(name, at);
        b->found[i] = prefix_index_find(b->index, name, at);
        if (b->found[i] < 0) {
            if (n_before > 0 || b->options.window == 0)
                break;
            gap_end = i + 1;
            continue;
        }
        int first = first_needed(b, (i + 1) * KV_BLOCK_TOKENS);
        if (first < gap_end && gap_end > n_before)
            continue;
        first = first > n_before ? first : n_before;
        if (i + 1 - first > most_blocks)
            break;
        run = (struct run){.first = first, .end = i + 1, .name = name};
    }
    return run;
}

/* Entries up to n_holes become holes; what stood there is dropped. */
static void make_holes(struct slot_book *b, int slot, int n_holes)
{
    struct slot *s = &b->slots[slot];
    if (n_holes <= s->n_holes)
        return;
    ASSERT(n_holes <= b->max_blocks);
    for (; s->n_holes < n_holes; s->n_holes++) {
        if (s->n_holes < s->n_blocks)
            drop(b, s->blocks[s->n_holes]);
        s->blocks[s->n_holes] = -1;
    }
    if (s->n_blocks < n_holes)
        s->n_blocks = n_holes;
    tell(b, (struct slot_change){.kind = SLOT_TRIM, .slot = slot, .block = n_holes});
}

/* Whole blocks that are known by name. `most` bounds the tokens. */
static int share_blocks(struct slot_book *b, int slot, const int32_t *tokens, int n_done, int most)
{
    struct slot *s = &b->slots[slot];
    struct run run = find_run(b, s->name, s->n_blocks, tokens, most, MAX_REUSED);
    if (run.end == s->n_blocks)
        return n_done;
    if (run.first > s->n_blocks)
        make_holes(b, slot, run.first);
    for (int i = run.first; i < run.end; i++) {
        block_pool_share(b->pool, b->found[i]);
        append(b, slot, b->found[i]);
    }
    s->name = run.name;
    s->n_named = run.end;
    return run.end * KV_BLOCK_TOKENS;
}

/* The beginning of a block whose end is another's: a copy of it. */
static int copy_block(struct slot_book *b, int slot, int32_t from, int n_tokens, int n_done)
{
    block_pool_share(b->pool, from); /* so that it is not taken */
    int32_t block = take(b, &b->slots[slot]);
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

int slot_book_n_shareable(struct slot_book *b, const int32_t *tokens, int n)
{
    if (b->options.no_reuse)
        return 0;
    struct run run =
        find_run(b, prefix_hash_root(b->options.cache_key), 0, tokens, n, b->max_blocks);
    int n_fewer = run.first;
    for (int i = run.first; i < run.end; i++)
        n_fewer += block_pool_refs(b->pool, b->found[i]) > 0;
    return n_fewer;
}

/* ---- the rest ---- */

void slot_book_trim(struct slot_book *b, int slot, int position)
{
    struct slot *s = open_slot(b, slot);
    int n_holes = first_needed(b, position);
    ASSERT(n_holes <= s->n_blocks);
    ASSERT(b->options.no_reuse || n_holes <= s->n_named); /* no name is given later */
    make_holes(b, slot, n_holes);
}

/* The last block first: of blocks that lie idle, the end of a prefix is to go before its
 * beginning. */
void slot_book_close(struct slot_book *b, int slot)
{
    struct slot *s = open_slot(b, slot);
    for (int i = s->n_blocks - 1; i >= s->n_holes; i--)
        drop(b, s->blocks[i]);
    s->open = false;
    s->n_blocks = s->n_holes = 0;
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

int slot_book_n_held(const struct slot_book *b, int slot)
{
    const struct slot *s = open_slot(b, slot);
    return s->n_blocks - s->n_holes;
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
