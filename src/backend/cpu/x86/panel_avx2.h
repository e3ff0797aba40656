/* Packed groups (pack.h) into registers, for kernels whose vectors hold 8 of a panel's 16 rows:
 * vector v is rows 8v … 8v + 7. Codes come one vector at a time, in the order in which they are
 * used, because 16 registers do not hold a group. Every scale is exact: an f16 times an integer of
 * at most 8 bits. */
#ifndef SHOAL_BACKEND_CPU_X86_PANEL_AVX2_H
#define SHOAL_BACKEND_CPU_X86_PANEL_AVX2_H

#include "backend/cpu/x86/avx2_impl.h"

enum { HALVES = 2, HALF_ROWS = 8 };

/* A group of a panel. */
struct group {
    const uint8_t *block, *codes;
    int i; /* which of the block's groups */
};

/* The scales of a group's 8 rows. */
struct scales {
    __m256 scale[2]; /* of each half of the values; [1] only Q6_K */
    __m256 min;      /* Q4_K */
};

/* Where the codes of a group are read from: decoded, or if that is NULL in the panel. */
struct source {
    const __m256i (*code)[HALVES];
    struct group group;
};

/* The activations of a tile of tokens: a group of the first one. */
struct tile_x {
    const struct quant_group *q;
    size_t stride; /* groups of a token */
};

FORCE_INLINE struct group group_at(const struct packed *w, const uint8_t *panel, size_t g,
                                   const enum pack_format format)
{
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    const uint8_t *block = panel + g / per_block * w->block_bytes;
    int i = (int)(g % per_block);
    switch (format) {
    case PACK_Q8_0: return (struct group){block, block + PAIR_CODES_AT + i * Q8_GROUP_BYTES, i};
    case PACK_Q4_0: return (struct group){block, block + PAIR_CODES_AT + i * Q4_GROUP_BYTES, i};
    case PACK_Q4_K: return (struct group){block, block + Q4_K_CODES_AT + i * Q4_GROUP_BYTES, i};
    default: return (struct group){block, block + q6_k_codes_at(i), i};
    }
}

FORCE_INLINE __m256i load(const uint8_t *at)
{
    return _mm256_load_si256((const __m256i *)at);
}

/* `shift` constant: the two high bits of all bytes, moved down to where `mask` has them. */
FORCE_INLINE __m256i top_bits(const uint8_t *at, int shift, char mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(load(at), shift), _mm256_set1_epi8(mask));
}

FORCE_INLINE __m256i six_bits(const uint8_t *half, int step)
{
    if (step < 3)
        return _mm256_and_si256(load(half + 64 * step), _mm256_set1_epi8(63));
    return _mm256_or_si256(top_bits(half, 2, 0x30), _mm256_or_si256(top_bits(half + 64, 4, 0x0c),
                                                                    top_bits(half + 128, 6, 3)));
}

/* The codes of a step as they are in the file, unsigned but for Q8_0. */
FORCE_INLINE __m256i code_at(const struct group *g, int step, int v, const enum pack_format format)
{
    const uint8_t *at = g->codes + 32 * v;
    if (format == PACK_Q8_0)
        return load(at + 64 * step);
    if (format == PACK_Q6_K)
        return six_bits(at + step / 4 * Q6_HALF_BYTES, step & 3);
    __m256i pair = load(at + 64 * (step & 3));
    return _mm256_and_si256(step & 4 ? _mm256_srli_epi16(pair, 4) : pair, _mm256_set1_epi8(15));
}

FORCE_INLINE __m256i code_of(const struct source *w, int step, int v, const enum pack_format format)
{
    return w->code != NULL ? w->code[step][v] : code_at(&w->group, step, v, format);
}

FORCE_INLINE __m256 halves_at(const uint8_t *at)
{
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)at));
}

FORCE_INLINE __m128i eight_bytes(const uint8_t *at)
{
    return _mm_loadl_epi64((const __m128i *)at);
}

/* Bytes 0 … 63 to floats. */
FORCE_INLINE __m256 small_floats(__m128i bytes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

FORCE_INLINE struct scales scales_q4_k(const struct group *g, int first)
{
    const __m128i four = _mm_set1_epi8(15), two = _mm_set1_epi8(0x30);
    __m128i low = eight_bytes(g->block + Q4_K_LOW_AT + g->i * PANEL_ROWS + first);
    __m128i high = eight_bytes(g->block + Q4_K_HIGH_AT + g->i / 2 * PANEL_ROWS + first);
    high = _mm_srl_epi16(high, _mm_cvtsi32_si128(4 * (g->i & 1)));
    __m128i scale =
        _mm_or_si128(_mm_and_si128(low, four), _mm_and_si128(_mm_slli_epi16(high, 4), two));
    __m128i min = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(low, 4), four),
                               _mm_and_si128(_mm_slli_epi16(high, 2), two));
    const uint8_t *min_at = g->block + 2 * (PANEL_ROWS + first);
    return (struct scales){.scale[0] =
                               _mm256_mul_ps(halves_at(g->block + 2 * first), small_floats(scale)),
                           .min = _mm256_mul_ps(halves_at(min_at), small_floats(min))};
}

FORCE_INLINE struct scales scales_q6_k(const struct group *g, int first)
{
    struct scales s = {.min = _mm256_setzero_ps()};
    const uint8_t *at = g->block + q6_k_scales_at(g->i) + first;
    __m256 block = halves_at(g->block + 2 * first);
    UNROLL
    for (int half = 0; half < 2; half++) {
        __m256i whole = _mm256_cvtepi8_epi32(eight_bytes(at + half * PANEL_ROWS));
        s.scale[half] = _mm256_mul_ps(block, _mm256_cvtepi32_ps(whole));
    }
    return s;
}

FORCE_INLINE struct scales scales_at(const struct group *g, int v, const enum pack_format format)
{
    int first = HALF_ROWS * v;
    if (format == PACK_Q4_K)
        return scales_q4_k(g, first);
    if (format == PACK_Q6_K)
        return scales_q6_k(g, first);
    return (struct scales){.scale[0] = halves_at(g->block + 2 * (g->i * PANEL_ROWS + first))};
}

/* What stands in the sum of a half's products (all of a group's but for Q6_K) before they are
 * added: the offset that makes codes unsigned, times minus the sum of the activations. */
FORCE_INLINE __m256i offset_start(const struct quant_group *x, int half,
                                  const enum pack_format format)
{
    __m256i all = _mm256_set1_epi32(x->less_sum), first = _mm256_set1_epi32(x->less_first);
    switch (format) {
    case PACK_Q8_0: return _mm256_slli_epi32(all, 7);
    case PACK_Q4_0: return _mm256_slli_epi32(all, 3);
    case PACK_Q6_K: return _mm256_slli_epi32(half ? _mm256_sub_epi32(all, first) : first, 5);
    default: return _mm256_setzero_si256();
    }
}

/* A sum that grows step by step: gcc would regroup a chain of additions into a tree, whose leaves
 * the registers do not hold. */
FORCE_INLINE __m256i in_order(__m256i sum)
{
    __asm__("" : "+x"(sum));
    return sum;
}

FORCE_INLINE __m256i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

#endif
