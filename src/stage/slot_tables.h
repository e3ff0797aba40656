/* The slot tables of a stage: which KV blocks a sequence's positions live in.
 *
 * Updates and rows come from the network: slot_tables_check walks a whole step without changing
 * anything, slot_tables_apply then cannot fail. One thread at a time. */
#ifndef SHOAL_STAGE_SLOT_TABLES_H
#define SHOAL_STAGE_SLOT_TABLES_H

#include "stage/step.h"

#include <stdbool.h>

struct slot {
    int32_t *blocks; /* table: position p lives in blocks[p / KV_BLOCK_TOKENS] */
    int n_blocks;
    int n_holes; /* leading entries whose blocks were given back: nothing may read there */
    bool open;
    /* The state a step under check would leave; valid where `stamp` is the check's. */
    uint64_t stamp;
    int would_n_blocks, would_n_holes;
    bool would_open;
    int64_t last_position; /* of this slot's rows so far in the step, -1: none */
};

struct slot_tables {
    struct slot *slots;
    int n_slots;
    int n_blocks;   /* block ids are below */
    int max_blocks; /* of one slot */
    int window;     /* of positions that a row reads; 0: all before it */
    int vocab;
    uint64_t stamp;
};

struct slot_tables_options {
    int n_slots, n_blocks, max_context;
    int window; /* as above */
    int vocab;
};

/* A slot's table holds the blocks of max_context positions, or all n_blocks where that is fewer:
 * what a lead asks for cannot make the tables larger than the store. With a window it has holes,
 * and can be longer than the store: then all tables together are bounded by SLOT_TABLES_MAX_BYTES
 * (ERR_LIMIT). After an error, ERR_MEMORY too, there is nothing to release. */
enum err slot_tables_init(struct slot_tables *t, const struct slot_tables_options *o,
                          struct error *e);
void slot_tables_release(struct slot_tables *t);

/* May the step's updates be applied in order, and do its rows then stand inside their slots'
 * tables, with ascending positions per slot, no hole in what they read, and tokens below vocab?
 * ERR_FORMAT names the first that not. */
enum err slot_tables_check(struct slot_tables *t, const struct step *step, struct error *e);

/* Apply one checked update (UPDATE_COPY changes no table). */
void slot_tables_apply(struct slot_tables *t, const struct step_update *u);

#endif
