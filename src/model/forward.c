/* The forward pass of the LLaMA family over the loaded layers. One flat story: every line is one
 * operation of the backend; shapes stand beside them, n rows being the tokens of the step. */
#include "model/model_impl.h"

#include "base/panic.h"

#include <assert.h>
#include <stdlib.h>

enum {
    HEAD_ROWS = 16, /* rows of logits computed at a time: bounds the [rows][vocab] matrix */
};

/* The activations, f32 each. */
enum buffer {
    X,       /* [rows][hidden], the residual stream */
    NORMED,  /* [rows][hidden] */
    Q,       /* [rows][queries] */
    K,       /* [rows][keys] */
    V,       /* [rows][keys] */
    CONTEXT, /* [rows][queries], what attention gathered */
    DELTA,   /* [rows][hidden], what a block adds to x */
    GATE,    /* [rows][ffn] */
    UP,      /* [rows][ffn] */
    WANTED,  /* [HEAD_ROWS][hidden] */
    LOGITS,  /* [HEAD_ROWS][vocab] */
    N_BUFFERS
};

static const enum model_dim buffer_cols[] = {
    [X] = DIM_HIDDEN, [NORMED] = DIM_HIDDEN,   [Q] = DIM_QUERIES,    [K] = DIM_KEYS,
    [V] = DIM_KEYS,   [CONTEXT] = DIM_QUERIES, [DELTA] = DIM_HIDDEN, [GATE] = DIM_FFN,
    [UP] = DIM_FFN,   [WANTED] = DIM_HIDDEN,   [LOGITS] = DIM_VOCAB,
};
static_assert(sizeof buffer_cols / sizeof buffer_cols[0] == N_BUFFERS, "a width for each buffer");

struct model_scratch {
    const struct model *model;
    int max_rows;
    struct tensor *tensors[N_BUFFERS]; /* WANTED and LOGITS are NULL without the head */
    /* Of the rows that the last layer goes on with, [max_rows] each. */
    int32_t *positions, *in_order; /* in_order: 0, 1, 2 … */
    const int32_t **tables;
};

static int buffer_rows(enum buffer i, int max_rows, bool head)
{
    if (i == WANTED || i == LOGITS)
        return head ? HEAD_ROWS : 0;
    return max_rows;
}

uint64_t model_activation_bytes(const struct model_params *p, int max_rows, bool head)
{
    uint64_t bytes = 0;
    for (enum buffer i = 0; i < N_BUFFERS; i++)
        bytes += (uint64_t)buffer_rows(i, max_rows, head) * model_dim_size(p, buffer_cols[i]) *
                 sizeof(float);
    return bytes;
}

enum err model_scratch_new(const struct model *m, int max_rows, struct model_scratch **out,
                           struct error *e)
{
    *out = NULL;
    struct model_scratch *s = xcalloc(1, sizeof *s);
    s->model = m;
    s->max_rows = max_rows;
    s->positions = xcalloc((size_t)max_rows, sizeof *s->positions);
    s->in_order = xcalloc((size_t)max_rows, sizeof *s->in_order);
    s->tables = xcalloc((size_t)max_rows, sizeof *s->tables);
    for (int i = 0; i < max_rows; i++)
        s->in_order[i] = i;
    for (enum buffer i = 0; i < N_BUFFERS; i++) {
        int rows = buffer_rows(i, max_rows, m->part.head);
        int cols = (int)model_dim_size(&m->params, buffer_cols[i]);
        enum err err =
            rows == 0 ? OK : m->backend->ops->tensor_new(m->backend, rows, cols, &s->tensors[i], e);
        if (err != OK) {
            model_scratch_free(s);
            return err;
        }
    }
    *out = s;
    return OK;
}

void model_scratch_free(struct model_scratch *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < N_BUFFERS; i++)
        if (s->tensors[i] != NULL)
            s->model->backend->ops->tensor_free(s->model->backend, s->tensors[i]);
    free(s->positions);
    free(s->in_order);
    free(s->tables);
    free(s);
}

size_t model_scratch_bytes(const struct model_scratch *s)
{
    return (size_t)model_activation_bytes(&s->model->params, s->max_rows, s->model->part.head);
}

/* What a layer's first products are of: queries, or keys and values, or all three at once. */
enum projections { QUERIES = 1, KEYS_VALUES = 2, ALL_PROJECTIONS = QUERIES | KEYS_VALUES };

static void project(const struct model *m, struct model_scratch *s, int layer_i,
                    enum projections which, int n)
{
    const struct layer *w = &m->layers[layer_i];
    struct tensor **t = s->tensors, *y[3];
    const struct weight *matrices[3];
    int n_matrices = 0;
    if (which & QUERIES) {
        matrices[n_matrices] = w->matrices[ROLE_Q];
        y[n_matrices++] = t[Q];
    }
    if (which & KEYS_VALUES) {
        matrices[n_matrices] = w->matrices[ROLE_K];
        y[n_matrices++] = t[K];
        matrices[n_matrices] = w->matrices[ROLE_V];
        y[n_matrices++] = t[V];
    }
    struct normed in = {t[X], w->vectors[ROLE_ATTN_NORM], t[NORMED], m->params.norm_eps};
    backend_norm_matmul_many(m->backend, y, matrices, n_matrices, &in, n);
}

