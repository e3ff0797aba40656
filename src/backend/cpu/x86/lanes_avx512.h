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

/* exact_expf with its two multiplications by powers of two in one (the first is exact). From
 * EXPF_MIN down the result rounds to 0. */
FORCE_INLINE struct lanes lanes_exp(struct lanes a)
{
    const __m512 shift = _mm512_set1_ps(EXPF_SHIFT);
    __m512 x = _mm512_max_ps(_mm512_set1_ps(EXPF_MIN), a.v); /* keeps a NaN */
    __m512 whole = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(EXPF_LOG2E), shift), shift);
    __m512 r = _mm512_fmadd_ps(whole, _mm512_set1_ps(-EXPF_LN2_HI), x);
    r = _mm512_fmadd_ps(whole, _mm512_set1_ps(-EXPF_LN2_LO), r);
    __m512 p = _mm512_set1_ps(EXPF_C7);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXPF_C6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXPF_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXPF_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXPF_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXPF_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return lanes_of(_mm512_scalef_ps(p, whole));
}

FORCE_INLINE float lanes_greatest(struct lanes a)
{
    return _mm512_reduce_max_ps(a.v);
}

FORCE_INLINE float lanes_sum(struct lanes a)
{
    return stripe_tree_avx512(a.v);
}

FORCE_INLINE void lanes_prefetch(const void *p)
{
    _mm_prefetch(p, _MM_HINT_T0);
}

#endif
