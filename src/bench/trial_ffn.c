/* A gated feed-forward block as the forward pass asks for it: x += down(silu(gate h) * up h) with
 * h = normed x. Weights of a copy are gate, up and down, one after the other. */
#include "bench/trial_impl.h"

#include <math.h>
#include <stdlib.h>

enum { X, GAIN, GATE = 0, UP, DOWN, N_MATRICES };
static const float EPS = 1e-5f;

static int ffn_cols(const struct kernel_case *c)
{
    return c->n_cols;
}

static void ffn_work(const struct kernel_case *c, struct kernel_result *out, double *copy_bytes)
{
    uint64_t wide = 0, narrow = 0;
    dtype_row_bytes(c->type, (uint64_t)c->n_cols, &narrow);
    dtype_row_bytes(c->type, (uint64_t)c->n_rows, &wide);
    *copy_bytes = (double)narrow * 2 * c->n_rows + (double)wide * c->n_cols;
    out->bytes = *copy_bytes;
    out->ops = 2.0 * N_MATRICES * c->n_rows * c->n_cols * c->n;
}

static enum err write_gain(struct trial *t, struct error *e)
{
    int n = t->c->n_cols;
    enum err err = t->b->ops->tensor_new(t->b, 1, n, &t->z, e);
    float *gain = err == OK ? malloc((size_t)n * sizeof *gain) : NULL;
    if (err == OK && gain == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for %d values", n);
    if (err == OK) {
        trial_values(GAIN, 0, gain, n);
        t->b->ops->write(t->b, t->z, 0, 1, gain);
    }
    free(gain);
    return err;
}

static enum err ffn_open(struct trial *t, struct error *e)
{
    const struct kernel_case *c = t->c;
    enum err err = OK;
    for (int i = GATE; i <= DOWN && err == OK; i++)
        err = trial_weights(t, i == DOWN ? c->n_cols : c->n_rows, i == DOWN ? c->n_rows : c->n_cols,
                            false, i, N_MATRICES, e);
    /* x, the scratch of its norm, gated, upped, the product. */
    struct tensor **made[] = {&t->x, &t->y, &t->more[0], &t->more[1], &t->more[2]};
    for (int i = 0; i < 5 && err == OK; i++)
        err =
            t->b->ops->tensor_new(t->b, t->n, i == 2 || i == 3 ? c->n_rows : c->n_cols, made[i], e);
    return err == OK ? write_gain(t, e) : err;
}

static void ffn_reset(struct trial *t)
{
    trial_fill(t, t->x, X, t->c->n_cols, 1);
}

static void ffn_run(struct trial *t, int copy)
{
    struct weight *const *w = t->w + (size_t)copy * N_MATRICES;
    struct gated_ffn f = {.in = {t->x, t->z, t->y, EPS},
                          .gate = w[GATE],
                          .up = w[UP],
                          .down = w[DOWN],
                          .gated = t->more[0],
                          .upped = t->more[1],
                          .product = t->more[2]};
    backend_gated_ffn(t->b, t->x, &f, t->n);
}

static const struct tensor *ffn_output(const struct trial *t)
{
    return t->x;
}

/* out[r] = row r of W times x, for all n_rows rows of n_cols. */
static enum err product(struct trial *t, const struct weight *W, int n_rows, int n_cols,
                        const double *x, double *out, struct error *e)
{
    struct tensor *row = NULL;
    enum err err = t->b->ops->tensor_new(t->b, 1, n_cols, &row, e);
    float *w = err == OK ? malloc((size_t)n_cols * sizeof *w) : NULL;
    if (err == OK && w == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for %d values", n_cols);
    for (int32_t r = 0; r < n_rows && err == OK; r++) {
        t->b->ops->embed(t->b, row, W, &r, 1);
        t->b->ops->read(t->b, row, 0, 1, w);
        out[r] = 0;
        for (int k = 0; k < n_cols; k++)
            out[r] += (double)w[k] * x[k];
    }
    free(w);
    if (row != NULL)
        t->b->ops->tensor_free(t->b, row);
    return err;
}

static void norm(double *h, const float *x, const float *gain, int n)
{
    double sum = 0;
    for (int k = 0; k < n; k++)
        sum += (double)x[k] * (double)x[k];
    double factor = 1 / sqrt(sum / n + (double)EPS);
    for (int k = 0; k < n; k++)
        h[k] = (double)x[k] * factor * (double)gain[k];
}

/* Nothing between the steps is rounded. */
static enum err ffn_exact(struct trial *t, int i, double *out, struct error *e)
{
    int hidden = t->c->n_cols, ffn = t->c->n_rows;
    float *x = malloc((size_t)hidden * 2 * sizeof *x);
    double *h = malloc(((size_t)hidden + 2 * (size_t)ffn) * sizeof *h);
    enum err err = OK;
    if (x == NULL || h == NULL) {
        err = error_set(e, ERR_MEMORY, "no memory for %d values", hidden + ffn);
    } else {
        double *gate = h + hidden, *up = gate + ffn;
        trial_values(X, trial_token(t, i), x, hidden);
        trial_values(GAIN, 0, x + hidden, hidden);
        norm(h, x, x + hidden, hidden);
        err = product(t, t->w[GATE], ffn, hidden, h, gate, e);
        if (err == OK)
            err = product(t, t->w[UP], ffn, hidden, h, up, e);
        for (int k = 0; k < ffn && err == OK; k++)
            gate[k] = gate[k] / (1 + exp(-gate[k])) * up[k];
        if (err == OK)
            err = product(t, t->w[DOWN], hidden, ffn, gate, out, e);
        for (int k = 0; k < hidden && err == OK; k++)
            out[k] += (double)x[k];
    }
    free(x);
    free(h);
    return err;
}

const struct trial_op ffn_trial = {ffn_cols, ffn_work,   ffn_open, ffn_reset,
                                   ffn_run,  ffn_output, ffn_exact};
