/* One fault in a simulated cluster: what goes wrong, where, from which step on. It happens once, at
 * the first frame that it can happen to (two rows of different sequences to swap, a block to confuse).
 *
 * Faults on the wire change what arrives at a hop; checksums are made anew, so that it is not they
 * that notice (but for FAULT_FLIP_BIT). Faults inside a node leave the frames as they are, and
 * let one worker's stage compute something else: only the tokens can tell.
 * Confusing blocks only harms where the other block holds something: a consistent renaming of blocks
 * on one stage is no fault. So the blocks taken are ones that another open sequence holds. */
#ifndef SHOAL_SIM_SIM_FAULT_H
#define SHOAL_SIM_SIM_FAULT_H

#include "stage/step.h"

#include <stdbool.h>

enum sim_fault_kind {
    FAULT_NONE,
    /* On the wire. */
    FAULT_DROP_FRAME,
    FAULT_DUPLICATE_FRAME,
    FAULT_SWAP_FRAMES,  /* with the one behind it */
    FAULT_STALE_EPOCH,
    FAULT_FLIP_BIT,
    FAULT_LOSE_ROW,     /* the last one, with its hidden states */
    FAULT_SWAP_ROWS,    /* two rows, but not their hidden states */
    FAULT_SWAP_PAYLOAD, /* the hidden states of two rows; not on the hop to stage 0 */
    FAULT_LOSE_UPDATE,
    FAULT_WRONG_BLOCK,  /* a block appended to the wrong sequence's data */
    /* Inside a worker. */
    FAULT_INSIDE_WRONG_BLOCK,
    FAULT_INSIDE_FOREIGN_BLOCK, /* another sequence's cells where a sequence's own were */
    FAULT_INSIDE_LOST_ROW,
    FAULT_INSIDE_WRONG_POSITION,
    FAULT_INSIDE_WRONG_SLOT,
    FAULT_INSIDE_WRONG_TOKEN, /* only stage 0 looks at tokens */
    N_FAULTS
};

const char *sim_fault_name(enum sim_fault_kind kind);
bool sim_fault_is_inside(enum sim_fault_kind kind);

struct sim_fault {
    enum sim_fault_kind kind;
    int hop;              /* the stage that the frame is for */
    uint64_t from_step;   /* not before this step */
};

/* The state of one fault during a run. */
struct sim_saboteur;
struct sim_saboteur *sim_saboteur_new(const struct sim_fault *fault, int n_slots, int n_blocks,
                                      uint32_t hidden);
void sim_saboteur_free(struct sim_saboteur *s); /* NULL allowed */
bool sim_saboteur_done(const struct sim_saboteur *s); /* the fault has happened */

/* A frame on its way to `hop`: what arrives there instead, in order, at most 2 frames; the frame is
 * taken over. */
int sim_saboteur_wire(struct sim_saboteur *s, int hop, struct frame *f, struct frame *arriving[2]);

/* A frame that the worker at `hop` is about to compute: the step that it computes instead, valid until
 * the next call, or NULL. */
const struct step *sim_saboteur_inside(struct sim_saboteur *s, int hop, const struct frame *f);

#endif
