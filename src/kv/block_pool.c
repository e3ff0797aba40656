/* The book of KV blocks: a bit for each free one, a list of idle ones in the order in which they
 * became idle, and a reference count per block. Each block is in exactly one of three states: free,
 * in the list, or held. */
#include "kv/block_pool.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <stdlib.h>

struct block {
    int refs;
    bool keep;
    int32_t before, after; /* among the idle; -1 at the ends */
    uint64_t since;        /* how many became idle before it */
};

struct block_pool {
    int n_blocks;
    int n_free, n_idle;
    uint64_t *free; /* block i is bit i % 64 of word i / 64 */
    struct block *blocks;
    int32_t first_idle, last_idle; /* the first lay idle longest */
    uint64_t n_idled;
};

enum { WORD_BITS = 64 };
_Static_assert(WORD_BITS % KV_STRIP_BLOCKS == 0, "a strip's bits are in one word");

static uint64_t bit_of(int32_t block)
{
    return (uint64_t)1 << block % WORD_BITS;
}

struct block_pool *block_pool_new(int n_blocks)
{
    ASSERT(n_blocks >= 1);
    struct block_pool *p = xcalloc(1, sizeof(*p));
    p->n_blocks = p->n_free = n_blocks;
    p->free = xcalloc((size_t)(n_blocks - 1) / WORD_BITS + 1, sizeof(p->free[0]));
    p->blocks = xcalloc((size_t)n_blocks, sizeof(p->blocks[0]));
    p->first_idle = p->last_idle = -1;
    for (int i = 0; i < n_blocks; i++)
        p->free[i / WORD_BITS] |= bit_of(i);
    return p;
}

void block_pool_free(struct block_pool *p)
{
    if (p == NULL)
        return;
    free(p->free);
    free(p->blocks);
    free(p);
}

static struct block *block_at(const struct block_pool *p, int32_t block)
{
    ASSERT(block >= 0 && block < p->n_blocks);
    return &p->blocks[block];
}

static void idle_append(struct block_pool *p, int32_t block)
{
    struct block *b = &p->blocks[block];
    b->before = p->last_idle;
    b->after = -1;
    b->since = p->n_idled++;
    *(p->last_idle >= 0 ? &p->blocks[p->last_idle].after : &p->first_idle) = block;
    p->last_idle = block;
    p->n_idle++;
}

static void idle_remove(struct block_pool *p, int32_t block)
{
    struct block *b = &p->blocks[block];
    *(b->before >= 0 ? &p->blocks[b->before].after : &p->first_idle) = b->after;
    *(b->after >= 0 ? &p->blocks[b->after].before : &p->last_idle) = b->before;
    p->n_idle--;
}

/* The first free block from `begin` on; -1: there is none. */
static int32_t find_free(const struct block_pool *p, int32_t begin)
{
    int n_words = (p->n_blocks - 1) / WORD_BITS + 1;
    uint64_t mask = ~(bit_of(begin) - 1);
    for (int i = begin / WORD_BITS; i < n_words; i++, mask = ~(uint64_t)0)
        if ((p->free[i] & mask) != 0)
            return i * WORD_BITS + __builtin_ctzll(p->free[i] & mask);
    return -1;
}

/* The first block from `begin` on at place `in_strip` of its strip that is free with all those
 * behind it in the strip; -1: there is none. */
static int32_t find_strip(const struct block_pool *p, int32_t begin, int in_strip)
{
    const uint64_t rest = ((uint64_t)1 << KV_STRIP_BLOCKS) - ((uint64_t)1 << in_strip);
    int32_t strip = begin - begin % KV_STRIP_BLOCKS;
    if (begin % KV_STRIP_BLOCKS > in_strip)
        strip += KV_STRIP_BLOCKS;
    for (; strip < p->n_blocks; strip += KV_STRIP_BLOCKS)
        if ((p->free[strip / WORD_BITS] >> strip % WORD_BITS & rest) == rest)
            return strip + in_strip;
    return -1;
}

