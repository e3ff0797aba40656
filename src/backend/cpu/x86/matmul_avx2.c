/* Products of quantised weights with AVX2. vpmaddubsw multiplies unsigned by signed bytes and adds
 * neighbours into 16 bits, saturating; every use here stays below saturation, so the sums are
 * ref's:
 *
 *   Q8_0   |w| * (x with the sign of w): |w| <= 128, |x| <= 127: two products <= 32512
 *   Q4_0   codes 0 … 15: two products <= 3810, so the 16-bit sums of all 8 steps (30480) fit
 *   Q6_K   codes 0 … 63: two products <= 16002, so two steps (32004) fit
 *
 * The offset of the unsigned codes (8, 32) is taken off through the sums of the activations. (The
 * usual |x| * (w with the sign of x) would be wrong for w = -128, which has no opposite.)
 *
 * A tile is half a panel (8 rows, one vector) by up to 4 tokens. */
#include "backend/cpu/x86/avx2_impl.h"

enum { TILE = 4, HALF_ROWS = 8 };

/* One group of 8 rows: signed codes of Q8_0, unsigned of the others. */
struct group {
    __m256i code[8];
    __m256i half[2]; /* Q6_K: scales of the two halves */
    __m256 scale;
};

FORCE_INLINE __m256i load(const uint8_t *at)
{
    return _mm256_load_si256((const __m256i *)at);
}

FORCE_INLINE void decode_q8_0(struct group *r, const uint8_t *codes)
{
    UNROLL
    for (int step = 0; step < 8; step++)
        r->code[step] = load(codes + 64 * step);
}

FORCE_INLINE void decode_nibbles(struct group *r, const uint8_t *codes)
{
    const __m256i low = _mm256_set1_epi8(15);
    UNROLL
    for (int step = 0; step < 4; step++) {
        __m256i pair = load(codes + 64 * step);
        r->code[step] = _mm256_and_si256(pair, low);
        r->code[step + 4] = _mm256_and_si256(_mm256_srli_epi16(pair, 4), low);
    }
}

FORCE_INLINE void decode_q6_k(struct group *r, const uint8_t *codes, const uint8_t *halves)
{
    const __m256i two_bits = _mm256_set1_epi8(0x30);
    decode_nibbles(r, codes);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m256i high = load(codes + Q4_GROUP_BYTES + 64 * h);
        __m256i bits[4] = {_mm256_slli_epi16(high, 4), _mm256_slli_epi16(high, 2), high,
                           _mm256_srli_epi16(high, 2)};
        UNROLL
        for (int j = 0; j < 4; j++)
            r->code[h + 2 * j] =
                _mm256_or_si256(r->code[h + 2 * j], _mm256_and_si256(bits[j], two_bits));
        r->half[h] =
            _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(halves + PANEL_ROWS * h)));
    }
}

/* Rows [first, first + 8) of a panel, group g. */
FORCE_INLINE void decode(struct group *r, const struct packed *w, const uint8_t *panel, int first,
                         size_t g, const enum pack_format format)
{
    size_t block = format == PACK_Q6_K ? g / (SUPER_BLOCK / GROUP) : g;
    const uint8_t *scale = panel + w->scales_at + (block * PANEL_ROWS + first) * 2;
    r->scale = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)scale));
    if (format == PACK_Q8_0)
        decode_q8_0(r, panel + g * Q8_GROUP_BYTES + 4 * first);
    else if (format == PACK_Q4_0)
        decode_nibbles(r, panel + g * Q4_GROUP_BYTES + 4 * first);
    else
        decode_q6_k(r, panel + g * Q6_GROUP_BYTES + 4 * first,
                    panel + w->halves_at + g * 2 * PANEL_ROWS + first);
}

