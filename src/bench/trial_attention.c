/* Attention of rows that end one sequence: the case's n tokens stand at positions n_positions - n
 * to n_positions - 1. Layers of the store are used in turn; all hold the same keys and values. */
#include "bench/trial_impl.h"

#include "base/bounds.h"

#include <math.h>
#include <stdlib.h>

enum { QUERIES, KEYS, VALUES, FILL_ROWS = 64 };

static int attention_cols(const struct kernel_case *c)
{
    return c->n_heads * c->head_size;
}

static int blocks_of(const struct kernel_case *c)
{
    return (c->n_positions - 1) / KV_BLOCK_TOKENS + 1;
}

static void attention_work(const struct kernel_case *c, struct kernel_result *out,
                           double *copy_bytes)
{
    *copy_bytes = (double)kv_block_bytes(c->kv, c->n_kv_heads, c->head_size) * blocks_of(c);
    out->bytes = *copy_bytes / blocks_of(c) / KV_BLOCK_TOKENS * c->n_positions;
    /* Row i sees n_positions - n + i + 1 positions; each costs a product with a key and a value. */
    double seen = (double)c->n * (c->n_positions - c->n) + (double)c->n * (c->n + 1) / 2;
    out->ops = seen * 4 * attention_cols(c);
}

/* Keys and values of all positions into every layer. */
static enum err fill_store(struct trial *t, struct error *e)
{
    const struct kernel_case *c = t->c;
    const struct backend_ops *ops = t->b->ops;
    int width = c->n_kv_heads * c->head_size;
    struct tensor *k = NULL, *v = NULL;
    float *row = malloc((size_t)width * sizeof *row);
    enum err err = ops->tensor_new(t->b, FILL_ROWS, width, &k, e);
    if (err == OK)
        err = ops->tensor_new(t->b, FILL_ROWS, width, &v, e);
    if (err == OK && row == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for %d values", width);
    for (int at = 0; at < c->n_positions && err == OK; at += FILL_ROWS) {
        int n = c->n_positions - at < FILL_ROWS ? c->n_positions - at : FILL_ROWS;
        int32_t positions[FILL_ROWS];
        const int32_t *tables[FILL_ROWS];
        for (int i = 0; i < n; i++) {
            positions[i] = at + i;
            tables[i] = t->table;
            trial_values(KEYS, at + i, row, width);
            ops->write(t->b, k, i, 1, row);
            trial_values(VALUES, at + i, row, width);
            ops->write(t->b, v, i, 1, row);
        }
        struct batch batch = {n, positions, tables};
        for (int layer = 0; layer < t->n_copies; layer++)
            ops->kv_write(t->b, t->kv, layer, k, v, &batch);
        ops->sync(t->b);
    }
    free(row);
    if (k != NULL)
        ops->tensor_free(t->b, k);
    if (v != NULL)
        ops->tensor_free(t->b, v);
    return err;
}

static enum err attention_open(struct trial *t, struct error *e)
{
    const struct kernel_case *c = t->c;
    int n_blocks = blocks_of(c);
    t->positions = malloc((size_t)t->n * sizeof *t->positions);
    t->tables = malloc((size_t)t->n * sizeof *t->tables);
    t->table = malloc((size_t)n_blocks * sizeof *t->table);
    if (t->positions == NULL || t->tables == NULL || t->table == NULL)
        return error_set(e, ERR_MEMORY, "no memory for the table of %d positions", c->n_positions);
    for (int i = 0; i < n_blocks; i++)
        t->table[i] = i;
    for (int i = 0; i < t->n; i++) {
        t->positions[i] = c->n_positions - c->n + trial_token(t, i);
        t->tables[i] = t->table;
    }
    t->batch = (struct batch){t->n, t->positions, t->tables};
    enum err err = t->b->ops->tensor_new(t->b, t->n, attention_cols(c), &t->x, e);
    if (err == OK)
        err = t->b->ops->tensor_new(t->b, t->n, attention_cols(c), &t->y, e);
    struct kv_shape shape = {t->n_copies, n_blocks, c->n_kv_heads, c->head_size, c->kv, 0};
    if (err == OK)
        err = t->b->ops->kv_new(t->b, &shape, &t->kv, e);
    return err == OK ? fill_store(t, e) : err;
}

static void attention_reset(struct trial *t)
{
    trial_fill(t, t->x, QUERIES, attention_cols(t->c), 1);
}

static void attention_run(struct trial *t, int copy)
{
    t->b->ops->attention(t->b, t->y, t->x, t->kv, copy, t->c->n_heads, &t->batch);
}

static const struct tensor *attention_output(const struct trial *t)
{
    return t->y;
}

/* One query head: keys and values [n][head_size] at `stride`, softmax weights in `scores`. */
static void exact_head(const float *q, const float *k, const float *v, int stride, int size, int n,
                       double *scores, double *out)
{
    double most = -INFINITY, sum = 0;
    for (int p = 0; p < n; p++) {
        scores[p] = 0;
        for (int d = 0; d < size; d++)
            scores[p] += (double)q[d] * (double)k[(size_t)p * stride + d];
        scores[p] /= sqrt(size);
        most = fmax(most, scores[p]);
    }
    for (int d = 0; d < size; d++)
        out[d] = 0;
    for (int p = 0; p < n; p++) {
        double weight = exp(scores[p] - most);
        sum += weight;
        for (int d = 0; d < size; d++)
            out[d] += weight * (double)v[(size_t)p * stride + d];
    }
    for (int d = 0; d < size; d++)
        out[d] /= sum;
}

/* Of keys and values before the store rounded them. */
static enum err attention_exact(struct trial *t, int i, double *out, struct error *e)
{
    const struct kernel_case *c = t->c;
    int width = c->n_kv_heads * c->head_size, n = t->positions[i] + 1;
    size_t cells = (size_t)n * width;
    float *k = malloc((2 * cells + (size_t)attention_cols(c)) * sizeof *k);
    double *scores = malloc((size_t)n * sizeof *scores);
    if (k == NULL || scores == NULL) {
        free(k);
        free(scores);
        return error_set(e, ERR_MEMORY, "no memory for %d positions", n);
    }
    float *v = k + cells, *q = v + cells;
    for (int p = 0; p < n; p++) {
        trial_values(KEYS, p, k + (size_t)p * width, width);
        trial_values(VALUES, p, v + (size_t)p * width, width);
    }
    trial_values(QUERIES, trial_token(t, i), q, attention_cols(c));
    for (int h = 0; h < c->n_heads; h++) {
        int at = h / (c->n_heads / c->n_kv_heads) * c->head_size;
        exact_head(q + h * c->head_size, k + at, v + at, width, c->head_size, n, scores,
                   out + h * c->head_size);
    }
    free(k);
    free(scores);
    return OK;
}

const struct trial_op attention_trial = {attention_cols,  attention_work, attention_open,
                                         attention_reset, attention_run,  attention_output,
                                         attention_exact};
