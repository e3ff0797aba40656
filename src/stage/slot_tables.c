#include "stage/slot_tables.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "base/window.h"

#include <stdlib.h>

enum err slot_tables_init(struct slot_tables *t, const struct slot_tables_options *o,
                          struct error *e)
{
    int n_slots = o->n_slots;
    ASSERT(n_slots >= 1 && n_slots <= SLOT_MAX && o->n_blocks >= 1 && o->max_context >= 1);
    ASSERT(o->window >= 0);
    int max_blocks = (o->max_context - 1) / KV_BLOCK_TOKENS + 1;
    if (o->window == 0 && max_blocks > o->n_blocks)
        max_blocks = o->n_blocks; /* no slot can have more */
    *t = (struct slot_tables){.n_slots = n_slots,
                              .n_blocks = o->n_blocks,
                              .max_blocks = max_blocks,
                              .window = o->window,
                              .vocab = o->vocab};
    uint64_t bytes = (uint64_t)n_slots * (uint64_t)max_blocks * sizeof(int32_t);
    if (o->window > 0 && bytes > SLOT_TABLES_MAX_BYTES)
        return error_set(e, ERR_LIMIT,
                         "tables of %d slots of %d positions are %llu bytes, limit %d", n_slots,
                         o->max_context, (unsigned long long)bytes, SLOT_TABLES_MAX_BYTES);
    t->slots = calloc((size_t)n_slots, sizeof *t->slots);
    if (t->slots == NULL)
        goto no_memory;
    for (int i = 0; i < n_slots; i++) {
        t->slots[i].blocks = calloc((size_t)max_blocks, sizeof(int32_t));
        if (t->slots[i].blocks == NULL)
            goto no_memory;
    }
    return OK;
no_memory:
    slot_tables_release(t);
    return error_set(e, ERR_MEMORY, "no memory for %d slot tables of %d blocks", n_slots,
                     max_blocks);
}

void slot_tables_release(struct slot_tables *t)
{
    for (int i = 0; t->slots != NULL && i < t->n_slots; i++)
        free(t->slots[i].blocks);
    free(t->slots);
    *t = (struct slot_tables){0};
}

/* The slot of an update or row, with its would-be state begun; NULL if there is no such slot. */
static struct slot *checked_slot(struct slot_tables *t, uint32_t slot_i)
{
    if (slot_i >= (uint32_t)t->n_slots)
        return NULL;
    struct slot *s = &t->slots[slot_i];
    if (s->stamp != t->stamp) {
        s->stamp = t->stamp;
        s->would_n_blocks = s->n_blocks;
        s->would_n_holes = s->n_holes;
        s->would_open = s->open;
        s->last_position = -1;
    }
    return s;
}

static enum err check_block(const struct slot_tables *t, uint32_t i, uint32_t block,
                            struct error *e)
{
    if (block >= (uint32_t)t->n_blocks)
        return error_set(e, ERR_FORMAT, "update %u: expected a block below %d, found %u", i,
                         t->n_blocks, block);
    return OK;
}

static enum err check_trim(const struct slot_tables *t, uint32_t i, const struct step_update *u,
                           struct slot *s, struct error *e)
{
    if (t->window == 0)
        return error_set(e, ERR_FORMAT,
                         "update %u: holes in the table of slot %u, but the model has no window", i,
                         u->slot);
    if (u->block <= (uint32_t)s->would_n_holes || u->block > (uint32_t)t->max_blocks)
        return error_set(e, ERR_FORMAT,
                         "update %u: expected %d to %d holes in the table of slot %u, found %u", i,
                         s->would_n_holes + 1, t->max_blocks, u->slot, u->block);
    s->would_n_holes = (int)u->block;
    if (s->would_n_blocks < s->would_n_holes)
        s->would_n_blocks = s->would_n_holes;
    return OK;
}

