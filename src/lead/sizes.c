#include "lead/sizes.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "base/window.h"
#include "model/model.h"

enum { PROCESS_BYTES = 64 << 20 }; /* program, threads, buffers of a process */

uint64_t sizes_kv_position_bytes(const struct model_params *p, enum kv_type type)
{
    return kv_block_bytes(type, p->n_kv_heads, p->head_size) / KV_BLOCK_TOKENS;
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

enum err sizes_kv_fit(const struct sizes_kv_wish *w, struct sizes_kv *out, struct error *e)
{
    const struct model_params *p = w->params;
    int context = w->context;
    ASSERT(w->n_slots >= 1 && w->max_rows >= 1 && context >= 0);
    if (context > p->context)
        return error_set(e, ERR_LIMIT, "context of %d positions: the model was trained for %d",
                         context, p->context);
    uint64_t wanted = (uint64_t)(context > 0 ? context : p->context);
    uint64_t block = sizes_kv_position_bytes(p, w->type) * KV_BLOCK_TOKENS * (uint64_t)p->n_layers;
    uint64_t fit = w->budget / block;
    uint64_t per_slot = (wanted + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS, least = per_slot;
    if (p->window > 0) {
        per_slot = least_of(per_slot, (uint64_t)window_blocks(p->window, w->max_rows));
        least = least_of(per_slot, (uint64_t)window_blocks(p->window, 1)); /* row by row */
    }
    if (fit < 1 || (context > 0 && fit < least))
        return error_set(
            e, ERR_LIMIT,
            "keys and values of %llu positions need %.1f MB, %.1f MB are there for them",
            (unsigned long long)least_of(wanted, least * KV_BLOCK_TOKENS),
            (double)(least * block) / 1e6, (double)w->budget / 1e6);
    uint64_t blocks = least_of(least_of(per_slot * (uint64_t)w->n_slots, fit), KV_MAX_BLOCKS);
    uint64_t held = blocks >= least ? wanted : blocks * KV_BLOCK_TOKENS;
    *out = (struct sizes_kv){.context = (int)least_of(wanted, held), .n_blocks = (int)blocks};
    return OK;
}

static enum err add_bytes(const struct model_tensor *t, void *context, struct error *e)
{
    (void)e;
    *(uint64_t *)context += t->bytes;
    return OK;
}

static enum err sum_part(const struct modelfile *file, struct model_part part, uint64_t *bytes,
                         struct error *e)
{
    *bytes = 0;
    return model_part_tensors(file, &part, add_bytes, bytes, e);
}

enum err sizes_plan_model(const struct modelfile *file, const struct sizes_use *use,
                          struct plan_model *out, uint64_t **layer_bytes, struct error *e)
{
    const struct model_params *p = use->params;
    int n = p->n_layers;
    uint64_t both = 0;
    *layer_bytes = xcalloc((size_t)n, sizeof **layer_bytes);
    *out = (struct plan_model){.n_layers = n,
                               .layer_bytes = *layer_bytes,
                               .kv_bytes_per_layer = sizes_kv_position_bytes(p, use->kv_type) *
                                                     KV_BLOCK_TOKENS * (uint64_t)use->n_blocks,
                               .fixed_bytes =
                                   PROCESS_BYTES + model_activation_bytes(p, use->max_rows, false)};
    enum err err = OK;
    for (int i = 0; i < n && err == OK; i++)
        err = sum_part(file, (struct model_part){.first = i, .last = i + 1}, &(*layer_bytes)[i], e);
    if (err == OK)
        err = sum_part(file, (struct model_part){.embedding = true}, &out->embedding_bytes, e);
    if (err == OK)
        err = sum_part(file, (struct model_part){.head = true}, &out->head_bytes, e);
    if (err == OK)
        err = sum_part(file, (struct model_part){.embedding = true, .head = true}, &both, e);
    if (err != OK)
        return err;
    out->shared_bytes = out->embedding_bytes + out->head_bytes - both;
    out->head_bytes += model_activation_bytes(p, 0, true);
    return OK;
}
