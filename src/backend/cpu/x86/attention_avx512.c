/* Attention with AVX-512. Up to 4 query heads that share a key-value head go together, so that keys
 * and values are read once for all. Scores: lanes are the stripes over head_size, four positions at
 * a time, whose four trees are folded in one. Weights and their sum: lanes are stripes over
 * positions. Values: lanes are dimensions, positions in order. */
#include "backend/cpu/x86/avx512_impl.h"

enum { HEADS = 4, SPAN = 4 }; /* SPAN vectors of the output at a time */

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

/* 16 stored values from element i of the store; lanes outside the mask are 0 and not read. */
FORCE_INLINE __m512 stored(const uint8_t *store, size_t i, __mmask16 lanes, const enum kv_type type)
{
    if (type == KV_F32)
        return _mm512_maskz_loadu_ps(lanes, store + 4 * i);
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, store + 2 * i));
}

FORCE_INLINE size_t position_at(const struct work *w, int position)
{
    return kv_offset(w->a, w->table[position / KV_BLOCK_TOKENS], w->kv_head) +
           (size_t)(position % KV_BLOCK_TOKENS) * w->a->head_size;
}

/* The stripe trees of four vectors; sum j in lane j. */
FORCE_INLINE __m128 four_trees(const __m512 v[4])
{
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x44),
                              _mm512_shuffle_f32x4(v[0], v[1], 0xee)); /* i + (i + 8) */
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(v[2], v[3], 0x44),
                              _mm512_shuffle_f32x4(v[2], v[3], 0xee));
    __m512 sum = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88),
                               _mm512_shuffle_f32x4(ab, cd, 0xdd)); /* i + (i + 4) */
    sum = _mm512_add_ps(sum, _mm512_permute_ps(sum, 0x4e));
    sum = _mm512_add_ps(sum, _mm512_permute_ps(sum, 0xb1));
    const __m512i firsts = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, sum));
}

/* Scores of positions [begin, end) for all heads; entries up to the next multiple of 16 are -inf.
 */
FORCE_INLINE void score_chunk(struct work *w, int begin, int end, const enum kv_type type)
{
    const struct attention *a = w->a;
    for (int p = begin; p < end; p += 4) {
        size_t at = position_at(w, p);
        size_t step = (size_t)a->head_size; /* four positions never leave a block */
        int last = end - p < 4 ? end - p - 1 : 3;
        for (int h = 0; h < w->n_heads; h++) {
            __m512 sums[4];
            UNROLL
            for (int j = 0; j < 4; j++)
                sums[j] = _mm512_setzero_ps();
            for (int d = 0; d < a->head_size; d += 16) {
                __mmask16 lanes = first_lanes(a->head_size - d);
                __m512 q = _mm512_maskz_loadu_ps(lanes, w->q + (size_t)h * a->head_size + d);
                UNROLL
                for (int j = 0; j < 4; j++) {
                    size_t i = at + (j < last ? j : last) * step + d;
                    sums[j] =
                        _mm512_mask3_fmadd_ps(q, stored(a->keys, i, lanes, type), sums[j], lanes);
                }
            }
            _mm_storeu_ps(&w->weights[h][p - begin],
                          _mm_mul_ps(four_trees(sums), _mm_set1_ps(a->scale)));
        }
    }
    int n = end - begin;
    for (int h = 0; h < w->n_heads; h++) {
        __mmask16 tail = (__mmask16)~first_lanes(n & 15 ? n & 15 : 16);
        _mm512_mask_storeu_ps(&w->weights[h][(n - 1) & ~15], tail, _mm512_set1_ps(-INFINITY));
    }
}

