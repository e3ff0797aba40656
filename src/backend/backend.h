/* The operations of a forward pass, on handles: what a device must be able to do.
 *
 * A backend owns its memory. Callers hold handles (struct tensor, weight, kv_store) and enqueue
 * operations on them; operations run in the order given, and only `write`, `read` and `sync`
 * touch host memory or wait. Host arrays named in an operation (ids, positions, tables) must stay
 * unchanged until the next `read` or `sync`. The weight layout is the backend's own.
 *
 * All activations are f32 matrices, row-major, one row per token; operations work on the first n
 * rows. In shapes below n is that count. Every result row depends on its own inputs only: never on
 * n, on the other rows, on threads (DESIGN, promise 1). docs/numerics.md defines the bits; two
 * backends with the same numerics_id produce the same ones.
 *
 * One thread at a time uses a backend. Shapes are validated by the model layer when it binds weights:
 * here a wrong shape is a bug (ASSERT). Only what allocates can fail. */
#ifndef SHOAL_BACKEND_BACKEND_H
#define SHOAL_BACKEND_BACKEND_H

#include "base/error.h"
#include "base/pool.h"
#include "base/window.h"
#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct backend;
struct tensor;   /* f32 [rows][cols] */
struct weight;   /* a matrix of a model, [n_rows outputs][n_cols inputs], in the backend's layout */
struct kv_store; /* keys and values of some layers, in blocks of KV_BLOCK_TOKENS positions */

/* How keys and values are stored; the numbers are those of the wire. KV_Q8 is lossy: int8 codes with
 * a scale for every KV_GROUP dimensions of a head's position. */
enum kv_type { KV_F16, KV_F32, KV_Q8, N_KV_TYPES };
enum { KV_GROUP = 32 };

/* Bytes of one block of one layer in a CPU store: keys and values of KV_BLOCK_TOKENS positions. */
uint64_t kv_block_bytes(enum kv_type type, int n_kv_heads, int head_size);

/* How rotary positions turn a head. Angle of pair i at position p: p * inv_freq[i] radians. */
struct rope_spec {
    int head_size;
    int rope_size;          /* rotated dimensions of a head, even, <= head_size */
    bool halves;            /* pairs (i, i + rope_size/2); otherwise (2i, 2i + 1) */
    const double *inv_freq; /* rope_size / 2; lives as long as the model */
};

struct kv_shape {
    int n_layers;
    int n_blocks;
    int n_kv_heads;
    int head_size;
    enum kv_type type;
    int window; /* which positions a row sees (base/window.h); 0: all */
};

/* Where the rows of a batch stand. Position p of row r lives in block tables[r][p / n] at offset
 * p % n, n = KV_BLOCK_TOKENS; the table of a row has entries for positions 0 … positions[r]. Those
 * of blocks before the store's window may hold anything: they are never read. */
struct batch {
    int n;
    const int32_t *positions;
    const int32_t *const *tables;
};

/* An input that is to be normed first: rms_norm(x, gain, eps). `scratch` is as large as x; what it
 * holds afterwards is not specified. */
struct normed {
    const struct tensor *x, *gain;
    struct tensor *scratch;
    float eps;
};

/* A gated feed-forward block. The scratch is as large as its names say ([n][ffn]; product: as x);
 * what it holds afterwards is not specified. */
struct gated_ffn {
    struct normed in;                       /* in.x is the x of the operation */
    const struct weight *gate, *up, *down;  /* [ffn][hidden] twice, [hidden][ffn] */
    struct tensor *gated, *upped, *product; /* scratch */
};

struct backend_ops {
    void (*free)(struct backend *b); /* all handles were freed before */

    /* Memory. `tensor_new` fails with ERR_MEMORY; contents start as zeros. */
    enum err (*tensor_new)(struct backend *b, int rows, int cols, struct tensor **out,
                           struct error *e);
    void (*tensor_free)(struct backend *b, struct tensor *t);
    void (*write)(struct backend *b, struct tensor *t, int row, int n, const float *src);
    void (*read)(struct backend *b, const struct tensor *t, int row, int n, float *dst);
    void (*sync)(struct backend *b);

    /* Take over a matrix in file layout (`type` computable, rows contiguous, any alignment); `data`
     * is not needed afterwards. ERR_MEMORY, or ERR_UNSUPPORTED for a type it has no kernels for. */
    enum err (*weight_new)(struct backend *b, enum dtype type, int n_rows, int n_cols,
                           const void *data, struct weight **out, struct error *e);
    void (*weight_free)(struct backend *b, struct weight *w);
    size_t (*weight_bytes)(const struct weight *w); /* memory it holds */

    enum err (*kv_new)(struct backend *b, const struct kv_shape *shape, struct kv_store **out,
                       struct error *e);
    void (*kv_free)(struct backend *b, struct kv_store *kv);
    size_t (*kv_bytes)(const struct kv_store *kv);
    void (*kv_copy_block)(struct backend *b, struct kv_store *kv, int from, int to); /* all layers */

