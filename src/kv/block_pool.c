/* The book of KV blocks: a bit for each free one, a list of idle ones in the order in which they
 * became idle, and a reference count per block. Each block is in exactly one of three states: free,
 * in the list, or held. */
#include "kv/block_pool.h"

#include "base/panic.h"

#include <stdlib.h>

struct block {
    int refs;
    bool keep;
    int32_t before, after; /* among the idle; -1 at the ends */
};

struct block_pool {
    int n_blocks;
    int n_free, n_idle;
    uint64_t *free; /* block i is bit i % 64 of word i / 64 */
    struct block *blocks;
    int32_t first_idle, last_idle; /* the first lay idle longest */
};

enum { WORD_BITS = 64 };

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

int32_t block_pool_take(struct block_pool *p, int32_t after)
{
    ASSERT(after >= -1 && after < p->n_blocks);
    int32_t block = -1;
    if (p->n_free > 0) {
        block = find_free(p, after + 1);
        if (block < 0)
            block = find_free(p, 0);
        p->free[block / WORD_BITS] &= ~bit_of(block);
        p->n_free--;
    } else if (p->n_idle > 0) {
        block = p->first_idle;
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
