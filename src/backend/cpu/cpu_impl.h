/* Inside the CPU backend: what its handles are. cpu_handles.c makes and frees them, the other
 * files work on them. Scratch (quantised activations, the rotations of the current positions) is sized
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
    struct kv_layout layout;
    size_t bytes;
    uint8_t *cells; /* [layer]; attention.h */
};

/* Cosines and sines of the positions of the last rope operation: all layers ask for the same. */
struct turns {
    int n, n_pairs;
    int32_t *positions;      /* [n] */
    double *inv_freq;        /* [n_pairs] */
    float *table;            /* [n][n_pairs cosines, n_pairs sines] */
    int max_rows, max_pairs; /* what the arrays hold */
};

/* Rows that follow each other in one sequence, few enough for a tile. */
struct row_run {
    int row, n;
};

/* What attention works in. */
struct attention_space {
    struct row_run *runs; /* [max_rows] */
    int max_rows;
    float *scratch; /* for each thread `scratch_floats` */
    size_t scratch_floats;
    float *partials; /* for each thread `slot_floats`: a long sequence that several threads share */
    size_t slot_floats;
};

struct cpu {
    struct backend base;
    struct pool *pool;
    struct kernels kernels;
    int max_rows;                  /* of any tensor */
    int max_width;                 /* of any quantised weight */
    int max_head;                  /* of any store */
    struct quant_group *quantised; /* the input of the current products: room for n_quantised */
    struct quant_group *gated;     /* the input of down in a gated block: as many */
    size_t n_quantised;
    struct turns turns;
    struct attention_space attention;
};

static inline struct cpu *cpu_of(struct backend *b)
{
    return (struct cpu *)b;
}

/* A layer of a store. */
static inline uint8_t *kv_layer(const struct kv_store *kv, int layer)
{
    ASSERT(layer >= 0 && layer < kv->shape.n_layers);
    return kv->cells + (size_t)layer * kv->shape.n_blocks * kv->layout.block_bytes;
}

/* Run fn over the pool, or on this thread alone where the whole work is `elems` cheap elements: waking
 * the pool would cost more than it saves. */
static inline void cpu_run(struct cpu *c, size_t elems, pool_fn fn, void *job)
{
    if (elems < 1 << 14)
        pool_run_alone(c->pool, fn, job);
    else
        pool_run(c->pool, fn, job);
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

/* The slots that concern the key-value store: cpu_kv.c, cpu_attention.c. */
enum err cpu_kv_new(struct backend *b, const struct kv_shape *shape, struct kv_store **out,
                    struct error *e);
void cpu_kv_free(struct backend *b, struct kv_store *kv);
size_t cpu_kv_bytes(const struct kv_store *kv);
void cpu_kv_copy_block(struct backend *b, struct kv_store *kv, int from, int to);
void cpu_kv_write(struct backend *b, struct kv_store *kv, int layer, const struct tensor *k,
                  const struct tensor *v, const struct batch *batch);
void cpu_attention(struct backend *b, struct tensor *y, const struct tensor *q,
                   struct kv_store *kv, int layer, int n_heads, const struct batch *batch);

/* Those of matrix products (cpu_matmul.c). */
void cpu_matmul(struct backend *b, struct tensor *y, const struct weight *W, const struct tensor *x,
                int n);
void cpu_matmul_many(struct backend *b, struct tensor *const y[], const struct weight *const W[],
                     int n_weights, const struct tensor *x, int n);
void cpu_norm_matmul_many(struct backend *b, struct tensor *const y[],
                          const struct weight *const W[], int n_weights, const struct normed *x,
                          int n);
void cpu_matmul_add(struct backend *b, struct tensor *x, const struct weight *W,
                    const struct tensor *y, struct tensor *product, int n);
void cpu_gated_ffn(struct backend *b, struct tensor *x, const struct gated_ffn *f, int n);

void cpu_scratch_release(struct cpu *c);

/* Room for the rotations of any row and head there is so far (cpu_handles.c). */
bool cpu_turns_reserve(struct cpu *c);
/* Room for attention over a store of this layout, by as many rows as there are so far. Asked again
 * whenever the rows grow (with NULL). After a failure there is none, but the next asks again. */
bool attention_reserve(struct cpu *c, const struct kv_store *kv);
void attention_release(struct cpu *c);

#endif