    /* y[r] = row ids[r] of W.                              W [vocab][hidden], y [n][hidden] */
    void (*embed)(struct backend *b, struct tensor *y, const struct weight *W, const int32_t *ids,
                  int n);
    /* y = x / sqrt(mean(x^2) + eps) * gain.                x, y [n][cols], gain [1][cols] */
    void (*rms_norm)(struct backend *b, struct tensor *y, const struct tensor *x,
                     const struct tensor *gain, float eps, int n);
    /* y = x W^T.                                           x [n][n_cols], y [n][n_rows] */
    void (*matmul)(struct backend *b, struct tensor *y, const struct weight *W,
                   const struct tensor *x, int n);
    /* x += y.                                              x, y [n][cols] */
    void (*add)(struct backend *b, struct tensor *x, const struct tensor *y, int n);
    /* Rotate every head of x in place. A kv_store with heads at least as large as rope_size was made
     * before (it sizes the table of sines).                x [n][heads * head_size] */
    void (*rope)(struct backend *b, struct tensor *x, const struct rope_spec *spec,
                 const int32_t *positions, int n);
    /* Store k, v of every row at its position.             k, v [n][n_kv_heads * head_size] */
    void (*kv_write)(struct backend *b, struct kv_store *kv, int layer, const struct tensor *k,
                     const struct tensor *v, const struct batch *batch);
    /* Causal attention of every row over the positions that it sees (the store's window), its own
     * the last of them, read from the store (so the rows' own k, v were stored before); scores are
     * scaled by 1/sqrt(head_size); query head h uses key-value head h / (n_heads / n_kv_heads).
     *                                                      q, y [n][n_heads * head_size] */
    void (*attention)(struct backend *b, struct tensor *y, const struct tensor *q,
                      struct kv_store *kv, int layer, int n_heads, const struct batch *batch);
    /* y = silu(gate) * up.                                 all [n][ffn] */
    void (*silu_mul)(struct backend *b, struct tensor *y, const struct tensor *gate,
                     const struct tensor *up, int n);
    /* y[i] = x[rows[i]].                                   y [n][cols] */
    void (*gather)(struct backend *b, struct tensor *y, const struct tensor *x,
                   const int32_t *rows, int n);

    /* Optional fused operations: NULL means the decomposition, which has the same bits. Call them
     * through the functions below, where they are described. */
    void (*matmul_many)(struct backend *b, struct tensor *const y[], const struct weight *const W[],
                        int n_weights, const struct tensor *x, int n);
    void (*norm_matmul_many)(struct backend *b, struct tensor *const y[],
                             const struct weight *const W[], int n_weights,
                             const struct normed *x, int n);
    void (*matmul_add)(struct backend *b, struct tensor *x, const struct weight *W,
                       const struct tensor *y, struct tensor *product, int n);
    void (*gated_ffn)(struct backend *b, struct tensor *x, const struct gated_ffn *f, int n);
};

/* What every backend instance begins with. */
struct backend {
    const struct backend_ops *ops;
    const char *name;        /* "cpu" */
    const char *variant;     /* "avx512": which kernels; for people */
    const char *numerics_id; /* "exact-2": equal ids, equal bits */
};

/* y[i] = x W[i]^T for several matrices of equal width. */
void backend_matmul_many(struct backend *b, struct tensor *const y[], const struct weight *const W[],
                         int n_weights, const struct tensor *x, int n);
/* The same of a normed x. */
void backend_norm_matmul_many(struct backend *b, struct tensor *const y[],
                              const struct weight *const W[], int n_weights, const struct normed *x,
                              int n);
/* x += y W^T. `product` is scratch, as large as x. */
void backend_matmul_add(struct backend *b, struct tensor *x, const struct weight *W,
                        const struct tensor *y, struct tensor *product, int n);
/* x += down(silu(gate h) * up h) with h = normed x. */
void backend_gated_ffn(struct backend *b, struct tensor *x, const struct gated_ffn *f, int n);

/* The decomposition of gated_ffn, for a backend that fuses only some of them. */
void backend_gated_ffn_steps(struct backend *b, struct tensor *x, const struct gated_ffn *f, int n);

/* The CPU backend (src/backend/cpu). `pool` is borrowed and outlives it. SHOAL_CPU holds the
 * instruction set down: ref; avx2, avxvnni, avx512 (needs VNNI); neon, dotprod, i8mm; unset: the
 * best there is; a value that is not one of them, or that this processor lacks, is ERR_INVALID
 * naming both. */
enum err backend_cpu_open(struct pool *pool, struct backend **out, struct error *e);

/* The simulated backend (src/backend/sim): no arithmetic, every value is a hash of all that a real
 * one would have depended on (inputs, weights, every earlier KV cell read through the row's
 * table), so that a wrong block, a lost or reordered row changes the tokens. Any weight type.
 * A pass (from `embed` or `write` to `sync`) takes `pass_us` at least, the hashing included; what
 * is missing is waited for, not computed, so that many such processes share a processor. */
enum err backend_sim_open(int64_t pass_us, struct backend **out, struct error *e);

/* Which backend a process computes with, where it may be told: by a name out of backend_names. */
enum backend_kind { BACKEND_CPU, BACKEND_SIM, N_BACKEND_KINDS };
extern const char *const backend_names[N_BACKEND_KINDS + 1]; /* ends with NULL */
enum { SIM_MAX_PASS_US = 60 * 1000 * 1000 };
struct backend_choice {
    int kind;    /* enum backend_kind */
    int pass_us; /* of the simulated one, 0 … SIM_MAX_PASS_US */
};
/* `pool` as for backend_cpu_open. ERR_INVALID for a pass_us that the backend has no use for. */
enum err backend_open(const struct backend_choice *choice, struct pool *pool, struct backend **out,
                      struct error *e);

#endif
