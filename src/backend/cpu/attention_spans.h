/* What attention does in registers: the scores of a few queries at a few blocks, lanes being
 * positions, and their sums of values, lanes being dimensions. A part of attention_body.h.
 *
 * A group is 1, 2, 4 or LANES_TILE queries that share a key-value head; a span is what of a group's
 * work stays in registers. */
#ifndef SHOAL_BACKEND_CPU_ATTENTION_SPANS_H
#define SHOAL_BACKEND_CPU_ATTENTION_SPANS_H

#include "backend/cpu/attention.h"
#include "backend/cpu/lanes.h"

#include <stdbool.h>

enum {
    LANES = 16,
    SPAN = 4, /* blocks, or vectors of dimensions, done together: at most */
    CACHE_LINE = 64,
};
_Static_assert((int)KV_BLOCK_TOKENS == (int)LANES, "a dimension of a block's keys is one vector");

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

FORCE_INLINE size_t element_bytes(const enum kv_type type)
{
    return type == KV_F32 ? 4 : type == KV_F16 ? 2 : 1;
}

/* Whether elements are codes, whose scales follow. */
FORCE_INLINE bool is_scaled(const enum kv_type type)
{
    return type == KV_Q8;
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
FORCE_INLINE const float *scales_at(const uint8_t *block, int n, int group, const enum kv_type type)
{
    const void *scales = block + (size_t)n * element_bytes(type);
    return (const float *)scales + (size_t)group * LANES;
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

/* n lines from `next`. */
FORCE_INLINE void fetch_lines(const uint8_t *next, const int n)
{
    UNROLL
    for (int i = 0; i < n; i++)
        lanes_prefetch(next + i * CACHE_LINE);
}

/* The query before whose products lines are fetched: not the first, so that what is loaded now is
 * ahead of them in line. */
FORCE_INLINE int fetch_turn(const int n_q)
{
    return n_q > 1 ? 1 : 0;
}

/* Add the products of one dimension, and fetch n_lines from `next`. */
FORCE_INLINE void score_dim(struct sums *s, const float *q, const uint8_t *const *blocks, int d,
                            const uint8_t *next, const int n_lines, const int n_q, const int n_b,
                            const enum kv_type type)
{
    struct lanes keys[SPAN];
    UNROLL
    for (int b = 0; b < n_b; b++)
        keys[b] = load(blocks[b], (size_t)d * LANES, type);
    IN_THIS_ORDER();
    UNROLL
    for (int i = 0; i < n_q; i++) {
        if (i == fetch_turn(n_q))
            fetch_lines(next, n_lines);
        struct lanes x = lanes_all(q[d * n_q + i]);
        UNROLL
        for (int b = 0; b < n_b; b++)
            s->v[i][b] = lanes_fma(x, keys[b], s->v[i][b]);
        IN_THIS_ORDER();
    }
}

/* Add the products of dimensions [begin, end), as many at a time as have a cache line in each
 * block. Meanwhile as much is fetched from `next` on. */
FORCE_INLINE void score_dims(struct sums *s, const float *q, const uint8_t *const *blocks,
                             const uint8_t *next, int begin, int end, const int n_q, const int n_b,
                             const enum kv_type type)
{
    const int line_dims = CACHE_LINE / (LANES * (int)element_bytes(type));
    int d = begin;
    for (; d + line_dims <= end; d += line_dims) {
        UNROLL
        for (int j = 0; j < line_dims; j++) {
            int line = n_b * j / line_dims, end_line = n_b * (j + 1) / line_dims;
            score_dim(s, q, blocks, d + j, next + line * CACHE_LINE, end_line - line, n_q, n_b,
                      type);
        }
        next += n_b * CACHE_LINE;
    }
    for (; d < end; d++)
        score_dim(s, q, blocks, d, NULL, 0, n_q, n_b, type);
}

/* Add the products of a group of dimensions, by the scales of its positions. */
FORCE_INLINE void score_scaled(struct sums *s, const struct kv_layout *l, const float *q,
                               const uint8_t *const *blocks, const uint8_t *next, int group,
                               const int n_q, const int n_b, const enum kv_type type)
{
    struct sums part;
    int begin = group * KV_GROUP, end = least(begin + KV_GROUP, l->head_size);
    clear(&part, n_q, n_b);
    score_dims(&part, q, blocks, next, begin, end, n_q, n_b, type);
    fetch_lines(next + (end - begin) * n_b * LANES, n_b);
    UNROLL
    for (int b = 0; b < n_b; b++) {
        struct lanes scales = lanes_load(scales_at(blocks[b], l->head_size * LANES, group, type));
        UNROLL
        for (int i = 0; i < n_q; i++)
            s->v[i][b] = lanes_fma(part.v[i][b], scales, s->v[i][b]);
    }
}

struct score_job {
    const struct kv_layout *layout;
    const float *q; /* of the group */
    float scale;
    const uint8_t *const *blocks, *const *ahead; /* what is read, and fetched meanwhile */
    int n;                                       /* of the blocks */
    float *scores;                               /* of the group, ATTENTION_CHUNK apart */
};

/* Some of its blocks. */
struct score_part {
    const struct score_job *job;
    const uint8_t *blocks[SPAN], *ahead[SPAN];
    float *scores;
    const float *next; /* the scores after these, or the first */
};

/* Read the lines that the next span's scores go to, of blocks [begin, end) of it. Keys and values
 * drive them from the first cache between one chunk and the next, and a store that has to bring its
 * line back waits in line behind all that is being fetched. (2048 positions of f16, two threads of
 * a Zen 5: 5 % less; one thread: nothing. f32 is slower with it.) */
FORCE_INLINE void read_next(const struct score_part *part, int begin, int end, const int n_q)
{
    for (int b = begin; b < end; b++) {
        UNROLL
        for (int i = 0; i < n_q; i++)
            (void)*(const volatile char *)(part->next + i * ATTENTION_CHUNK + b * LANES);
    }
}

/* Scores of n_q queries at the positions of n_b blocks. In each segment of the dimensions one of
 * the blocks ahead (or a part of it) is fetched. */
FORCE_INLINE void score_span(const struct score_part *part, const int n_q, const int n_b,
                             const enum kv_type type)
{
    const int n_segments = is_scaled(type) ? part->job->layout->n_groups : n_b;
    struct sums sums;
    clear(&sums, n_q, n_b);
    for (int s = 0; s < n_segments; s++) {
        READ_AGAIN();
        const struct kv_layout *l = part->job->layout;
        const float *q = part->job->q;
        const uint8_t *next = part->ahead[s * n_b / n_segments] +
                              l->key_bytes * (size_t)(s * n_b % n_segments) / (size_t)n_segments;
        if (is_scaled(type))
            score_scaled(&sums, l, q, part->blocks, next, s, n_q, n_b, type);
        else
            score_dims(&sums, q, part->blocks, next, l->head_size * s / n_b,
                       l->head_size * (s + 1) / n_b, n_q, n_b, type);
        if (type == KV_F16)
            read_next(part, s * n_b / n_segments, (s + 1) * n_b / n_segments, n_q);
    }
    struct lanes scale = lanes_all(part->job->scale);
    UNROLL
    for (int i = 0; i < n_q; i++) {
        UNROLL
        for (int b = 0; b < n_b; b++)
            lanes_store(part->scores + i * ATTENTION_CHUNK + b * LANES,
                        lanes_mul(sums.v[i][b], scale));
    }
}

/* score_span of some n_q and type. */
typedef void score_span_fn(const struct score_part *part);

/* All blocks. Where a span is not full its last block is done again: those scores are never looked
 * at. */
FORCE_INLINE void score_group(const struct score_job *job, score_span_fn *span, const int n_q)
{
    const int n_b = span_of(n_q);
    struct score_part part = {.job = job};
    for (int from = 0; from < job->n; from += n_b) {
        UNROLL
        for (int j = 0; j < n_b; j++) {
            int block = least(from + j, job->n - 1);
            part.blocks[j] = job->blocks[block];
            part.ahead[j] = job->ahead[block];
        }
        part.scores = job->scores + (size_t)from * LANES;
        part.next = from + n_b < job->n ? part.scores + n_b * LANES : job->scores;
        span(&part);
    }
}

/* --- values --- */

/* Scores that become weights, of a group of queries. */
struct weighing {
    float max[LANES_TILE]; /* of a query's scores */
    struct lanes sum[LANES_TILE];
};

struct value_job {
    const struct kv_layout *layout;
    const uint8_t *const *blocks, *const *ahead;
    float *weights;            /* of the group, ATTENTION_CHUNK apart */
    struct weighing *weighing; /* not NULL: they are scores still, of full blocks from 0 on, and
                                  become weights meanwhile */
    float *out;                /* of the group, `padded` apart */
    int begin, end;            /* positions relative to `blocks` */
    bool fresh;                /* outputs begin at 0 */
};

FORCE_INLINE float *out_at(const struct value_job *job, int i, int d)
{
    return job->out + (size_t)i * job->layout->padded + d;
}

/* Scores in one block, relative to their maximum, to weights. */
FORCE_INLINE void weigh_block(const struct value_job *job, int b, const int n_q)
{
    struct weighing *weighing = job->weighing;
    UNROLL
    for (int i = 0; i < n_q; i++) {
        float *at = job->weights + i * ATTENTION_CHUNK + b * LANES;
        struct lanes weight = lanes_exp(lanes_sub(lanes_load(at), lanes_all(weighing->max[i])));
        weighing->sum[i] = lanes_add(weighing->sum[i], weight);
        lanes_store(at, weight);
    }
}

/* Add n_v vectors of dimensions from d to the outputs of n_q queries, by these weights. The same
 * parts of the blocks ahead are fetched. Where it weighs, a block's weights are made while the
 * values of the block before are added: reading does not pause for them. */
FORCE_INLINE void value_span(const struct value_job *job, const float *weights, int d,
                             const int n_q, const int n_v, const enum kv_type type,
                             const bool weighs)
{
    const size_t bytes = element_bytes(type);
    const int span_bytes = n_v * LANES * (int)bytes;
    struct sums sums;
    UNROLL
    for (int i = 0; i < n_q; i++) {
        UNROLL
        for (int j = 0; j < n_v; j++)
            sums.v[i][j] = job->fresh ? lanes_zero() : lanes_load(out_at(job, i, d) + j * LANES);
    }
    if (weighs)
        weigh_block(job, 0, n_q);
    for (int p = job->begin; p < job->end;) {
        READ_AGAIN();
        if (weighs && p + KV_BLOCK_TOKENS < job->end)
            weigh_block(job, p / KV_BLOCK_TOKENS + 1, n_q);
        const size_t padded = (size_t)job->layout->padded;
        size_t b = (size_t)p / KV_BLOCK_TOKENS, first = (size_t)p % KV_BLOCK_TOKENS;
        int n = least(job->end - p, KV_BLOCK_TOKENS - (int)first);
        size_t at = (first * padded + (size_t)d) * bytes;
        const uint8_t *row = job->blocks[b] + at, *next = job->ahead[b] + at;
        const float *weight = weights + p;
        for (const float *stop = weight + n; weight < stop; weight++) {
            struct lanes values[SPAN];
            UNROLL
            for (int j = 0; j < n_v; j++)
                values[j] = load(row, (size_t)j * LANES, type);
            IN_THIS_ORDER();
            UNROLL
            for (int i = 0; i < n_q; i++) {
                if (i == fetch_turn(n_q))
                    fetch_lines(next, (span_bytes - 1) / CACHE_LINE + 1);
                struct lanes x = lanes_all(weight[i * ATTENTION_CHUNK]);
                UNROLL
                for (int j = 0; j < n_v; j++)
                    sums.v[i][j] = lanes_fma(x, values[j], sums.v[i][j]);
                IN_THIS_ORDER();
            }
            row += padded * bytes;
            next += padded * bytes;
        }
        p += n;
    }
    UNROLL
    for (int i = 0; i < n_q; i++) {
        UNROLL
        for (int j = 0; j < n_v; j++)
            lanes_store(out_at(job, i, d) + j * LANES, sums.v[i][j]);
    }
}

/* Vectors of values per query: those of a span have the same scales. */
FORCE_INLINE int value_vectors(const int n_q, const bool scaled)
{
    return scaled ? least(span_of(n_q), KV_GROUP / LANES) : span_of(n_q);
}

/* Whether spans of that many vectors fill rows of values. */
FORCE_INLINE bool spans_fill(const struct kv_layout *l, const int n_q)
{
    return l->padded % (value_vectors(n_q, is_scaled(l->type)) * LANES) == 0;
}

/* Weights times the scales of a group of dimensions, for the job's positions and those beside them
 * in their blocks. */
FORCE_INLINE void scale_weights(float *scaled, const struct value_job *job, int group,
                                const int n_q, const enum kv_type type)
{
    const struct kv_layout *l = job->layout;
    for (int b = job->begin / KV_BLOCK_TOKENS; b * KV_BLOCK_TOKENS < job->end; b++) {
        struct lanes scales = lanes_load(scales_at(job->blocks[b], l->padded * LANES, group, type));
        lanes_prefetch(scales_at(job->ahead[b], l->padded * LANES, group, type));
        for (int i = 0; i < n_q; i++) {
            int at = i * ATTENTION_CHUNK + b * LANES;
            lanes_store(scaled + at, lanes_mul(lanes_load(job->weights + at), scales));
        }
    }
}

/* value_span of some n_q, n_v and type. */
typedef void value_span_fn(const struct value_job *job, const float *weights, int d);

/* All dimensions: `wide` spans, the first of which weighs if that is to do, and single vectors
 * where those do not fit. */
FORCE_INLINE void value_group(const struct value_job *job, value_span_fn *weighing,
                              value_span_fn *wide, value_span_fn *single, const int n_q,
                              const enum kv_type type)
{
    const int width = value_vectors(n_q, is_scaled(type)) * LANES;
    float scaled[LANES_TILE * ATTENTION_CHUNK];
    const float *weights = is_scaled(type) ? scaled : job->weights;
    for (int d = 0, n; d < job->layout->padded; d += n) {
        n = d + width <= job->layout->padded ? width : LANES;
        if (is_scaled(type) && d % KV_GROUP == 0)
            scale_weights(scaled, job, d / KV_GROUP, n_q, type);
        if (d == 0 && job->weighing != NULL)
            weighing(job, weights, d);
        else if (n == width)
            wide(job, weights, d);
        else
            single(job, weights, d);
    }
}

/* --- groups --- */

/* What a group of so many queries does with blocks of one type. */
struct group_ops {
    void (*score)(const struct score_job *job);
    void (*add_values)(const struct value_job *job);
};

/* Spans are functions of their own. Inlined into the loops around them they have more counters and
 * addresses than there are registers; compilers keep the rest in vector registers, and what comes
 * from there waits in line behind the multiply-adds, at the begin of every block. */
#define GROUP_OPS(NAME, N_Q, TYPE) \
    static NO_INLINE void score_span_##NAME(const struct score_part *part) \
    { \
        score_span(part, N_Q, span_of(N_Q), TYPE); \
    } \
    static NO_INLINE void wide_span_##NAME(const struct value_job *job, const float *weights, \
                                           int d) \
    { \
        value_span(job, weights, d, N_Q, value_vectors(N_Q, is_scaled(TYPE)), TYPE, false); \
    } \
    static NO_INLINE void weighing_span_##NAME(const struct value_job *job, const float *weights, \
                                               int d) \
    { \
        value_span(job, weights, d, N_Q, value_vectors(N_Q, is_scaled(TYPE)), TYPE, \
                   !is_scaled(TYPE)); \
    } \
    static NO_INLINE void single_span_##NAME(const struct value_job *job, const float *weights, \
                                             int d) \
    { \
        value_span(job, weights, d, N_Q, 1, TYPE, false); \
    } \
    static NO_INLINE void score_##NAME(const struct score_job *job) \
    { \
        score_group(job, score_span_##NAME, N_Q); \
    } \
    static NO_INLINE void add_values_##NAME(const struct value_job *job) \
    { \
        value_group(job, weighing_span_##NAME, wide_span_##NAME, single_span_##NAME, N_Q, TYPE); \
    }

/* For groups of LANES_TILE, 4, 2 and 1 queries, as ops_of counts them. */
#define ALL_GROUP_OPS(NAME, TYPE) \
    GROUP_OPS(NAME##_tile, LANES_TILE, TYPE) \
    GROUP_OPS(NAME##_4, 4, TYPE) \
    GROUP_OPS(NAME##_2, 2, TYPE) \
    GROUP_OPS(NAME##_1, 1, TYPE) \
    static const struct group_ops NAME[4] = {{score_##NAME##_tile, add_values_##NAME##_tile}, \
                                             {score_##NAME##_4, add_values_##NAME##_4}, \
                                             {score_##NAME##_2, add_values_##NAME##_2}, \
                                             {score_##NAME##_1, add_values_##NAME##_1}};

ALL_GROUP_OPS(f16_ops, KV_F16)
ALL_GROUP_OPS(f32_ops, KV_F32)
ALL_GROUP_OPS(q8_ops, KV_Q8)

FORCE_INLINE const struct group_ops *ops_of(const struct group_ops *all, int n_q)
{
    return &all[n_q == LANES_TILE ? 0 : n_q == 4 ? 1 : n_q == 2 ? 2 : 3];
}

#endif
