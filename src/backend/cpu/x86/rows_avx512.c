/* Quantising, norm, activation, rotation and conversion of rows with AVX-512. The 16 lanes are the
 * stripes of a reduction; a ragged end is a mask, whose lanes keep what they had. */
#include "backend/cpu/x86/avx512_impl.h"

/* 16 values scaled and rounded to codes (to nearest even: the default mode). */
FORCE_INLINE __m128i codes_of(__m512 x, __m512 inverse)
{
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)));
}

/* The sums of a group's codes, less: sad adds eight unsigned bytes at a time. */
FORCE_INLINE void put_sums(struct quant_group *q, __m128i low, __m128i high)
{
    const __m128i offset = _mm_set1_epi8((char)0x80);
    low = _mm_sad_epu8(_mm_xor_si128(low, offset), _mm_setzero_si128());
    high = _mm_sad_epu8(_mm_xor_si128(high, offset), _mm_setzero_si128());
    __m128i halves = _mm_add_epi64(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high));
    q->less_first = GROUP / 2 * 128 - _mm_cvtsi128_si32(halves);
    q->less_sum = q->less_first + GROUP / 2 * 128 - _mm_extract_epi32(halves, 2);
}

FORCE_INLINE void quantise_group(struct quant_group *q, const float *x)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    uint32_t bits = _mm512_reduce_max_epu32(
        _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a), magnitude),
                         _mm512_and_si512(_mm512_castps_si512(b), magnitude)));
    float amax = f32_from_bits(bits), inverse = 127.0f / amax;
    if (bits < 0x7f800000u && f32_bits(inverse) < 0x7f800000u) {
        q->scale = amax / 127.0f;
        __m128i low = codes_of(a, _mm512_set1_ps(inverse));
        __m128i high = codes_of(b, _mm512_set1_ps(inverse));
        _mm_storeu_si128((__m128i *)q->codes, low);
        _mm_storeu_si128((__m128i *)(q->codes + 16), high);
        put_sums(q, low, high);
        q->scaled_sum = (float)-q->less_sum * q->scale;
    } else { /* zeros, or something that is not finite: as ref */
        *q = (struct quant_group){0};
        q->scale = q->scaled_sum = bits < 0x7f800000u ? 0.0f : NAN;
    }
}

void quantise_avx512(struct quant_group *q, const float *x, size_t n_groups)
{
    for (size_t g = 0; g < n_groups; g++)
        quantise_group(q + g, x + g * GROUP);
}

void rms_norm_avx512(float *y, const float *x, const float *gain, float eps, int n_cols)
{
    __m512 sums = _mm512_setzero_ps();
    for (int i = 0; i < n_cols; i += 16) {
        __mmask16 lanes = first_lanes(n_cols - i);
        __m512 v = _mm512_maskz_loadu_ps(lanes, x + i);
        sums = _mm512_mask3_fmadd_ps(v, v, sums, lanes);
    }
    float mean = stripe_tree_avx512(sums) / (float)n_cols;
    __m512 scale = _mm512_set1_ps(1.0f / sqrtf(mean + eps));
    for (int i = 0; i < n_cols; i += 16) {
        __mmask16 lanes = first_lanes(n_cols - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), scale);
        v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(lanes, gain + i));
        _mm512_mask_storeu_ps(y + i, lanes, v);
    }
}

void silu_mul_avx512(float *y, const float *gate, const float *up, size_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-0.0f);
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes((long)(n - i));
        __m512 g = _mm512_maskz_loadu_ps(lanes, gate + i);
        __m512 divisor = _mm512_add_ps(one, exact_expf_avx512(_mm512_xor_ps(g, minus)));
        __m512 v = _mm512_mul_ps(_mm512_div_ps(g, divisor), _mm512_maskz_loadu_ps(lanes, up + i));
        _mm512_mask_storeu_ps(y + i, lanes, v);
    }
}

static void rotate_halves(float *head, const float *turn, int n_pairs)
{
    for (int i = 0; i < n_pairs; i += 16) {
        __mmask16 lanes = first_lanes(n_pairs - i);
        __m512 a = _mm512_maskz_loadu_ps(lanes, head + i);
        __m512 b = _mm512_maskz_loadu_ps(lanes, head + n_pairs + i);
        __m512 c = _mm512_maskz_loadu_ps(lanes, turn + i);
        __m512 s = _mm512_maskz_loadu_ps(lanes, turn + n_pairs + i);
        _mm512_mask_storeu_ps(head + i, lanes, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(head + n_pairs + i, lanes,
                              _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

/* Pairs side by side, 8 to a vector: `other` is each lane's partner, and even lanes subtract. */
static void rotate_neighbours(float *head, const float *turn, int n_pairs)
{
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    for (int i = 0; i < n_pairs; i += 8) {
        __mmask16 lanes = first_lanes(2 * (n_pairs - i)), pairs = first_lanes(n_pairs - i) & 0xff;
        __m512 x = _mm512_maskz_loadu_ps(lanes, head + 2 * i);
        __m512 c = _mm512_maskz_loadu_ps(pairs, turn + i);
        __m512 s = _mm512_maskz_loadu_ps(pairs, turn + n_pairs + i);
        __m512 other = _mm512_permute_ps(x, 0xb1);
        __m512 product = _mm512_mul_ps(other, _mm512_permutexvar_ps(twice, s));
        __m512 y = _mm512_fmaddsub_ps(x, _mm512_permutexvar_ps(twice, c), product);
        _mm512_mask_storeu_ps(head + 2 * i, lanes, y);
    }
}

void rotate_avx512(float *head, const float *turn, int rope_size, bool halves)
{
    if (halves)
        rotate_halves(head, turn, rope_size / 2);
    else
        rotate_neighbours(head, turn, rope_size / 2);
}

void to_f16_avx512(struct f16 *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes((long)(n - i));
        __m256i half = _mm512_cvtps_ph(_mm512_maskz_loadu_ps(lanes, src + i),
                                       _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_mask_storeu_epi16(dst + i, lanes, half);
    }
}
