/* The draft model of a lead: a second model file with the same vocabulary, whole on this process,
 * as one stage of its own beside the ring (engine/draft_model.h, docs/speculation.md).
 *
 * In this order: check the file against the model, plan its memory, load it, release it. It
 * computes on the lead's backend, from the engine's thread. */
#ifndef SHOAL_LEAD_LEAD_DRAFT_H
#define SHOAL_LEAD_LEAD_DRAFT_H

#include "backend/backend.h"
#include "engine/draft_model.h"
#include "model/model.h"
#include "text/text.h"

struct lead_draft {
    struct modelfile *file; /* borrowed; NULL: no draft model */
    struct model_params params;
    uint64_t weight_bytes;
    uint64_t bytes; /* of weights, keys and values, activations and logits together */
    int context, n_blocks, n_slots, max_rows;
    enum kv_type kv_type;
    struct model *model;
    struct stage *stage;
    struct draft_model *draft;
};

/* Refuse a file that cannot be run, or that has another vocabulary than the model: as many tokens
 * with the same texts (ERR_MISMATCH names the first difference), as far as `tokenizer`, the
 * model's, is given. Nothing to release after this. */
enum err lead_draft_check(struct modelfile *file, const struct model_params *model,
                          const struct tokenizer *tokenizer, struct lead_draft *d, struct error *e);

struct lead_draft_use {
    enum kv_type kv_type;
    int context, n_slots, max_rows; /* of the model */
    uint64_t kv_bytes;              /* at most for keys and values */
};

/* Its sizes: a context no longer than the model's, as far as kv_bytes go. ERR_LIMIT. */
enum err lead_draft_fit(struct lead_draft *d, const struct lead_draft_use *use, struct error *e);

/* On failure lead_draft_release is due. */
enum err lead_draft_load(struct lead_draft *d, struct backend *backend, model_progress progress,
                         void *context, struct error *e);
void lead_draft_release(struct lead_draft *d);

#endif
