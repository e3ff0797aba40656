/* Products of F32, F16 and BF16 weights with AVX-512: one row is one lane, k goes in order, one fma
 * each. With one token a single accumulator would wait for itself, so the 8 sections of k run side
 * by side; with several tokens these hide each other's latency. */
#include "backend/cpu/x86/avx512_impl.h"

enum { TILE = 8 };

/* The 16 weights of column k. */
FORCE_INLINE __m512 column(const uint8_t *panel, size_t k, const enum pack_format format)
{
    if (format == PACK_F32)
        return _mm512_load_ps((const float *)(panel + k * 64));
    __m256i half = _mm256_load_si256((const __m256i *)(panel + k * 32));
    if (format == PACK_F16)
        return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Columns of section s: [*begin, *end). */
FORCE_INLINE void section_columns(const struct packed *w, int s, size_t *begin, size_t *end)
{
    int n_blocks = packed_n_blocks(w);
    size_t first = (size_t)section_begin(n_blocks, s) * GROUP;
    size_t after = (size_t)section_begin(n_blocks, s + 1) * GROUP;
    *begin = first;
    *end = after < (size_t)w->n_cols ? after : (size_t)w->n_cols;
}

FORCE_INLINE void store_rows(const struct matmul *m, int panel_i, int t, __m512 y)
{
    __mmask16 rows = first_lanes(m->w->n_rows - panel_i * PANEL_ROWS);
    float *at = m->y + (size_t)t * m->y_stride + panel_i * PANEL_ROWS - m->first_row;
    if (m->add)
        y = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, at), y);
    _mm512_mask_storeu_ps(at, rows, y);
}

FORCE_INLINE void tile(const struct matmul *m, int panel_i, int t, const int n_tokens,
                       const enum pack_format format)
{
    const struct packed *w = m->w;
    const uint8_t *panel = packed_panel(w, panel_i);
    size_t n_cols = (size_t)w->n_cols;
    const float *x = m->x + (size_t)t * n_cols;
    __m512 section[K_SECTIONS][TILE];
    for (int s = 0; s < K_SECTIONS; s++) {
        size_t begin, end;
        section_columns(w, s, &begin, &end);
        __m512 acc[TILE];
        UNROLL
        for (int i = 0; i < n_tokens; i++)
            acc[i] = _mm512_setzero_ps();
        for (size_t k = begin; k < end; k++) {
            __m512 weights = column(panel, k, format);
            UNROLL
            for (int i = 0; i < n_tokens; i++)
                acc[i] = _mm512_fmadd_ps(weights, _mm512_set1_ps(x[i * n_cols + k]), acc[i]);
        }
        UNROLL
        for (int i = 0; i < n_tokens; i++)
            section[s][i] = acc[i];
    }
    for (int i = 0; i < n_tokens; i++)
        store_rows(m, panel_i, t + i, section_tree_avx512(&section[0][i], TILE));
}

/* One panel by one token, the sections side by side as far as the shortest reaches. */
FORCE_INLINE void one_token(const struct matmul *m, int panel_i, int t,
                            const enum pack_format format)
{
    const struct packed *w = m->w;
    const uint8_t *panel = packed_panel(w, panel_i);
    const float *x = m->x + (size_t)t * w->n_cols;
    size_t begin[K_SECTIONS], end[K_SECTIONS], common = SIZE_MAX;
    __m512 acc[K_SECTIONS];
    for (int s = 0; s < K_SECTIONS; s++) {
        section_columns(w, s, &begin[s], &end[s]);
        common = end[s] - begin[s] < common ? end[s] - begin[s] : common;
    }
    UNROLL
    for (int s = 0; s < K_SECTIONS; s++)
        acc[s] = _mm512_setzero_ps();
    for (size_t i = 0; i < common; i++) {
        UNROLL
        for (int s = 0; s < K_SECTIONS; s++) {
            size_t k = begin[s] + i;
            acc[s] = _mm512_fmadd_ps(column(panel, k, format), _mm512_set1_ps(x[k]), acc[s]);
        }
    }
    for (int s = 0; s < K_SECTIONS; s++)
        for (size_t k = begin[s] + common; k < end[s]; k++)
            acc[s] = _mm512_fmadd_ps(column(panel, k, format), _mm512_set1_ps(x[k]), acc[s]);
    store_rows(m, panel_i, t, section_tree_avx512(acc, 1));
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
            for (; t < end; t++)
                one_token(m, panel_i, t, format);
        }
    }
}

void matmul_f32_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_F32);
}

void matmul_f16_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_F16);
}

void matmul_bf16_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    tiles(m, panel_begin, panel_end, PACK_BF16);
}
