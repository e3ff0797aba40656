/* What several AVX2 kernels share. Two vectors of 8 lanes make the 16 rows of a panel or the 16
 * stripes of a reduction. Ragged ends go through small buffers, and their lanes keep what they had.
 */
#ifndef SHOAL_BACKEND_CPU_X86_AVX2_IMPL_H
#define SHOAL_BACKEND_CPU_X86_AVX2_IMPL_H

#include "backend/cpu/x86/x86.h"
#include "tensor/exact_math.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

/* The first min(n, 8) lanes; none for n <= 0. */
FORCE_INLINE __m256i first_lanes_avx2(long n)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    int count = n > 8 ? 8 : n < 0 ? 0 : (int)n;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), index);
}

/* The first min(n, 8) floats, 0 in the other lanes; the same stored. Whole vectors take a branch of
 * their own, because a masked store takes some processors twenty cycles. */
FORCE_INLINE __m256 load_first(const float *at, long n)
{
    return n >= 8 ? _mm256_loadu_ps(at) : _mm256_maskload_ps(at, first_lanes_avx2(n));
}

FORCE_INLINE void store_first(float *at, long n, __m256 v)
{
    if (n >= 8)
        _mm256_storeu_ps(at, v);
    else
        _mm256_maskstore_ps(at, first_lanes_avx2(n), v);
}

/* yes in the lanes of the mask, no elsewhere. */
FORCE_INLINE __m256 choose(__m256i lanes, __m256 yes, __m256 no)
{
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(lanes));
}

/* stripe_tree of kernels.h over stripes 0 … 7 and 8 … 15. */
FORCE_INLINE float stripe_tree_avx2(__m256 low, __m256 high)
{
    __m256 a = _mm256_add_ps(low, high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}

/* section_tree of kernels.h over 8 vectors, `stride` apart. */
FORCE_INLINE __m256 section_tree_avx2(const __m256 *s, size_t stride)
{
    __m256 a =
        _mm256_add_ps(_mm256_add_ps(s[0], s[stride]), _mm256_add_ps(s[2 * stride], s[3 * stride]));
    __m256 b = _mm256_add_ps(_mm256_add_ps(s[4 * stride], s[5 * stride]),
                             _mm256_add_ps(s[6 * stride], s[7 * stride]));
    return _mm256_add_ps(a, b);
}

/* Sums of the 8 rows from `row`, one token, as struct matmul asks. */
FORCE_INLINE void store_rows_avx2(const struct matmul *m, int row, int t, __m256 sum)
{
    float *y = m->y + (size_t)t * m->y_stride + row - m->first_row;
    long n = m->w->n_rows - row;
    if (m->add)
        sum = _mm256_add_ps(load_first(y, n), sum);
    store_first(y, n, sum);
}

FORCE_INLINE __m256 pow2_avx2(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* exact_expf, lane by lane. Lanes outside the range compute nonsense that the last lines replace.
 */
FORCE_INLINE __m256 exact_expf_avx2(__m256 x)
{
    const __m256 shift = _mm256_set1_ps(EXPF_SHIFT);
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
    __m256i half = _mm256_srai_epi32(n, 1);
    p = _mm256_mul_ps(p, pow2_avx2(half));
    p = _mm256_mul_ps(p, pow2_avx2(_mm256_sub_epi32(n, half)));
    __m256 low = _mm256_cmp_ps(x, _mm256_set1_ps(EXPF_MIN), _CMP_LE_OQ);
    __m256 high = _mm256_cmp_ps(x, _mm256_set1_ps(EXPF_MAX), _CMP_GE_OQ);
    __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    p = _mm256_blendv_ps(p, _mm256_setzero_ps(), low);
    p = _mm256_blendv_ps(p, _mm256_set1_ps(INFINITY), high);
    return _mm256_blendv_ps(p, x, nan);
}

#endif
