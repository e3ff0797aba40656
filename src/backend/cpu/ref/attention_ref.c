/* Attention of one query head over the positions of its sequence: the definition (docs/numerics.md,
 * "Attention"). Positions are taken in chunks of ATTENTION_CHUNK; a chunk's weights are relative
 * to its own maximum, and chunks are merged in order, so the result does not depend on how many
 * rows were computed together or when. */
#include "backend/cpu/ref/ref.h"

#include "tensor/exact_math.h"

#include <math.h>
#include <string.h>

/* The state of a softmax-weighted sum: weights are e^(score - max), sum is theirs. */
struct partial {
    float max, sum;
    float out[SHAPE_MAX_HEAD_SIZE];
};

struct head {
    const struct attention *a;
    const int32_t *table;
    int kv_head;
    const float *q;
};

static float stored(const struct head *h, const uint8_t *store, int position, int d)
{
    size_t i = kv_offset(h->a, h->table[position / KV_BLOCK_TOKENS], h->kv_head) +
               (size_t)(position % KV_BLOCK_TOKENS) * h->a->head_size + d;
    struct f16 half;
    float f;
    if (h->a->type == KV_F16) {
        memcpy(&half, store + 2 * i, 2);
        return f16_to_f32(half);
    }
    memcpy(&f, store + 4 * i, 4);
    return f;
}

static float score(const struct head *h, int position)
{
    float sums[STRIPES] = {0};
    for (int d = 0; d < h->a->head_size; d++)
        sums[d % STRIPES] = fmaf(h->q[d], stored(h, h->a->keys, position, d), sums[d % STRIPES]);
    return stripe_tree(sums) * h->a->scale;
}

/* Positions [begin, end), at most a chunk. */
static void attend_chunk(const struct head *h, int begin, int end, struct partial *c)
{
    float scores[ATTENTION_CHUNK], sums[STRIPES] = {0};
    c->max = -INFINITY;
    for (int p = begin; p < end; p++) {
        float s = scores[p - begin] = score(h, p);
        c->max = s > c->max ? s : c->max; /* a NaN is not greater; it comes back in the weights */
    }
    memset(c->out, 0, (size_t)h->a->head_size * sizeof c->out[0]);
    for (int p = begin; p < end; p++) {
        float weight = exact_expf(scores[p - begin] - c->max);
        sums[(p - begin) % STRIPES] += weight;
        for (int d = 0; d < h->a->head_size; d++)
            c->out[d] = fmaf(weight, stored(h, h->a->values, p, d), c->out[d]);
    }
    c->sum = stripe_tree(sums);
}

/* all = all merged with the chunk after it. */
static void merge(struct partial *all, const struct partial *chunk, int head_size)
{
    float max = chunk->max > all->max ? chunk->max : all->max;
    float keep = exact_expf(all->max - max), take = exact_expf(chunk->max - max);
    all->sum = fmaf(all->sum, keep, chunk->sum * take);
    for (int d = 0; d < head_size; d++)
        all->out[d] = fmaf(all->out[d], keep, chunk->out[d] * take);
    all->max = max;
}

void attention_ref(const struct attention *a, int row, int head_begin, int head_end)
{
    int n_positions = a->batch->positions[row] + 1;
    for (int head_i = head_begin; head_i < head_end; head_i++) {
        size_t at = ((size_t)row * a->n_heads + head_i) * a->head_size;
        struct head h = {.a = a,
                         .table = a->batch->tables[row],
                         .kv_head = head_i / (a->n_heads / a->n_kv_heads),
                         .q = a->q + at};
        struct partial all, chunk;
        for (int begin = 0; begin < n_positions; begin += ATTENTION_CHUNK) {
            int end = begin + ATTENTION_CHUNK < n_positions ? begin + ATTENTION_CHUNK : n_positions;
            attend_chunk(&h, begin, end, begin == 0 ? &all : &chunk);
            if (begin > 0)
                merge(&all, &chunk, a->head_size);
        }
        for (int d = 0; d < a->head_size; d++)
            a->y[at + d] = all.out[d] / all.sum;
    }
}
