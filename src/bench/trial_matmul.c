/* Matrix products: y = x W^T. */
#include "bench/trial_impl.h"

#include "backend/cpu/check_data.h"

#include <stdlib.h>

enum { X, TILE_ROWS = 64 };

static int matmul_cols(const struct kernel_case *c)
{
    return c->n_rows;
}

static void matmul_work(const struct kernel_case *c, struct kernel_result *out, double *copy_bytes)
{
    uint64_t row_bytes = 0;
    dtype_row_bytes(c->type, (uint64_t)c->n_cols, &row_bytes);
    *copy_bytes = (double)row_bytes * c->n_rows;
    out->bytes = *copy_bytes;
    out->ops = 2.0 * c->n_rows * c->n_cols * c->n;
}

/* Rows repeat after TILE_ROWS: speed does not depend on values. */
static uint8_t *file_rows(enum dtype type, uint64_t row_bytes, int n_rows, int n_cols, bool sample)
{
    int n = sample && n_rows > SAMPLE_COLS ? SAMPLE_COLS : n_rows;
    uint8_t *tile = malloc(TILE_ROWS * row_bytes), *rows = malloc((size_t)n * row_bytes);
    struct random random = {.state = 5};
    if (tile != NULL && rows != NULL) {
        fill_weights(&random, FILL_RANDOM, type, (size_t)TILE_ROWS * n_cols, tile);
        for (int i = 0; i < n; i++) {
            int row = sample ? sample_col(n_rows, i) : i;
            memcpy(rows + (size_t)i * row_bytes, tile + (size_t)(row % TILE_ROWS) * row_bytes,
                   row_bytes);
        }
    } else {
        free(rows);
        rows = NULL;
    }
    free(tile);
    return rows;
}

enum err trial_weights(struct trial *t, int n_rows, int n_cols, bool sample, int first, int step,
                       struct error *e)
{
    enum dtype type = t->c->type;
    const struct dtype_info *info = dtype_info(type);
    uint64_t row_bytes;
    if (info == NULL || !info->computable)
        return error_set(e, ERR_UNSUPPORTED, "%s: there are no kernels for it", dtype_name(type));
    if (!dtype_row_bytes(type, (uint64_t)n_cols, &row_bytes))
        return error_set(e, ERR_INVALID, "%s: %d columns are no whole number of its blocks",
                         dtype_name(type), n_cols);
    uint8_t *rows = file_rows(type, row_bytes, n_rows, n_cols, sample);
    if (rows == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a matrix of %d x %d", n_rows, n_cols);
    int n = sample && n_rows > SAMPLE_COLS ? SAMPLE_COLS : n_rows;
    enum err err = OK;
    for (int i = 0; i < t->n_copies && err == OK; i++)
        err = t->b->ops->weight_new(t->b, type, n, n_cols, rows, &t->w[first + i * step], e);
    free(rows);
    return err;
}

static enum err matmul_open(struct trial *t, struct error *e)
{
    const struct kernel_case *c = t->c;
    enum err err = trial_weights(t, c->n_rows, c->n_cols, t->sampled, 0, 1, e);
    if (err == OK)
        err = t->b->ops->tensor_new(t->b, t->n, c->n_cols, &t->x, e);
    return err == OK ? t->b->ops->tensor_new(t->b, t->n, t->n_cols, &t->y, e) : err;
}

static void matmul_reset(struct trial *t)
{
    trial_fill(t, t->x, X, t->c->n_cols, 1);
}

static void matmul_run(struct trial *t, int copy)
{
    t->b->ops->matmul(t->b, t->y, t->w[copy], t->x, t->n);
}

static const struct tensor *matmul_output(const struct trial *t)
{
    return t->y;
}

/* Of the weights as they stand in the file and activations that were never rounded. */
static enum err matmul_exact(struct trial *t, int i, double *out, struct error *e)
{
    int n_cols = t->c->n_cols;
    struct tensor *row = NULL;
    enum err err = t->b->ops->tensor_new(t->b, 1, n_cols, &row, e);
    float *x = malloc((size_t)n_cols * 2 * sizeof *x);
    if (err == OK && x == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for %d values", 2 * n_cols);
    for (int32_t j = 0; j < t->n_cols && err == OK; j++) {
        float *w = x + n_cols;
        trial_values(X, trial_token(t, i), x, n_cols);
        t->b->ops->embed(t->b, row, t->w[0], &j, 1);
        t->b->ops->read(t->b, row, 0, 1, w);
        out[j] = 0;
        for (int k = 0; k < n_cols; k++)
            out[j] += (double)w[k] * (double)x[k];
    }
    free(x);
    if (row != NULL)
        t->b->ops->tensor_free(t->b, row);
    return err;
}

const struct trial_op matmul_trial = {matmul_cols, matmul_work,   matmul_open, matmul_reset,
                                      matmul_run,  matmul_output, matmul_exact};
