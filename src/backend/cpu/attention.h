/* The key-value store's layout, and what an attention kernel is asked to do.
 *
 * A block is KV_BLOCK_TOKENS positions; KV_STRIP_BLOCKS of them, with numbers from a multiple of
 * that on, are a strip. A layer holds one key-value head after the other, a head one strip after
 * the other, a strip the keys of its blocks and then their values:
 *
 *     head 0                                                          head 1
 *     [keys of blocks 0-15 | values of 0-15 | keys of 16-31 | values …][keys of 0-15 | …
 *
 * A head reads a chunk's keys first, then its values: where a sequence's blocks are whole strips in
 * ascending order (block_pool.h sees to it) all of that is one stream. A block's keys are
 * transposed, so that the 16 positions are one vector and scores need no sums across lanes; its
 * values are rows, padded to whole vectors (the padding never reaches a result):
 *
 *   f16, f32   keys [head_size][16], values [16][padded]
 *   q8         codes as int8 like these, each followed by its scales, f32 [groups][16], KV_GROUP
 *              dimensions to a group */
#ifndef SHOAL_BACKEND_CPU_ATTENTION_H
#define SHOAL_BACKEND_CPU_ATTENTION_H

#include "backend/backend.h"
#include "base/bounds.h"

#include <stddef.h>
#include <stdint.h>

enum {
    ATTENTION_CHUNK = 256,  /* positions reduced together; a multiple of KV_BLOCK_TOKENS */
    ATTENTION_QUERIES = 64, /* query vectors of one tile, at most; a multiple of 16 */
    ATTENTION_BLOCKS = ATTENTION_CHUNK / KV_BLOCK_TOKENS,
};
_Static_assert((int)ATTENTION_BLOCKS == (int)KV_STRIP_BLOCKS, "a chunk reads a strip");

struct kv_layout {
    enum kv_type type;
    int head_size;
    int padded;         /* head_size up to a multiple of 16 */
    int n_groups;       /* scales of a head's position in a q8 store */
    size_t key_bytes;   /* keys of one head in one block */
    size_t value_bytes; /* its values */
    size_t block_bytes; /* keys and values of all heads */
};

static inline struct kv_layout kv_layout(enum kv_type type, int n_kv_heads, int head_size)
{
    struct kv_layout l = {.type = type, .head_size = head_size};
    l.padded = (head_size + 15) / 16 * 16;
    l.n_groups = type == KV_Q8 ? (head_size + KV_GROUP - 1) / KV_GROUP : 0;
    size_t element = type == KV_F32 ? 4 : type == KV_F16 ? 2 : 1;
    size_t scales = (size_t)l.n_groups * sizeof(float);
    l.key_bytes = KV_BLOCK_TOKENS * ((size_t)head_size * element + scales);
    l.value_bytes = KV_BLOCK_TOKENS * ((size_t)l.padded * element + scales);
    l.block_bytes = (size_t)n_kv_heads * (l.key_bytes + l.value_bytes);
    return l;
}

/* One attention operation. */
struct attention {
    const uint8_t *cells; /* of one layer */
    struct kv_layout layout;
    int n_blocks; /* of the store */
    int n_heads, n_kv_heads;
    int window;     /* positions that a row sees; 0: all */
    float scale;    /* of scores */
    const float *q; /* [n][n_heads * head_size] */
    float *y;       /* the same shape */
    const struct batch *batch;
};

/* A piece of it: some query heads that share a key-value head, of rows that follow each other in
 * one sequence (the same table, positions one apart). n_rows * n_heads <= ATTENTION_QUERIES. Query
 * i is head `head + i % n_heads` of row `row + i / n_heads`. */
struct attention_tile {
    int row, n_rows;
    int head, n_heads;
};

/* Where the strip of a block begins for a head, in bytes from its layer's cells. */
static inline size_t kv_strip_at(const struct kv_layout *l, int n_blocks, int32_t block,
                                 int kv_head)
{
    size_t blocks_before =
        (size_t)n_blocks * (size_t)kv_head + (size_t)(block / KV_STRIP_BLOCKS) * KV_STRIP_BLOCKS;
    return blocks_before * (l->key_bytes + l->value_bytes);
}

/* Where its keys of a block begin … */
static inline size_t kv_keys_at(const struct kv_layout *l, int n_blocks, int32_t block, int kv_head)
{
    return kv_strip_at(l, n_blocks, block, kv_head) +
           (size_t)(block % KV_STRIP_BLOCKS) * l->key_bytes;
}

/* … and its values, behind the keys of the strip, which is short if it is the store's last. */
static inline size_t kv_values_at(const struct kv_layout *l, int n_blocks, int32_t block,
                                  int kv_head)
{
    int in_strip = block % KV_STRIP_BLOCKS, left = n_blocks - (block - in_strip);
    size_t n_keys = (size_t)(left < KV_STRIP_BLOCKS ? left : KV_STRIP_BLOCKS);
    return kv_strip_at(l, n_blocks, block, kv_head) + n_keys * l->key_bytes +
           (size_t)in_strip * l->value_bytes;
}

/* The first position that query i of a tile sees; from there it sees all up to … */
static inline int tile_first(const struct attention *a, const struct attention_tile *t, int i)
{
    return window_first(a->window, a->batch->positions[t->row + i / t->n_heads]);
}

/* … this many from 0. */
static inline int tile_positions(const struct attention *a, const struct attention_tile *t, int i)
{
    return a->batch->positions[t->row + i / t->n_heads] + 1;
}

/* Which chunks of positions a tile reads: from this one … */
static inline int tile_first_chunk(const struct attention *a, const struct attention_tile *t)
{
    return tile_first(a, t, 0) / ATTENTION_CHUNK;
}

/* … so many. */
static inline int tile_chunks(const struct attention *a, const struct attention_tile *t)
{
    int last = tile_positions(a, t, t->n_rows * t->n_heads - 1) - 1;
    return last / ATTENTION_CHUNK - tile_first_chunk(a, t) + 1;
}

/* The state of some queries' softmax-weighted sums: weights are e^(score - max), sum is theirs.
 * In memory: max [n up to a multiple of 16], sum likewise, out [n][padded]. */
struct partial {
    float *max, *sum, *out;
};

static inline size_t partial_floats(int n_queries, int padded)
{
    return (size_t)((n_queries + 15) / 16 * 32) + (size_t)n_queries * padded;
}

static inline struct partial partial_at(float *memory, int n_queries)
{
    int n = (n_queries + 15) / 16 * 16;
    return (struct partial){memory, memory + n, memory + 2 * n};
}

/* What a kernel needs to work in, in floats. */
static inline size_t attention_scratch_floats(const struct kv_layout *l)
{
    return ATTENTION_QUERIES * (size_t)l->padded + ATTENTION_QUERIES * ATTENTION_CHUNK +
           2 * partial_floats(ATTENTION_QUERIES, l->padded);
}

#endif
