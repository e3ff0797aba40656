#include "stage/stage.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "stage/slot_tables.h"

#include <stdlib.h>

struct stage {
    const struct model *model;
    struct backend *backend;
    struct model_scratch *scratch;
    struct kv_store *kv;
    struct slot_tables tables;
    uint64_t epoch;
    uint64_t n_steps; /* done: the next step's number */
    int max_rows;
    /* The rows of the step at hand, as the forward pass wants them; max_rows each. */
    int32_t *tokens, *positions, *wanted;
    const int32_t **row_tables;
};

static enum err allocate(struct stage *s, const struct stage_options *o, struct error *e)
{
    size_t n = (size_t)o->max_rows;
    s->tokens = calloc(n, sizeof *s->tokens);
    s->positions = calloc(n, sizeof *s->positions);
    s->wanted = calloc(n, sizeof *s->wanted);
    s->row_tables = calloc(n, sizeof *s->row_tables);
    if (s->tokens == NULL || s->positions == NULL || s->wanted == NULL || s->row_tables == NULL)
        return error_set(e, ERR_MEMORY, "no memory for steps of %d rows", o->max_rows);
    const struct model_params *p = model_params(o->model);
    enum err err = slot_tables_init(&s->tables,
                                    &(struct slot_tables_options){.n_slots = o->n_slots,
                                                                  .n_blocks = o->n_blocks,
                                                                  .max_context = o->max_context,
                                                                  .window = p->window,
                                                                  .vocab = p->vocab},
                                    e);
    if (err != OK)
        return err;
    err = model_scratch_new(o->model, o->max_rows, &s->scratch, e);
    if (err != OK)
        return err;
    struct kv_shape shape;
    model_kv_shape(o->model, o->n_blocks, o->kv_type, &shape);
    /* A stage of only norm and head has no layers and needs no store. */
    return shape.n_layers == 0 ? OK : o->backend->ops->kv_new(o->backend, &shape, &s->kv, e);
}

enum err stage_new(const struct stage_options *o, struct stage **out, struct error *e)
{
    ASSERT(o->max_rows >= 1 && o->max_rows <= STEP_MAX_ROWS);
    *out = NULL;
    struct stage *s = xcalloc(1, sizeof *s);
    s->model = o->model;
    s->backend = o->backend;
    s->epoch = o->epoch;
    s->max_rows = o->max_rows;
    enum err err = allocate(s, o, e);
    if (err != OK) {
        stage_free(s);
        return err;
    }
    *out = s;
    return OK;
}

void stage_free(struct stage *s)
{
    if (s == NULL)
        return;
    if (s->kv != NULL)
        s->backend->ops->kv_free(s->backend, s->kv);
    model_scratch_free(s->scratch);
    slot_tables_release(&s->tables);
    free(s->tokens);
    free(s->positions);
    free(s->wanted);
    free(s->row_tables);
    free(s);
}

size_t stage_kv_bytes(const struct stage *s)
{
    return s->kv != NULL ? s->backend->ops->kv_bytes(s->kv) : 0;
}

size_t stage_activation_bytes(const struct stage *s)
{
    return model_scratch_bytes(s->scratch);
}

int step_n_wanted(const struct step *step)
{
    int n = 0;
    for (uint32_t i = 0; i < step->n_rows; i++)
        n += step->rows[i].want == WANT_LOGITS;
    return n;
}

static enum err check_step(struct stage *s, const struct step *step, struct error *e)
{
    if (step->epoch != s->epoch)
        return error_set(e, ERR_FORMAT, "step %llu: expected epoch %llu, found %llu",
                         (unsigned long long)step->number, (unsigned long long)s->epoch,
                         (unsigned long long)step->epoch);
    if (step->number != s->n_steps)
        return error_set(e, ERR_FORMAT, "expected step %llu, found %llu",
                         (unsigned long long)s->n_steps, (unsigned long long)step->number);
    uint32_t first = (uint32_t)model_part(s->model)->first;
    if (step->boundary != first)
        return error_set(e, ERR_FORMAT, "step %llu: expected layer boundary %u, found %u",
                         (unsigned long long)step->number, first, step->boundary);
    if (step->n_rows > (uint32_t)s->max_rows)
        return error_set(e, ERR_FORMAT, "step %llu: expected at most %d rows, found %u",
                         (unsigned long long)step->number, s->max_rows, step->n_rows);
    enum err err = slot_tables_check(&s->tables, step, e);
    if (err != OK)
        error_prefix(e, "step %llu", (unsigned long long)step->number);
    return err;
}

static void apply_updates(struct stage *s, const struct step *step)
{
    for (uint32_t i = 0; i < step->n_updates; i++) {
        const struct step_update *u = &step->updates[i];
        slot_tables_apply(&s->tables, u);
        if (u->kind == UPDATE_COPY && s->kv != NULL)
            s->backend->ops->kv_copy_block(s->backend, s->kv, (int)u->from, (int)u->block);
    }
}

enum err stage_forward(struct stage *s, const struct step *step, const float *hidden_in, float *out,
                       struct error *e)
{
    enum err err = check_step(s, step, e);
    if (err != OK)
        return err;
    const struct model_part *part = model_part(s->model);
    ASSERT((hidden_in == NULL) == (part->embedding || step->n_rows == 0));
    apply_updates(s, step);
    s->n_steps++;
    int n_wanted = 0;
    for (uint32_t i = 0; i < step->n_rows; i++) {
        const struct step_row *r = &step->rows[i];
        s->tokens[i] = (int32_t)r->token;
        s->positions[i] = (int32_t)r->position;
        s->row_tables[i] = s->tables.slots[r->slot].blocks;
        if (r->want == WANT_LOGITS)
            s->wanted[n_wanted++] = (int32_t)i;
    }
    if (step->n_rows == 0)
        return OK;
    struct batch batch = {
        .n = (int)step->n_rows, .positions = s->positions, .tables = s->row_tables};
    model_forward(s->model, s->scratch, s->kv,
                  &(struct model_io){.batch = &batch,
                                     .tokens = part->embedding ? s->tokens : NULL,
                                     .hidden_in = hidden_in,
                                     .hidden_out = part->head ? NULL : out,
                                     .wanted = part->head ? s->wanted : NULL,
                                     .n_wanted = part->head ? n_wanted : 0,
                                     .logits = part->head ? out : NULL});
    return OK;
}
