/* Products of BF16 weights with vdpbf16ps, which adds two products of bf16 into each f32 lane:
 * twice the rate of float fma, at the price of rounding activations to bf16 (numerics "bf16dot-1").
 * The columns k and k + 1 of a panel become pairs by one permutation. Activations are rounded some
 * columns at a time, once for PANELS panels. */
#include "backend/cpu/x86/avx512_impl.h"

enum { TILE = 8, PANELS = 4, PIECE = 512 /* columns: a multiple of GROUP */ };

/* A piece of k of a tile of tokens, as pairs; [token][pair]. */
struct piece {
    uint32_t x[TILE][PIECE / 2];
    int n; /* columns, odd only at the end of k */
};

static void round_row(uint32_t *to, const float *x, int n)
{
    for (int k = 0; k < n; k += 32) {
        __m512 low = _mm512_maskz_loadu_ps(first_lanes(n - k), x + k);
        __m512 high = _mm512_maskz_loadu_ps(first_lanes(n - k - 16), x + k + 16);
        _mm512_storeu_si512(to + k / 2, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

/* Columns k and k + 1 side by side in each lane; where there is no k + 1, zeros. */
FORCE_INLINE __m512bh pair_of(const uint8_t *panel, int k, bool both)
{
    const __m512i side_by_side =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const uint8_t *at = panel + (size_t)k * PANEL_ROWS * 2;
    __m512i columns = both ? _mm512_loadu_si512(at)
                           : _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)at));
    return (__m512bh)_mm512_permutexvar_epi16(side_by_side, columns);
}

/* acc + the columns [k, k + n_columns) of a panel, for n tokens (a constant). */
FORCE_INLINE void add_piece(__m512 *acc, const uint8_t *panel, int k, int n_columns,
                            const uint32_t (*x)[PIECE / 2], const int n)
{
    __m512 sum[TILE];
    UNROLL
    for (int t = 0; t < n; t++)
        sum[t] = acc[t];
    for (int j = 0; j < (n_columns + 1) / 2; j++) {
        __m512bh w = pair_of(panel, k + 2 * j, 2 * j + 1 < n_columns);
        UNROLL
        for (int t = 0; t < n; t++)
            sum[t] = _mm512_dpbf16_ps(sum[t], w, (__m512bh)_mm512_set1_epi32((int)x[t][j]));
    }
    UNROLL
    for (int t = 0; t < n; t++)
        acc[t] = sum[t];
}

static void add_tokens(__m512 *acc, const uint8_t *panel, int k, const struct piece *piece, int n)
{
    const uint32_t(*x)[PIECE / 2] = piece->x;
    int t = 0;
    for (; t + TILE <= n; t += TILE)
        add_piece(acc + t, panel, k, piece->n, x + t, TILE);
    for (; t + 2 <= n; t += 2)
        add_piece(acc + t, panel, k, piece->n, x + t, 2);
    if (t < n)
        add_piece(acc + t, panel, k, piece->n, x + t, 1);
}

static void store_rows(const struct matmul *m, int panel_i, int t, __m512 sum)
{
    long row = (long)panel_i * PANEL_ROWS;
    __mmask16 rows = first_lanes(m->w->n_rows - row);
    float *y = m->y + (size_t)t * m->y_stride + row - m->first_row;
    if (m->add)
        sum = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, y), sum);
    _mm512_mask_storeu_ps(y, rows, sum);
}

/* n tokens from t by panels [begin, end), at most PANELS. */
static void tile(const struct matmul *m, int begin, int end, int t, int n)
{
    const struct packed *w = m->w;
    const float *x = m->x + (size_t)t * w->n_cols;
    __m512 section[PANELS][K_SECTIONS][TILE];
    memset(section, 0, sizeof section);
    for (int s = 0; s < K_SECTIONS; s++) {
        int n_blocks = packed_n_blocks(w), last = section_begin(n_blocks, s + 1) * GROUP;
        last = last < w->n_cols ? last : w->n_cols;
        for (int k = section_begin(n_blocks, s) * GROUP; k < last; k += PIECE) {
            struct piece piece;
            piece.n = last - k < PIECE ? last - k : PIECE;
            for (int i = 0; i < n; i++)
                round_row(piece.x[i], x + (size_t)i * w->n_cols + k, piece.n);
            for (int p = begin; p < end; p++)
                add_tokens(section[p - begin][s], packed_panel(w, p), k, &piece, n);
        }
    }
    for (int p = begin; p < end; p++)
        for (int i = 0; i < n; i++)
            store_rows(m, p, t + i, section_tree_avx512(&section[p - begin][0][i], TILE));
}

static void matmul_bf16dot(const struct matmul *m, int panel_begin, int panel_end)
{
    for (int p = panel_begin; p < panel_end; p += PANELS) {
        int end = p + PANELS < panel_end ? p + PANELS : panel_end;
        for (int t = 0; t < m->n; t += TILE)
            tile(m, p, end, t, m->n - t < TILE ? m->n - t : TILE);
    }
}

void kernels_bf16dot(struct kernels *k)
{
    k->matmul[PACK_BF16] = matmul_bf16dot;
}
