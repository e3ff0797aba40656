/* What several AVX-512 kernels share. Vectors have 16 lanes: the rows of a panel, or the stripes of
 * a reduction. */
#ifndef SHOAL_BACKEND_CPU_X86_AVX512_IMPL_H
#define SHOAL_BACKEND_CPU_X86_AVX512_IMPL_H

#include "backend/cpu/x86/x86.h"
#include "tensor/exact_math.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

/* The first min(n, 16) lanes; none for n <= 0. */
FORCE_INLINE __mmask16 first_lanes(long n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1);
}

/* stripe_tree of kernels.h: halves folded onto each other. */
FORCE_INLINE float stripe_tree_avx512(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}

/* section_tree of kernels.h over 8 vectors, `stride` apart. */
FORCE_INLINE __m512 section_tree_avx512(const __m512 *s, size_t stride)
{
    __m512 a =
        _mm512_add_ps(_mm512_add_ps(s[0], s[stride]), _mm512_add_ps(s[2 * stride], s[3 * stride]));
    __m512 b = _mm512_add_ps(_mm512_add_ps(s[4 * stride], s[5 * stride]),
                             _mm512_add_ps(s[6 * stride], s[7 * stride]));
    return _mm512_add_ps(a, b);
}

/* exact_expf, lane by lane. Its two multiplications by powers of two are one here: the first is
 * exact. At EXPF_MIN the result rounds to 0, at EXPF_MAX to infinity, so what lies beyond may as
 * well be there; a NaN stays. */
FORCE_INLINE __m512 exact_expf_avx512(__m512 x)
{
    const __m512 shift = _mm512_set1_ps(EXPF_SHIFT);
    x = _mm512_max_ps(_mm512_set1_ps(EXPF_MIN), x);
    x = _mm512_min_ps(_mm512_set1_ps(EXPF_MAX), x);
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
    return _mm512_scalef_ps(p, whole);
}

#endif
