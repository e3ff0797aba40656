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

FORCE_INLINE __m512 pow2_avx512(__m512i n)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}

/* exact_expf, lane by lane. Lanes outside the range compute nonsense that the last lines replace.
 */
FORCE_INLINE __m512 exact_expf_avx512(__m512 x)
{
    const __m512 shift = _mm512_set1_ps(EXPF_SHIFT);
    __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(EXPF_LOG2E), shift);
    __m512i n = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(shift));
    __m512 whole = _mm512_sub_ps(shifted, shift);
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
    __m512i half = _mm512_srai_epi32(n, 1);
    p = _mm512_mul_ps(p, pow2_avx512(half));
    p = _mm512_mul_ps(p, pow2_avx512(_mm512_sub_epi32(n, half)));
    __mmask16 low = _mm512_cmp_ps_mask(x, _mm512_set1_ps(EXPF_MIN), _CMP_LE_OQ);
    __mmask16 high = _mm512_cmp_ps_mask(x, _mm512_set1_ps(EXPF_MAX), _CMP_GE_OQ);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    p = _mm512_mask_mov_ps(p, low, _mm512_setzero_ps());
    p = _mm512_mask_mov_ps(p, high, _mm512_set1_ps(INFINITY));
    return _mm512_mask_mov_ps(p, nan, x);
}

#endif
