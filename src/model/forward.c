/* The forward pass of the LLaMA family over the loaded layers. One flat story: every line is one
 * operation of the backend; shapes stand beside them, n rows being the tokens of the step. */
#include "model/model_impl.h"

#include "base/panic.h"

#include <stdlib.h>

enum {
    HEAD_ROWS = 16, /* rows of logits computed at a time: bounds the [rows][vocab] matrix */
};

struct model_scratch {
    const struct model *model;
    int max_rows;
    size_t bytes;
    struct tensor *x;       /* [rows][hidden], the residual stream */
    struct tensor *normed;  /* [rows][hidden] */
    struct tensor *q;       /* [rows][queries] */
    struct tensor *k, *v;   /* [rows][keys] */
    struct tensor *context; /* [rows][queries], what attention gathered */
    struct tensor *delta;   /* [rows][hidden], what a block adds to x */
    struct tensor *gate, *up; /* [rows][ffn] */
    struct tensor *wanted;  /* [HEAD_ROWS][hidden] */
    struct tensor *logits;  /* [HEAD_ROWS][vocab] */
};

struct buffer {
    struct tensor **tensor;
    int rows;
    uint64_t cols;
};

enum err model_scratch_new(const struct model *m, int max_rows, struct model_scratch **out,
                           struct error *e)
{
    const struct model_params *p = &m->params;
    struct model_scratch *s = xcalloc(1, sizeof *s);
    s->model = m;
    s->max_rows = max_rows;
    uint64_t hidden = (uint64_t)p->hidden, ffn = (uint64_t)p->ffn;
    uint64_t queries = model_dim_size(p, DIM_QUERIES), keys = model_dim_size(p, DIM_KEYS);
    const struct buffer buffers[] = {
        {&s->x, max_rows, hidden},        {&s->normed, max_rows, hidden},
        {&s->q, max_rows, queries},       {&s->k, max_rows, keys},
        {&s->v, max_rows, keys},          {&s->context, max_rows, queries},
        {&s->delta, max_rows, hidden},    {&s->gate, max_rows, ffn},
        {&s->up, max_rows, ffn},          {&s->wanted, m->part.head ? HEAD_ROWS : 0, hidden},
        {&s->logits, m->part.head ? HEAD_ROWS : 0, (uint64_t)p->vocab},
    };
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        const struct buffer *b = &buffers[i];
        if (b->rows == 0)
            continue;
        enum err err =
            m->backend->ops->tensor_new(m->backend, b->rows, (int)b->cols, b->tensor, e);
        if (err != OK) {
            model_scratch_free(s);
            *out = NULL;
            return err;
        }
        s->bytes += (size_t)b->rows * b->cols * sizeof(float);
    }
    *out = s;
    return OK;
}

void model_scratch_free(struct model_scratch *s)
{
    if (s == NULL)
        return;
    struct tensor *all[] = {s->x,     s->normed, s->q,  s->k,      s->v,     s->context,
                            s->delta, s->gate,   s->up, s->wanted, s->logits};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i] != NULL)
            s->model->backend->ops->tensor_free(s->model->backend, all[i]);
    free(s);
}

size_t model_scratch_bytes(const struct model_scratch *s)
{
    return s->bytes;
}

static void attention_block(const struct model *m, struct model_scratch *s, struct kv_store *kv,
                            int layer_i, const struct batch *batch)
{
    struct backend *b = m->backend;
    const struct backend_ops *op = b->ops;
    const struct layer *w = &m->layers[layer_i];
    int n = batch->n;
    op->rms_norm(b, s->normed, s->x, w->vectors[ROLE_ATTN_NORM], m->params.norm_eps, n);
    backend_matmul_many(b, (struct tensor *const[]){s->q, s->k, s->v},
                        (const struct weight *const[]){w->matrices[ROLE_Q], w->matrices[ROLE_K],
                                                       w->matrices[ROLE_V]},
                        3, s->normed, n);
    op->rope(b, s->q, &m->rope, batch->positions, n);
    op->rope(b, s->k, &m->rope, batch->positions, n);
    op->kv_write(b, kv, layer_i, s->k, s->v, batch);
    op->attention(b, s->context, s->q, kv, layer_i, m->params.n_heads, batch);
    op->matmul(b, s->delta, w->matrices[ROLE_ATTN_OUT], s->context, n);
    op->add(b, s->x, s->delta, n);
}

static void ffn_block(const struct model *m, struct model_scratch *s, int layer_i, int n)
{
    struct backend *b = m->backend;
    const struct backend_ops *op = b->ops;
    const struct layer *w = &m->layers[layer_i];
    op->rms_norm(b, s->normed, s->x, w->vectors[ROLE_FFN_NORM], m->params.norm_eps, n);
    backend_matmul_many(
        b, (struct tensor *const[]){s->gate, s->up},
        (const struct weight *const[]){w->matrices[ROLE_GATE], w->matrices[ROLE_UP]}, 2, s->normed,
        n);
    op->silu_mul(b, s->gate, s->gate, s->up, n);
    op->matmul(b, s->delta, w->matrices[ROLE_DOWN], s->gate, n);
    op->add(b, s->x, s->delta, n);
}

/* Norm and output matrix over the wanted rows only, HEAD_ROWS at a time. */
static void head(const struct model *m, struct model_scratch *s, const struct model_io *io)
{
    struct backend *b = m->backend;
    const struct backend_ops *op = b->ops;
    for (int done = 0; done < io->n_wanted; done += HEAD_ROWS) {
        int n = io->n_wanted - done < HEAD_ROWS ? io->n_wanted - done : HEAD_ROWS;
        op->gather(b, s->wanted, s->x, io->wanted + done, n);
        op->rms_norm(b, s->wanted, s->wanted, m->final_norm, m->params.norm_eps, n);
        op->matmul(b, s->logits, m->head, s->wanted, n);
        op->read(b, s->logits, 0, n, io->logits + (size_t)done * (size_t)m->params.vocab);
    }
}

void model_forward(const struct model *m, struct model_scratch *s, struct kv_store *kv,
                   const struct model_io *io)
{
    struct backend *b = m->backend;
    int n = io->batch->n;
    ASSERT(n >= 1 && n <= s->max_rows);
    ASSERT((io->tokens != NULL) != (io->hidden_in != NULL));
    ASSERT(io->n_wanted == 0 || m->head != NULL);
    if (io->tokens != NULL)
        b->ops->embed(b, s->x, m->embedding, io->tokens, n);
    else
        b->ops->write(b, s->x, 0, n, io->hidden_in);
    for (int i = 0; i < m->part.last - m->part.first; i++) {
        attention_block(m, s, kv, i, io->batch);
        ffn_block(m, s, i, n);
    }
    if (io->hidden_out != NULL)
        b->ops->read(b, s->x, 0, n, io->hidden_out);
    head(m, s, io);
    b->ops->sync(b);
}
