/* exact_expf in sixteen lanes: as in token_weights_avx2.c. Built with -mavx512f. */
#include "sampler/token_weights.h"

#include "tensor/exact_math.h"

#include <immintrin.h>

static __m512 pow2(__m512i n) /* 2^n of small n */
{
    __m512i biased = _mm512_add_epi32(n, _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}

static __m512 exp16(__m512 x)
{
    __m512 least = _mm512_set1_ps(EXPF_MIN), shift = _mm512_set1_ps(EXPF_SHIFT);
    __mmask16 is_not_zero = _mm512_cmp_ps_mask(x, least, _CMP_GT_OQ);
    x = _mm512_max_ps(x, least); /* -inf becomes a number; its result is masked away */
    __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(EXPF_LOG2E), shift);
    __m512i n = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(shift));
    __m512 whole = _mm512_sub_ps(shifted, shift);
    __m512 r = _mm512_fmadd_ps(whole, _mm512_set1_ps(-EXPF_LN2_HI), x);
    r = _mm512_fmadd_ps(whole, _mm512_set1_ps(-EXPF_LN2_LO), r);
    static const float c[] = {EXPF_C6, EXPF_C5, EXPF_C4, EXPF_C3, EXPF_C2, 1, 1};
    __m512 p = _mm512_set1_ps(EXPF_C7);
    for (int i = 0; i < 7; i++)
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c[i]));
    __m512i half = _mm512_srai_epi32(n, 1);
    p = _mm512_mul_ps(_mm512_mul_ps(p, pow2(half)), pow2(_mm512_sub_epi32(n, half)));
    return _mm512_maskz_mov_ps(is_not_zero, p);
}

static __m512i units8(__m256 w) /* of each, plus WEIGHT_SHIFT_BITS */
{
    __m512d shifted = _mm512_add_pd(_mm512_cvtps_pd(w), _mm512_set1_pd(WEIGHT_SHIFT));
    return _mm512_castpd_si512(shifted);
}

static __m256 upper_half(__m512 w)
{
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(w), 1));
}

uint64_t token_weights_avx512(const float *logits, int n, float best, float temperature,
                              float *weights)
{
    __m512 best16 = _mm512_set1_ps(best), temperature16 = _mm512_set1_ps(temperature);
    __m512i low = _mm512_setzero_si512(), high = low;
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512 distance = _mm512_sub_ps(_mm512_loadu_ps(logits + i), best16);
        __m512 w = exp16(_mm512_div_ps(distance, temperature16));
        _mm512_storeu_ps(weights + i, w);
        low = _mm512_add_epi64(low, units8(_mm512_castps512_ps256(w)));
        high = _mm512_add_epi64(high, units8(upper_half(w)));
    }
    uint64_t lanes[8], total = 0;
    _mm512_storeu_si512(lanes, _mm512_add_epi64(low, high));
    for (int lane = 0; lane < 8; lane++)
        total += lanes[lane];
    total -= (uint64_t)i * WEIGHT_SHIFT_BITS; /* modulo 2^64, like the sums */
    return total + token_weights_plain(logits + i, n - i, best, temperature, weights + i);
}