static enum err check_update(struct slot_tables *t, uint32_t i, const struct step_update *u,
                             struct error *e)
{
    if (u->kind == UPDATE_COPY) {
        enum err err = check_block(t, i, u->from, e);
        return err != OK ? err : check_block(t, i, u->block, e);
    }
    struct slot *s = checked_slot(t, u->slot);
    if (s == NULL)
        return error_set(e, ERR_FORMAT, "update %u: expected a slot below %d, found %u", i,
                         t->n_slots, u->slot);
    if (s->would_open == (u->kind == UPDATE_OPEN))
        return error_set(e, ERR_FORMAT, "update %u: slot %u is %s", i, u->slot,
                         s->would_open ? "open already" : "not open");
    switch (u->kind) {
    case UPDATE_OPEN:
    case UPDATE_CLOSE:
        s->would_open = u->kind == UPDATE_OPEN;
        s->would_n_blocks = s->would_n_holes = 0;
        return OK;
    case UPDATE_APPEND:
        if (s->would_n_blocks == t->max_blocks)
            return error_set(e, ERR_FORMAT, "update %u: slot %u already has all of its %d blocks",
                             i, u->slot, t->max_blocks);
        s->would_n_blocks++;
        return check_block(t, i, u->block, e);
    case UPDATE_TRIM: return check_trim(t, i, u, s, e);
    default: return error_set(e, ERR_FORMAT, "update %u: unknown kind %u", i, u->kind);
    }
}

static enum err check_row(struct slot_tables *t, uint32_t i, const struct step_row *r,
                          struct error *e)
{
    struct slot *s = checked_slot(t, r->slot);
    if (s == NULL || !s->would_open)
        return error_set(e, ERR_FORMAT, "row %u: slot %u is not open", i, r->slot);
    int64_t end = (int64_t)s->would_n_blocks * KV_BLOCK_TOKENS;
    if (r->position >= end)
        return error_set(e, ERR_FORMAT,
                         "row %u: expected a position below %lld (the blocks of slot %u), found %u",
                         i, (long long)end, r->slot, r->position);
    int first = window_first(t->window, (int)r->position); /* below end, which is an int */
    if (first / KV_BLOCK_TOKENS < s->would_n_holes)
        return error_set(e, ERR_FORMAT,
                         "row %u: position %u of slot %u reads from %d on, but what is before %d "
                         "was given back",
                         i, r->position, r->slot, first, s->would_n_holes * KV_BLOCK_TOKENS);
    if (r->position <= s->last_position)
        return error_set(e, ERR_FORMAT,
                         "row %u: expected a position of slot %u above %lld, found %u", i, r->slot,
                         (long long)s->last_position, r->position);
    if (r->token >= (uint32_t)t->vocab)
        return error_set(e, ERR_FORMAT, "row %u: expected a token below %d, found %u", i, t->vocab,
                         r->token);
    s->last_position = r->position;
    return OK;
}

enum err slot_tables_check(struct slot_tables *t, const struct step *step, struct error *e)
{
    t->stamp++;
    for (uint32_t i = 0; i < step->n_updates; i++) {
        enum err err = check_update(t, i, &step->updates[i], e);
        if (err != OK)
            return err;
    }
    for (uint32_t i = 0; i < step->n_rows; i++) {
        enum err err = check_row(t, i, &step->rows[i], e);
        if (err != OK)
            return err;
    }
    return OK;
}

void slot_tables_apply(struct slot_tables *t, const struct step_update *u)
{
    if (u->kind == UPDATE_COPY)
        return;
    struct slot *s = &t->slots[u->slot];
    if (u->kind == UPDATE_APPEND) {
        ASSERT(s->open && s->n_blocks < t->max_blocks);
        s->blocks[s->n_blocks++] = (int32_t)u->block;
    } else if (u->kind == UPDATE_TRIM) {
        ASSERT(s->open && (int)u->block > s->n_holes && (int)u->block <= t->max_blocks);
        s->n_holes = (int)u->block;
        if (s->n_blocks < s->n_holes)
            s->n_blocks = s->n_holes;
    } else {
        s->open = u->kind == UPDATE_OPEN;
        s->n_blocks = s->n_holes = 0;
    }
}
