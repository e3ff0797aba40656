/* Products of quantised weights with AVX2. vpmaddubsw multiplies unsigned by signed bytes and adds
 * neighbours into 16 bits, saturating; every use here stays below saturation, so the sums are
 * ref's:
 *
 *   4 bit  codes 0 … 15: two products <= 3810, so the 16-bit sums of all 8 steps (30480) fit
 *   Q6_K   codes 0 … 63: two products <= 16002, so two steps (32004) fit
 *   Q8_0   |w| * (x with the sign of w), |w| <= 128: two products <= 32512. (The usual
 *          |x| * (w with the sign of x) would be wrong for w = -128, which has no opposite.)
 *          Decoded, the sign costs less: instead of -x, its complement -x - 1, which any unit
 *          computes and vpsignb's do not; the sum of |w| where w is negative makes up for the 1.
 *          Two products are then >= -128 * 128 * 2, which just fits.
 *
 * The offset of the unsigned codes is taken off through the sums of the activations. */
#include "backend/cpu/x86/panel_avx2.h"

enum { TILE = 4, NEGATIVE = 8, START = 16, CODES = 17 };

/* 16-bit pair sums to the 32-bit lanes of the rows. */
FORCE_INLINE __m256i widen(__m256i pairs)
{
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

FORCE_INLINE void decode_q8_0(__m256i code[CODES][HALVES], const struct group *g, int v)
{
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi8(1);
    __m256i pairs = zero;
    UNROLL
    for (int step = 0; step < 8; step++) {
        __m256i w = code_at(g, step, v, PACK_Q8_0), magnitude = _mm256_abs_epi8(w);
        __m256i negative = _mm256_cmpgt_epi8(zero, w);
        code[step][v] = magnitude;
        code[NEGATIVE + step][v] = negative;
        magnitude = _mm256_and_si256(magnitude, negative);
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(magnitude, ones));
    }
    code[START][v] = widen(pairs);
}

FORCE_INLINE void decode_codes(__m256i code[CODES][HALVES], const struct group *g,
                               const enum pack_format format)
{
    UNROLL
    for (int v = 0; v < HALVES; v++) {
        if (format == PACK_Q8_0) {
            decode_q8_0(code, g, v);
            continue;
        }
        UNROLL
        for (int step = 0; step < 8; step++)
            code[step][v] = code_at(g, step, v, format);
    }
}

/* Q8_0 as it is in the panel. */
FORCE_INLINE void signed_sums(__m256i sum[TILE][HALVES], const struct source *w,
                              const struct tile_x *x, const int n)
{
    UNROLL
    for (int step = 0; step < 8; step++) {
        UNROLL
        for (int v = 0; v < HALVES; v++) {
            __m256i code = code_of(w, step, v, PACK_Q8_0), magnitude = _mm256_abs_epi8(code);
            UNROLL
            for (int t = 0; t < n; t++) {
                __m256i four = broadcast4(x->q[t * x->stride].codes + 4 * step);
                __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four, code));
                __m256i wide = widen(pairs);
                sum[t][v] = in_order(step == 0 ? wide : _mm256_add_epi32(sum[t][v], wide));
            }
        }
    }
}

/* Q8_0 decoded. */
FORCE_INLINE void magnitude_sums(__m256i sum[TILE][HALVES], const __m256i (*code)[HALVES],
                                 const struct tile_x *x, const int n)
{
    UNROLL
    for (int step = 0; step < 8; step++) {
        UNROLL
        for (int t = 0; t < n; t++) {
            __m256i four = broadcast4(x->q[t * x->stride].codes + 4 * step);
            UNROLL
            for (int v = 0; v < HALVES; v++) {
                __m256i turned = _mm256_xor_si256(four, code[NEGATIVE + step][v]);
                __m256i wide = widen(_mm256_maddubs_epi16(code[step][v], turned));
                sum[t][v] =
                    in_order(_mm256_add_epi32(step == 0 ? code[START][v] : sum[t][v], wide));
            }
        }
    }
}

/* 16-bit sums of all steps of codes 0 … 15. */
FORCE_INLINE void nibble_sums(__m256i sum[TILE][HALVES], const struct source *w,
                              const struct tile_x *x, const int n)
{
    UNROLL
    for (int i = 0; i < 8; i++) {
        int step = i / 2 + 4 * (i & 1); /* both codes of a byte together */
        __m256i code[HALVES];
        UNROLL
        for (int v = 0; v < HALVES; v++)
            code[v] = code_of(w, step, v, PACK_Q4_0);
        UNROLL
        for (int t = 0; t < n; t++) {
            __m256i four = broadcast4(x->q[t * x->stride].codes + 4 * step);
            UNROLL
            for (int v = 0; v < HALVES; v++) {
                __m256i pairs = _mm256_maddubs_epi16(code[v], four);
                sum[t][v] = in_order(i == 0 ? pairs : _mm256_add_epi16(sum[t][v], pairs));
            }
        }
    }
}

/* Half a group of codes 0 … 63. */
FORCE_INLINE void six_bit_sums(__m256i sum[TILE][HALVES], const struct source *w, int half,
                               const struct tile_x *x, const int n)
{
    UNROLL
    for (int i = 0; i < 2; i++) {
        int step = 4 * half + 2 * i;
        UNROLL
        for (int v = 0; v < HALVES; v++) {
            __m256i first = code_of(w, step, v, PACK_Q6_K);
            __m256i second = code_of(w, step + 1, v, PACK_Q6_K);
            UNROLL
            for (int t = 0; t < n; t++) {
                const int8_t *codes = x->q[t * x->stride].codes + 4 * step;
                __m256i a = _mm256_maddubs_epi16(first, broadcast4(codes));
                __m256i b = _mm256_maddubs_epi16(second, broadcast4(codes + 4));
                __m256i wide = widen(_mm256_add_epi16(a, b));
                sum[t][v] = in_order(i == 0 ? wide : _mm256_add_epi32(sum[t][v], wide));
            }
        }
    }
}

FORCE_INLINE void tile_sums(__m256i sum[TILE][HALVES], const struct source *w, int half,
                            const struct tile_x *x, const int n, const enum pack_format format)
{
    if (format == PACK_Q8_0) {
        if (w->code == NULL)
            signed_sums(sum, w, x, n);
        else
            magnitude_sums(sum, w->code, x, n);
        return;
    }
    if (format == PACK_Q6_K)
        six_bit_sums(sum, w, half, x, n);
    else
        nibble_sums(sum, w, x, n);
    UNROLL
    for (int t = 0; t < n; t++) {
        UNROLL
        for (int v = 0; v < HALVES; v++) {
            if (format != PACK_Q6_K)
                sum[t][v] = widen(sum[t][v]);
            if (format != PACK_Q4_K)
                sum[t][v] =
                    _mm256_add_epi32(sum[t][v], offset_start(x->q + t * x->stride, half, format));
        }
    }
}

#include "backend/cpu/x86/matmul_256.h"

void matmul_q8_0_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_256(m, panel_begin, panel_end, PACK_Q8_0);
}

void matmul_q4_0_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_256(m, panel_begin, panel_end, PACK_Q4_0);
}

void matmul_q4_k_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_256(m, panel_begin, panel_end, PACK_Q4_K);
}

void matmul_q6_k_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_256(m, panel_begin, panel_end, PACK_Q6_K);
}
