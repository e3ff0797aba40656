/* Operations on rows: norm, gate, sum, rotary positions. They read and write what the caches hold.
 */
#include "bench/trial_impl.h"

#include <math.h>
#include <stdlib.h>

enum { X, Y, GAIN };
static const float EPS = 1e-5f;
static const float ADDED = 1e-6f; /* what is added again and again stays small */

static int cols(const struct kernel_case *c)
{
    return c->n_cols;
}

/* `streams`: rows read and written. */
static void row_work(const struct kernel_case *c, struct kernel_result *out, int streams,
                     double ops)
{
    double values = (double)c->n * c->n_cols;
    out->bytes = values * streams * sizeof(float);
    out->ops = values * ops;
}

/* --- rms_norm --- */

static void norm_work(const struct kernel_case *c, struct kernel_result *out, double *copy_bytes)
{
    *copy_bytes = 0;
    row_work(c, out, 2, 4);
}

static enum err norm_open(struct trial *t, struct error *e)
{
    const struct backend_ops *ops = t->b->ops;
    int n_cols = t->c->n_cols;
    enum err err = ops->tensor_new(t->b, t->n, n_cols, &t->x, e);
    if (err == OK)
        err = ops->tensor_new(t->b, t->n, n_cols, &t->y, e);
    if (err == OK)
        err = ops->tensor_new(t->b, 1, n_cols, &t->z, e);
    float *gain = err == OK ? malloc((size_t)n_cols * sizeof *gain) : NULL;
    if (err == OK && gain == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for %d values", n_cols);
    if (err == OK) {
        trial_values(GAIN, 0, gain, n_cols);
        ops->write(t->b, t->z, 0, 1, gain);
    }
    free(gain);
    return err;
}

static void norm_reset(struct trial *t)
{
    trial_fill(t, t->x, X, t->c->n_cols, 1);
}

static void norm_run(struct trial *t, int copy)
{
    (void)copy;
    t->b->ops->rms_norm(t->b, t->y, t->x, t->z, EPS, t->n);
}

static const struct tensor *output_y(const struct trial *t)
{
    return t->y;
}

/* Two rows of inputs, x and another, as the exact functions below need them. */
static float *two_rows(const struct trial *t, int i, int other, int other_row, struct error *e)
{
    int n = t->c->n_cols;
    float *x = malloc((size_t)n * 2 * sizeof *x);
    if (x == NULL) {
        error_set(e, ERR_MEMORY, "no memory for %d values", 2 * n);
        return NULL;
    }
    trial_values(X, trial_token(t, i), x, n);
    trial_values(other, other_row, x + n, n);
    return x;
}

static enum err norm_exact(struct trial *t, int i, double *out, struct error *e)
{
    int n = t->c->n_cols;
    float *x = two_rows(t, i, GAIN, 0, e);
    if (x == NULL)
        return ERR_MEMORY;
    double sum = 0;
    for (int k = 0; k < n; k++)
        sum += (double)x[k] * (double)x[k];
    double factor = 1 / sqrt(sum / n + (double)EPS);
    for (int k = 0; k < n; k++)
        out[k] = (double)x[k] * factor * (double)x[n + k];
    free(x);
    return OK;
}

const struct trial_op rms_norm_trial = {cols,     norm_work, norm_open, norm_reset,
                                        norm_run, output_y,  norm_exact};

/* --- silu_mul --- */

static void silu_work(const struct kernel_case *c, struct kernel_result *out, double *copy_bytes)
{
    *copy_bytes = 0;
    row_work(c, out, 3, 20);
}

static enum err silu_open(struct trial *t, struct error *e)
{
    enum err err = OK;
    struct tensor **made[] = {&t->x, &t->y, &t->z};
    for (int i = 0; i < 3 && err == OK; i++)
        err = t->b->ops->tensor_new(t->b, t->n, t->c->n_cols, made[i], e);
    return err;
}

static void silu_reset(struct trial *t)
{
    trial_fill(t, t->x, X, t->c->n_cols, 1);
    trial_fill(t, t->z, Y, t->c->n_cols, 1);
}

static void silu_run(struct trial *t, int copy)
{
    (void)copy;
    t->b->ops->silu_mul(t->b, t->y, t->x, t->z, t->n);
}

static enum err silu_exact(struct trial *t, int i, double *out, struct error *e)
{
    int n = t->c->n_cols;
    float *x = two_rows(t, i, Y, trial_token(t, i), e);
    if (x == NULL)
        return ERR_MEMORY;
    for (int k = 0; k < n; k++)
        out[k] = (double)x[k] / (1 + exp(-(double)x[k])) * (double)x[n + k];
    free(x);
    return OK;
}

const struct trial_op silu_mul_trial = {cols,     silu_work, silu_open, silu_reset,
                                        silu_run, output_y,  silu_exact};

/* --- add --- */

static void add_work(const struct kernel_case *c, struct kernel_result *out, double *copy_bytes)
{
    *copy_bytes = 0;
    row_work(c, out, 3, 1);
}

static void add_reset(struct trial *t)
{
    trial_fill(t, t->y, X, t->c->n_cols, 1);
    trial_fill(t, t->x, Y, t->c->n_cols, ADDED);
}

static void add_run(struct trial *t, int copy)
{
    (void)copy;
    t->b->ops->add(t->b, t->y, t->x, t->n);
}

static enum err add_exact(struct trial *t, int i, double *out, struct error *e)
{
    int n = t->c->n_cols;
    float *x = two_rows(t, i, Y, trial_token(t, i), e);
    if (x == NULL)
        return ERR_MEMORY;
    for (int k = 0; k < n; k++)
        out[k] = (double)x[k] + (double)(x[n + k] * ADDED);
    free(x);
    return OK;
}

const struct trial_op add_trial = {cols,    add_work, silu_open, add_reset,
                                   add_run, output_y, add_exact};

/* --- rope --- */

static int rope_cols(const struct kernel_case *c)
{
    return c->n_heads * c->head_size;
}

static void rope_work(const struct kernel_case *c, struct kernel_result *out, double *copy_bytes)
{
    *copy_bytes = 0;
    double values = (double)c->n * rope_cols(c);
    out->bytes = values * 2 * sizeof(float);
    out->ops = values * 3;
}

static enum err rope_open(struct trial *t, struct error *e)
{
    const struct kernel_case *c = t->c;
    int n_pairs = c->head_size / 2;
    enum err err = t->b->ops->tensor_new(t->b, t->n, rope_cols(c), &t->y, e);
    struct kv_shape shape = {1, 1, 1, c->head_size, KV_F16, 0};
    if (err == OK)
        err = t->b->ops->kv_new(t->b, &shape, &t->kv, e); /* sizes the table of sines */
    if (err != OK)
        return err;
    t->inv_freq = malloc((size_t)n_pairs * sizeof *t->inv_freq);
    t->positions = malloc((size_t)t->n * sizeof *t->positions);
    if (t->inv_freq == NULL || t->positions == NULL)
        return error_set(e, ERR_MEMORY, "no memory for %d positions", t->n);
    for (int i = 0; i < n_pairs; i++)
        t->inv_freq[i] = pow(10000.0, -(double)i / n_pairs);
    for (int i = 0; i < t->n; i++)
        t->positions[i] = trial_token(t, i) * 3 + 1;
    return OK;
}

static void rope_reset(struct trial *t)
{
    trial_fill(t, t->y, X, rope_cols(t->c), 1);
}

static void rope_run(struct trial *t, int copy)
{
    (void)copy;
    int size = t->c->head_size;
    struct rope_spec spec = {size, size, false, t->inv_freq};
    t->b->ops->rope(t->b, t->y, &spec, t->positions, t->n);
}

static enum err rope_exact(struct trial *t, int i, double *out, struct error *e)
{
    int n = rope_cols(t->c), size = t->c->head_size;
    float *x = malloc((size_t)n * sizeof *x);
    if (x == NULL)
        return error_set(e, ERR_MEMORY, "no memory for %d values", n);
    trial_values(X, trial_token(t, i), x, n);
    for (int k = 0; k < n; k += 2) {
        double angle = (double)t->positions[i] * t->inv_freq[k % size / 2];
        double a = (double)x[k], b = (double)x[k + 1];
        out[k] = a * cos(angle) - b * sin(angle);
        out[k + 1] = a * sin(angle) + b * cos(angle);
    }
    free(x);
    return OK;
}

const struct trial_op rope_trial = {rope_cols, rope_work, rope_open, rope_reset,
                                    rope_run,  output_y,  rope_exact};
