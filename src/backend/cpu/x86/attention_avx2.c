/* Attention with AVX2: the plan of attention_avx512.c with two vectors where it has one. Up to 4
 * query heads that share a key-value head go together; scores are made for four positions at a
 * time, whose trees are folded in one; the output is made some vectors at a time over all positions
 * in order. */
#include "backend/cpu/x86/avx2_impl.h"

enum { HEADS = 4, SPAN_MAX = 4 };

/* As struct partial of ref/attention_ref.c, for the heads of a call. */
struct partial {
    float max[HEADS], sum[HEADS];
    float out[HEADS][SHAPE_MAX_HEAD_SIZE];
};

struct work {
    const struct attention *a;
    const int32_t *table;
    int kv_head, n_heads;
    const float *q;                        /* of the first head; the others follow */
    float weights[HEADS][ATTENTION_CHUNK]; /* scores first */
};

/* min(n, 8) stored values from element i of the store, zeros after them. */
FORCE_INLINE __m256 stored(const uint8_t *store, size_t i, int n, const enum kv_type type)
{
    const size_t bytes = type == KV_F32 ? 4 : 2;
    uint8_t buffer[32] = {0};
    const uint8_t *at = store + bytes * i;
    if (n < 8) {
        memcpy(buffer, at, n > 0 ? (size_t)n * bytes : 0);
        at = buffer;
    }
    if (type == KV_F32)
        return _mm256_loadu_ps((const float *)(const void *)at);
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at));
}

FORCE_INLINE size_t position_at(const struct work *w, int position)
{
    return kv_offset(w->a, w->table[position / KV_BLOCK_TOKENS], w->kv_head) +
           (size_t)(position % KV_BLOCK_TOKENS) * w->a->head_size;
}

/* The stripe trees of four pairs of vectors; sum j in lane j. */
FORCE_INLINE __m128 four_trees(const __m256 low[4], const __m256 high[4])
{
    __m256 v[4];
    UNROLL
    for (int j = 0; j < 4; j++)
        v[j] = _mm256_add_ps(low[j], high[j]); /* i + (i + 8) */
    __m256 even = _mm256_add_ps(_mm256_permute2f128_ps(v[0], v[2], 0x20),
                                _mm256_permute2f128_ps(v[0], v[2], 0x31)); /* i + (i + 4) */
    __m256 odd = _mm256_add_ps(_mm256_permute2f128_ps(v[1], v[3], 0x20),
                               _mm256_permute2f128_ps(v[1], v[3], 0x31));
    __m256 sum = _mm256_add_ps(_mm256_shuffle_ps(even, odd, 0x44),
                               _mm256_shuffle_ps(even, odd, 0xee)); /* i + (i + 2) */
    sum = _mm256_add_ps(sum, _mm256_permute_ps(sum, 0xb1));
    return _mm_shuffle_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1), 0x88);
}

/* One head's scores of four positions in a row from element `at`; beyond `last` the last again. */
FORCE_INLINE __m128 score_four(const struct attention *a, const float *q, size_t at, int last,
                               const enum kv_type type)
{
    __m256 low[4], high[4];
    UNROLL
    for (int j = 0; j < 4; j++)
        low[j] = high[j] = _mm256_setzero_ps();
    for (int d = 0; d < a->head_size; d += 16) {
        int left = a->head_size - d;
        __m256i lanes = first_lanes_avx2(left), more = first_lanes_avx2(left - 8);
        __m256 q_low = _mm256_maskload_ps(q + d, lanes),
               q_high = _mm256_maskload_ps(q + d + 8, more);
        UNROLL
        for (int j = 0; j < 4; j++) {
            size_t i = at + (size_t)((j < last ? j : last) * a->head_size + d);
            __m256 k_low = stored(a->keys, i, left, type);
            __m256 k_high = stored(a->keys, i + 8, left - 8, type);
            low[j] = choose(lanes, _mm256_fmadd_ps(q_low, k_low, low[j]), low[j]);
            high[j] = choose(more, _mm256_fmadd_ps(q_high, k_high, high[j]), high[j]);
        }
    }
    return _mm_mul_ps(four_trees(low, high), _mm_set1_ps(a->scale));
}

/* Scores of positions [begin, end) for all heads; entries up to the next multiple of 16 are -inf.
 */
FORCE_INLINE void score_chunk(struct work *w, int begin, int end, const enum kv_type type)
{
    for (int p = begin; p < end; p += 4) {
        size_t at = position_at(w, p); /* four positions never leave a block */
        int last = end - p < 4 ? end - p - 1 : 3;
        for (int h = 0; h < w->n_heads; h++)
            _mm_storeu_ps(&w->weights[h][p - begin],
                          score_four(w->a, w->q + (size_t)h * w->a->head_size, at, last, type));
    }
    for (int h = 0; h < w->n_heads; h++)
        for (int i = end - begin; i % STRIPES != 0; i++)
            w->weights[h][i] = -INFINITY;
}

/* max_ps(s, m): m where s is a NaN, as ref. */
FORCE_INLINE float greatest(const float *scores, int n)
{
    __m256 max = _mm256_set1_ps(-INFINITY);
    for (int p = 0; p < n; p += 8)
        max = _mm256_max_ps(_mm256_loadu_ps(scores + p), max);
    float lanes[8], result = -INFINITY;
    _mm256_storeu_ps(lanes, max);
    for (int i = 0; i < 8; i++)
        result = lanes[i] > result ? lanes[i] : result;
    return result;
}