static void store_keys_values(const struct model *m, struct model_scratch *s, struct kv_store *kv,
                              int layer_i, const struct batch *batch)
{
    struct tensor **t = s->tensors;
    m->backend->ops->rope(m->backend, t[K], &m->rope, batch->positions, batch->n);
    m->backend->ops->kv_write(m->backend, kv, layer_i, t[K], t[V], batch);
}

static void attend(const struct model *m, struct model_scratch *s, struct kv_store *kv, int layer_i,
                   const struct batch *batch)
{
    struct backend *b = m->backend;
    struct tensor **t = s->tensors;
    b->ops->rope(b, t[Q], &m->rope, batch->positions, batch->n);
    b->ops->attention(b, t[CONTEXT], t[Q], kv, layer_i, m->params.n_heads, batch);
    backend_matmul_add(b, t[X], m->layers[layer_i].matrices[ROLE_ATTN_OUT], t[CONTEXT], t[DELTA],
                       batch->n);
}

static void ffn_block(const struct model *m, struct model_scratch *s, int layer_i, int n)
{
    const struct layer *w = &m->layers[layer_i];
    struct tensor **t = s->tensors;
    struct gated_ffn ffn = {
        .in = {t[X], w->vectors[ROLE_FFN_NORM], t[NORMED], m->params.norm_eps},
        .gate = w->matrices[ROLE_GATE],
        .up = w->matrices[ROLE_UP],
        .down = w->matrices[ROLE_DOWN],
        .gated = t[GATE],
        .upped = t[UP],
        .product = t[DELTA],
    };
    backend_gated_ffn(m->backend, t[X], &ffn, n);
}

static void layer(const struct model *m, struct model_scratch *s, struct kv_store *kv, int layer_i,
                  const struct batch *batch)
{
    project(m, s, layer_i, ALL_PROJECTIONS, batch->n);
    store_keys_values(m, s, kv, layer_i, batch);
    attend(m, s, kv, layer_i, batch);
    ffn_block(m, s, layer_i, batch->n);
}

/* Go on with the wanted rows only: they become the first rows of X, in their order. */
static struct batch narrow(const struct model *m, struct model_scratch *s,
                           const struct model_io *io)
{
    struct tensor **t = s->tensors, *x = t[X];
    if (io->n_wanted == io->batch->n)
        return *io->batch;
    for (int i = 0; i < io->n_wanted; i++) {
        s->positions[i] = io->batch->positions[io->wanted[i]];
        s->tables[i] = io->batch->tables[io->wanted[i]];
    }
    if (io->n_wanted > 0)
        m->backend->ops->gather(m->backend, t[DELTA], x, io->wanted, io->n_wanted);
    t[X] = t[DELTA];
    t[DELTA] = x;
    return (struct batch){.n = io->n_wanted, .positions = s->positions, .tables = s->tables};
}

/* The last layer before the head. Rows whose logits nobody wants end with their keys and values:
 * only their own later layers would have read the rest. Of a prompt all but the last. */
static void last_layer(const struct model *m, struct model_scratch *s, struct kv_store *kv,
                       int layer_i, const struct model_io *io)
{
    if (io->n_wanted == io->batch->n) {
        layer(m, s, kv, layer_i, io->batch);
        return;
    }
    project(m, s, layer_i, KEYS_VALUES, io->batch->n);
    store_keys_values(m, s, kv, layer_i, io->batch);
    struct batch wanted = narrow(m, s, io);
    if (wanted.n == 0)
        return;
    project(m, s, layer_i, QUERIES, wanted.n);
    attend(m, s, kv, layer_i, &wanted);
    ffn_block(m, s, layer_i, wanted.n);
}

/* Norm and output matrix over the first n rows of X, HEAD_ROWS at a time. */
static void head(const struct model *m, struct model_scratch *s, int n_rows, float *logits)
{
    struct backend *b = m->backend;
    const struct backend_ops *op = b->ops;
    struct tensor **t = s->tensors;
    for (int done = 0; done < n_rows; done += HEAD_ROWS) {
        int n = n_rows - done < HEAD_ROWS ? n_rows - done : HEAD_ROWS;
        op->gather(b, t[WANTED], t[X], s->in_order + done, n);
        op->rms_norm(b, t[WANTED], t[WANTED], m->final_norm, m->params.norm_eps, n);
        op->matmul(b, t[LOGITS], m->head, t[WANTED], n);
        op->read(b, t[LOGITS], 0, n, logits + (size_t)done * (size_t)m->params.vocab);
    }
}

void model_forward(const struct model *m, struct model_scratch *s, struct kv_store *kv,
                   const struct model_io *io)
{
    struct backend *b = m->backend;
    struct tensor **t = s->tensors;
    int n = io->batch->n, n_layers = m->part.last - m->part.first;
    ASSERT(n >= 1 && n <= s->max_rows);
    ASSERT((io->tokens != NULL) != (io->hidden_in != NULL));
    ASSERT((io->hidden_out != NULL) != (m->head != NULL));
    if (io->tokens != NULL)
        b->ops->embed(b, t[X], m->embedding, io->tokens, n);
    else
        b->ops->write(b, t[X], 0, n, io->hidden_in);
    for (int i = 0; i < n_layers; i++)
        if (m->head == NULL || i < n_layers - 1)
            layer(m, s, kv, i, io->batch);
        else
            last_layer(m, s, kv, i, io);
    if (m->head == NULL) {
        b->ops->read(b, t[X], 0, n, io->hidden_out);
    } else {
        if (n_layers == 0)
            narrow(m, s, io);
        head(m, s, io->n_wanted, io->logits);
    }
    b->ops->sync(b);
}
