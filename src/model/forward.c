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
    free(s);
}

size_t model_scratch_bytes(const struct model_scratch *s)
{
    return (size_t)model_activation_bytes(&s->model->params, s->max_rows, s->model->part.head);
}

static void attention_block(const struct model *m, struct model_scratch *s, struct kv_store *kv,
                            int layer_i, const struct batch *batch)
{
    struct backend *b = m->backend;
    const struct backend_ops *op = b->ops;
    const struct layer *w = &m->layers[layer_i];
    struct tensor **t = s->tensors;
    int n = batch->n;
    struct normed in = {t[X], w->vectors[ROLE_ATTN_NORM], t[NORMED], m->params.norm_eps};
    backend_norm_matmul_many(b, (struct tensor *const[]){t[Q], t[K], t[V]},
                             (const struct weight *const[]){w->matrices[ROLE_Q],
                                                            w->matrices[ROLE_K],
                                                            w->matrices[ROLE_V]},
                             3, &in, n);
    op->rope(b, t[Q], &m->rope, batch->positions, n);
    op->rope(b, t[K], &m->rope, batch->positions, n);
    op->kv_write(b, kv, layer_i, t[K], t[V], batch);
    op->attention(b, t[CONTEXT], t[Q], kv, layer_i, m->params.n_heads, batch);
    backend_matmul_add(b, t[X], w->matrices[ROLE_ATTN_OUT], t[CONTEXT], t[DELTA], n);
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

/* Norm and output matrix over the wanted rows only, HEAD_ROWS at a time. */
static void head(const struct model *m, struct model_scratch *s, const struct model_io *io)
{
    struct backend *b = m->backend;
    const struct backend_ops *op = b->ops;
    struct tensor **t = s->tensors;
    for (int done = 0; done < io->n_wanted; done += HEAD_ROWS) {
        int n = io->n_wanted - done < HEAD_ROWS ? io->n_wanted - done : HEAD_ROWS;
        op->gather(b, t[WANTED], t[X], io->wanted + done, n);
        op->rms_norm(b, t[WANTED], t[WANTED], m->final_norm, m->params.norm_eps, n);
        op->matmul(b, t[LOGITS], m->head, t[WANTED], n);
        op->read(b, t[LOGITS], 0, n, io->logits + (size_t)done * (size_t)m->params.vocab);
    }
}

void model_forward(const struct model *m, struct model_scratch *s, struct kv_store *kv,
                   const struct model_io *io)
{
    struct backend *b = m->backend;
    struct tensor **t = s->tensors;
    int n = io->batch->n;
    ASSERT(n >= 1 && n <= s->max_rows);
    ASSERT((io->tokens != NULL) != (io->hidden_in != NULL));
    ASSERT(io->n_wanted == 0 || m->head != NULL);
    if (io->tokens != NULL)
        b->ops->embed(b, t[X], m->embedding, io->tokens, n);
    else
        b->ops->write(b, t[X], 0, n, io->hidden_in);
    for (int i = 0; i < m->part.last - m->part.first; i++) {
        attention_block(m, s, kv, i, io->batch);
        ffn_block(m, s, i, n);
    }
    if (io->hidden_out != NULL)
        b->ops->read(b, t[X], 0, n, io->hidden_out);
    head(m, s, io);
    b->ops->sync(b);
}
