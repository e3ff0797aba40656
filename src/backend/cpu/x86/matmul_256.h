/* Products of quantised weights with vectors of 8 rows: everything but the integer products, which
 * are the vocabulary of an instruction set. A file that includes this has defined
 *
 *     TILE      tokens of a tile, CODES vectors of a decoded group: constants
 *     decode_codes(code, g)             the codes of a group as tile_sums wants them
 *     tile_sums(sum, w, half, x, n)     sum[t][v] = products of a group, vector v by n <= TILE
 * tokens
 *
 * with the format as a last, constant argument. Sums are of (code - offset) * activation, over half
 * of the group for Q6_K and all of it for the others: exact, so in any order.
 *
 * Few tokens are bound by how fast panels come from memory: each is read once from end to end, both
 * vectors together (a second tile finds it in the cache). With more, pairs of panels and blocks of
 * k of up to 8 groups are decoded into the first-level cache and multiplied with all tokens in
 * tiles. */
#ifndef SHOAL_BACKEND_CPU_X86_MATMUL_256_H
#define SHOAL_BACKEND_CPU_X86_MATMUL_256_H

#include "backend/cpu/k_walk.h"
#include "backend/cpu/x86/panel_avx2.h"
#include "backend/cpu/x86/panel_ahead.h"

enum {
    PANELS = 2, /* that share the activations in the first-level cache */
    COLUMNS = PANELS * PANEL_ROWS,
    K_GROUPS = 8,                   /* decoded at a time */
    TOKENS_MAX = 128 / TILE * TILE, /* under one decoding */
    X_BYTES = 512 << 10, /* of activations: what a second-level cache holds beside the weights */
};

/* One group of a panel. */
struct decoded {
    __m256i code[CODES][HALVES];
    struct scales scales[HALVES];
};

FORCE_INLINE __m256 scaled(__m256i sum, __m256 scale, __m256 x_scale, __m256 acc)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scale, x_scale), acc);
}

FORCE_INLINE void add_half(__m256 acc[TILE][HALVES], const struct source *w, int half,
                           const struct scales scales[HALVES], const struct tile_x *x, const int n,
                           const enum pack_format format)
{
    __m256i sum[TILE][HALVES];
    tile_sums(sum, w, half, x, n, format);
    UNROLL
    for (int t = 0; t < n; t++) {
        __m256 x_scale = _mm256_set1_ps(x->q[t * x->stride].scale);
        UNROLL
        for (int v = 0; v < HALVES; v++)
            acc[t][v] = scaled(sum[t][v], scales[v].scale[half], x_scale, acc[t][v]);
    }
}

FORCE_INLINE void add_minima(__m256 acc[TILE][HALVES], const struct scales scales[HALVES],
                             const struct tile_x *x, const int n)
{
    UNROLL
    for (int t = 0; t < n; t++) {
        __m256 x_sum = _mm256_set1_ps(x->q[t * x->stride].scaled_sum);
        UNROLL
        for (int v = 0; v < HALVES; v++)
            acc[t][v] = _mm256_fnmadd_ps(scales[v].min, x_sum, acc[t][v]);
    }
}

/* acc + one group of one panel by n tokens (a constant). */
FORCE_INLINE void add_group(__m256 acc[TILE][HALVES], const struct source *w,
                            const struct scales scales[HALVES], const struct tile_x *x, const int n,
                            const enum pack_format format)
{
    add_half(acc, w, 0, scales, x, n, format);
    if (format == PACK_Q6_K)
        add_half(acc, w, 1, scales, x, n, format);
    if (format == PACK_Q4_K)
        add_minima(acc, scales, x, n);
}

/* --- few tokens: straight from the panel --- */

FORCE_INLINE void few_groups(__m256 acc[TILE][HALVES], const struct packed *w, const uint8_t *panel,
                             size_t begin, size_t end, struct tile_x x, const int n,
                             const enum pack_format format)
{
    for (x.q += begin; begin < end; begin++, x.q++) {
        prefetch_group(panel, begin, n, format);
        struct source source = {NULL, group_at(w, panel, begin, format)};
        struct scales scales[HALVES];
        UNROLL
        for (int v = 0; v < HALVES; v++)
            scales[v] = scales_at(&source.group, v, format);
        add_group(acc, &source, scales, &x, n, format);
    }
}

