/* Loading: bound tensors are given to the backend one after the other; the file's pages (or a
 * peer's bytes) are given back as soon as the backend has its own copy. So no more than one tensor
 * is there twice. The system is asked for the tensors that come next while one is being packed:
 * from a disk, packing costs no time of its own. */
#include "model/model_impl.h"

#include "base/panic.h"
#include "base/size.h"
#include "tensor/float16.h"

#include <stdlib.h>
#include <string.h>

struct loader {
    struct modelfile *file;
    struct model *model;
    model_progress progress;
    void *context;
    uint64_t done_bytes, total_bytes;
    const struct model_tensor **order; /* [n_tensors]: about how they will be loaded */
    int n_tensors;
    int n_asked; /* how many of them the system was asked for, */
    uint64_t asked_bytes;
};

enum { AHEAD_BYTES = 64 << 20 }; /* asked for beyond what is packed; at least one tensor */

/* A plain tensor's elements as f32. */
static void to_f32(const struct model_tensor *t, const void *data, float *out)
{
    for (uint64_t i = 0; i < t->n_cols; i++) {
        const char *at = (const char *)data + i * (t->type == DTYPE_F32 ? 4 : 2);
        uint16_t half;
        memcpy(&half, at, sizeof half);
        if (t->type == DTYPE_F32)
            memcpy(&out[i], at, sizeof out[i]);
        else
            out[i] = t->type == DTYPE_F16 ? f16_to_f32((struct f16){half})
                                          : bf16_to_f32((struct bf16){half});
    }
}

static void read_ahead(struct loader *l)
{
    while (l->n_asked < l->n_tensors && l->asked_bytes <= l->done_bytes + AHEAD_BYTES) {
        const struct model_tensor *t = l->order[l->n_asked++];
        modelfile_advise(l->file, t, true);
        l->asked_bytes += t->bytes;
    }
}

static void finished(struct loader *l, const struct model_tensor *t)
{
    modelfile_discard(l->file, t);
    l->done_bytes += t->bytes;
    read_ahead(l);
    if (l->progress != NULL)
        l->progress(l->done_bytes, l->total_bytes, l->context);
}

static enum err load_matrix(struct loader *l, const struct model_tensor *t, struct weight **out,
                            struct error *e)
{
    struct backend *b = l->model->backend;
    enum err err = modelfile_need(l->file, t, e);
    if (err != OK)
        return err;
    err = b->ops->weight_new(b, (enum dtype)t->type, (int)t->n_rows, (int)t->n_cols,
                             modelfile_data(l->file, t), out, e);
    if (err != OK) {
        error_prefix(e, "tensor %s", t->name);
        return err;
    }
    l->model->weight_bytes += b->ops->weight_bytes(*out);
    finished(l, t);
    return OK;
}

static enum err load_vector(struct loader *l, const struct model_tensor *t, struct tensor **out,
                            struct error *e)
{
    struct backend *b = l->model->backend;
    enum err err = modelfile_need(l->file, t, e);
    if (err == OK)
        err = b->ops->tensor_new(b, 1, (int)t->n_cols, out, e);
    if (err != OK)
        return err;
    float *values = xmalloc(t->n_cols * sizeof *values);
    to_f32(t, modelfile_data(l->file, t), values);
    b->ops->write(b, *out, 0, 1, values);
    b->ops->sync(b);
    free(values);
    l->model->weight_bytes += t->n_cols * sizeof *values;
    finished(l, t);
    return OK;
}

static enum err load_layer(struct loader *l, const struct binding *bound, int i, struct error *e)
{
    struct layer *layer = &l->model->layers[i];
    enum err err = OK;
    for (int role = 0; role < N_LAYER_ROLES && err == OK; role++) {
        const struct model_tensor *t = bound->layers[i].tensors[role];
        if (bound->architecture->tensors[role].vector)
            err = load_vector(l, t, &layer->vectors[role], e);
        else
            err = load_matrix(l, t, &layer->matrices[role], e);
    }
    return err;
}

/* A file's divisors of the rope frequencies: each must be one that can be divided by. */
static enum err check_factors(const struct model_tensor *t, const float *factors, struct error *e)
{
    for (uint64_t i = 0; i < t->n_cols; i++)
        if (!(factors[i] > 0 && factors[i] < 1e30f))
            return error_set(e, ERR_INVALID,
                             "tensor %s: expected factors above 0, found %g at %llu", t->name,
                             (double)factors[i], (unsigned long long)i);
    return OK;
}

