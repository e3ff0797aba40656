/* exact_expf in eight lanes: the same operations in the same order (the numbers and the method are in
 * tensor/exact_math.h). Built with -mavx2 -mfma. */
#include "sampler/exp_many.h"

#include "tensor/exact_math.h"

#include <immintrin.h>
#include <string.h>

static __m256 pow2(__m256i n) /* 2^n of small n */
{
    __m256i biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}

static __m256 exp8(__m256 x)
{
    __m256 least = _mm256_set1_ps(EXPF_MIN), shift = _mm256_set1_ps(EXPF_SHIFT);
    __m256 is_zero = _mm256_cmp_ps(x, least, _CMP_LE_OQ);
    x = _mm256_max_ps(x, least); /* -inf becomes a number; its result is masked away */
    __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(EXPF_LOG2E), shift);
    __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(shift));
    __m256 whole = _mm256_sub_ps(shifted, shift);
    __m256 r = _mm256_fmadd_ps(whole, _mm256_set1_ps(-EXPF_LN2_HI), x);
    r = _mm256_fmadd_ps(whole, _mm256_set1_ps(-EXPF_LN2_LO), r);
    static const float c[] = {EXPF_C6, EXPF_C5, EXPF_C4, EXPF_C3, EXPF_C2, 1, 1};
    __m256 p = _mm256_set1_ps(EXPF_C7);
    for (int i = 0; i < 7; i++)
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c[i]));
    __m256i half = _mm256_srai_epi32(n, 1);
    p = _mm256_mul_ps(_mm256_mul_ps(p, pow2(half)), pow2(_mm256_sub_epi32(n, half)));
    return _mm256_andnot_ps(is_zero, p);
}

void exp_many_avx2(float *x, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, exp8(_mm256_loadu_ps(x + i)));
    if (i == n)
        return;
    float rest[8] = {0};
    memcpy(rest, x + i, (size_t)(n - i) * sizeof(float));
    _mm256_storeu_ps(rest, exp8(_mm256_loadu_ps(rest)));
    memcpy(x + i, rest, (size_t)(n - i) * sizeof(float));
}
