#include "sim/sim_model.h"

#include "base/panic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_HEADS = 2, PER_LAYER = 9, N_ENDS = 3 };

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

struct shape {
    const char *name;
    int rows, cols; /* rows 1: a vector */
};

static void describe(struct modelfile_remote_tensor *t, const char *prefix, const struct shape *s)
{
    *t = (struct modelfile_remote_tensor){.type = DTYPE_F32, .n_dims = s->rows == 1 ? 1 : 2};
    snprintf(t->name, sizeof(t->name), "%s%s", prefix, s->name);
    for (int i = 0; i < MODEL_MAX_DIMS; i++)
        t->dims[i] = 1;
    t->dims[0] = (uint64_t)s->cols;
    t->dims[1] = (uint64_t)s->rows;
}

/* All tensors of the model; the array is the caller's to free. */
static struct modelfile_remote_tensor *describe_all(const struct model_params *p, int *n)
{
    int keys = p->n_kv_heads * p->head_size;
    const struct shape layer[PER_LAYER] = {
        {"attn_norm.weight", 1, p->hidden},     {"attn_q.weight", p->hidden, p->hidden},
        {"attn_k.weight", keys, p->hidden},     {"attn_v.weight", keys, p->hidden},
        {"attn_output.weight", p->hidden, p->hidden}, {"ffn_norm.weight", 1, p->hidden},
        {"ffn_gate.weight", p->ffn, p->hidden}, {"ffn_up.weight", p->ffn, p->hidden},
        {"ffn_down.weight", p->hidden, p->ffn},
    };
    const struct shape ends[N_ENDS] = {{"token_embd.weight", p->vocab, p->hidden},
                                       {"output_norm.weight", 1, p->hidden},
                                       {"output.weight", p->vocab, p->hidden}};
    *n = p->n_layers * PER_LAYER + N_ENDS;
    struct modelfile_remote_tensor *all = xcalloc((size_t)*n, sizeof(all[0]));
    for (int i = 0; i < p->n_layers * PER_LAYER; i++) {
        char prefix[32];
        snprintf(prefix, sizeof(prefix), "blk.%d.", i / PER_LAYER);
        describe(&all[i], prefix, &layer[i % PER_LAYER]);
    }
    for (int i = 0; i < N_ENDS; i++)
        describe(&all[*n - N_ENDS + i], "", &ends[i]);
    return all;
}

static void fill(struct modelfile *m, uint64_t seed)
{
    for (int i = 0; i < modelfile_n_tensors(m); i++) {
        const struct model_tensor *t = modelfile_tensor(m, i);
        float *values = modelfile_remote_buffer(m, t);
        uint64_t state = seed;
        for (const char *c = t->name; *c != 0; c++)
            state = (state + (unsigned char)*c) * 0x9E3779B97F4A7C15u;
        for (uint64_t j = 0; j < t->bytes / sizeof(float); j++)
            values[j] = (float)(next_random(&state) & 0xffffff) * 0x1p-24f;
    }
}

enum err sim_model_new(const struct sim_model_options *o, struct modelfile **out, struct error *e)
{
    struct model_params params = {
        .architecture = "llama",
        .name = "simulated",
        .n_layers = o->n_layers,
        .hidden = o->hidden,
        .ffn = 2 * o->hidden,
        .n_heads = N_HEADS,
        .n_kv_heads = 1,
        .head_size = o->hidden / N_HEADS,
        .rope_size = o->hidden / N_HEADS,
        .vocab = o->vocab,
        .context = o->context,
        .window = o->window,
        .norm_eps = 1e-5f,
        .rope_base = 10000,
        .rope_factor = 1,
    };
    int n;
    struct modelfile_remote_tensor *tensors = describe_all(&params, &n);
    enum err err = modelfile_new_remote("simulated", &params, tensors, n, out, e);
    free(tensors);
    if (err == OK)
        fill(*out, o->seed);
    return err;
}
