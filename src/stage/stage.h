/* A stage: layers [first, last) of a model with their KV store and slot tables; step and hidden
 * states in, hidden states (or logits) out. It does not know who is before or after it: the same
 * stage_forward runs in one process, behind gRPC and in the simulator.
 *
 * One thread at a time uses a stage. */
#ifndef SHOAL_STAGE_STAGE_H
#define SHOAL_STAGE_STAGE_H

#include "backend/backend.h"
#include "model/model.h"
#include "stage/step.h"

struct stage;

struct stage_options {
    const struct model *model; /* borrowed: the layers it holds are the stage's */
    struct backend *backend;   /* borrowed: the one the model was loaded into */
    int max_rows;              /* of a step, <= STEP_MAX_ROWS */
    int n_slots;               /* <= SLOT_MAX */
    int n_blocks;              /* KV blocks of KV_BLOCK_TOKENS positions, shared by the slots */
    int max_context;           /* positions of one slot: bounds its table */
    enum kv_type kv_type;
    uint64_t epoch; /* frames of another are refused */
};

enum err stage_new(const struct stage_options *o, struct stage **out, struct error *e);
void stage_free(struct stage *s); /* NULL allowed */

/* Bytes held: KV store, activations (weights are the model's: model_weight_bytes). */
size_t stage_kv_bytes(const struct stage *s);
size_t stage_activation_bytes(const struct stage *s);

/* Apply the step's updates, then run its rows through the layers.
 *   hidden_in : [n_rows][hidden], NULL exactly when the stage embeds (model_has_embedding)
 *   out       : without the head: [n_rows][hidden] hidden states of all rows;
 *               with the head: [n_wanted][vocab] logits of the rows with WANT_LOGITS, in row order
 * Updates and rows are checked first: a step number that is not the previous + 1, another epoch, an
 * unknown slot, a block out of range, a position past the slot's table or one whose window reaches
 * a block that was given back, a token outside the vocabulary is ERR_FORMAT naming it, and nothing
 * was changed. */
enum err stage_forward(struct stage *s, const struct step *step, const float *hidden_in, float *out,
                       struct error *e);

/* How many rows of the step want logits. */
int step_n_wanted(const struct step *step);

#endif
