/* Quantising, norm, activation, rotation and conversion of rows with AVX2. */
#include "backend/cpu/x86/avx2_impl.h"

FORCE_INLINE __m256i magnitude(const float *x)
{
    return _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x)), _mm256_set1_epi32(0x7fffffff));
}

FORCE_INLINE uint32_t greatest_magnitude(const float *x)
{
    __m256i a = _mm256_max_epu32(_mm256_max_epu32(magnitude(x), magnitude(x + 8)),
                                 _mm256_max_epu32(magnitude(x + 16), magnitude(x + 24)));
    __m128i b = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_max_epu32(b, _mm_shuffle_epi32(b, 0x4e));
    b = _mm_max_epu32(b, _mm_shuffle_epi32(b, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(b);
}

/* 16 values scaled and rounded to codes (to nearest even: the default mode); their sum. */
FORCE_INLINE int32_t quantise_half(int8_t *codes, const float *x, float inverse)
{
    __m256 scale = _mm256_set1_ps(inverse);
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), scale));
    __m128i low = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i high = _mm_packs_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    _mm_storeu_si128((__m128i *)codes, _mm_packs_epi16(low, high));
    __m128i sum = _mm_madd_epi16(_mm_add_epi16(low, high), _mm_set1_epi16(1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    return _mm_cvtsi128_si32(sum);
}

FORCE_INLINE void quantise_group(struct quant_group *q, const float *x)
{
    uint32_t bits = greatest_magnitude(x);
    float amax = f32_from_bits(bits), inverse = 127.0f / amax;
    if (bits < 0x7f800000u && f32_bits(inverse) < 0x7f800000u) {
        q->scale = amax / 127.0f;
        q->less_first = -quantise_half(q->codes, x, inverse);
        q->less_sum = q->less_first - quantise_half(q->codes + 16, x + 16, inverse);
        q->scaled_sum = (float)-q->less_sum * q->scale;
    } else { /* zeros, or something that is not finite: as ref */
        *q = (struct quant_group){0};
        q->scale = q->scaled_sum = bits < 0x7f800000u ? 0.0f : NAN;
    }
}

void quantise_avx2(const struct quant_rows *to, size_t row, size_t group, const float *x,
                   size_t n_rows, size_t n_groups)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t g = 0; g < n_groups; g++, x += GROUP)
            quantise_group(quant_at(to, row + r, group + g), x);
}

void rms_norm_avx2(float *y, const float *x, const float *gain, float eps, int n_cols)
{
    __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();
    for (int i = 0; i < n_cols; i += 16) { /* lanes that do not exist add 0 * 0 */
        __m256 a = load_first(x + i, n_cols - i), b = load_first(x + i + 8, n_cols - i - 8);
        low = _mm256_fmadd_ps(a, a, low);
        high = _mm256_fmadd_ps(b, b, high);
    }
    float mean = stripe_tree_avx2(low, high) / (float)n_cols;
    __m256 scale = _mm256_set1_ps(1.0f / sqrtf(mean + eps));
    for (int i = 0; i < n_cols; i += 8) {
        int n = n_cols - i;
        __m256 v = _mm256_mul_ps(load_first(x + i, n), scale);
        store_first(y + i, n, _mm256_mul_ps(v, load_first(gain + i, n)));
    }
}

void silu_mul_avx2(float *y, const float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f), minus = _mm256_set1_ps(-0.0f);
    for (size_t i = 0; i < n; i += 8) {
        long left = (long)(n - i);
        __m256 g = load_first(gate + i, left);
        __m256 divisor = _mm256_add_ps(one, exact_expf_avx2(_mm256_xor_ps(g, minus)));
        store_first(y + i, left,
                    _mm256_mul_ps(_mm256_div_ps(g, divisor), load_first(up + i, left)));
    }
}

static void rotate_halves(float *head, const float *turn, int n_pairs)
{
    for (int i = 0; i < n_pairs; i += 8) {
        int n = n_pairs - i;
        __m256 a = load_first(head + i, n), b = load_first(head + n_pairs + i, n);
        __m256 c = load_first(turn + i, n), s = load_first(turn + n_pairs + i, n);
        store_first(head + i, n, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        store_first(head + n_pairs + i, n, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
}

/* Pairs side by side, 4 to a vector: `other` is each lane's partner, and even lanes subtract. */
static void rotate_neighbours(float *head, const float *turn, int n_pairs)
{
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    for (int i = 0; i < n_pairs; i += 4) {
        int left = n_pairs - i < 4 ? n_pairs - i : 4;
        __m256i pairs = first_lanes_avx2(left);
        __m256 x = load_first(head + 2 * i, 2 * left);
        __m256 c = _mm256_permutevar8x32_ps(_mm256_maskload_ps(turn + i, pairs), twice);
        __m256 s = _mm256_permutevar8x32_ps(_mm256_maskload_ps(turn + n_pairs + i, pairs), twice);
        __m256 other = _mm256_permute_ps(x, 0xb1);
        __m256 y = _mm256_fmaddsub_ps(x, c, _mm256_mul_ps(other, s));
        store_first(head + 2 * i, 2 * left, y);
    }
}

void rotate_avx2(float *head, const float *turn, int rope_size, bool halves)
{
    if (halves)
        rotate_halves(head, turn, rope_size / 2);
    else
        rotate_neighbours(head, turn, rope_size / 2);
}

void to_f16_avx2(struct f16 *dst, const float *src, size_t n)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    for (size_t i = 0; i < n; i += 8) {
        __m128i half = _mm256_cvtps_ph(load_first(src + i, (long)(n - i)), NEAREST);
        if (n - i >= 8)
            _mm_storeu_si128((__m128i *)(dst + i), half);
        else
            memcpy(dst + i, &half, (n - i) * sizeof *dst);
    }
}