static enum err load_rope(struct loader *l, const struct binding *bound, struct error *e)
{
    struct model *m = l->model;
    const struct model_tensor *t = bound->rope_factors;
    float *factors = NULL;
    enum err err = OK;
    m->inv_freq = xcalloc((size_t)m->params.rope_size / 2, sizeof *m->inv_freq);
    if (t != NULL) {
        err = modelfile_need(l->file, t, e);
        if (err != OK)
            return err;
        factors = xmalloc(t->n_cols * sizeof *factors);
        to_f32(t, modelfile_data(l->file, t), factors);
        err = check_factors(t, factors, e);
        finished(l, t);
    }
    if (err == OK)
        rope_frequencies(&m->params, factors, m->inv_freq);
    free(factors);
    m->rope = (struct rope_spec){.head_size = m->params.head_size,
                                 .rope_size = m->params.rope_size,
                                 .halves = m->params.rope_pairing == ROPE_HALVES,
                                 .inv_freq = m->inv_freq};
    return OK;
}

static enum err load_ends(struct loader *l, const struct binding *bound, struct error *e)
{
    struct model *m = l->model;
    enum err err = OK;
    if (bound->embedding != NULL)
        err = load_matrix(l, bound->embedding, &m->embedding, e);
    if (err == OK && bound->final_norm != NULL)
        err = load_vector(l, bound->final_norm, &m->final_norm, e);
    if (err != OK || bound->head == NULL)
        return err;
    if (bound->head_is_embedding) {
        m->head = m->embedding;
        return OK;
    }
    return load_matrix(l, bound->head, &m->head, e);
}

static enum err list_tensor(const struct model_tensor *t, void *context, struct error *e)
{
    struct loader *l = context;
    (void)e;
    l->order[l->n_tensors++] = t;
    l->total_bytes += t->bytes;
    return OK;
}

enum err model_load(struct modelfile *file, struct backend *backend, const struct model_part *part,
                    model_progress progress, void *context, struct model **out, struct error *e)
{
    *out = NULL;
    struct binding bound;
    enum err err = binding_init(&bound, file, part, e);
    if (err != OK)
        return err;
    struct model *m = xcalloc(1, sizeof *m);
    *m = (struct model){.params = bound.params, .part = *part, .backend = backend};
    m->layers = xcalloc((size_t)bound.n_layers, sizeof *m->layers);
    struct loader l = {.file = file, .model = m, .progress = progress, .context = context};
    l.order = xcalloc((size_t)bound.n_layers * N_LAYER_ROLES + 4, sizeof *l.order);
    err = model_part_tensors(file, part, list_tensor, &l, e);
    read_ahead(&l);
    if (err == OK)
        err = load_rope(&l, &bound, e);
    for (int i = 0; i < bound.n_layers && err == OK; i++)
        err = load_layer(&l, &bound, i, e);
    if (err == OK)
        err = load_ends(&l, &bound, e);
    binding_release(&bound);
    free(l.order);
    if (err != OK) {
        model_free(m);
        return err;
    }
    *out = m;
    return OK;
}

void model_free(struct model *m)
{
    if (m == NULL)
        return;
    const struct backend_ops *ops = m->backend->ops;
    for (int i = 0; i < m->part.last - m->part.first; i++) {
        for (int role = 0; role < N_LAYER_ROLES; role++) {
            if (m->layers[i].matrices[role] != NULL)
                ops->weight_free(m->backend, m->layers[i].matrices[role]);
            if (m->layers[i].vectors[role] != NULL)
                ops->tensor_free(m->backend, m->layers[i].vectors[role]);
        }
    }
    if (m->head != NULL && m->head != m->embedding)
        ops->weight_free(m->backend, m->head);
    if (m->embedding != NULL)
        ops->weight_free(m->backend, m->embedding);
    if (m->final_norm != NULL)
        ops->tensor_free(m->backend, m->final_norm);
    free(m->inv_freq);
    free(m->layers);
    free(m);
}

const struct model_params *model_params(const struct model *m)
{
    return &m->params;
}

const struct model_part *model_part(const struct model *m)
{
    return &m->part;
}

size_t model_weight_bytes(const struct model *m)
{
    return m->weight_bytes;
}

void model_kv_shape(const struct model *m, int n_blocks, enum kv_type type, struct kv_shape *out)
{
    *out = (struct kv_shape){.n_layers = m->part.last - m->part.first,
                             .n_blocks = n_blocks,
                             .n_kv_heads = m->params.n_kv_heads,
                             .head_size = m->params.head_size,
                             .type = type,
                             .window = m->params.window};
}
