/* Binding: every tensor that a part of the model needs is looked up by its name in the
 * architecture's table and held against the shape that the hyper-parameters give it, before any
 * weight is read. model_check does so for a whole file and also refuses tensors that no row of
 * the table knows: ignoring one (a bias, say) would compute something else than the model. */
#include "model/model_impl.h"

#include "base/panic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void tensor_name(char name[MODEL_MAX_NAME], const struct tensor_spec *spec, int layer)
{
    if (layer >= 0)
        snprintf(name, MODEL_MAX_NAME, "blk.%d.%s", layer, spec->name);
    else
        snprintf(name, MODEL_MAX_NAME, "%s", spec->name);
}

static enum err check_tensor(const struct model_tensor *t, const struct tensor_spec *spec,
                             const struct model_params *p, struct error *e)
{
    uint64_t rows = model_dim_size(p, spec->rows), cols = model_dim_size(p, spec->cols);
    if (t->n_rows != rows || t->n_cols != cols)
        return error_set(e, ERR_MISMATCH,
                         "tensor %s: expected shape %llu x %llu, found %llu x %llu", t->name,
                         (unsigned long long)rows, (unsigned long long)cols,
                         (unsigned long long)t->n_rows, (unsigned long long)t->n_cols);
    const struct dtype_info *type = dtype_info(t->type);
    bool plain = t->type == DTYPE_F32 || t->type == DTYPE_F16 || t->type == DTYPE_BF16;
    if (spec->vector && !plain)
        return error_set(e, ERR_UNSUPPORTED, "tensor %s: expected type F32, F16 or BF16, found %s",
                         t->name, dtype_name(t->type));
    if (type == NULL || !type->computable)
        return error_set(e, ERR_UNSUPPORTED,
                         "tensor %s: type %s is not supported (expected F32, F16, BF16, Q8_0, "
                         "Q4_0 or Q6_K)",
                         t->name, dtype_name(t->type));
    return OK;
}

/* Find a tensor of the table; a missing one is an error unless `optional`. layer -1: not a layer's.
 */
static enum err bind_tensor(const struct binding *b, const struct modelfile *file,
                            enum tensor_role role, int layer, bool optional,
                            const struct model_tensor **out, struct error *e)
{
    char name[MODEL_MAX_NAME];
    const struct tensor_spec *spec = &b->architecture->tensors[role];
    tensor_name(name, spec, layer);
    *out = modelfile_find(file, name);
    if (*out != NULL)
        return check_tensor(*out, spec, &b->params, e);
    if (optional)
        return OK;
    return error_set(e, ERR_NOT_FOUND, "tensor %s is missing (architecture %s, %d layers)", name,
                     b->params.architecture, b->params.n_layers);
}

static enum err bind_ends(struct binding *b, const struct modelfile *file,
                          const struct model_part *part, struct error *e)
{
    enum err err = OK;
    if (part->last > part->first)
        err = bind_tensor(b, file, ROLE_ROPE_FACTORS, -1, true, &b->rope_factors, e);
    if (err == OK && part->embedding)
        err = bind_tensor(b, file, ROLE_EMBEDDING, -1, false, &b->embedding, e);
    if (err != OK || !part->head)
        return err;
    err = bind_tensor(b, file, ROLE_FINAL_NORM, -1, false, &b->final_norm, e);
    if (err != OK)
        return err;
    enum tensor_role role = b->params.tied_head ? ROLE_EMBEDDING : ROLE_HEAD;
    err = bind_tensor(b, file, role, -1, false, &b->head, e);
    b->head_is_embedding = err == OK && b->head == b->embedding;
    return err;
}

enum err binding_init(struct binding *b, const struct modelfile *file,
                      const struct model_part *part, struct error *e)
{
    *b = (struct binding){0};
    enum err err = modelfile_params(file, &b->params, e);
    if (err == OK)
        err = architecture_find(&b->params, &b->architecture, e);
    if (err != OK)
        return err;
    if (part->first < 0 || part->first > part->last || part->last > b->params.n_layers)
        return error_set(e, ERR_INVALID, "layers %d-%d: expected a range within 0-%d", part->first,
                         part->last, b->params.n_layers);
    b->n_layers = part->last - part->first;
    b->layers = xcalloc((size_t)b->n_layers, sizeof *b->layers);
    for (int i = 0; i < b->n_layers && err == OK; i++)
        for (int role = 0; role < N_LAYER_ROLES && err == OK; role++)
            err = bind_tensor(b, file, (enum tensor_role)role, part->first + i, false,
                              &b->layers[i].tensors[role], e);
    if (err == OK)
        err = bind_ends(b, file, part, e);
    if (err != OK)
        binding_release(b);
    return err;
}

void binding_release(struct binding *b)
{
    free(b->layers);
    *b = (struct binding){0};
}

static enum err visit_one(const struct model_tensor *t, model_tensor_visit visit, void *context,
                          struct error *e)
{
    return t != NULL ? visit(t, context, e) : OK;
}

enum err model_part_tensors(const struct modelfile *file, const struct model_part *part,
                            model_tensor_visit visit, void *context, struct error *e)
{
    struct binding b;
    enum err err = binding_init(&b, file, part, e);
    if (err != OK)
        return err;
    for (int i = 0; i < b.n_layers && err == OK; i++)
        for (int role = 0; role < N_LAYER_ROLES && err == OK; role++)
            err = visit(b.layers[i].tensors[role], context, e);
    const struct model_tensor *ends[] = {b.rope_factors, b.embedding, b.final_norm,
                                         b.head_is_embedding ? NULL : b.head};
    for (int i = 0; i < 4 && err == OK; i++)
        err = visit_one(ends[i], visit, context, e);
    binding_release(&b);
    return err;
}

/* Is this a name that the architecture's table has for this model? Old Hugging Face folders also
 * keep the rope frequencies, which follow from the configuration. */
static bool is_known(const struct binding *b, const char *name)
{
    static const char redundant[] = ".rotary_emb.inv_freq";
    size_t bytes = strlen(name);
    if (bytes >= sizeof redundant && strcmp(name + bytes - sizeof redundant + 1, redundant) == 0)
        return true;
    int layer = -1;
    bool in_layer = sscanf(name, "blk.%d.", &layer) == 1;
    if (in_layer && (layer < 0 || layer >= b->params.n_layers))
        return false;
    int first = in_layer ? 0 : N_LAYER_ROLES, end = in_layer ? N_LAYER_ROLES : N_ROLES;
    for (int role = first; role < end; role++) {
        char known[MODEL_MAX_NAME]; /* written anew: "blk.01." and "blk. 1." name no layer */
        tensor_name(known, &b->architecture->tensors[role], layer);
        if (strcmp(name, known) == 0)
            return true;
    }
    return false;
}

enum err model_check(const struct modelfile *file, struct error *e)
{
    struct binding b;
    struct model_params params;
    enum err err = modelfile_params(file, &params, e);
    if (err != OK)
        return err;
    struct model_part all = {.last = params.n_layers, .embedding = true, .head = true};
    err = binding_init(&b, file, &all, e);
    for (int i = 0; err == OK && i < modelfile_n_tensors(file); i++) {
        const char *name = modelfile_tensor(file, i)->name;
        if (!is_known(&b, name))
            err = error_set(e, ERR_UNSUPPORTED,
                            "tensor %s: architecture %s with %d layers has no such tensor", name,
                            params.architecture, params.n_layers);
    }
    binding_release(&b);
    return err;
}
