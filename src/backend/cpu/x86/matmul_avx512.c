/* Products of quantised weights with AVX-512 VNNI. vpdpbusd adds, in each 32-bit lane, four
 * products of unsigned by signed bytes: one step of the panel (pack.h) against four activations of
 * a token that are broadcast to all lanes. The unsigned side is the weight code plus an offset (128
 * for Q8_0, 8 for Q4_0, 32 for Q6_K); the sum therefore starts at -offset times the sum of the
 * activations, which quantising left behind, and integer arithmetic makes the result exactly ref's.
 *
 * A tile is one panel by up to 8 tokens: the 8 steps of a group are decoded into registers once and
 * used for every token. */
#include "backend/cpu/x86/avx512_impl.h"

enum { TILE = 8, PREFETCH_BYTES = 4096 };

/* One group of a panel, decoded. */
struct group {
    __m512i code[8]; /* unsigned bytes [16 rows][4], by step */
    __m512i half[2]; /* Q6_K: scales of the two halves */
    __m512 scale;
};

FORCE_INLINE __m512 scales_of(const uint8_t *panel, const struct packed *w, size_t block)
{
    const uint8_t *at = panel + w->scales_at + block * PANEL_ROWS * 2;
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)at));
}

FORCE_INLINE void decode_q8_0(struct group *r, const uint8_t *codes)
{
    UNROLL
    for (int step = 0; step < 8; step++)
        r->code[step] =
            _mm512_xor_si512(_mm512_load_si512(codes + 64 * step), _mm512_set1_epi8((char)0x80));
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

FORCE_INLINE void decode_q6_k(struct group *r, const uint8_t *codes, const uint8_t *halves)
{
    const __m512i two_bits = _mm512_set1_epi8(0x30);
    decode_nibbles(r, codes);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m512i high = _mm512_load_si512(codes + Q4_GROUP_BYTES + 64 * h);
        r->code[h] =
            _mm512_or_si512(r->code[h], _mm512_and_si512(_mm512_slli_epi16(high, 4), two_bits));
        r->code[h + 2] =
            _mm512_or_si512(r->code[h + 2], _mm512_and_si512(_mm512_slli_epi16(high, 2), two_bits));
        r->code[h + 4] = _mm512_or_si512(r->code[h + 4], _mm512_and_si512(high, two_bits));
        r->code[h + 6] =
            _mm512_or_si512(r->code[h + 6], _mm512_and_si512(_mm512_srli_epi16(high, 2), two_bits));
        r->half[h] =
            _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i *)(halves + PANEL_ROWS * h)));
    }
}

FORCE_INLINE void decode(struct group *r, const struct packed *w, const uint8_t *panel, size_t g,
                         const enum pack_format format)
{
    if (format == PACK_Q8_0)
        decode_q8_0(r, panel + g * Q8_GROUP_BYTES);
    else if (format == PACK_Q4_0)
        decode_nibbles(r, panel + g * Q4_GROUP_BYTES);
    else
        decode_q6_k(r, panel + g * Q6_GROUP_BYTES, panel + w->halves_at + g * 2 * PANEL_ROWS);
    r->scale = scales_of(panel, w, format == PACK_Q6_K ? g / (SUPER_BLOCK / GROUP) : g);
}

FORCE_INLINE __m512i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

/* start + the products of steps [begin, begin + 4) with 16 activations. */
FORCE_INLINE __m512i dot_half(__m512i start, const struct group *r, int begin, const int8_t *x)
{
    UNROLL
    for (int step = 0; step < 4; step++)
        start = _mm512_dpbusd_epi32(start, r->code[begin + step], broadcast4(x + 4 * step));
    return start;
}

