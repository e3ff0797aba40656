/* Attention over the positions of a sequence: the definition (docs/numerics.md, "Attention").
 * Positions are taken in chunks of ATTENTION_CHUNK; a chunk's weights are relative to its own
 * maximum, and chunks are merged in order, so the result does not depend on how many rows were
 * computed together, by how many threads, or when. */
#include "backend/cpu/ref/ref.h"

#include "tensor/exact_math.h"

#include <math.h>
#include <string.h>

/* One query's part of a partial. */
struct state {
    float max, sum;
    float out[SHAPE_MAX_HEAD_SIZE];
};

struct query {
    const struct attention *a;
    const int32_t *table;
    int kv_head, first, n_positions; /* it sees positions [first, n_positions) */
    const float *q;
    float *y;
};

static struct query query_of(const struct attention *a, const struct attention_tile *t, int i)
{
    int row = t->row + i / t->n_heads, head = t->head + i % t->n_heads;
    size_t at = ((size_t)row * a->n_heads + head) * a->layout.head_size;
    return (struct query){.a = a,
                          .table = a->batch->tables[row],
                          .kv_head = head / (a->n_heads / a->n_kv_heads),
                          .first = tile_first(a, t, i),
                          .n_positions = tile_positions(a, t, i),
                          .q = a->q + at,
                          .y = a->y + at};
}

/* Element i of an array of the store's type; a code of a q8 store is a number like any other. */
static float element(enum kv_type type, const uint8_t *array, size_t i)
{
    struct f16 half;
    float f;
    switch (type) {
    case KV_F16: memcpy(&half, array + 2 * i, 2); return f16_to_f32(half);
    case KV_F32: memcpy(&f, array + 4 * i, 4); return f;
    default: return (float)(int8_t)array[i];
    }
}

/* The scale of a group of dimensions at position p of a block, 1 where there are none; `codes` of
 * them come before the scales. */
static float scale(const struct kv_layout *l, const uint8_t *block, int codes, int group, size_t p)
{
    float f = 1.0f;
    if (l->type == KV_Q8)
        memcpy(&f, block + (size_t)codes + 4 * ((size_t)group * KV_BLOCK_TOKENS + p), 4);
    return f;
}

static float score(const struct query *q, int position)
{
    const struct kv_layout *l = &q->a->layout;
    int32_t block = q->table[position / KV_BLOCK_TOKENS];
    const uint8_t *keys = q->a->cells + kv_keys_at(l, q->a->n_blocks, block, q->kv_head);
    size_t p = (size_t)(position % KV_BLOCK_TOKENS);
    int group = l->type == KV_Q8 ? KV_GROUP : l->head_size;
    float sum = 0;
    for (int begin = 0; begin < l->head_size; begin += group) {
        float part = 0;
        for (int d = begin; d < begin + group && d < l->head_size; d++)
            part = fmaf(q->q[d], element(l->type, keys, (size_t)d * KV_BLOCK_TOKENS + p), part);
        sum = l->type != KV_Q8
                  ? part
                  : fmaf(part, scale(l, keys, l->head_size * KV_BLOCK_TOKENS, begin / KV_GROUP, p),
                         sum);
    }
    return sum * q->a->scale;
}

/* out += weight * the values of a position. */
static void add_values(const struct query *q, int position, float weight, float *out)
{
    const struct kv_layout *l = &q->a->layout;
    int32_t block = q->table[position / KV_BLOCK_TOKENS];
    const uint8_t *values = q->a->cells + kv_values_at(l, q->a->n_blocks, block, q->kv_head);
    size_t p = (size_t)(position % KV_BLOCK_TOKENS);
    for (int d = 0; d < l->head_size; d++) {
        float w = weight * scale(l, values, l->padded * KV_BLOCK_TOKENS, d / KV_GROUP, p);
        out[d] = fmaf(w, element(l->type, values, p * l->padded + d), out[d]);
    }
}

