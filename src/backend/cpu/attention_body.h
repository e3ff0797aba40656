/* Attention over lanes (lanes.h): one body for every instruction set, included once by a file that
 * is compiled for it; attend, attend_chunk_alone and merge_chunks are slots of struct kernels.
 *
 * A tile's queries go together. Chunk by chunk of positions: scores, lanes being positions, for a
 * few queries and blocks that stay in registers; weights; sums of values, lanes being dimensions,
 * likewise. Up to SMALL_TILE queries (a decode step) read the store as they go, each key and value
 * once, and fetch the blocks ahead, because the processor cannot guess where a table leads. For
 * more queries (prefill) a few blocks at a time become f32 first, and then all work on those. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/lanes.h"

#include <math.h>
#include <string.h>

enum {
    LANES = 16,
    SMALL_TILE = 8,
    SPAN = 4,  /* blocks, or vectors of dimensions, done together: at most */
    AHEAD = 8, /* blocks fetched ahead, at least 2 spans */
    CACHE_LINE = 64,
    STEP = EXPANDED_BLOCKS * KV_BLOCK_TOKENS, /* positions whose blocks are expanded together */
};
_Static_assert((int)EXPANDED_BLOCKS % (int)SPAN == 0, "a span lies in one step");
_Static_assert((int)KV_BLOCK_TOKENS == (int)LANES, "a dimension of a block's keys is one vector");

struct work {
    const struct attention *a;
    const struct attention_tile *t;
    struct kv_layout layout;
    const int32_t *table;
    int kv_head;
    int n_queries;
    int n_positions; /* of the last row */
    float *q;        /* group after group (group_size): [head_size][queries of the group] */
    float *weights;  /* [n_queries][ATTENTION_CHUNK]; scores first */
    float *space;    /* EXPANDED_BLOCKS of keys or values as f32 */
    /* Of the current chunk: */
    int n_blocks;
    int seen[ATTENTION_QUERIES]; /* its positions that a query sees, may be negative; ascending */
    const uint8_t *stream[2 * ATTENTION_BLOCKS + AHEAD]; /* keys, values, what is read next */
};

