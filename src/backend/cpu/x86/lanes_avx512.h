/* The lanes of lanes.h in one AVX-512 register. */
#ifndef SHOAL_BACKEND_CPU_X86_LANES_AVX512_H
#define SHOAL_BACKEND_CPU_X86_LANES_AVX512_H

#include "backend/cpu/x86/avx512_impl.h"

enum { LANES_TILE = 8, LANES_SUMS = 16 };

struct lanes {
    __m512 v;
};

FORCE_INLINE struct lanes lanes_of(__m512 v)
{
    return (struct lanes){v};
}

FORCE_INLINE struct lanes lanes_zero(void)
{
    return lanes_of(_mm512_setzero_ps());
}

FORCE_INLINE struct lanes lanes_all(float x)
{
    return lanes_of(_mm512_set1_ps(x));
}

FORCE_INLINE struct lanes lanes_load(const float *p)
{
    return lanes_of(_mm512_loadu_ps(p));
}

FORCE_INLINE void lanes_store(float *p, struct lanes a)
{
    _mm512_storeu_ps(p, a.v);
}

FORCE_INLINE struct lanes lanes_load_f16(const void *p)
{
    return lanes_of(_mm512_cvtph_ps(_mm256_loadu_si256(p)));
}

FORCE_INLINE struct lanes lanes_load_i8(const void *p)
{
    return lanes_of(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))));
}

FORCE_INLINE struct lanes lanes_add(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_add_ps(a.v, b.v));
}

FORCE_INLINE struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_sub_ps(a.v, b.v));
}

FORCE_INLINE struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_mul_ps(a.v, b.v));
}

FORCE_INLINE struct lanes lanes_div(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_div_ps(a.v, b.v));
}

FORCE_INLINE struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return lanes_of(_mm512_fmadd_ps(a.v, b.v, c.v));
}

FORCE_INLINE struct lanes lanes_max(struct lanes a, struct lanes b)
{
    return lanes_of(_mm512_max_ps(a.v, b.v));
}

FORCE_INLINE struct lanes lanes_first(int n, struct lanes yes, struct lanes no)
{
    return lanes_of(_mm512_mask_mov_ps(no.v, first_lanes(n), yes.v));
}

FORCE_INLINE struct lanes lanes_exp(struct lanes a)
{
    return lanes_of(exact_expf_avx512(a.v));
}

FORCE_INLINE float lanes_greatest(struct lanes a)
{
    return _mm512_reduce_max_ps(a.v);
}

FORCE_INLINE float lanes_sum(struct lanes a)
{
    return stripe_tree_avx512(a.v);
}

/* Quarters of four vectors: quarter i of each to to[i]. */
FORCE_INLINE void store_quarters(float *to, size_t stride, __m512 a, __m512 b, __m512 c, __m512 d)
{
    __m512 ab0 = _mm512_shuffle_f32x4(a, b, 0x44), ab1 = _mm512_shuffle_f32x4(a, b, 0xee);
    __m512 cd0 = _mm512_shuffle_f32x4(c, d, 0x44), cd1 = _mm512_shuffle_f32x4(c, d, 0xee);
    _mm512_storeu_ps(to, _mm512_shuffle_f32x4(ab0, cd0, 0x88));
    _mm512_storeu_ps(to + stride, _mm512_shuffle_f32x4(ab0, cd0, 0xdd));
    _mm512_storeu_ps(to + 2 * stride, _mm512_shuffle_f32x4(ab1, cd1, 0x88));
    _mm512_storeu_ps(to + 3 * stride, _mm512_shuffle_f32x4(ab1, cd1, 0xdd));
}

/* Element 4q + i of four rows, quarter q, to v[i]. */
FORCE_INLINE void transpose_quarters(__m512 v[4], const float *const *from, size_t first)
{
    __m512 a = _mm512_loadu_ps(from[0] + first), b = _mm512_loadu_ps(from[1] + first);
    __m512 c = _mm512_loadu_ps(from[2] + first), d = _mm512_loadu_ps(from[3] + first);
    __m512d ab0 = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
    __m512d ab1 = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
    __m512d cd0 = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
    __m512d cd1 = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
    v[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab0, cd0));
    v[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab0, cd0));
    v[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(ab1, cd1));
    v[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(ab1, cd1));
}

FORCE_INLINE void lanes_transpose(float *to, const float *const *from, size_t first)
{
    __m512 low[4], high[4]; /* rows 0 … 3, 4 … 7 */
    transpose_quarters(low, from, first);
    transpose_quarters(high, from + 4, first);
    store_quarters(to, 4 * LANES_TILE, low[0], high[0], low[1], high[1]);
    store_quarters(to + 2 * LANES_TILE, 4 * LANES_TILE, low[2], high[2], low[3], high[3]);
}

FORCE_INLINE void lanes_prefetch(const void *p)
{
    _mm_prefetch(p, _MM_HINT_T0);
}

#endif