static void attend_chunk(const struct query *q, int c, struct state *s)
{
    float scores[ATTENTION_CHUNK], sums[STRIPES] = {0};
    int begin = c * ATTENTION_CHUNK, head_size = q->a->layout.head_size;
    int from = q->first > begin ? q->first - begin : 0; /* nothing before it is touched */
    int n = q->n_positions - begin < ATTENTION_CHUNK ? q->n_positions - begin : ATTENTION_CHUNK;
    s->max = -INFINITY;
    for (int i = from; i < n; i++) {
        scores[i] = score(q, begin + i);
        s->max = scores[i] > s->max ? scores[i] : s->max; /* a NaN is not greater; it comes back
                                                             in the weights */
    }
    memset(s->out, 0, (size_t)head_size * sizeof s->out[0]);
    for (int i = from; i < n; i++) {
        float weight = exact_expf(scores[i] - s->max);
        sums[i % STRIPES] += weight;
        add_values(q, begin + i, weight, s->out);
    }
    s->sum = stripe_tree(sums);
}

/* all = all merged with the chunk after it. */
static void merge(struct state *all, const struct state *chunk, int head_size)
{
    float max = chunk->max > all->max ? chunk->max : all->max;
    float keep = exact_expf(all->max - max), take = exact_expf(chunk->max - max);
    all->sum = fmaf(all->sum, keep, chunk->sum * take);
    for (int d = 0; d < head_size; d++)
        all->out[d] = fmaf(all->out[d], keep, chunk->out[d] * take);
    all->max = max;
}

static void finish(const struct query *q, const struct state *all)
{
    for (int d = 0; d < q->a->layout.head_size; d++)
        q->y[d] = all->out[d] / all->sum;
}

void attention_ref(const struct attention *a, const struct attention_tile *t, float *scratch)
{
    (void)scratch;
    for (int i = 0; i < t->n_rows * t->n_heads; i++) {
        struct query q = query_of(a, t, i);
        struct state all, chunk;
        int first = q.first / ATTENTION_CHUNK;
        attend_chunk(&q, first, &all);
        for (int c = first + 1; c * ATTENTION_CHUNK < q.n_positions; c++) {
            attend_chunk(&q, c, &chunk);
            merge(&all, &chunk, a->layout.head_size);
        }
        finish(&q, &all);
    }
}

void attention_chunk_ref(const struct attention *a, const struct attention_tile *t, int c,
                         float *partial, float *scratch)
{
    (void)scratch;
    int n = t->n_rows * t->n_heads;
    struct partial p = partial_at(partial, n);
    for (int i = 0; i < n; i++) {
        struct query q = query_of(a, t, i);
        struct state s;
        attend_chunk(&q, c, &s);
        p.max[i] = s.max;
        p.sum[i] = s.sum;
        memcpy(p.out + (size_t)i * a->layout.padded, s.out,
               (size_t)a->layout.head_size * sizeof s.out[0]);
    }
}

/* Query i of a partial. */
static void state_of(struct state *s, const struct attention *a, struct partial p, int i)
{
    s->max = p.max[i];
    s->sum = p.sum[i];
    memcpy(s->out, p.out + (size_t)i * a->layout.padded,
           (size_t)a->layout.head_size * sizeof s->out[0]);
}

void attention_merge_ref(const struct attention *a, const struct attention_tile *t, float *partials,
                         size_t stride, int n_chunks)
{
    int n = t->n_rows * t->n_heads;
    for (int i = 0; i < n; i++) {
        struct query q = query_of(a, t, i);
        struct state all, chunk;
        state_of(&all, a, partial_at(partials, n), i);
        for (int c = 1; c < n_chunks; c++) {
            state_of(&chunk, a, partial_at(partials + c * stride, n), i);
            merge(&all, &chunk, a->layout.head_size);
        }
        finish(&q, &all);
    }
}
