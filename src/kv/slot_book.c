/* Slots with their block tables. Free slots are a stack, so that a slot freed last is used first
 * and low load touches few tables on the stages. */
#include "kv/slot_book.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <stdlib.h>

struct slot {
    bool open;
    int n_blocks;
    int32_t *blocks; /* the table, [max_blocks] */
};

struct slot_book {
    int n_slots, n_free;
    int max_blocks; /* of one slot */
    struct slot *slots;
    int *free; /* stack of closed slots */
    int32_t *tables;
    struct block_pool *pool;
};

int slot_book_blocks_for(int n_positions)
{
    return (int)(((long long)n_positions + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
}

struct slot_book *slot_book_new(int n_slots, int n_blocks, int max_positions)
{
    ASSERT(n_slots >= 1 && max_positions >= 1);
    struct slot_book *b = xcalloc(1, sizeof(*b));
    b->n_slots = b->n_free = n_slots;
    b->max_blocks = slot_book_blocks_for(max_positions);
    if (b->max_blocks > n_blocks)
        b->max_blocks = n_blocks;
    b->slots = xcalloc((size_t)n_slots, sizeof(b->slots[0]));
    b->free = xcalloc((size_t)n_slots, sizeof(b->free[0]));
    b->tables = xcalloc((size_t)n_slots * (size_t)b->max_blocks, sizeof(b->tables[0]));
    b->pool = block_pool_new(n_blocks, n_slots);
    for (int i = 0; i < n_slots; i++) {
        b->free[i] = n_slots - 1 - i;
        b->slots[i].blocks = b->tables + (size_t)i * (size_t)b->max_blocks;
    }
    return b;
}

void slot_book_free(struct slot_book *b)
{
    if (b == NULL)
        return;
    block_pool_free(b->pool);
    free(b->slots);
    free(b->free);
    free(b->tables);
    free(b);
}

static struct slot *open_slot(const struct slot_book *b, int slot)
{
    ASSERT(slot >= 0 && slot < b->n_slots);
    ASSERT(b->slots[slot].open);
    return &b->slots[slot];
}

int slot_book_open(struct slot_book *b, int n_positions, slot_change_fn change, void *context)
{
    int n_blocks = slot_book_blocks_for(n_positions);
    ASSERT(n_blocks <= b->max_blocks);
    if (b->n_free == 0)
        return -1;
    int slot = b->free[b->n_free - 1];
    if (!block_pool_reserve(b->pool, slot, n_blocks))
        return -1;
    b->n_free--;
    b->slots[slot].open = true;
    b->slots[slot].n_blocks = 0;
    change(context, SLOT_OPEN, slot, 0);
    return slot;
}

void slot_book_extend(struct slot_book *b, int slot, int n_positions, slot_change_fn change,
                      void *context)
{
    struct slot *s = open_slot(b, slot);
    int n_blocks = slot_book_blocks_for(n_positions);
    ASSERT(n_blocks <= b->max_blocks);
    while (s->n_blocks < n_blocks) {
        int32_t block = block_pool_take(b->pool, slot);
        s->blocks[s->n_blocks++] = block;
        change(context, SLOT_APPEND, slot, block);
    }
}

void slot_book_close(struct slot_book *b, int slot, slot_change_fn change, void *context)
{
    struct slot *s = open_slot(b, slot);
    for (int i = s->n_blocks - 1; i >= 0; i--)
        block_pool_drop(b->pool, slot, s->blocks[i]);
    block_pool_unreserve(b->pool, slot);
    ASSERT(block_pool_held(b->pool, slot) == 0);
    s->open = false;
    s->n_blocks = 0;
    b->free[b->n_free++] = slot;
    change(context, SLOT_CLOSE, slot, 0);
}

int slot_book_n_open(const struct slot_book *b)
{
    return b->n_slots - b->n_free;
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