/* One panel by n tokens (a constant) from t. */
FORCE_INLINE void few_tokens(const struct matmul *m, int panel_i, int t, const int n,
                             const enum pack_format format)
{
    const struct packed *w = m->w;
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    size_t n_groups = (size_t)(w->n_cols / GROUP), begin = 0;
    int n_blocks = packed_n_blocks(w);
    struct tile_x x = {quant_row(&m->q, (size_t)t), n_groups};
    __m256 section[K_SECTIONS][TILE][HALVES];
    for (int s = 0; s < K_SECTIONS; s++) {
        size_t end = (size_t)section_begin(n_blocks, s + 1) * per_block;
        end = end < n_groups ? end : n_groups;
        __m256 acc[TILE][HALVES];
        UNROLL
        for (int i = 0; i < n * HALVES; i++)
            acc[i / HALVES][i % HALVES] = _mm256_setzero_ps();
        few_groups(acc, w, packed_panel(w, panel_i), begin, end, x, n, format);
        UNROLL
        for (int i = 0; i < n * HALVES; i++)
            section[s][i / HALVES][i % HALVES] = acc[i / HALVES][i % HALVES];
        begin = end;
    }
    for (int i = 0; i < n; i++)
        for (int v = 0; v < HALVES; v++)
            store_rows_avx2(m, panel_i * PANEL_ROWS + HALF_ROWS * v, t + i,
                            section_tree_avx2(&section[0][i][v], TILE * HALVES));
}

FORCE_INLINE void few(const struct matmul *m, int panel_i, const enum pack_format format)
{
    for (int t = 0; t < m->n; t += TILE) {
        switch (m->n - t) {
        case 1: few_tokens(m, panel_i, t, 1, format); break;
        case 2: few_tokens(m, panel_i, t, 2, format); break;
        case 3: few_tokens(m, panel_i, t, 3, format); break;
        default: few_tokens(m, panel_i, t, TILE, format); break;
        }
    }
}

/* --- several tokens: decoded blocks of k --- */

/* A block of k of one panel by n tokens (a constant), whose sums are at `at` of the route. */
FORCE_INLINE void tile_n(const struct decoded *w, size_t n_groups, struct tile_x x,
                         const struct route *r, size_t at, const int n,
                         const enum pack_format format)
{
    __m256 acc[TILE][HALVES];
    UNROLL
    for (int t = 0; t < n; t++) {
        UNROLL
        for (int v = 0; v < HALVES; v++)
            acc[t][v] = r->from == NULL
                            ? _mm256_setzero_ps()
                            : _mm256_loadu_ps(r->from + at + t * COLUMNS + HALF_ROWS * v);
    }
    for (size_t g = 0; g < n_groups; g++, x.q++) {
        struct source source = {.code = w[g].code};
        add_group(acc, &source, w[g].scales, &x, n, format);
    }
    UNROLL
    for (int t = 0; t < n; t++) {
        UNROLL
        for (int v = 0; v < HALVES; v++) {
            size_t i = at + t * COLUMNS + HALF_ROWS * v;
            for (int j = 0; j < r->n_partners; j++)
                acc[t][v] = _mm256_add_ps(_mm256_loadu_ps(r->partner[j] + i), acc[t][v]);
            _mm256_storeu_ps(r->to + i, acc[t][v]);
        }
    }
}

FORCE_INLINE void tile(const struct decoded *w, size_t n_groups, const struct tile_x *x,
                       const struct route *r, size_t at, size_t n, const enum pack_format format)
{
    switch (n) {
    case 1: tile_n(w, n_groups, *x, r, at, 1, format); break;
    case 2: tile_n(w, n_groups, *x, r, at, 2, format); break;
    case 3: tile_n(w, n_groups, *x, r, at, 3, format); break;
    default: tile_n(w, n_groups, *x, r, at, TILE, format); break;
    }
}

/* The tokens of a product that one decoding serves. */
struct tokens {
    struct tile_x x; /* of the first */
    size_t n;
};

