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

/* Many groups are quantised in three steps, each a short chain of operations for a few groups, so
 * that many are under way at once: their greatest magnitudes, their codes, and what stands beside
 * the codes, a group to a lane. (9 cycles a group on a Zen 5; each by itself 17.) */
enum { LANES = 16, BATCH = 64 };

/* The greater of lanes 2i and 2i + 1 of a (even lanes) and of b (odd ones), in some order. */
FORCE_INLINE __m512i greater_of_pairs(__m512i a, __m512i b)
{
    return _mm512_max_epu32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

/* Bits of the greatest magnitudes of four groups. */
FORCE_INLINE __m128i greatest_of_four(const float *x)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i m[4];
    UNROLL
    for (int i = 0; i < 4; i++, x += GROUP)
        m[i] = _mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(x), magnitude),
                                _mm512_and_si512(_mm512_loadu_si512(x + 16), magnitude));
    __m512i a = greater_of_pairs(m[0], m[1]), b = greater_of_pairs(m[2], m[3]);
    __m512i v = _mm512_max_epu32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    __m256i half = _mm256_max_epu32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_max_epu32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* The codes of two groups. */
FORCE_INLINE __m512i codes_of_two(const float *x, const float inverse[2])
{
    const __m512i in_order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i c[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        c[i] = _mm512_cvtps_epi32(
            _mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), _mm512_set1_ps(inverse[i / 2])));
    __m512i low = _mm512_packs_epi32(c[0], c[1]), high = _mm512_packs_epi32(c[2], c[3]);
    return _mm512_permutexvar_epi32(in_order, _mm512_packs_epi16(low, high));
}

/* A group in one go: it may be far from the one before, and its line soon gone again. */
FORCE_INLINE void put_group(struct quant_group *q, const int8_t *codes, __m128i fields)
{
    _mm256_storeu_si256((__m256i *)q->codes, _mm256_load_si256((const __m256i *)codes));
    _mm_storeu_si128((__m128i *)&q->scale, fields);
}

/* LANES groups, from `sums` of their quarters, with 8 * 128 too much in each. */
FORCE_INLINE void put_groups(struct quant_group *const to[LANES], const int8_t *codes,
                             const uint16_t *sums, __m512 scale)
{
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const __m512i ones = _mm512_set1_epi16(1), too_much = _mm512_set1_epi32(GROUP / 2 * 128);
    __m512i a = _mm512_madd_epi16(_mm512_load_si512(sums), ones);
    __m512i b = _mm512_madd_epi16(_mm512_load_si512(sums + 2 * LANES), ones);
    __m512i first = _mm512_sub_epi32(too_much, _mm512_permutex2var_epi32(a, even, b));
    __m512i second = _mm512_sub_epi32(too_much, _mm512_permutex2var_epi32(a, odd, b));
    __m512i less_sum = _mm512_add_epi32(first, second);
    __m512i sum = _mm512_sub_epi32(_mm512_setzero_si512(), less_sum);
    __m512i bits = _mm512_castps_si512(scale);
    __m512i scaled_sum = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
    /* Fields by group to groups by field, four groups in each quarter of a vector. */
    __m512i s0 = _mm512_unpacklo_epi32(bits, scaled_sum);
    __m512i s1 = _mm512_unpackhi_epi32(bits, scaled_sum);
    __m512i l0 = _mm512_unpacklo_epi32(less_sum, first);
    __m512i l1 = _mm512_unpackhi_epi32(less_sum, first);
    __m512i fields[4] = {_mm512_unpacklo_epi64(s0, l0), _mm512_unpackhi_epi64(s0, l0),
                         _mm512_unpacklo_epi64(s1, l1), _mm512_unpackhi_epi64(s1, l1)};
    for (int i = 0; i < 4; i++) {
        put_group(to[i], codes + GROUP * i, _mm512_castsi512_si128(fields[i]));
        put_group(to[4 + i], codes + GROUP * (4 + i), _mm512_extracti32x4_epi32(fields[i], 1));
        put_group(to[8 + i], codes + GROUP * (8 + i), _mm512_extracti32x4_epi32(fields[i], 2));
        put_group(to[12 + i], codes + GROUP * (12 + i), _mm512_extracti32x4_epi32(fields[i], 3));
    }
}