/* Scores to weights relative to the chunk's maximum, and their sum. */
FORCE_INLINE void weigh_chunk(struct work *w, int n, struct partial *c)
{
    for (int h = 0; h < w->n_heads; h++) {
        float *scores = w->weights[h];
        __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        c->max[h] = greatest(scores, n);
        for (int p = 0; p < n; p += 8) {
            __m256i lanes = first_lanes_avx2(n - p);
            __m256 *sum = &sums[p / 8 % 2];
            __m256 weight = exact_expf_avx2(
                _mm256_sub_ps(_mm256_loadu_ps(scores + p), _mm256_set1_ps(c->max[h])));
            *sum = choose(lanes, _mm256_add_ps(*sum, weight), *sum);
            _mm256_storeu_ps(scores + p, weight);
        }
        c->sum[h] = stripe_tree_avx2(sums[0], sums[1]);
    }
}

/* Output dimensions from d, `span` vectors, of n_heads heads from h (both constants). */
FORCE_INLINE void value_span(const struct work *w, int begin, int end, int h, int d,
                             const int n_heads, const int span, const enum kv_type type,
                             struct partial *c)
{
    const struct attention *a = w->a;
    __m256 out[HEADS][SPAN_MAX];
    UNROLL
    for (int i = 0; i < n_heads; i++)
        UNROLL
    for (int j = 0; j < span; j++)
        out[i][j] = _mm256_setzero_ps();
    for (int p = begin; p < end; p++) {
        size_t at = position_at(w, p) + d;
        __m256 v[SPAN_MAX];
        UNROLL
        for (int j = 0; j < span; j++)
            v[j] = stored(a->values, at + 8 * j, a->head_size - d - 8 * j, type);
        UNROLL
        for (int i = 0; i < n_heads; i++) {
            __m256 weight = _mm256_set1_ps(w->weights[h + i][p - begin]);
            UNROLL
            for (int j = 0; j < span; j++)
                out[i][j] = _mm256_fmadd_ps(weight, v[j], out[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < n_heads; i++)
        UNROLL
    for (int j = 0; j < span; j++)
        _mm256_maskstore_ps(c->out[h + i] + d + 8 * j, first_lanes_avx2(a->head_size - d - 8 * j),
                            out[i][j]);
}

FORCE_INLINE void value_chunk(const struct work *w, int begin, int end, const enum kv_type type,
                              struct partial *c)
{
    int h = 0;
    for (; w->n_heads - h >= 4; h += 4)
        for (int d = 0; d < w->a->head_size; d += 16)
            value_span(w, begin, end, h, d, 4, 2, type, c);
    for (; w->n_heads - h >= 2; h += 2)
        for (int d = 0; d < w->a->head_size; d += 32)
            value_span(w, begin, end, h, d, 2, 4, type, c);
    for (; h < w->n_heads; h++)
        for (int d = 0; d < w->a->head_size; d += 32)
            value_span(w, begin, end, h, d, 1, 4, type, c);
}

static void merge(const struct work *w, struct partial *all, const struct partial *chunk)
{
    for (int h = 0; h < w->n_heads; h++) {
        float max = chunk->max[h] > all->max[h] ? chunk->max[h] : all->max[h];
        float keep = exact_expf(all->max[h] - max), take = exact_expf(chunk->max[h] - max);
        all->sum[h] = fmaf(all->sum[h], keep, chunk->sum[h] * take);
        for (int d = 0; d < w->a->head_size; d++)
            all->out[h][d] = fmaf(all->out[h][d], keep, chunk->out[h][d] * take);
        all->max[h] = max;
    }
}

FORCE_INLINE void attend(struct work *w, float *y, int n_positions, const enum kv_type type)
{
    struct partial all, chunk;
    for (int begin = 0; begin < n_positions; begin += ATTENTION_CHUNK) {
        int end = begin + ATTENTION_CHUNK < n_positions ? begin + ATTENTION_CHUNK : n_positions;
        struct partial *c = begin == 0 ? &all : &chunk;
        score_chunk(w, begin, end, type);
        weigh_chunk(w, end - begin, c);
        value_chunk(w, begin, end, type, c);
        if (begin > 0)
            merge(w, &all, &chunk);
    }
    for (int h = 0; h < w->n_heads; h++, y += w->a->head_size)
        for (int d = 0; d < w->a->head_size; d++)
            y[d] = all.out[h][d] / all.sum[h];
}

void attention_avx2(const struct attention *a, int row, int head_begin, int head_end)
{
    for (int h = head_begin; h < head_end; h += HEADS) {
        size_t at = ((size_t)row * a->n_heads + h) * a->head_size;
        struct work w;
        w.a = a;
        w.table = a->batch->tables[row];
        w.kv_head = h / (a->n_heads / a->n_kv_heads);
        w.n_heads = head_end - h < HEADS ? head_end - h : HEADS;
        w.q = a->q + at;
        if (a->type == KV_F16)
            attend(&w, a->y + at, a->batch->positions[row] + 1, KV_F16);
        else
            attend(&w, a->y + at, a->batch->positions[row] + 1, KV_F32);
    }
}
