#include "sim/sim_stage.h"

#include "base/panic.h"
#include "sim/sim_model.h"

#include <string.h>

int sim_stage_first_layer(const struct sim_shape *shape, int stage_i)
{
    if (shape->n_stages > shape->n_layers) /* one layer each, the lead none */
        return stage_i;
    return stage_i * shape->n_layers / shape->n_stages;
}

static enum err load(const struct sim_shape *shape, int stage_i, struct sim_stage *s,
                     struct error *e)
{
    bool last = stage_i == shape->n_stages - 1;
    struct modelfile *file;
    enum err err = sim_model_new(&(struct sim_model_options){.seed = shape->model_seed,
                                                             .n_layers = shape->n_layers,
                                                             .hidden = SIM_HIDDEN,
                                                             .vocab = SIM_VOCAB,
                                                             .context = shape->max_context,
                                                             .window = shape->window},
                                 &file, e);
    if (err != OK)
        return err;
    struct model_part part = {
        .first = sim_stage_first_layer(shape, stage_i),
        .last = last ? shape->n_layers : sim_stage_first_layer(shape, stage_i + 1),
        .embedding = stage_i == 0,
        .head = last};
    err = model_load(file, s->backend, &part, NULL, NULL, &s->model, e);
    modelfile_close(file);
    return err;
}

enum err sim_stage_open(const struct sim_shape *shape, int stage_i, struct sim_stage *out,
                        struct error *e)
{
    ASSERT(shape->n_stages >= 1 && shape->n_stages <= shape->n_layers + 1);
    *out = (struct sim_stage){0};
    enum err err = backend_sim_open(shape->pass_us, &out->backend, e);
    if (err == OK)
        err = load(shape, stage_i, out, e);
    if (err == OK)
        err = stage_new(&(struct stage_options){.model = out->model,
                                                .backend = out->backend,
                                                .max_rows = shape->max_rows,
                                                .n_slots = shape->n_slots,
                                                .n_blocks = shape->n_blocks,
                                                .max_context = shape->max_context,
                                                .kv_type = KV_F32,
                                                .epoch = SIM_EPOCH},
                        &out->stage, e);
    if (err != OK)
        sim_stage_close(out);
    return err;
}

void sim_stage_close(struct sim_stage *s)
{
    stage_free(s->stage);
    model_free(s->model);
    if (s->backend != NULL)
        s->backend->ops->free(s->backend);
    *s = (struct sim_stage){0};
}

enum err sim_stage_relay(struct sim_stage *s, const struct frame *in, int next_first,
                         const struct step *step_inside, struct frame **out, struct error *e)
{
    *out = NULL;
    struct step step;
    const float *hidden_in;
    uint32_t expected = model_part(s->model)->embedding ? 0 : SIM_HIDDEN;
    enum err err = step_read(in->data, in->bytes, expected, &step, &hidden_in, e);
    if (err != OK)
        return err;
    struct step onward = step;
    onward.boundary = (uint32_t)next_first;
    onward.hidden = SIM_HIDDEN;
    float *hidden_out;
    struct frame *f = step_write(&onward, &hidden_out);
    if (f == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a frame of %u rows", step.n_rows);
    if (step_inside != NULL && hidden_out != NULL) /* it may have fewer rows */
        memset(hidden_out, 0, (size_t)step.n_rows * SIM_HIDDEN * sizeof(float));
    err = stage_forward(s->stage, step_inside != NULL ? step_inside : &step, hidden_in, hidden_out,
                        e);
    if (err != OK) {
        frame_free(f);
        return err;
    }
    frame_seal(f);
    *out = f;
    return OK;
}
