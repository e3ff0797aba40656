/* Products of quantised weights with AVX2. vpmaddubsw multiplies unsigned by signed bytes and adds
 * neighbours into 16 bits, saturating; every use here stays below saturation, so the sums are
 * ref's:
 *
 *   Q8_0   |w| * (x with the sign of w): |w| <= 128, |x| <= 127: two products <= 32512
 *   4 bit  codes 0 … 15: two products <= 3810, so the 16-bit sums of all 8 steps (30480) fit
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
    __m256 scale[2]; /* of each half; [1] only Q6_K */
    __m256 min;      /* Q4_K */
};

FORCE_INLINE __m256i load(const uint8_t *at)
{
    return _mm256_load_si256((const __m256i *)at);
}

FORCE_INLINE __m256 halves_at(const uint8_t *at)
{
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)at));
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

/* Codes and scales of the 8 rows from `first`; `pair` is 0 or 1: which group of the block. */
FORCE_INLINE void decode_pair(struct group *r, const uint8_t *block, int first, int pair,
                              const enum pack_format format)
{
    r->scale[0] = halves_at(block + 2 * (pair * PANEL_ROWS + first));
    if (format == PACK_Q4_0) {
        decode_nibbles(r, block + PAIR_CODES_AT + pair * Q4_GROUP_BYTES + 4 * first);
        return;
    }
    UNROLL
    for (int step = 0; step < 8; step++)
        r->code[step] = load(block + PAIR_CODES_AT + pair * Q8_GROUP_BYTES + 64 * step + 4 * first);
}

/* Bytes 0 … 63 to floats. */
FORCE_INLINE __m256 small_floats(__m128i bytes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

FORCE_INLINE void decode_q4_k(struct group *r, const uint8_t *block, int first, int g)
{
    const __m128i four = _mm_set1_epi8(15), two = _mm_set1_epi8(0x30);
    const uint8_t *at = block + Q4_K_HIGH_AT + g / 2 * PANEL_ROWS + first;
    __m128i low = _mm_loadl_epi64((const __m128i *)(block + Q4_K_LOW_AT + g * PANEL_ROWS + first));
    __m128i high = _mm_loadl_epi64((const __m128i *)at);
    __m128i nibble = g & 1 ? _mm_srli_epi16(high, 4) : high;
    __m128i scale =
        _mm_or_si128(_mm_and_si128(low, four), _mm_and_si128(_mm_slli_epi16(nibble, 4), two));
    __m128i min = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(low, 4), four),
                               _mm_and_si128(_mm_slli_epi16(nibble, 2), two));
    decode_nibbles(r, block + Q4_K_CODES_AT + g * Q4_GROUP_BYTES + 4 * first);
    r->scale[0] = _mm256_mul_ps(halves_at(block + 2 * first), small_floats(scale));
    r->min = _mm256_mul_ps(halves_at(block + 2 * (PANEL_ROWS + first)), small_floats(min));
}

FORCE_INLINE void decode_q6_k(struct group *r, const uint8_t *block, int first, int g)
{
    const __m256i two_bits = _mm256_set1_epi8(0x30);
    const uint8_t *codes = block + Q6_K_CODES_AT + g * Q6_GROUP_BYTES + 4 * first;
    const uint8_t *scales = block + Q6_K_SCALES_AT + g * 2 * PANEL_ROWS + first;
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
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(scales + h * PANEL_ROWS));
        r->scale[h] = _mm256_mul_ps(halves_at(block + 2 * first),
                                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
    }
}

