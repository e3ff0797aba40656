/* How large things get: what the planner must know of a model, and how many KV blocks there are.
 * Pure. */
#ifndef SHOAL_LEAD_SIZES_H
#define SHOAL_LEAD_SIZES_H

#include "backend/backend.h"
#include "modelfile/modelfile.h"
#include "plan/plan.h"

/* Bytes of keys and values of one position in one layer. */
uint64_t sizes_kv_position_bytes(const struct model_params *p, enum kv_type type);

struct sizes_kv {
    int context;  /* positions of one sequence */
    int n_blocks; /* of KV_BLOCK_TOKENS positions, in every layer */
};

struct sizes_kv_wish {
    const struct model_params *params;
    enum kv_type type;
    int context; /* 0: the model's */
    int n_slots;
    int max_rows;    /* of one step */
    uint64_t budget; /* bytes, over all layers */
};

/* Blocks for n_slots sequences of `context` positions, as far as the budget goes. A sequence of a
 * model with a window needs them for its window and a step's rows only. At least one sequence of
 * one block; context shrinks to what the blocks hold, unless they hold a window. ERR_LIMIT when a
 * context that was asked for exceeds the model's or the budget. */
enum err sizes_kv_fit(const struct sizes_kv_wish *w, struct sizes_kv *out, struct error *e);

/* How a model is to be run: what sizes_plan_model counts with. */
struct sizes_use {
    const struct model_params *params;
    enum kv_type kv_type;
    int n_blocks;
    int max_rows; /* of one step: bounds the activations */
};

/* The planner's view of a model; *layer_bytes is malloc'ed, the caller's, also after a failure. */
enum err sizes_plan_model(const struct modelfile *file, const struct sizes_use *use,
                          struct plan_model *out, uint64_t **layer_bytes, struct error *e);

#endif
