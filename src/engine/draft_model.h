/* A second, smaller model with the same vocabulary that guesses what the first will say
 * (docs/speculation.md). It lives on the lead, whole, as one stage of its own with its own
 * key-value store, and guesses greedily for all sequences that ask, in the same passes.
 *
 * What it has computed of a sequence it keeps, and compares with what the sequence has become:
 * after wrong guesses it goes back to where they part, after a while without guesses it catches up,
 * at most a batch of rows a call, and until then has none. Nobody has to tell it of preempted or
 * ended sequences: room is taken from those that have not asked for longest. Where there is none
 * left, or the sequence is longer than its context, there are no guesses.
 *
 * Its guesses decide nothing but how long things take. One thread at a time, that of the lead's
 * stage. */
#ifndef SHOAL_ENGINE_DRAFT_MODEL_H
#define SHOAL_ENGINE_DRAFT_MODEL_H

#include "engine/schedule.h"
#include "stage/stage.h"

struct draft_model;

struct draft_model_options {
    struct stage *stage; /* borrowed, new: all layers, embedding and head */
    int vocab;           /* of both models */
    uint64_t epoch;      /* the next five as the stage has them */
    int n_slots;
    int n_blocks;
    int max_context;
    int max_rows;
};

struct draft_model *draft_model_new(const struct draft_model_options *o);
void draft_model_free(struct draft_model *d); /* NULL allowed */

/* Fulfil what the schedule wishes for its next step. *n_timed: how many guesses this call's time is
 * the price of; 0 where much of it was spent on catching up. Errors are the stage's. */
enum err draft_model_serve(struct draft_model *d, struct schedule *s, int *n_timed,
                           struct error *e);

#endif
