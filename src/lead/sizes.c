#include "lead/sizes.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODE_FIXED_BYTES = 64 << 20 }; /* program, threads, buffers of a process */

/* The number behind `key` in a file of "key value" lines; 0 if there is none. */
static uint64_t read_field(const char *path, const char *key)
{
    char line[256];
    uint64_t value = 0;
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        size_t n = strlen(key);
        if (strncmp(line, key, n) == 0) {
            value = strtoull(line + n, NULL, 10);
            break;
        }
    }
    if (f != NULL)
        fclose(f);
    return value;
}

uint64_t sizes_free_memory(void)
{
    uint64_t available = read_field("/proc/meminfo", "MemAvailable:") << 10;
    uint64_t limit = read_field("/sys/fs/cgroup/memory.max", ""); /* "max" reads as 0: none */
    uint64_t used = read_field("/sys/fs/cgroup/memory.current", "");
    uint64_t left = limit > used ? limit - used : 0;
    return limit > 0 && left < available ? left : available;
}

uint64_t sizes_kv_position_bytes(const struct model_params *p, enum kv_type type)
{
    uint64_t element = type == KV_F32 ? 4 : 2;
    return 2 * element * (uint64_t)p->n_kv_heads * (uint64_t)p->head_size;
}

enum err sizes_kv_fit(const struct model_params *p, enum kv_type type, int context, int n_slots,
                      uint64_t budget, struct sizes_kv *out, struct error *e)
{
    ASSERT(n_slots >= 1 && context >= 0);
    if (context > p->context)
        return error_set(e, ERR_LIMIT, "context of %d positions: the model was trained for %d",
                         context, p->context);
    uint64_t wanted = (uint64_t)(context > 0 ? context : p->context);
    uint64_t block = sizes_kv_position_bytes(p, type) * KV_BLOCK_TOKENS * (uint64_t)p->n_layers;
    uint64_t fit = budget / block;
    uint64_t per_slot = (wanted + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    if (fit < 1 || (context > 0 && fit < per_slot))
        return error_set(e, ERR_LIMIT,
                         "keys and values of %llu positions need %.1f MB, %.1f MB are there for them",
                         (unsigned long long)wanted, (double)(per_slot * block) / 1e6,
                         (double)budget / 1e6);
    uint64_t blocks = per_slot * (uint64_t)n_slots;
    blocks = blocks < fit ? blocks : fit;
    blocks = blocks < INT32_MAX / KV_BLOCK_TOKENS ? blocks : INT32_MAX / KV_BLOCK_TOKENS;
    uint64_t held = blocks * KV_BLOCK_TOKENS;
    *out = (struct sizes_kv){.context = (int)(wanted < held ? wanted : held),
                             .n_blocks = (int)blocks};
    return OK;
}

static enum err add_bytes(const struct model_tensor *t, void *context, struct error *e)
{
    (void)e;
    *(uint64_t *)context += t->bytes;
    return OK;
}

enum err sizes_plan_model(const struct modelfile *file, const struct model_params *p,
                          enum kv_type type, const struct sizes_kv *kv, struct plan_model *out,
                          uint64_t **layer_bytes, struct error *e)
{
    int n = p->n_layers;
    *layer_bytes = xcalloc((size_t)n, sizeof **layer_bytes);
    *out = (struct plan_model){.n_layers = n,
                               .layer_bytes = *layer_bytes,
                               .kv_bytes_per_layer = sizes_kv_position_bytes(p, type) *
                                                     KV_BLOCK_TOKENS * (uint64_t)kv->n_blocks,
                               .fixed_bytes = NODE_FIXED_BYTES};
    enum err err = OK;
    for (int i = 0; i < n && err == OK; i++)
        err = model_part_tensors(file, &(struct model_part){.first = i, .last = i + 1}, add_bytes,
                                 &(*layer_bytes)[i], e);
    if (err == OK)
        err = model_part_tensors(file, &(struct model_part){.embedding = true}, add_bytes,
                                 &out->embedding_bytes, e);
    if (err == OK)
        err = model_part_tensors(file, &(struct model_part){.first = n, .last = n, .head = true},
                                 add_bytes, &out->head_bytes, e);
    return err;
}
