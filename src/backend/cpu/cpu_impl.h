/* Inside the CPU backend: what its handles are. cpu_handles.c makes and frees them, cpu_backend.c
 * works on them. Scratch (quantised activations, the rotations of the current positions) is sized
 * when handles are made: for the widest quantised matrix, the tallest tensor, the largest head. No
 * operation allocates. */
#ifndef SHOAL_BACKEND_CPU_CPU_IMPL_H
#define SHOAL_BACKEND_CPU_CPU_IMPL_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "base/panic.h"

struct tensor {
    int rows, cols;
    float *data; /* [rows][cols] */
    size_t bytes;
};

struct weight {
    struct packed packed;
    size_t bytes;
};

struct kv_store {
    struct kv_shape shape;
    size_t block_bytes;     /* of one block of one layer: keys, or values */
    size_t bytes;           /* of keys, and of values */
    uint8_t *keys, *values; /* [layer][block][kv head][KV_BLOCK_TOKENS][head_size] */
};

/* Cosines and sines of the positions of the last rope operation: all layers ask for the same. */
struct turns {
    int n, n_pairs;
    int32_t *positions;      /* [n] */
    double *inv_freq;        /* [n_pairs] */
    float *table;            /* [n][n_pairs cosines, n_pairs sines] */
    int max_rows, max_pairs; /* what the arrays hold */
};

struct cpu {
    struct backend base;
    struct pool *pool;
    struct kernels kernels;
    int max_rows;                  /* of any tensor */
    int max_width;                 /* of any quantised weight */
    int max_head;                  /* of any store */
    struct quant_group *quantised; /* room for n_quantised groups */
    size_t n_quantised;
    struct turns turns;
};

static inline struct cpu *cpu_of(struct backend *b)
{
    return (struct cpu *)b;
}

/* Where a block begins in the keys, and in the values, in bytes. */
static inline size_t kv_block_at(const struct kv_store *kv, int layer, int block)
{
    ASSERT(layer >= 0 && layer < kv->shape.n_layers);
    ASSERT(block >= 0 && block < kv->shape.n_blocks);
    return ((size_t)layer * kv->shape.n_blocks + block) * kv->block_bytes;
}

/* The slots of struct backend_ops that concern memory. */
enum err cpu_tensor_new(struct backend *b, int rows, int cols, struct tensor **out,
                        struct error *e);
void cpu_tensor_free(struct backend *b, struct tensor *t);
void cpu_write(struct backend *b, struct tensor *t, int row, int n, const float *src);
void cpu_read(struct backend *b, const struct tensor *t, int row, int n, float *dst);
void cpu_sync(struct backend *b);
enum err cpu_weight_new(struct backend *b, enum dtype type, int n_rows, int n_cols,
                        const void *data, struct weight **out, struct error *e);
void cpu_weight_free(struct backend *b, struct weight *w);
size_t cpu_weight_bytes(const struct weight *w);
enum err cpu_kv_new(struct backend *b, const struct kv_shape *shape, struct kv_store **out,
                    struct error *e);
void cpu_kv_free(struct backend *b, struct kv_store *kv);
size_t cpu_kv_bytes(const struct kv_store *kv);
void cpu_kv_copy_block(struct backend *b, struct kv_store *kv, int from, int to);

/* The slots that concern the key-value store (cpu_attention.c). */
void cpu_kv_write(struct backend *b, struct kv_store *kv, int layer, const struct tensor *k,
                  const struct tensor *v, const struct batch *batch);
void cpu_attention(struct backend *b, struct tensor *y, const struct tensor *q,
                   struct kv_store *kv, int layer, int n_heads, const struct batch *batch);

void cpu_scratch_release(struct cpu *c);

#endif
