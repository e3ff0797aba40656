/* What an attention kernel is asked to do. */
#ifndef SHOAL_BACKEND_CPU_ATTENTION_H
#define SHOAL_BACKEND_CPU_ATTENTION_H

#include "backend/backend.h"
#include "base/bounds.h"

#include <stddef.h>
#include <stdint.h>

enum { ATTENTION_CHUNK = 256 }; /* positions reduced together; a multiple of KV_BLOCK_TOKENS */

/* Attention of some query heads of one row, over positions 0 … batch->positions[row]. */
struct attention {
    const uint8_t *keys, *values; /* of one layer: [block][kv head][KV_BLOCK_TOKENS][head_size] */
    enum kv_type type;
    int n_heads, n_kv_heads, head_size;
    float scale;    /* of scores */
    const float *q; /* [n][n_heads * head_size] */
    float *y;       /* the same shape */
    const struct batch *batch;
};

/* Where the keys (or values) of a block and key-value head begin in a layer, in elements. */
static inline size_t kv_offset(const struct attention *a, int32_t block, int kv_head)
{
    return ((size_t)block * a->n_kv_heads + kv_head) * KV_BLOCK_TOKENS * a->head_size;
}

#endif
