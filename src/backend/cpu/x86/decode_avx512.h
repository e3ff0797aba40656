/* Packed groups (pack.h) into registers: unsigned codes by step, and f32 scales. Every scale is
 * exact: an f16 times an integer of at most 8 bits. */
#ifndef SHOAL_BACKEND_CPU_X86_DECODE_AVX512_H
#define SHOAL_BACKEND_CPU_X86_DECODE_AVX512_H

#include "backend/cpu/x86/avx512_impl.h"

/* Loads before it stay before it: the prefetcher follows addresses that rise. */
#define KEEP_ORDER __asm__ volatile("" ::: "memory")

/* One group of 16 rows. */
struct group {
    __m512i code[8]; /* unsigned bytes [16 rows][4], by step */
    __m512 scale[2]; /* of each half; [1] only Q6_K */
    __m512 min;      /* Q4_K */
};

FORCE_INLINE __m512 halves_at(const uint8_t *at)
{
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)at));
}

FORCE_INLINE void decode_nibbles(struct group *r, const uint8_t *codes)
{
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL
    for (int step = 0; step < 4; step++) {
        __m512i pair = _mm512_load_si512(codes + 64 * step);
        r->code[step] = _mm512_and_si512(pair, low);
        r->code[step + 4] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
    }
}

/* `pair` is 0 or 1: which group of the block. */
FORCE_INLINE void decode_q8_0(struct group *r, const uint8_t *block, int pair)
{
    const uint8_t *codes = block + PAIR_CODES_AT + pair * Q8_GROUP_BYTES;
    UNROLL
    for (int step = 0; step < 8; step++)
        r->code[step] =
            _mm512_xor_si512(_mm512_load_si512(codes + 64 * step), _mm512_set1_epi8((char)0x80));
    r->scale[0] = halves_at(block + pair * 2 * PANEL_ROWS);
}

FORCE_INLINE void decode_q4_0(struct group *r, const uint8_t *block, int pair)
{
    decode_nibbles(r, block + PAIR_CODES_AT + pair * Q4_GROUP_BYTES);
    r->scale[0] = halves_at(block + pair * 2 * PANEL_ROWS);
}

/* The scales and minima of a block of Q4_K, 0 … 63 each. */
struct q4_k_scales {
    _Alignas(64) uint8_t scale[8][PANEL_ROWS], min[8][PANEL_ROWS];
};

FORCE_INLINE void unpack_q4_k_scales(struct q4_k_scales *s, const uint8_t *block)
{
    const __m512i four = _mm512_set1_epi8(15), two = _mm512_set1_epi8(0x30);
    /* Bytes of `high` hold groups 2j (low nibble) and 2j + 1: make them [group][row] as `low` is.
     */
    const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    const __m512i second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    __m512i high = _mm512_load_si512(block + Q4_K_HIGH_AT);
    __m512i even = _mm512_slli_epi16(high, 4); /* bits 4, 5: scale, 6, 7: minimum */
    UNROLL
    for (int half = 0; half < 2; half++) {
        __m512i low = _mm512_load_si512(block + Q4_K_LOW_AT + 64 * half);
        __m512i top = _mm512_permutex2var_epi64(even, half ? second : first, high);
        __m512i scale = _mm512_or_si512(_mm512_and_si512(low, four), _mm512_and_si512(top, two));
        __m512i min = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low, 4), four),
                                      _mm512_and_si512(_mm512_srli_epi16(top, 2), two));
        _mm512_store_si512(s->scale[4 * half], scale);
        _mm512_store_si512(s->min[4 * half], min);
    }
}

/* Bytes 0 … 63 to floats. */
FORCE_INLINE __m512 small_floats(const uint8_t *bytes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)bytes)));
}

FORCE_INLINE void decode_q4_k(struct group *r, const uint8_t *block, const struct q4_k_scales *s,
                              int g)
{
    decode_nibbles(r, block + Q4_K_CODES_AT + g * Q4_GROUP_BYTES);
    r->scale[0] = _mm512_mul_ps(halves_at(block), small_floats(s->scale[g]));
    r->min = _mm512_mul_ps(halves_at(block + 2 * PANEL_ROWS), small_floats(s->min[g]));
}

/* Four steps from three vectors of six bits and two. */
FORCE_INLINE void decode_six_bits(__m512i code[4], const uint8_t *half)
{
    const __m512i six = _mm512_set1_epi8(63);
    const int select = 0xca; /* ternary: first ? second : third, bit by bit */
    __m512i a = _mm512_load_si512(half), b = _mm512_load_si512(half + 64);
    __m512i c = _mm512_load_si512(half + 128);
    code[0] = _mm512_and_si512(a, six);
    code[1] = _mm512_and_si512(b, six);
    code[2] = _mm512_and_si512(c, six);
    __m512i top = _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x30), _mm512_srli_epi16(a, 2),
                                            _mm512_srli_epi16(b, 4), select);
    top = _mm512_ternarylogic_epi32(_mm512_set1_epi8(3), _mm512_srli_epi16(c, 6), top, select);
    code[3] = _mm512_and_si512(top, six);
}

FORCE_INLINE void decode_q6_k(struct group *r, const uint8_t *block, int g)
{
    const uint8_t *codes = block + q6_k_codes_at(g), *scales = block + q6_k_scales_at(g);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m128i bytes = _mm_load_si128((const __m128i *)(scales + h * PANEL_ROWS));
        r->scale[h] =
            _mm512_mul_ps(halves_at(block), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
    }
    KEEP_ORDER;
    decode_six_bits(r->code, codes);
    KEEP_ORDER;
    decode_six_bits(r->code + 4, codes + Q6_HALF_BYTES);
}

/* A block of a panel, with what all its groups need. */
struct block {
    const uint8_t *at;
    struct q4_k_scales scales; /* Q4_K */
};

FORCE_INLINE void open_block(struct block *b, const uint8_t *at, const enum pack_format format)
{
    b->at = at;
    if (format == PACK_Q4_K)
        unpack_q4_k_scales(&b->scales, at);
}

/* Group i of a block; `format` is a constant. */
FORCE_INLINE void decode(struct group *r, const struct block *b, int i,
                         const enum pack_format format)
{
    switch (format) {
    case PACK_Q8_0: decode_q8_0(r, b->at, i); break;
    case PACK_Q4_0: decode_q4_0(r, b->at, i); break;
    case PACK_Q4_K: decode_q4_k(r, b->at, &b->scales, i); break;
    default: decode_q6_k(r, b->at, i); break;
    }
}

/* What stands in an accumulator before the products: the offset that made the codes unsigned, times
 * minus the sum of a half's activations (or of both halves). */
FORCE_INLINE __m512i offset_start(const struct quant_group *x, int half,
                                  const enum pack_format format)
{
    __m512i all = _mm512_set1_epi32(x->less_sum), first = _mm512_set1_epi32(x->less_first);
    switch (format) {
    case PACK_Q8_0: return _mm512_slli_epi32(all, 7);
    case PACK_Q4_0: return _mm512_slli_epi32(all, 3);
    case PACK_Q6_K: return _mm512_slli_epi32(half ? _mm512_sub_epi32(all, first) : first, 5);
    default: return _mm512_setzero_si512();
    }
}

FORCE_INLINE __m512i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

#endif