/* Scores to weights relative to the chunk's maximum, and their sum. */
FORCE_INLINE void weigh_chunk(struct work *w, int n, struct partial *c)
{
    for (int h = 0; h < w->n_heads; h++) {
        float *scores = w->weights[h];
        __m512 max = _mm512_set1_ps(-INFINITY), sums = _mm512_setzero_ps();
        for (int p = 0; p < n; p += 16) /* max_ps(s, m): m where s is a NaN, as ref */
            max = _mm512_max_ps(_mm512_loadu_ps(scores + p), max);
        c->max[h] = _mm512_reduce_max_ps(max);
        for (int p = 0; p < n; p += 16) {
            __mmask16 lanes = first_lanes(n - p);
            __m512 weight = exact_expf_avx512(
                _mm512_sub_ps(_mm512_loadu_ps(scores + p), _mm512_set1_ps(c->max[h])));
            sums = _mm512_mask_add_ps(sums, lanes, sums, weight);
            _mm512_storeu_ps(scores + p, weight);
        }
        c->sum[h] = stripe_tree_avx512(sums);
    }
}

/* Output dimensions from d, SPAN vectors, of n_heads (a constant) heads from h. */
FORCE_INLINE void value_span(const struct work *w, int begin, int end, int h, int d,
                             const int n_heads, const enum kv_type type, struct partial *c)
{
    const struct attention *a = w->a;
    __m512 out[HEADS][SPAN];
    __mmask16 lanes[SPAN];
    UNROLL
    for (int j = 0; j < SPAN; j++) {
        lanes[j] = first_lanes(a->head_size - d - 16 * j);
        UNROLL
        for (int i = 0; i < n_heads; i++)
            out[i][j] = _mm512_setzero_ps();
    }
    for (int p = begin; p < end; p++) {
        size_t at = position_at(w, p) + d;
        __m512 v[SPAN];
        UNROLL
        for (int j = 0; j < SPAN; j++)
            v[j] = stored(a->values, at + 16 * j, lanes[j], type);
        UNROLL
        for (int i = 0; i < n_heads; i++) {
            __m512 weight = _mm512_set1_ps(w->weights[h + i][p - begin]);
            UNROLL
            for (int j = 0; j < SPAN; j++)
                out[i][j] = _mm512_fmadd_ps(weight, v[j], out[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < n_heads; i++)
        UNROLL
    for (int j = 0; j < SPAN; j++)
        _mm512_mask_storeu_ps(c->out[h + i] + d + 16 * j, lanes[j], out[i][j]);
}

FORCE_INLINE void value_chunk(const struct work *w, int begin, int end, const enum kv_type type,
                              struct partial *c)
{
    for (int d = 0; d < w->a->head_size; d += 16 * SPAN) {
        int h = 0;
        if (w->n_heads == 4) {
            value_span(w, begin, end, 0, d, 4, type, c);
            continue;
        }
        if (w->n_heads >= 2) {
            value_span(w, begin, end, 0, d, 2, type, c);
            h = 2;
        }
        if (h < w->n_heads)
            value_span(w, begin, end, h, d, 1, type, c);
    }
}

static void merge(const struct work *w, struct partial *all, const struct partial *chunk)
{
    for (int h = 0; h < w->n_heads; h++) {
        float max = chunk->max[h] > all->max[h] ? chunk->max[h] : all->max[h];
        float keep = exact_expf(all->max[h] - max), take = exact_expf(chunk->max[h] - max);
        all->sum[h] = fmaf(all->sum[h], keep, chunk->sum[h] * take);
        for (int d = 0; d < w->a->head_size; d += 16) {
            __mmask16 lanes = first_lanes(w->a->head_size - d);
            __m512 taken = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, chunk->out[h] + d),
                                         _mm512_set1_ps(take));
            __m512 kept = _mm512_maskz_loadu_ps(lanes, all->out[h] + d);
            _mm512_mask_storeu_ps(all->out[h] + d, lanes,
                                  _mm512_fmadd_ps(kept, _mm512_set1_ps(keep), taken));
        }
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
    for (int h = 0; h < w->n_heads; h++, y += w->a->head_size) {
        for (int d = 0; d < w->a->head_size; d += 16) {
            __mmask16 lanes = first_lanes(w->a->head_size - d);
            __m512 out = _mm512_maskz_loadu_ps(lanes, all.out[h] + d);
            _mm512_mask_storeu_ps(y + d, lanes, _mm512_div_ps(out, _mm512_set1_ps(all.sum[h])));
        }
    }
}

void attention_avx512(const struct attention *a, int row, int head_begin, int head_end)
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