/* Queries that stay in registers together, where `left` are left. */
FORCE_INLINE int group_size(int left)
{
    return left >= LANES_TILE ? LANES_TILE : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* Vectors per query for a group of n: as many as there are registers. */
FORCE_INLINE int span_of(const int n)
{
    return LANES_SUMS / n >= 4 ? 4 : LANES_SUMS / n >= 2 ? 2 : 1;
}

/* How blocks lie where they are read: in the store, or expanded. Always a constant. */
struct form {
    enum kv_type type; /* of elements */
    bool scaled;       /* elements are codes, scales follow */
    bool fetch;        /* blocks ahead */
};

FORCE_INLINE size_t element_bytes(const enum kv_type type)
{
    return type == KV_F32 ? 4 : type == KV_F16 ? 2 : 1;
}

FORCE_INLINE int least(int a, int b)
{
    return a < b ? a : b;
}

/* 16 elements from element i of an array: numbers, or the codes of a q8 store. */
FORCE_INLINE struct lanes load(const uint8_t *array, size_t i, const enum kv_type type)
{
    const void *at = array + i * element_bytes(type);
    return type == KV_F32   ? lanes_load(at)
           : type == KV_F16 ? lanes_load_f16(at)
                            : lanes_load_i8(at);
}

/* The scales of a group of dimensions at a block's positions, which follow its n elements. */
FORCE_INLINE struct lanes load_scales(const uint8_t *block, int n, int group,
                                      const enum kv_type type)
{
    const void *scales = block + (size_t)n * element_bytes(type);
    return lanes_load((const float *)scales + (size_t)group * LANES);
}

/* --- scores --- */

struct sums {
    struct lanes v[LANES_TILE][SPAN];
};

FORCE_INLINE void clear(struct sums *s, const int n_q, const int n_v)
{
    UNROLL
    for (int i = 0; i < n_q; i++) {
        UNROLL
        for (int j = 0; j < n_v; j++)
            s->v[i][j] = lanes_zero();
    }
}

/* Add the products of dimensions [begin, end). `next`: what is fetched meanwhile. */
FORCE_INLINE void score_dims(struct sums *s, const float *q, const uint8_t *const *blocks,
                             const uint8_t *next, int begin, int end, const int n_q, const int n_b,
                             const enum kv_type type, const bool fetch)
{
    const int fetched = n_b * LANES * (int)element_bytes(type); /* bytes per dimension */
    for (int d = begin; d < end; d++) {
        struct lanes keys[SPAN];
        UNROLL
        for (int b = 0; b < n_b; b++)
            keys[b] = load(blocks[b], (size_t)d * LANES, type);
        if (fetch) {
            UNROLL
            for (int line = 0; line < fetched; line += CACHE_LINE)
                lanes_prefetch(next + line);
            next += fetched;
        }
        UNROLL
        for (int i = 0; i < n_q; i++) {
            struct lanes x = lanes_all(q[d * n_q + i]);
            UNROLL
            for (int b = 0; b < n_b; b++)
                s->v[i][b] = lanes_fma(x, keys[b], s->v[i][b]);
        }
    }
}

/* Add the products of a group of dimensions, by the scales of its positions. */
FORCE_INLINE void score_scaled(struct sums *s, const struct kv_layout *l, const float *q,
                               const uint8_t *const *blocks, const uint8_t *next, int group,
                               const int n_q, const int n_b, const enum kv_type type,
                               const bool fetch)
{
    struct sums part;
    int begin = group * KV_GROUP, end = least(begin + KV_GROUP, l->head_size);
    clear(&part, n_q, n_b);
    score_dims(&part, q, blocks, next, begin, end, n_q, n_b, type, fetch);
    UNROLL
    for (int b = 0; b < n_b; b++) {
        struct lanes scales = load_scales(blocks[b], l->head_size * LANES, group, type);
        UNROLL
        for (int i = 0; i < n_q; i++)
            s->v[i][b] = lanes_fma(part.v[i][b], scales, s->v[i][b]);
    }
}

/* Scores of n_q queries at the positions of n_b blocks. In each segment of the dimensions one of
 * the blocks ahead (or a part of it) is fetched. */
FORCE_INLINE void score_span(const struct work *w, float *scores, const float *q,
                             const uint8_t *const *blocks, const uint8_t *const *ahead,
                             const int n_q, const int n_b, const struct form form)
{
    const struct kv_layout *l = &w->layout;
    const int n_segments = form.scaled ? l->n_groups : n_b;
    struct sums sums;
    clear(&sums, n_q, n_b);
    for (int s = 0; s < n_segments; s++) {
        const uint8_t *next = ahead[s * n_b / n_segments] +
                              l->key_bytes * (size_t)(s * n_b % n_segments) / (size_t)n_segments;
        if (form.scaled)
            score_scaled(&sums, l, q, blocks, next, s, n_q, n_b, form.type, form.fetch);
        else
            score_dims(&sums, q, blocks, next, l->head_size * s / n_b, l->head_size * (s + 1) / n_b,
                       n_q, n_b, form.type, form.fetch);
    }
    struct lanes scale = lanes_all(w->a->scale);
    UNROLL
    for (int i = 0; i < n_q; i++) {
        UNROLL
        for (int b = 0; b < n_b; b++)
            lanes_store(scores + i * ATTENTION_CHUNK + b * LANES, lanes_mul(sums.v[i][b], scale));
    }
}

/* Scores of the group of n_q queries from i at n of the chunk's blocks from b. Where a span is not
 * full its last block is done again: those scores are never looked at. */
FORCE_INLINE void score_group(struct work *w, int i, int b, int n, const uint8_t *const *blocks,
                              const int n_q, const struct form form)
{
    const int n_b = span_of(n_q);
    for (int from = 0; from < n; from += n_b) {
        const uint8_t *at[SPAN], *ahead[SPAN];
        UNROLL
        for (int j = 0; j < n_b; j++) {
            int block = least(from + j, n - 1);
            at[j] = blocks[block];
            ahead[j] = w->stream[b + block + AHEAD];
        }
        score_span(w, w->weights + (size_t)i * ATTENTION_CHUNK + (size_t)(b + from) * LANES,
                   w->q + (size_t)i * w->layout.head_size, at, ahead, n_q, n_b, form);
    }
}

FORCE_INLINE void score_step(struct work *w, int b, int n, const uint8_t *const *blocks,
                             const struct form form)
{
    for (int i = 0, n_q; i < w->n_queries; i += n_q) {
        n_q = group_size(w->n_queries - i);
        if (w->seen[i + n_q - 1] <= b * LANES)
            continue;
        if (n_q == LANES_TILE)
            score_group(w, i, b, n, blocks, LANES_TILE, form);
        else if (n_q == 4)
            score_group(w, i, b, n, blocks, 4, form);
        else if (n_q == 2)
            score_group(w, i, b, n, blocks, 2, form);
        else
            score_group(w, i, b, n, blocks, 1, form);
    }
}

/* --- weights --- */

/* Scores to weights relative to their maximum, and their sum. */
static void weigh(struct work *w, int i, struct partial *chunk)
{
    float *scores = w->weights + (size_t)i * ATTENTION_CHUNK;
    int n = least(w->seen[i], ATTENTION_CHUNK), last = (n - 1) & ~(LANES - 1);
    const struct lanes none = lanes_all(-INFINITY);
    lanes_store(scores + last, lanes_first(n - last, lanes_load(scores + last), none));
    struct lanes max = none, sum = lanes_zero();
    for (int p = 0; p < n; p += LANES)
        max = lanes_max(lanes_load(scores + p), max); /* a NaN is not greater */
    chunk->max[i] = lanes_greatest(max);
    max = lanes_all(chunk->max[i]);
    for (int p = 0; p < n; p += LANES) {
        struct lanes weight = lanes_exp(lanes_sub(lanes_load(scores + p), max));
        weight = lanes_first(n - p, weight, lanes_zero()); /* -inf - -inf is a NaN */
        sum = lanes_add(sum, weight);
        lanes_store(scores + p, weight);
    }
    chunk->sum[i] = lanes_sum(sum);
}

/* --- values --- */

/* Add n_v vectors of dimensions from d of positions [begin, end), relative to `blocks`, to the
 * outputs of n_q queries, whose weights are `stride` apart; `fresh` outputs begin at 0. */
FORCE_INLINE void value_span(const struct kv_layout *l, float *out, const float *weights,
                             const size_t stride, const uint8_t *const *blocks,
                             const uint8_t *const *ahead, int d, int begin, int end, bool fresh,
                             const int n_q, const int n_v, const struct form form)
{
    const int span_bytes = n_v * LANES * (int)element_bytes(form.type);
    struct sums sums;
    UNROLL
    for (int i = 0; i < n_q; i++) {
        UNROLL
        for (int j = 0; j < n_v; j++)
            sums.v[i][j] = fresh ? lanes_zero() : lanes_load(out + i * l->padded + j * LANES);
    }
    for (int p = begin; p < end;) {
        const uint8_t *block = blocks[p / KV_BLOCK_TOKENS], *next = ahead[p / KV_BLOCK_TOKENS];
        int stop = least(end, (p / KV_BLOCK_TOKENS + 1) * KV_BLOCK_TOKENS);
        for (; p < stop; p++) {
            size_t at = (size_t)(p % KV_BLOCK_TOKENS) * l->padded + (size_t)d;
            struct lanes values[SPAN];
            UNROLL
            for (int j = 0; j < n_v; j++)
                values[j] = load(block, at + j * LANES, form.type);
            if (form.fetch) {
                UNROLL
                for (int line = 0; line < span_bytes; line += CACHE_LINE)
                    lanes_prefetch(next + at * element_bytes(form.type) + line);
            }
            UNROLL
            for (int i = 0; i < n_q; i++) {
                struct lanes weight = lanes_all(weights[i * stride + p]);
                UNROLL
                for (int j = 0; j < n_v; j++)
                    sums.v[i][j] = lanes_fma(weight, values[j], sums.v[i][j]);
            }
        }
    }
    UNROLL
    for (int i = 0; i < n_q; i++) {
        UNROLL
        for (int j = 0; j < n_v; j++)
            lanes_store(out + i * l->padded + j * LANES, sums.v[i][j]);
    }
}

struct value_job {
    int b; /* first block of the step */
    const uint8_t *const *blocks;
    float *out; /* of the chunk */
};

/* Weights times the scales of a group of dimensions, for positions [begin, end) and those beside
 * them in their blocks. */
FORCE_INLINE void scale_weights(float scaled[][STEP], const struct kv_layout *l,
                                const float *weights, const uint8_t *const *blocks, int group,
                                int begin, int end, const int n_q, const struct form form)
{
    for (int b = begin / KV_BLOCK_TOKENS; b * KV_BLOCK_TOKENS < end; b++) {
        struct lanes scales = load_scales(blocks[b], l->padded * LANES, group, form.type);
        for (int i = 0; i < n_q; i++) {
            const float *from = weights + i * ATTENTION_CHUNK + b * LANES;
            lanes_store(scaled[i] + b * LANES, lanes_mul(lanes_load(from), scales));
        }
    }
}

/* All dimensions; positions relative to the step. */
FORCE_INLINE void value_group(const struct work *w, const struct value_job *job, int i, int begin,
                              int end, const int n_q, const struct form form)
{
    const struct kv_layout *l = &w->layout;
    const int n_v = form.scaled ? least(span_of(n_q), KV_GROUP / LANES) : span_of(n_q);
    const size_t stride = form.scaled ? STEP : ATTENTION_CHUNK;
    const float *weights =
        w->weights + (size_t)i * ATTENTION_CHUNK + (size_t)job->b * KV_BLOCK_TOKENS;
    const float *used = weights;
    const uint8_t *const *ahead = w->stream + w->n_blocks + job->b + AHEAD;
    float *out = job->out + (size_t)i * l->padded, scaled[LANES_TILE][STEP];
    bool fresh = job->b == 0 && begin == 0;
    for (int d = 0, n; d < l->padded; d += n) {
        n = d + n_v * LANES <= l->padded ? n_v * LANES : LANES;
        if (form.scaled && d % KV_GROUP == 0) {
            scale_weights(scaled, l, weights, job->blocks, d / KV_GROUP, begin, end, n_q, form);
            used = scaled[0];
        }
        if (n == n_v * LANES)
            value_span(l, out + d, used, stride, job->blocks, ahead, d, begin, end, fresh, n_q, n_v,
                       form);
        else
            value_span(l, out + d, used, stride, job->blocks, ahead, d, begin, end, fresh, n_q, 1,
                       form);
    }
}

/* Positions that all queries of a group see go together; what the later ones see beyond (a position
 * of its own must not reach an earlier row: 0 times infinity), one by one. */
FORCE_INLINE void value_step(const struct work *w, const struct value_job *job,
                             const struct form form)
{
    int begin = job->b * KV_BLOCK_TOKENS;
    for (int i = 0, n_q; i < w->n_queries; i += n_q) {
        n_q = group_size(w->n_queries - i);
        if (w->seen[i + n_q - 1] <= begin)
            continue;
        int common = w->seen[i] < begin ? 0 : least(w->seen[i] - begin, STEP);
        if (n_q == LANES_TILE)
            value_group(w, job, i, 0, common, LANES_TILE, form);
        else if (n_q == 4)
            value_group(w, job, i, 0, common, 4, form);
        else if (n_q == 2)
            value_group(w, job, i, 0, common, 2, form);
        else
            value_group(w, job, i, 0, common, 1, form);
        for (int j = i + 1; j < i + n_q; j++) {
            int end = least(w->seen[j] - begin, STEP);
            if (end > common)
                value_group(w, job, j, common, end, 1, form);
        }
    }
}

/* --- a chunk --- */

/* n blocks' arrays of so many vectors, with their scales, as f32; where they are, block by block.
 */
FORCE_INLINE void expand(struct work *w, const uint8_t *const *blocks, int n, int n_vectors,
                         const uint8_t **expanded, const enum kv_type type)
{
    const struct kv_layout *l = &w->layout;
    for (int b = 0; b < n; b++) {
        float *to = w->space + (size_t)b * (l->padded + l->n_groups) * LANES;
        expanded[b] = (const uint8_t *)to;
        for (int i = 0; i < n_vectors; i++)
            lanes_store(to + i * LANES, load(blocks[b], (size_t)i * LANES, type));
        for (int g = 0; g < l->n_groups; g++)
            lanes_store(to + (n_vectors + g) * LANES,
                        load_scales(blocks[b], n_vectors * LANES, g, type));
    }
}

static void weigh_all(struct work *w, struct partial *chunk)
{
    for (int i = 0; i < w->n_queries; i++)
        if (w->seen[i] > 0)
            weigh(w, i, chunk);
}

/* A chunk with the store as it is. */
FORCE_INLINE void chunk_direct(struct work *w, struct partial *chunk, const struct form form)
{
    for (int b = 0; b < w->n_blocks; b += EXPANDED_BLOCKS)
        score_step(w, b, least(w->n_blocks - b, EXPANDED_BLOCKS), w->stream + b, form);
    weigh_all(w, chunk);
    for (int b = 0; b < w->n_blocks; b += EXPANDED_BLOCKS) {
        struct value_job job = {b, w->stream + w->n_blocks + b, chunk->out};
        value_step(w, &job, form);
    }
}

static void chunk_f16(struct work *w, struct partial *chunk)
{
    chunk_direct(w, chunk, (struct form){KV_F16, false, true});
}

static void chunk_f32(struct work *w, struct partial *chunk)
{
    chunk_direct(w, chunk, (struct form){KV_F32, false, true});
}

static void chunk_q8(struct work *w, struct partial *chunk)
{
    chunk_direct(w, chunk, (struct form){KV_Q8, true, true});
}

/* A chunk with blocks made f32, a few at a time; f32 codes where the store is q8. */
FORCE_INLINE void chunk_expanded(struct work *w, struct partial *chunk, const enum kv_type type)
{
    const struct form form = {KV_F32, type == KV_Q8, false};
    const uint8_t *blocks[EXPANDED_BLOCKS];
    for (int b = 0; b < w->n_blocks; b += EXPANDED_BLOCKS) {
        int n = least(w->n_blocks - b, EXPANDED_BLOCKS);
        expand(w, w->stream + b, n, w->layout.head_size, blocks, type);
        score_step(w, b, n, blocks, form);
    }
    weigh_all(w, chunk);
    for (int b = 0; b < w->n_blocks; b += EXPANDED_BLOCKS) {
        int n = least(w->n_blocks - b, EXPANDED_BLOCKS);
        expand(w, w->stream + w->n_blocks + b, n, w->layout.padded, blocks, type);
        value_step(w, &(struct value_job){b, blocks, chunk->out}, form);
    }
}

static void chunk_f16_expanded(struct work *w, struct partial *chunk)
{
    chunk_expanded(w, chunk, KV_F16);
}

static void chunk_f32_expanded(struct work *w, struct partial *chunk)
{
    chunk_expanded(w, chunk, KV_F32);
}

static void chunk_q8_expanded(struct work *w, struct partial *chunk)
{
    chunk_expanded(w, chunk, KV_Q8);
}

/* Positions [begin, begin + ATTENTION_CHUNK) that the tile sees. */
static void attend_chunk(struct work *w, int begin, struct partial *chunk)
{
    const struct attention *a = w->a;
    int total = (w->n_positions - 1) / KV_BLOCK_TOKENS + 1, first = begin / KV_BLOCK_TOKENS;
    w->n_blocks = least(total - first, ATTENTION_BLOCKS);
    for (int b = 0; b < w->n_blocks; b++) {
        int32_t block = w->table[first + b];
        w->stream[b] = a->cells + kv_keys_at(&a->layout, a->n_blocks, block, w->kv_head);
        w->stream[w->n_blocks + b] =
            a->cells + kv_values_at(&a->layout, a->n_blocks, block, w->kv_head);
    }
    for (int b = 0; b < AHEAD; b++) {
        int32_t block = w->table[least(first + w->n_blocks + b, total - 1)];
        w->stream[2 * w->n_blocks + b] =
            a->cells + kv_keys_at(&a->layout, a->n_blocks, block, w->kv_head);
    }
    for (int i = 0; i < w->n_queries; i++)
        w->seen[i] = tile_positions(a, w->t, i) - begin;
    static void (*const run[N_KV_TYPES][2])(struct work *, struct partial *) = {
        [KV_F16] = {chunk_f16, chunk_f16_expanded},
        [KV_F32] = {chunk_f32, chunk_f32_expanded},
        [KV_Q8] = {chunk_q8, chunk_q8_expanded},
    };
    run[w->layout.type][w->n_queries > SMALL_TILE](w, chunk);
}

/* --- tiles --- */

/* Where query i of the tile begins in q and y. */
FORCE_INLINE size_t query_at(const struct attention *a, const struct attention_tile *t, int i)
{
    size_t head = (size_t)(t->row + i / t->n_heads) * a->n_heads + t->head + i % t->n_heads;
    return head * a->layout.head_size;
}

static void work_init(struct work *w, const struct attention *a, const struct attention_tile *t,
                      float **scratch)
{
    size_t padded = (size_t)a->layout.padded;
    int head_size = a->layout.head_size;
    w->a = a;
    w->t = t;
    w->layout = a->layout;
    w->table = a->batch->tables[t->row];
    w->kv_head = t->head / (a->n_heads / a->n_kv_heads);
    w->n_queries = t->n_rows * t->n_heads;
    w->n_positions = tile_positions(a, t, w->n_queries - 1);
    w->q = *scratch;
    w->weights = w->q + ATTENTION_QUERIES * padded;
    w->space = w->weights + ATTENTION_QUERIES * ATTENTION_CHUNK;
    *scratch = w->space + EXPANDED_BLOCKS * KV_BLOCK_TOKENS * (padded + (size_t)a->layout.n_groups);
    for (int i = 0, n; i < w->n_queries; i += n) {
        n = group_size(w->n_queries - i);
        float *to = w->q + (size_t)i * head_size;
        for (int j = 0; j < n; j++) {
            const float *from = a->q + query_at(a, t, i + j);
            for (int d = 0; d < head_size; d++)
                to[d * n + j] = from[d];
        }
    }
}

/* all = all merged with the chunk after it, for queries [first, n). */
static void merge(const struct partial *all, const struct partial *chunk, int first, int n,
                  int padded)
{
    float keep[ATTENTION_QUERIES], take[ATTENTION_QUERIES], top[ATTENTION_QUERIES];
    for (int i = first & ~(LANES - 1); i < n; i += LANES) {
        struct lanes before = lanes_load(all->max + i), here = lanes_load(chunk->max + i);
        struct lanes max = lanes_max(here, before);
        lanes_store(top + i, max);
        lanes_store(keep + i, lanes_exp(lanes_sub(before, max)));
        lanes_store(take + i, lanes_exp(lanes_sub(here, max)));
    }
    for (int i = first; i < n; i++) {
        all->max[i] = top[i];
        all->sum[i] = fmaf(all->sum[i], keep[i], chunk->sum[i] * take[i]);
        struct lanes kept = lanes_all(keep[i]), taken = lanes_all(take[i]);
        float *to = all->out + (size_t)i * padded;
        const float *from = chunk->out + (size_t)i * padded;
        for (int d = 0; d < padded; d += LANES)
            lanes_store(to + d, lanes_fma(lanes_load(to + d), kept,
                                          lanes_mul(lanes_load(from + d), taken)));
    }
}

static void finish(const struct attention *a, const struct attention_tile *t,
                   const struct partial *all)
{
    int head_size = a->layout.head_size;
    for (int i = 0; i < t->n_rows * t->n_heads; i++) {
        float *y = a->y + query_at(a, t, i), *out = all->out + (size_t)i * a->layout.padded;
        struct lanes sum = lanes_all(all->sum[i]);
        int d = 0;
        for (; d + LANES <= head_size; d += LANES)
            lanes_store(y + d, lanes_div(lanes_load(out + d), sum));
        for (; d < head_size; d++)
            y[d] = out[d] / all->sum[i];
    }
}

static void attend(const struct attention *a, const struct attention_tile *t, float *scratch)
{
    struct work w;
    work_init(&w, a, t, &scratch);
    struct partial all = partial_at(scratch, ATTENTION_QUERIES);
    struct partial chunk = partial_at(scratch + partial_floats(ATTENTION_QUERIES, a->layout.padded),
                                      ATTENTION_QUERIES);
    attend_chunk(&w, 0, &all);
    for (int begin = ATTENTION_CHUNK; begin < w.n_positions; begin += ATTENTION_CHUNK) {
        attend_chunk(&w, begin, &chunk);
        int first = 0;
        while (w.seen[first] <= 0)
            first++;
        merge(&all, &chunk, first, w.n_queries, a->layout.padded);
    }
    finish(a, t, &all);
}

static void attend_chunk_alone(const struct attention *a, const struct attention_tile *t, int c,
                               float *partial, float *scratch)
{
    struct work w;
    work_init(&w, a, t, &scratch);
    struct partial chunk = partial_at(partial, w.n_queries);
    attend_chunk(&w, c * ATTENTION_CHUNK, &chunk);
}

static void merge_chunks(const struct attention *a, const struct attention_tile *t, float *partials,
                         size_t stride, int n_chunks)
{
    int n = t->n_rows * t->n_heads;
    struct partial all = partial_at(partials, n);
    for (int c = 1; c < n_chunks; c++) {
        struct partial chunk = partial_at(partials + c * stride, n);
        merge(&all, &chunk, 0, n, a->layout.padded);
    }
    finish(a, t, &all);
}
