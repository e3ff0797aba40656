/* How large things get: what the planner must know of a model, and how many KV blocks there are.
 * Pure but for sizes_free_memory. */
#ifndef SHOAL_LEAD_SIZES_H
#define SHOAL_LEAD_SIZES_H

#include "backend/backend.h"
#include "modelfile/modelfile.h"
#include "plan/plan.h"

/* Memory this process may still use: MemAvailable, held down by the cgroup's limit. */
uint64_t sizes_free_memory(void);

/* Bytes of keys and values of one position in one layer. */
uint64_t sizes_kv_position_bytes(const struct model_params *p, enum kv_type type);

struct sizes_kv {
    int context;  /* positions of one sequence */
    int n_blocks; /* of KV_BLOCK_TOKENS positions, in every layer */
};

/* Blocks for `n_slots` sequences of `context` positions (0: the model's), as far as `budget` bytes go
 * over all layers. At least one sequence of one block; context shrinks to what the blocks hold.
 * ERR_LIMIT when a context that was asked for exceeds the model's or the budget. */
enum err sizes_kv_fit(const struct model_params *p, enum kv_type type, int context, int n_slots,
                      uint64_t budget, struct sizes_kv *out, struct error *e);

/* The planner's view of a model; *layer_bytes is malloc'ed, the caller's. */
enum err sizes_plan_model(const struct modelfile *file, const struct model_params *p,
                          enum kv_type type, const struct sizes_kv *kv, struct plan_model *out,
                          uint64_t **layer_bytes, struct error *e);

#endif