/* The integer sum of one group with one token's codes. */
FORCE_INLINE __m512i dot_group(const struct group *r, const int8_t *x, const int32_t *sums,
                               const enum pack_format format)
{
    if (format == PACK_Q6_K) {
        __m512i a = dot_half(_mm512_set1_epi32(-32 * sums[0]), r, 0, x);
        __m512i b = dot_half(_mm512_set1_epi32(-32 * sums[1]), r, 4, x + 16);
        return _mm512_add_epi32(_mm512_mullo_epi32(a, r->half[0]),
                                _mm512_mullo_epi32(b, r->half[1]));
    }
    int32_t offset = (format == PACK_Q8_0 ? -128 : -8) * (sums[0] + sums[1]);
    __m512i a = dot_half(_mm512_set1_epi32(offset), r, 0, x);
    __m512i b = dot_half(_mm512_setzero_si512(), r, 4, x + 16);
    return _mm512_add_epi32(a, b);
}

/* Ask for the codes of the group PREFETCH_BYTES ahead. With several tokens a group takes long
 * enough that the processor's own prefetcher stops early; with one it keeps up, and asking costs
 * more. */
FORCE_INLINE void prefetch(const uint8_t *panel, size_t g, const enum pack_format format)
{
    const size_t bytes = format == PACK_Q8_0   ? Q8_GROUP_BYTES
                         : format == PACK_Q4_0 ? Q4_GROUP_BYTES
                                               : Q6_GROUP_BYTES;
    UNROLL
    for (size_t line = 0; line < bytes; line += 64)
        _mm_prefetch((const char *)panel + g * bytes + PREFETCH_BYTES + line, _MM_HINT_T0);
}

/* One panel by n_tokens (a constant) tokens from t. */
FORCE_INLINE void tile(const struct matmul *m, int panel_i, int t, const int n_tokens,
                       const enum pack_format format)
{
    const struct packed *w = m->w;
    const uint8_t *panel = packed_panel(w, panel_i);
    size_t n_groups = (size_t)(w->n_cols / GROUP);
    int n_blocks = packed_n_blocks(w), groups_per_block = packed_block(w) / GROUP;
    const struct quant_group *x = m->q + (size_t)t * n_groups;
    __m512 section[K_SECTIONS][TILE];

    for (int s = 0; s < K_SECTIONS; s++) {
        size_t end = (size_t)section_begin(n_blocks, s + 1) * groups_per_block;
        __m512 acc[TILE];
        UNROLL
        for (int i = 0; i < n_tokens; i++)
            acc[i] = _mm512_setzero_ps();
        for (size_t g = (size_t)section_begin(n_blocks, s) * groups_per_block; g < end; g++) {
            struct group r;
            decode(&r, w, panel, g, format);
            if (n_tokens > 1)
                prefetch(panel, g, format);
            UNROLL
            for (int i = 0; i < n_tokens; i++) {
                const struct quant_group *q = x + i * n_groups + g;
                __m512i sum = dot_group(&r, q->codes, q->sums, format);
                __m512 scale = _mm512_mul_ps(r.scale, _mm512_set1_ps(q->scale));
                acc[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, acc[i]);
            }
        }
        UNROLL
        for (int i = 0; i < n_tokens; i++)
            section[s][i] = acc[i];
    }
    __mmask16 rows = first_lanes(w->n_rows - panel_i * PANEL_ROWS);
    for (int i = 0; i < n_tokens; i++)
        _mm512_mask_storeu_ps(m->y + (size_t)(t + i) * m->y_stride + panel_i * PANEL_ROWS, rows,
                              section_tree_avx512(&section[0][i], TILE));
}

FORCE_INLINE void tiles(const struct matmul *m, int panel_begin, int panel_end,
                        const enum pack_format format)
{
    for (int block = 0; block < m->n; block += TOKEN_BLOCK) {
        int end = block + TOKEN_BLOCK < m->n ? block + TOKEN_BLOCK : m->n;
        for (int panel_i = panel_begin; panel_i < panel_end; panel_i++) {
            int t = block;
            for (; t + 8 <= end; t += 8)
                tile(m, panel_i, t, 8, format);
            if (end - t >= 4) {
                tile(m, panel_i, t, 4, format);
                t += 4;
            }
            if (end - t >= 2) {
                tile(m, panel_i, t, 2, format);
                t += 2;
            }
            if (end - t >= 1)
                tile(m, panel_i, t, 1, format);
        }
    }
}

void matmul_q8_0_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_Q8_0);
}

void matmul_q4_0_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_Q4_0);
}

void matmul_q6_k_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_Q6_K);
}
