/* The book of KV blocks: a stack of free ids, a reference count per block, and per owner how many
 * it holds and how many more it was promised. Invariant: promised blocks are free ones, so
 * n_promised <= n_free, and a take within a promise always finds a block on the stack. */
#include "kv/block_pool.h"

#include "base/panic.h"

#include <stdlib.h>

struct owner {
    int n_held;
    int n_reserved;
};

struct block_pool {
    int n_blocks, n_owners;
    int n_free;
    int n_promised; /* sum of all owners' n_reserved */
    int32_t *free;  /* stack, [n_free - 1] is next */
    int *refs;      /* per block */
    struct owner *owners;
};

struct block_pool *block_pool_new(int n_blocks, int n_owners)
{
    ASSERT(n_blocks >= 1 && n_owners >= 1);
    struct block_pool *p = xcalloc(1, sizeof(*p));
    p->n_blocks = p->n_free = n_blocks;
    p->n_owners = n_owners;
    p->free = xcalloc((size_t)n_blocks, sizeof(p->free[0]));
    p->refs = xcalloc((size_t)n_blocks, sizeof(p->refs[0]));
    p->owners = xcalloc((size_t)n_owners, sizeof(p->owners[0]));
    for (int i = 0; i < n_blocks; i++)
        p->free[i] = n_blocks - 1 - i; /* a new pool gives 0, 1, 2, … */
    return p;
}

void block_pool_free(struct block_pool *p)
{
    if (p == NULL)
        return;
    free(p->free);
    free(p->refs);
    free(p->owners);
    free(p);
}

static struct owner *owner_at(const struct block_pool *p, int owner)
{
    ASSERT(owner >= 0 && owner < p->n_owners);
    return &p->owners[owner];
}

static int *refs_at(const struct block_pool *p, int32_t block)
{
    ASSERT(block >= 0 && block < p->n_blocks);
    return &p->refs[block];
}

bool block_pool_reserve(struct block_pool *p, int owner, int n)
{
    ASSERT(n >= 0);
    if (n > p->n_free - p->n_promised)
        return false;
    owner_at(p, owner)->n_reserved += n;
    p->n_promised += n;
    return true;
}

int32_t block_pool_take(struct block_pool *p, int owner)
{
    struct owner *o = owner_at(p, owner);
    ASSERT(o->n_reserved > 0);
    ASSERT(p->n_free > 0);
    int32_t block = p->free[--p->n_free];
    ASSERT(p->refs[block] == 0);
    p->refs[block] = 1;
    o->n_reserved--;
    o->n_held++;
    p->n_promised--;
    return block;
}

void block_pool_share(struct block_pool *p, int owner, int32_t block)
{
    int *refs = refs_at(p, block);
    ASSERT(*refs > 0);
    (*refs)++;
    owner_at(p, owner)->n_held++;
}

bool block_pool_drop(struct block_pool *p, int owner, int32_t block)
{
    int *refs = refs_at(p, block);
    struct owner *o = owner_at(p, owner);
    ASSERT(*refs > 0 && o->n_held > 0);
    o->n_held--;
    if (--*refs > 0)
        return false;
    p->free[p->n_free++] = block;
    return true;
}

void block_pool_unreserve(struct block_pool *p, int owner)
{
    struct owner *o = owner_at(p, owner);
    p->n_promised -= o->n_reserved;
    o->n_reserved = 0;
}

int block_pool_total(const struct block_pool *p)
{
    return p->n_blocks;
}

int block_pool_used(const struct block_pool *p)
{
    return p->n_blocks - p->n_free;
}

int block_pool_available(const struct block_pool *p)
{
    return p->n_free - p->n_promised;
}

int block_pool_held(const struct block_pool *p, int owner)
{
    return owner_at(p, owner)->n_held;
}

int block_pool_reserved(const struct block_pool *p, int owner)
{
    return owner_at(p, owner)->n_reserved;
}

int block_pool_refs(const struct block_pool *p, int32_t block)
{
    return *refs_at(p, block);
}
