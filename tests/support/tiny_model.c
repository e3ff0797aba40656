#include "tiny_model.h"

#include "base/panic.h"
#include "tensor/float16.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_TENSORS = 128 };

struct draft {
    const struct tiny_shape *shape;
    struct modelfile_remote_tensor tensors[MAX_TENSORS];
    int n;
};

static void add(struct draft *d, int layer, const char *name, int rows, int cols)
{
    struct modelfile_remote_tensor *t = &d->tensors[d->n];
    if (layer >= 0)
        snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
    else
        snprintf(t->name, sizeof t->name, "%s", name);
    if (d->shape->without != NULL && strcmp(t->name, d->shape->without) == 0)
        return;
    bool swap = d->shape->transposed != NULL && strcmp(t->name, d->shape->transposed) == 0;
    t->type = rows == 1 ? DTYPE_F32 : d->shape->type;
    t->n_dims = rows == 1 ? 1 : 2;
    t->dims[0] = (uint64_t)(swap ? rows : cols);
    t->dims[1] = (uint64_t)(swap ? cols : rows);
    t->dims[2] = t->dims[3] = 1;
    ASSERT(++d->n < MAX_TENSORS);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static float uniform(uint64_t *state)
{
    return (float)(next_random(state) >> 40) / (float)(1 << 23) - 1;
}

static void fill(struct modelfile *m, const struct model_tensor *t, uint64_t *random)
{
    uint8_t *out = modelfile_remote_buffer(m, t);
    float scale = t->n_rows == 1 ? 0.2f : 1.7f / sqrtf((float)t->n_cols);
    if (t->type == DTYPE_F32) {
        for (uint64_t i = 0; i < t->n_rows * t->n_cols; i++) {
            float w = (t->n_rows == 1 ? 1 : 0) + scale * uniform(random);
            memcpy(out + i * sizeof w, &w, sizeof w);
        }
        return;
    }
    ASSERT(t->type == DTYPE_Q8_0);
    for (uint64_t block = 0; block < t->n_rows * t->n_cols / 32; block++, out += 34) {
        struct f16 d = f16_from_f32(scale / 127);
        memcpy(out, &d, sizeof d);
        for (int i = 0; i < 32; i++)
            out[2 + i] = (uint8_t)(int8_t)(127 * uniform(random));
    }
}

struct modelfile *tiny_model(const struct tiny_shape *s, uint64_t seed)
{
    struct draft d = {.shape = s};
    int queries = s->n_heads * s->head_size, keys = s->n_kv_heads * s->head_size;
    add(&d, -1, "token_embd.weight", s->vocab, s->hidden);
    for (int i = 0; i < s->n_layers; i++) {
        add(&d, i, "attn_norm.weight", 1, s->hidden);
        add(&d, i, "attn_q.weight", queries, s->hidden);
        add(&d, i, "attn_k.weight", keys, s->hidden);
        add(&d, i, "attn_v.weight", keys, s->hidden);
        add(&d, i, "attn_output.weight", s->hidden, queries);
        add(&d, i, "ffn_norm.weight", 1, s->hidden);
        add(&d, i, "ffn_gate.weight", s->ffn, s->hidden);
        add(&d, i, "ffn_up.weight", s->ffn, s->hidden);
        add(&d, i, "ffn_down.weight", s->hidden, s->ffn);
    }
    add(&d, -1, "output_norm.weight", 1, s->hidden);
    if (!s->tied)
        add(&d, -1, "output.weight", s->vocab, s->hidden);
    if (s->extra != NULL)
        add(&d, -1, s->extra, 1, s->hidden);
    struct model_params p = {.architecture = "llama",
                             .name = "tiny",
                             .n_layers = s->n_layers,
                             .hidden = s->hidden,
                             .ffn = s->ffn,
                             .n_heads = s->n_heads,
                             .n_kv_heads = s->n_kv_heads,
                             .head_size = s->head_size,
                             .rope_size = s->head_size,
                             .vocab = s->vocab,
                             .context = 1024,
                             .window = s->window,
                             .norm_eps = 1e-5f,
                             .rope_base = 10000,
                             .rope_pairing = s->pairing,
                             .tied_head = s->tied};
    struct modelfile *m;
    struct error e;
    if (modelfile_new_remote("tiny", &p, d.tensors, d.n, &m, &e) != OK)
        PANIC("%s", e.text);
    for (int i = 0; i < modelfile_n_tensors(m); i++)
        fill(m, modelfile_tensor(m, i), &seed);
    return m;
}