FORCE_INLINE __m256i broadcast4(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

/* 16-bit pair sums to the 32-bit lanes of the rows. */
FORCE_INLINE __m256i widen(__m256i pairs)
{
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

FORCE_INLINE __m256i dot_q8_0(const struct group *r, const int8_t *x)
{
    __m256i sum = _mm256_setzero_si256();
    UNROLL
    for (int step = 0; step < 8; step++) {
        __m256i w = r->code[step];
        __m256i signed_x = _mm256_sign_epi8(broadcast4(x + 4 * step), w);
        sum = _mm256_add_epi32(sum, widen(_mm256_maddubs_epi16(_mm256_abs_epi8(w), signed_x)));
    }
    return sum;
}

FORCE_INLINE __m256i dot_q4_0(const struct group *r, const int8_t *x, const int32_t *sums)
{
    __m256i pairs = _mm256_setzero_si256();
    UNROLL
    for (int step = 0; step < 8; step++)
        pairs =
            _mm256_add_epi16(pairs, _mm256_maddubs_epi16(r->code[step], broadcast4(x + 4 * step)));
    return _mm256_sub_epi32(widen(pairs), _mm256_set1_epi32(8 * (sums[0] + sums[1])));
}

FORCE_INLINE __m256i dot_q6_k(const struct group *r, const int8_t *x, const int32_t *sums)
{
    __m256i total = _mm256_setzero_si256();
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m256i sum = _mm256_set1_epi32(-32 * sums[h]);
        UNROLL
        for (int step = 4 * h; step < 4 * h + 4; step += 2) {
            __m256i a = _mm256_maddubs_epi16(r->code[step], broadcast4(x + 4 * step));
            __m256i b = _mm256_maddubs_epi16(r->code[step + 1], broadcast4(x + 4 * step + 4));
            sum = _mm256_add_epi32(sum, widen(_mm256_add_epi16(a, b)));
        }
        total = _mm256_add_epi32(total, _mm256_mullo_epi32(sum, r->half[h]));
    }
    return total;
}

FORCE_INLINE __m256i dot_group(const struct group *r, const int8_t *x, const int32_t *sums,
                               const enum pack_format format)
{
    if (format == PACK_Q8_0)
        return dot_q8_0(r, x);
    return format == PACK_Q4_0 ? dot_q4_0(r, x, sums) : dot_q6_k(r, x, sums);
}

/* Rows [first, first + 8) of a panel by n_tokens (a constant) tokens from t. */
FORCE_INLINE void tile(const struct matmul *m, int panel_i, int first, int t, const int n_tokens,
                       const enum pack_format format)
{
    const struct packed *w = m->w;
    const uint8_t *panel = packed_panel(w, panel_i);
    size_t n_groups = (size_t)(w->n_cols / GROUP);
    int n_blocks = packed_n_blocks(w), groups_per_block = packed_block(w) / GROUP;
    const struct quant_group *x = m->q + (size_t)t * n_groups;
    __m256 section[K_SECTIONS][TILE];

    for (int s = 0; s < K_SECTIONS; s++) {
        size_t end = (size_t)section_begin(n_blocks, s + 1) * groups_per_block;
        __m256 acc[TILE];
        UNROLL
        for (int i = 0; i < n_tokens; i++)
            acc[i] = _mm256_setzero_ps();
        for (size_t g = (size_t)section_begin(n_blocks, s) * groups_per_block; g < end; g++) {
            struct group r;
            decode(&r, w, panel, first, g, format);
            UNROLL
            for (int i = 0; i < n_tokens; i++) {
                const struct quant_group *q = x + i * n_groups + g;
                __m256i sum = dot_group(&r, q->codes, q->sums, format);
                __m256 scale = _mm256_mul_ps(r.scale, _mm256_set1_ps(q->scale));
                acc[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, acc[i]);
            }
        }
        UNROLL
        for (int i = 0; i < n_tokens; i++)
            section[s][i] = acc[i];
    }
    int row = panel_i * PANEL_ROWS + first;
    for (int i = 0; i < n_tokens; i++)
        _mm256_maskstore_ps(m->y + (size_t)(t + i) * m->y_stride + row,
                            first_lanes_avx2(w->n_rows - row),
                            section_tree_avx2(&section[0][i], TILE));
}

FORCE_INLINE void tiles(const struct matmul *m, int panel_begin, int panel_end,
                        const enum pack_format format)
{
    for (int block = 0; block < m->n; block += TOKEN_BLOCK) {
        int end = block + TOKEN_BLOCK < m->n ? block + TOKEN_BLOCK : m->n;
        for (int half = 2 * panel_begin; half < 2 * panel_end; half++) {
            int panel_i = half / 2, first = half % 2 * HALF_ROWS, t = block;
            if (panel_i * PANEL_ROWS + first >= m->w->n_rows)
                continue;
            for (; t + 4 <= end; t += 4)
                tile(m, panel_i, first, t, 4, format);
            if (end - t >= 2) {
                tile(m, panel_i, first, t, 2, format);
                t += 2;
            }
            if (end - t >= 1)
                tile(m, panel_i, first, t, 1, format);
        }
    }
}

void matmul_q8_0_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_Q8_0);
}

void matmul_q4_0_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_Q4_0);
}

void matmul_q6_k_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_Q6_K);
}