/* n groups, a multiple of LANES. False, and nothing done: one is zeros, or not finite. */
FORCE_INLINE bool quantise_batch(struct quant_group *const to[BATCH], const float *x, size_t n)
{
    const __m512i infinite = _mm512_set1_epi32(0x7f800000), offset = _mm512_set1_epi8((char)0x80);
    const __m512 most = _mm512_set1_ps(127.0f);
    _Alignas(64) uint32_t bits[BATCH];
    _Alignas(64) float inverse[BATCH];
    _Alignas(64) int8_t codes[BATCH * GROUP];
    _Alignas(64) uint16_t sums[4 * BATCH];
    for (size_t i = 0; i < n; i += 4)
        _mm_store_si128((__m128i *)(bits + i), greatest_of_four(x + i * GROUP));
    __mmask16 unusable = 0;
    for (size_t i = 0; i < n; i += LANES) {
        __m512i amax = _mm512_load_si512(bits + i);
        __m512 inverses = _mm512_div_ps(most, _mm512_castsi512_ps(amax));
        unusable |= _mm512_cmpge_epu32_mask(amax, infinite) |
                    _mm512_cmpge_epu32_mask(_mm512_castps_si512(inverses), infinite);
        _mm512_store_ps(inverse + i, inverses);
    }
    if (unusable != 0)
        return false;
    for (size_t i = 0; i < n; i += 2) {
        __m512i two = codes_of_two(x + i * GROUP, inverse + i);
        _mm512_store_si512(codes + i * GROUP, two);
        __m512i eights = _mm512_sad_epu8(_mm512_xor_si512(two, offset), _mm512_setzero_si512());
        _mm_store_si128((__m128i *)(sums + 4 * i), _mm512_cvtepi64_epi16(eights));
    }
    for (size_t i = 0; i < n; i += LANES)
        put_groups(to + i, codes + i * GROUP, sums + 4 * i,
                   _mm512_div_ps(_mm512_load_ps(bits + i), most));
    return true;
}

void quantise_avx512(const struct quant_rows *to, size_t row, size_t group, const float *x,
                     size_t n_rows, size_t n_groups)
{
    size_t r = 0, g = 0;
    for (size_t left = n_rows * n_groups, n; left > 0; left -= n, x += n * GROUP) {
        struct quant_group *q[BATCH];
        for (n = 0; n < BATCH && n < left; n++) {
            q[n] = quant_at(to, row + r, group + g);
            if (++g == n_groups) {
                g = 0;
                r++;
            }
        }
        size_t i = n / LANES * LANES;
        if (!quantise_batch(q, x, i))
            i = 0;
        for (; i < n; i++)
            quantise_group(q[i], x + i * GROUP);
    }
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

FORCE_INLINE void silu_mul_lanes(float *y, const float *gate, const float *up, __mmask16 lanes)
{
    const __m512 one = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-0.0f);
    __m512 g = _mm512_maskz_loadu_ps(lanes, gate);
    __m512 divisor = _mm512_add_ps(one, exact_expf_avx512(_mm512_xor_ps(g, minus)));
    __m512 v = _mm512_mul_ps(_mm512_div_ps(g, divisor), _mm512_maskz_loadu_ps(lanes, up));
    _mm512_mask_storeu_ps(y, lanes, v);
}

void silu_mul_avx512(float *y, const float *gate, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        silu_mul_lanes(y + i, gate + i, up + i, first_lanes(16));
    if (i < n)
        silu_mul_lanes(y + i, gate + i, up + i, first_lanes((long)(n - i)));
}

FORCE_INLINE void rotate_halves_lanes(float *head, const float *turn, int n_pairs, __mmask16 lanes)
{
    __m512 a = _mm512_maskz_loadu_ps(lanes, head);
    __m512 b = _mm512_maskz_loadu_ps(lanes, head + n_pairs);
    __m512 c = _mm512_maskz_loadu_ps(lanes, turn);
    __m512 s = _mm512_maskz_loadu_ps(lanes, turn + n_pairs);
    _mm512_mask_storeu_ps(head, lanes, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
    _mm512_mask_storeu_ps(head + n_pairs, lanes, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
}

static void rotate_halves(float *head, const float *turn, int n_pairs)
{
    int i = 0;
    for (; i + 16 <= n_pairs; i += 16)
        rotate_halves_lanes(head + i, turn + i, n_pairs, first_lanes(16));
    if (i < n_pairs)
        rotate_halves_lanes(head + i, turn + i, n_pairs, first_lanes(n_pairs - i));
}

/* Pairs side by side, 8 to a vector: `other` is each lane's partner, and even lanes subtract. */
FORCE_INLINE void rotate_neighbours_lanes(float *head, const float *turn, int n_pairs,
                                          __mmask16 pairs, __mmask16 lanes)
{
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    __m512 x = _mm512_maskz_loadu_ps(lanes, head);
    __m512 c = _mm512_maskz_loadu_ps(pairs, turn);
    __m512 s = _mm512_maskz_loadu_ps(pairs, turn + n_pairs);
    __m512 other = _mm512_permute_ps(x, 0xb1);
    __m512 product = _mm512_mul_ps(other, _mm512_permutexvar_ps(twice, s));
    __m512 y = _mm512_fmaddsub_ps(x, _mm512_permutexvar_ps(twice, c), product);
    _mm512_mask_storeu_ps(head, lanes, y);
}

static void rotate_neighbours(float *head, const float *turn, int n_pairs)
{
    int i = 0;
    for (; i + 8 <= n_pairs; i += 8)
        rotate_neighbours_lanes(head + 2 * i, turn + i, n_pairs, first_lanes(8), first_lanes(16));
    if (i < n_pairs)
        rotate_neighbours_lanes(head + 2 * i, turn + i, n_pairs, first_lanes(n_pairs - i),
                                first_lanes(2 * (n_pairs - i)));
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