/* The block at which `k` stands, of n_panels panels. */
FORCE_INLINE void k_block(const struct packed *w, const uint8_t *const panels[PANELS], int n_panels,
                          const struct k_walk *k, const struct tokens *x,
                          struct decoded decoded[PANELS][K_GROUPS], const enum pack_format format)
{
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    size_t bytes = (k->n + per_block - 1) / per_block * w->block_bytes;
    size_t next = (k->begin + k->n) / per_block * w->block_bytes;
    for (int p = 0; p < n_panels; p++) {
        for (size_t i = 0; i < k->n; i++) {
            struct group g = group_at(w, panels[p], k->begin + i, format);
            decode_codes(decoded[p][i].code, &g, format);
            UNROLL
            for (int v = 0; v < HALVES; v++)
                decoded[p][i].scales[v] = scales_at(&g, v, format);
        }
    }
    size_t n_tiles = (x->n - 1) / TILE + 1, tile_i = 0;
    for (size_t t = 0; t < x->n; t += TILE, tile_i++) {
        struct tile_x at = {x->x.q + t * x->x.stride + k->begin, x->x.stride};
        for (int p = 0; p < n_panels; p++) {
            prefetch_part(panels[p] + next, bytes, tile_i, n_tiles);
            tile(decoded[p], k->n, &at, &k->route, t * COLUMNS + (size_t)p * PANEL_ROWS, x->n - t,
                 format);
        }
    }
}

static void store_panel(const struct matmul *m, int panel_i, int t, int n, const float *sums)
{
    for (int v = 0; v < HALVES; v++) {
        int row = panel_i * PANEL_ROWS + HALF_ROWS * v;
        for (int i = 0; i < n && row < m->w->n_rows; i++)
            store_rows_avx2(m, row, t + i, _mm256_loadu_ps(sums + i * COLUMNS + HALF_ROWS * v));
    }
}

static int token_block(const struct packed *w)
{
    size_t row_bytes = (size_t)(w->n_cols / GROUP) * sizeof(struct quant_group);
    size_t n = X_BYTES / row_bytes / TILE * TILE;
    return n < 4 * TILE ? 4 * TILE : n > TOKENS_MAX ? TOKENS_MAX : (int)n;
}

FORCE_INLINE void several_tokens(const struct matmul *m, int panel_begin, int panel_end,
                                 const enum pack_format format)
{
    struct decoded decoded[PANELS][K_GROUPS];
    float part[TOKENS_MAX * COLUMNS], level[K_LEVELS][TOKENS_MAX * COLUMNS];
    size_t stride = (size_t)(m->w->n_cols / GROUP);
    int block = token_block(m->w);
    for (int t = 0; t < m->n; t += block) {
        int n = m->n - t < block ? m->n - t : block;
        struct tokens x = {{quant_row(&m->q, (size_t)t), stride}, (size_t)n};
        for (int i = panel_begin; i < panel_end; i += PANELS) {
            int n_panels = panel_end - i < PANELS ? panel_end - i : PANELS;
            const uint8_t *panels[PANELS];
            for (int p = 0; p < n_panels; p++)
                panels[p] = packed_panel(m->w, i + p);
            struct k_walk k;
            k_walk_init(&k, m->w, GROUP, K_GROUPS, false, part, level[0], TOKENS_MAX * COLUMNS);
            while (k_walk_next(&k))
                k_block(m->w, panels, n_panels, &k, &x, decoded, format);
            for (int p = 0; p < n_panels; p++)
                store_panel(m, i + p, t, n, level[0] + p * PANEL_ROWS);
        }
    }
}

/* Up to how many tokens reading codes from the panel, once for each tile, is faster than decoding
 * them into memory first: measured. */
FORCE_INLINE int few_max(const enum pack_format format)
{
    return format == PACK_Q6_K ? TILE - 1 : format == PACK_Q4_K ? TILE : 2 * TILE;
}

FORCE_INLINE void matmul_256(const struct matmul *m, int panel_begin, int panel_end,
                             const enum pack_format format)
{
    if (m->n > few_max(format)) {
        several_tokens(m, panel_begin, panel_end, format);
        return;
    }
    for (int i = panel_begin; i < panel_end; i++)
        few(m, i, format);
}

#endif
