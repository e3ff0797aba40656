/* Products of F32, F16 and BF16 weights with AVX2: one row is one lane of two vectors, k goes in
 * order, one fma each. Up to 4 tokens go together; with one, two sections of k run side by side, so
 * that four chains of additions hide each other's latency. */
#include "backend/cpu/x86/avx2_impl.h"

enum { TILE = 4 };

struct column {
    __m256 low, high; /* rows 0 … 7, 8 … 15 */
};

FORCE_INLINE __m256 widen_bf16(const uint8_t *at)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_load_si128((const __m128i *)at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

/* The 16 weights of column k. */
FORCE_INLINE struct column column(const uint8_t *panel, size_t k, const enum pack_format format)
{
    if (format == PACK_F32) {
        const float *at = (const float *)(panel + k * 64);
        return (struct column){_mm256_load_ps(at), _mm256_load_ps(at + 8)};
    }
    const uint8_t *at = panel + k * 32;
    if (format == PACK_BF16)
        return (struct column){widen_bf16(at), widen_bf16(at + 16)};
    return (struct column){_mm256_cvtph_ps(_mm_load_si128((const __m128i *)at)),
                           _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(at + 16)))};
}

/* Columns of section s: [*begin, *end). */
FORCE_INLINE void section_columns(const struct packed *w, int s, size_t *begin, size_t *end)
{
    int n_blocks = packed_n_blocks(w);
    size_t after = (size_t)section_begin(n_blocks, s + 1) * GROUP;
    *begin = (size_t)section_begin(n_blocks, s) * GROUP;
    *end = after < (size_t)w->n_cols ? after : (size_t)w->n_cols;
}

FORCE_INLINE void step(struct column *acc, struct column w, float x)
{
    __m256 value = _mm256_set1_ps(x);
    acc->low = _mm256_fmadd_ps(w.low, value, acc->low);
    acc->high = _mm256_fmadd_ps(w.high, value, acc->high);
}

FORCE_INLINE void store_rows(const struct matmul *m, int panel_i, int t, __m256 low, __m256 high)
{
    store_rows_avx2(m, panel_i * PANEL_ROWS, t, low);
    if (m->w->n_rows - panel_i * PANEL_ROWS > 8)
        store_rows_avx2(m, panel_i * PANEL_ROWS + 8, t, high);
}

FORCE_INLINE void tile(const struct matmul *m, int panel_i, int t, const int n_tokens,
                       const enum pack_format format)
{
    const uint8_t *panel = packed_panel(m->w, panel_i);
    size_t n_cols = (size_t)m->w->n_cols;
    const float *x = m->x + (size_t)t * n_cols;
    __m256 low[K_SECTIONS][TILE], high[K_SECTIONS][TILE];
    for (int s = 0; s < K_SECTIONS; s++) {
        size_t begin, end;
        section_columns(m->w, s, &begin, &end);
        struct column acc[TILE];
        UNROLL
        for (int i = 0; i < n_tokens; i++)
            acc[i].low = acc[i].high = _mm256_setzero_ps();
        for (size_t k = begin; k < end; k++) {
            struct column w = column(panel, k, format);
            UNROLL
            for (int i = 0; i < n_tokens; i++)
                step(&acc[i], w, x[i * n_cols + k]);
        }
        UNROLL
        for (int i = 0; i < n_tokens; i++) {
            low[s][i] = acc[i].low;
            high[s][i] = acc[i].high;
        }
    }
    for (int i = 0; i < n_tokens; i++)
        store_rows(m, panel_i, t + i, section_tree_avx2(&low[0][i], TILE),
                   section_tree_avx2(&high[0][i], TILE));
}

/* One panel by one token, sections s and s + 1 side by side as far as the shorter reaches. */
FORCE_INLINE void one_token(const struct matmul *m, int panel_i, int t,
                            const enum pack_format format)
{
    const uint8_t *panel = packed_panel(m->w, panel_i);
    const float *x = m->x + (size_t)t * m->w->n_cols;
    __m256 low[K_SECTIONS], high[K_SECTIONS];
    for (int s = 0; s < K_SECTIONS; s += 2) {
        size_t begin[2], end[2];
        struct column acc[2];
        for (int i = 0; i < 2; i++) {
            section_columns(m->w, s + i, &begin[i], &end[i]);
            acc[i].low = acc[i].high = _mm256_setzero_ps();
        }
        size_t first = end[0] - begin[0], second = end[1] - begin[1];
        size_t common = first < second ? first : second;
        for (size_t j = 0; j < common; j++) {
            step(&acc[0], column(panel, begin[0] + j, format), x[begin[0] + j]);
            step(&acc[1], column(panel, begin[1] + j, format), x[begin[1] + j]);
        }
        for (int i = 0; i < 2; i++) {
            for (size_t k = begin[i] + common; k < end[i]; k++)
                step(&acc[i], column(panel, k, format), x[k]);
            low[s + i] = acc[i].low;
            high[s + i] = acc[i].high;
        }
    }
    store_rows(m, panel_i, t, section_tree_avx2(low, 1), section_tree_avx2(high, 1));
}

FORCE_INLINE void tiles(const struct matmul *m, int panel_begin, int panel_end,
                        const enum pack_format format)
{
    for (int block = 0; block < m->n; block += TOKEN_BLOCK) {
        int end = block + TOKEN_BLOCK < m->n ? block + TOKEN_BLOCK : m->n;
        for (int panel_i = panel_begin; panel_i < panel_end; panel_i++) {
            int t = block;
            for (; t + 4 <= end; t += 4)
                tile(m, panel_i, t, 4, format);
            if (end - t >= 2) {
                tile(m, panel_i, t, 2, format);
                t += 2;
            }
            if (end - t >= 1)
                one_token(m, panel_i, t, format);
        }
    }
}

void matmul_f32_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_F32);
}

void matmul_f16_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_F16);
}

void matmul_bf16_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_BF16);
}
