/* The backend's operations one at a time: how fast each is for given shapes, types and instruction
 * set, whether its bits are the reference's, and how far from double precision it is.
 *
 * A case is run through backend.h, as a forward pass would: with the threads, the packing and the
 * barrier of the real thing. Weights and key-value stores larger than the caches are read in turn
 * where they would be in a model, so that a decode step's product is measured from memory. The
 * outputs compared with the reference (SHOAL_CPU=ref) are a sample: the first and last columns of
 * the first, middle and last row. One thread uses a bench. */
#ifndef SHOAL_BENCH_KERNEL_BENCH_H
#define SHOAL_BENCH_KERNEL_BENCH_H

#include "backend/backend.h"

#include <stdbool.h>
#include <stddef.h>

enum kernel_op {
    OP_MATMUL,
    OP_FFN,
    OP_ATTENTION,
    OP_RMS_NORM,
    OP_SILU_MUL,
    OP_ADD,
    OP_ROPE,
    N_KERNEL_OPS
};

/* "matmul", "rms_norm", …, in that order, ended by NULL. */
extern const char *const kernel_op_names[];

struct kernel_case {
    enum kernel_op op;
    enum dtype type;    /* matmul, ffn: of the weights */
    int n_rows, n_cols; /* matmul: outputs and inputs; ffn (a gated block): its width and the hidden
                         * one; rms_norm, silu_mul, add: n_cols only */
    enum kv_type kv;    /* attention */
    int n_heads, n_kv_heads, head_size; /* attention, rope */
    int n_positions;                    /* attention: of the last row; at least n */
    int n;                              /* rows (tokens) */
};

struct kernel_result {
    double seconds;   /* of one call: median */
    double bytes;     /* that it has to read (and, for operations on rows, write) */
    double ops;       /* arithmetic; a product and its addition are two */
    bool from_memory; /* the data in turn is larger than the caches */
    bool equal;       /* the sample has the bits of the reference */
    int n_compared;   /* values in it */
    double error;     /* greatest difference to double precision over their root mean square */
};

struct kernel_bench;

/* `isa` as SHOAL_CPU (set while the backend opens); ERR_INVALID for one that is not here. The pool
 * is borrowed. */
enum err kernel_bench_new(struct pool *pool, const char *isa, struct kernel_bench **out,
                          struct error *e);
void kernel_bench_free(struct kernel_bench *b); /* NULL allowed */

/* The instruction sets that this processor has, separated by ", ". */
void kernel_bench_isas(char *text, size_t text_bytes);
/* The one that is used if nobody says otherwise. */
const char *kernel_bench_best_isa(void);

/* Whether these kernels promise the reference's bits: a set with a numerics id of its own does not,
 * for some types. */
bool kernel_bench_is_exact(const struct kernel_bench *b);

/* What a case asks for: bytes and ops of the result, the rest zero. */
void kernel_bench_work(const struct kernel_case *c, struct kernel_result *out);

/* Measure for about `least_seconds`. ERR_MEMORY, ERR_UNSUPPORTED for a type without kernels,
 * ERR_INVALID for a shape that the type does not take. */
enum err kernel_bench_run(struct kernel_bench *b, const struct kernel_case *c, double least_seconds,
                          struct kernel_result *out, struct error *e);

#endif
