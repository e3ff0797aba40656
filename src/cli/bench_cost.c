#include "cli/bench_cost.h"

#include "lead/sizes.h"
#include "model/model.h"

struct sum {
    uint64_t bytes;
    double ops;
};

static enum err add_tensor(const struct model_tensor *t, void *context, struct error *e)
{
    (void)e;
    struct sum *sum = context;
    sum->bytes += t->bytes;
    if (t->n_rows > 1)
        sum->ops += 2.0 * (double)t->n_rows * (double)t->n_cols;
    return OK;
}

enum err bench_cost_of(const struct modelfile *file, const struct model_params *params,
                       enum kv_type kv, struct bench_cost *out, struct error *e)
{
    struct sum layers = {0}, last = {0}, head = {0};
    struct model_part part = {.last = params->n_layers};
    enum err err = model_part_tensors(file, &part, add_tensor, &layers, e);
    part.first = part.last - 1;
    if (err == OK)
        err = model_part_tensors(file, &part, add_tensor, &last, e);
    double keys_values = 2.0 * 2 * params->n_kv_heads * params->head_size * params->hidden;
    if (err == OK)
        err = model_part_tensors(file, &(struct model_part){.head = true}, add_tensor, &head, e);
    *out = (struct bench_cost){.weight_bytes = layers.bytes + head.bytes,
                               .kv_position_bytes =
                                   sizes_kv_position_bytes(params, kv) * (uint64_t)params->n_layers,
                               .layer_ops = layers.ops,
                               .last_ops = last.ops - keys_values,
                               .head_ops = head.ops};
    return err;
}

double bench_prefill_ops(const struct bench_cost *c, int n_prompt, int batch)
{
    if (n_prompt == 0)
        return 0;
    return (c->layer_ops * n_prompt - c->last_ops * (n_prompt - 1) + c->head_ops) * batch;
}

double bench_decode_bytes(const struct bench_cost *c, int n_prompt, int n_decode, int batch)
{
    /* Step i sees n_prompt + i + 1 positions. */
    double positions = (double)n_decode * n_prompt + (double)n_decode * (n_decode + 1) / 2;
    return (double)c->weight_bytes * n_decode + (double)c->kv_position_bytes * positions * batch;
}