static bool is_free(const struct block_pool *p, int32_t block)
{
    return block < p->n_blocks && (p->free[block / WORD_BITS] & bit_of(block)) != 0;
}

/* One of the free blocks, of which there are some (block_pool_take). */
static int32_t choose_free(const struct block_pool *p, int32_t last, int place)
{
    int32_t next = last + 1, block;
    int in_strip = place % KV_STRIP_BLOCKS;
    if (in_strip > 0 && next % KV_STRIP_BLOCKS == in_strip && is_free(p, next))
        return next;
    if ((block = find_strip(p, next, in_strip)) >= 0)
        return block;
    if ((block = find_strip(p, 0, in_strip)) >= 0)
        return block;
    block = find_free(p, next);
    return block >= 0 ? block : find_free(p, 0);
}

/* Whether a block lies idle for about as long as the one that does longest. */
static bool is_long_idle(const struct block_pool *p, int32_t block)
{
    const struct block *b = &p->blocks[block];
    return b->refs == 0 && b->keep && b->since - p->blocks[p->first_idle].since < KV_STRIP_BLOCKS;
}

/* One of the idle blocks, of which there are some, while none is free (block_pool_take). */
static int32_t choose_idle(const struct block_pool *p, int32_t last, int place)
{
    int in_strip = place % KV_STRIP_BLOCKS;
    int32_t next = last + 1, strip = p->first_idle - p->first_idle % KV_STRIP_BLOCKS;
    if (in_strip > 0 && next % KV_STRIP_BLOCKS == in_strip && next < p->n_blocks &&
        is_long_idle(p, next))
        return next;
    if (strip + KV_STRIP_BLOCKS > p->n_blocks)
        return p->first_idle;
    for (int i = in_strip; i < KV_STRIP_BLOCKS; i++)
        if (!is_long_idle(p, strip + i))
            return p->first_idle;
    return strip + in_strip;
}

int32_t block_pool_take(struct block_pool *p, int32_t last, int place)
{
    ASSERT(last >= -1 && last < p->n_blocks && place >= 0);
    int32_t block = -1;
    if (p->n_free > 0) {
        block = choose_free(p, last, place);
        p->free[block / WORD_BITS] &= ~bit_of(block);
        p->n_free--;
    } else if (p->n_idle > 0) {
        block = choose_idle(p, last, place);
        idle_remove(p, block);
    } else {
        return -1;
    }
    struct block *b = &p->blocks[block];
    ASSERT(b->refs == 0);
    b->refs = 1;
    b->keep = false;
    return block;
}

void block_pool_share(struct block_pool *p, int32_t block)
{
    struct block *b = block_at(p, block);
    if (b->refs == 0) {
        ASSERT(b->keep); /* a free block has nothing to share */
        idle_remove(p, block);
    }
    b->refs++;
}

bool block_pool_drop(struct block_pool *p, int32_t block)
{
    struct block *b = block_at(p, block);
    ASSERT(b->refs > 0);
    if (--b->refs > 0)
        return false;
    if (b->keep) {
        idle_append(p, block);
        return false;
    }
    p->free[block / WORD_BITS] |= bit_of(block);
    p->n_free++;
    return true;
}

void block_pool_keep(struct block_pool *p, int32_t block)
{
    struct block *b = block_at(p, block);
    ASSERT(b->refs > 0);
    b->keep = true;
}

int block_pool_total(const struct block_pool *p)
{
    return p->n_blocks;
}

int block_pool_used(const struct block_pool *p)
{
    return p->n_blocks - p->n_free - p->n_idle;
}

int block_pool_idle(const struct block_pool *p)
{
    return p->n_idle;
}

int block_pool_available(const struct block_pool *p)
{
    return p->n_free + p->n_idle;
}

int block_pool_refs(const struct block_pool *p, int32_t block)
{
    return block_at(p, block)->refs;
}