/* Rows [first, first + 8) of a panel, group g; `format` is a constant. */
FORCE_INLINE void decode(struct group *r, const struct packed *w, const uint8_t *panel, int first,
                         size_t g, const enum pack_format format)
{
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    const uint8_t *block = panel + g / per_block * w->block_bytes;
    int i = (int)(g % per_block);
    if (format == PACK_Q4_K)
        decode_q4_k(r, block, first, i);
    else if (format == PACK_Q6_K)
        decode_q6_k(r, block, first, i);
    else
        decode_pair(r, block, first, i, format);
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

/* Codes 0 … 15, without their offset. */
FORCE_INLINE __m256i dot_nibbles(const struct group *r, const int8_t *x)
{
    __m256i pairs = _mm256_setzero_si256();
    UNROLL
    for (int step = 0; step < 8; step++)
        pairs =
            _mm256_add_epi16(pairs, _mm256_maddubs_epi16(r->code[step], broadcast4(x + 4 * step)));
    return widen(pairs);
}

/* The half that begins at step `begin`; `less_sum`: minus the sum of its activations. */
FORCE_INLINE __m256i dot_q6_k(const struct group *r, int begin, const int8_t *x, int32_t less_sum)
{
    __m256i sum = _mm256_set1_epi32(32 * less_sum);
    UNROLL
    for (int step = begin; step < begin + 4; step += 2) {
        __m256i a = _mm256_maddubs_epi16(r->code[step], broadcast4(x + 4 * step));
        __m256i b = _mm256_maddubs_epi16(r->code[step + 1], broadcast4(x + 4 * step + 4));
        sum = _mm256_add_epi32(sum, widen(_mm256_add_epi16(a, b)));
    }
    return sum;
}

FORCE_INLINE __m256 scaled(__m256i sum, __m256 scale, __m256 x_scale, __m256 acc)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scale, x_scale), acc);
}

/* acc + one group. */
FORCE_INLINE __m256 add_group(__m256 acc, const struct group *r, const struct quant_group *x,
                              const enum pack_format format)
{
    __m256 x_scale = _mm256_set1_ps(x->scale);
    switch (format) {
    case PACK_Q8_0: return scaled(dot_q8_0(r, x->codes), r->scale[0], x_scale, acc);
    case PACK_Q4_0: {
        __m256i sum =
            _mm256_add_epi32(dot_nibbles(r, x->codes), _mm256_set1_epi32(8 * x->less_sum));
        return scaled(sum, r->scale[0], x_scale, acc);
    }
    case PACK_Q4_K:
        acc = scaled(dot_nibbles(r, x->codes), r->scale[0], x_scale, acc);
        return _mm256_fnmadd_ps(r->min, _mm256_set1_ps(x->scaled_sum), acc);
    default: {
        __m256i a = dot_q6_k(r, 0, x->codes, x->less_first);
        __m256i b = dot_q6_k(r, 4, x->codes, x->less_sum - x->less_first);
        return scaled(b, r->scale[1], x_scale, scaled(a, r->scale[0], x_scale, acc));
    }
    }
}

/* Rows [first, first + 8) of a panel by n_tokens (a constant) tokens from t. */
FORCE_INLINE void tile(const struct matmul *m, int panel_i, int first, int t, const int n_tokens,
                       const enum pack_format format)
{
    const struct packed *w = m->w;
    const uint8_t *panel = packed_panel(w, panel_i);
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    size_t n_groups = (size_t)(w->n_cols / GROUP);
    int n_blocks = packed_n_blocks(w);
    const struct quant_group *x = m->q + (size_t)t * n_groups;
    __m256 section[K_SECTIONS][TILE];

    for (int s = 0; s < K_SECTIONS; s++) {
        size_t end = (size_t)section_begin(n_blocks, s + 1) * per_block;
        end = end < n_groups ? end : n_groups;
        __m256 acc[TILE];
        UNROLL
        for (int i = 0; i < n_tokens; i++)
            acc[i] = _mm256_setzero_ps();
        for (size_t g = (size_t)section_begin(n_blocks, s) * per_block; g < end; g++) {
            struct group r;
            decode(&r, w, panel, first, g, format);
            UNROLL
            for (int i = 0; i < n_tokens; i++)
                acc[i] = add_group(acc[i], &r, x + i * n_groups + g, format);
        }
        UNROLL
        for (int i = 0; i < n_tokens; i++)
            section[s][i] = acc[i];
    }
    int row = panel_i * PANEL_ROWS + first;
    for (int i = 0; i < n_tokens; i++)
        store_rows_avx2(m, row, t + i, section_tree_avx2(&section[0][i], TILE));
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

void matmul_q4_k_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_Q4_K);
}

void matmul_q6_k_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_Q6_K);
}
