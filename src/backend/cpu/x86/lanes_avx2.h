/* The lanes of lanes.h in two AVX registers. */
#ifndef SHOAL_BACKEND_CPU_X86_LANES_AVX2_H
#define SHOAL_BACKEND_CPU_X86_LANES_AVX2_H

#include "backend/cpu/x86/avx2_impl.h"

enum { LANES_TILE = 6, LANES_SUMS = 6 }; /* 12 registers of 16 */

struct lanes {
    __m256 low, high;
};

FORCE_INLINE struct lanes lanes_zero(void)
{
    return (struct lanes){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

FORCE_INLINE struct lanes lanes_all(float x)
{
    __m256 v = _mm256_set1_ps(x);
    return (struct lanes){v, v};
}

FORCE_INLINE struct lanes lanes_load(const float *p)
{
    return (struct lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

FORCE_INLINE void lanes_store(float *p, struct lanes a)
{
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
}

FORCE_INLINE struct lanes lanes_load_f16(const void *p)
{
    const __m128i *at = p;
    return (struct lanes){_mm256_cvtph_ps(_mm_loadu_si128(at)),
                          _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
}

FORCE_INLINE struct lanes lanes_load_i8(const void *p)
{
    const char *at = p;
    __m256i low = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)at));
    __m256i high = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(at + 8)));
    return (struct lanes){_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)};
}

FORCE_INLINE struct lanes lanes_add(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}

FORCE_INLINE struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}

FORCE_INLINE struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}

FORCE_INLINE struct lanes lanes_div(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}

FORCE_INLINE struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return (struct lanes){_mm256_fmadd_ps(a.low, b.low, c.low),
                          _mm256_fmadd_ps(a.high, b.high, c.high)};
}

FORCE_INLINE struct lanes lanes_max(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

FORCE_INLINE struct lanes lanes_first(int n, struct lanes yes, struct lanes no)
{
    return (struct lanes){choose(first_lanes_avx2(n), yes.low, no.low),
                          choose(first_lanes_avx2((long)n - 8), yes.high, no.high)};
}

/* x <= 0 or NaN. From EXPF_MIN down the result rounds to 0. */
FORCE_INLINE __m256 exp_below_avx2(__m256 x)
{
    const __m256 shift = _mm256_set1_ps(EXPF_SHIFT);
    x = _mm256_max_ps(_mm256_set1_ps(EXPF_MIN), x); /* keeps a NaN */
    __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(EXPF_LOG2E), shift);
    __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(shift));
    __m256 whole = _mm256_sub_ps(shifted, shift);
    __m256 r = _mm256_fmadd_ps(whole, _mm256_set1_ps(-EXPF_LN2_HI), x);
    r = _mm256_fmadd_ps(whole, _mm256_set1_ps(-EXPF_LN2_LO), r);
    __m256 p = _mm256_set1_ps(EXPF_C7);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXPF_C6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXPF_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXPF_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXPF_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXPF_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i half = _mm256_srai_epi32(n, 1); /* of a NaN: nonsense times a NaN */
    p = _mm256_mul_ps(p, pow2_avx2(half));
    return _mm256_mul_ps(p, pow2_avx2(_mm256_sub_epi32(n, half)));
}

FORCE_INLINE struct lanes lanes_exp(struct lanes a)
{
    return (struct lanes){exp_below_avx2(a.low), exp_below_avx2(a.high)};
}

FORCE_INLINE float lanes_greatest(struct lanes a)
{
    __m256 v = _mm256_max_ps(a.low, a.high);
    __m128 u = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    u = _mm_max_ps(u, _mm_movehl_ps(u, u));
    return _mm_cvtss_f32(_mm_max_ss(u, _mm_shuffle_ps(u, u, 1)));
}

FORCE_INLINE float lanes_sum(struct lanes a)
{
    return stripe_tree_avx2(a.low, a.high);
}

FORCE_INLINE void lanes_transpose(float *to, const float *const *from, size_t first)
{
    for (int j = 0; j < LANES_TILE; j++)
        for (int i = 0; i < 16; i++)
            to[i * LANES_TILE + j] = from[j][first + i];
}

FORCE_INLINE void lanes_prefetch(const void *p)
{
    _mm_prefetch(p, _MM_HINT_T1);
}

#endif
