/* Inside the bench: one operation on one backend. The measured backend and the reference run the
 * same code; the reference with the sampled rows (tokens) and output columns only. */
#ifndef SHOAL_BENCH_TRIAL_IMPL_H
#define SHOAL_BENCH_TRIAL_IMPL_H

#include "bench/kernel_bench.h"

enum {
    SAMPLE_TOKENS = 3,
    SAMPLE_COLS = 64, /* the first half and the last half of them */
    MAX_COPIES = 64,  /* of what is read in turn */
};

struct trial {
    struct backend *b;
    const struct kernel_case *c;
    bool sampled;              /* the reference */
    int n;                     /* tokens of this trial */
    int tokens[SAMPLE_TOKENS]; /* sampled: which of the case's */
    int n_cols;                /* output columns of this trial */
    int n_copies;
    struct tensor *x, *y, *z, *more[3];
    struct weight *w[MAX_COPIES];
    struct kv_store *kv;
    struct batch batch;
    int32_t *positions, *table;
    const int32_t **tables;
    double *inv_freq;
};

struct trial_op {
    /* Output columns of the case. */
    int (*cols)(const struct kernel_case *c);
    /* Bytes and operations of a call; bytes of one copy of what is read from memory (0: none). */
    void (*work)(const struct kernel_case *c, struct kernel_result *out, double *copy_bytes);
    /* Make tensors, weights, stores; what was made is freed by trial_close, also after a failure.
     */
    enum err (*open)(struct trial *t, struct error *e);
    /* (Re)write the inputs that a run changes. */
    void (*reset)(struct trial *t);
    void (*run)(struct trial *t, int copy);
    const struct tensor *(*output)(const struct trial *t);
    /* In double precision: the outputs of this (sampled) trial's row i, after a run. */
    enum err (*exact)(struct trial *t, int i, double *out, struct error *e);
};

extern const struct trial_op matmul_trial;    /* trial_matmul.c */
extern const struct trial_op ffn_trial;       /* trial_ffn.c */
extern const struct trial_op attention_trial; /* trial_attention.c */
extern const struct trial_op rms_norm_trial, silu_mul_trial, add_trial,
    rope_trial; /* trial_rows.c */

/* The token of the case that row i of the trial is. */
static inline int trial_token(const struct trial *t, int i)
{
    return t->sampled ? t->tokens[i] : i;
}

/* The column of the case that column i of the sample is. */
static inline int sample_col(int n_cols, int i)
{
    return n_cols <= SAMPLE_COLS || i < SAMPLE_COLS / 2 ? i : n_cols - SAMPLE_COLS + i;
}

/* w[first], w[first + step], … for every copy: a matrix of the case's type, or the sample of its
 * rows. ERR_INVALID, ERR_UNSUPPORTED as kernel_bench_run. */
enum err trial_weights(struct trial *t, int n_rows, int n_cols, bool sample, int first, int step,
                       struct error *e);

/* Values of one row, the same for whoever asks: `what` tells inputs apart. In [-1, 1). */
void trial_values(int what, int row, float *x, int n);
/* Write them to all rows of a tensor of the trial, times `scale`. */
void trial_fill(struct trial *t, struct tensor *to, int what, int n_cols, float scale);

#endif
