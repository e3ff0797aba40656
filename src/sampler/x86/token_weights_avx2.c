/* exact_expf in eight lanes: the same operations in the same order (the numbers and the method are
 * in tensor/exact_math.h), and its units in twice four. Built with -mavx2 -mfma. */
#include "sampler/token_weights.h"

#include "tensor/exact_math.h"

#include <immintrin.h>

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

static __m256i units4(__m128 w) /* of each, plus WEIGHT_SHIFT_BITS */
{
    __m256d shifted = _mm256_add_pd(_mm256_cvtps_pd(w), _mm256_set1_pd(WEIGHT_SHIFT));
    return _mm256_castpd_si256(shifted);
}

uint64_t token_weights_avx2(const float *logits, int n, float best, float temperature,
                            float *weights)
{
    __m256 best8 = _mm256_set1_ps(best), temperature8 = _mm256_set1_ps(temperature);
    __m256i sums = _mm256_setzero_si256();
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 distance = _mm256_sub_ps(_mm256_loadu_ps(logits + i), best8);
        __m256 w = exp8(_mm256_div_ps(distance, temperature8));
        _mm256_storeu_ps(weights + i, w);
        sums = _mm256_add_epi64(sums, units4(_mm256_castps256_ps128(w)));
        sums = _mm256_add_epi64(sums, units4(_mm256_extractf128_ps(w, 1)));
    }
    uint64_t lanes[4], total = 0;
    _mm256_storeu_si256((__m256i *)lanes, sums);
    for (int lane = 0; lane < 4; lane++)
        total += lanes[lane];
    total -= (uint64_t)i * WEIGHT_SHIFT_BITS; /* modulo 2^64, like the sums */
    return total + token_weights_plain(logits + i, n - i, best, temperature, weights + i);
}
