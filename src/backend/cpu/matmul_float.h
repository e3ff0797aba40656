/* Products of F32, F16 and BF16 weights: everything but the vectors, which are the vocabulary of an
 * instruction set. One row is one lane, k goes in order, one fma each; what fills the fma units is
 * the number of rows and tokens that go side by side. A file that includes this has defined
 *
 *     vec, VECTORS       a vector of floats; how many are the 16 rows of a panel
 *     TILE, PANELS       tokens and panels of a full tile: their accumulators fit the registers
 *     ONE_PANELS         panels of a tile of 1 … ONE_TOKENS tokens, whose few accumulators would
 *     ONE_TOKENS         otherwise wait for each other
 *     vec_zero(), vec_all(x), vec_fma(a, b, c), vec_add(a, b), vec_load(at), vec_store(at, v)
 *     weights_at(panel, k, v, format)   vector v of column k
 *     store_sums(m, panel_i, v, t, sum)
 *
 * As many tokens as fit a tile are bound by memory: panels are read once from end to end. More go
 * over k in blocks: a block of the activations is copied to where its rows lie side by side (rows
 * of a power of two apart would fall into the same few lines of the caches), and multiplied with
 * the same block of several panels, each of which stays in the first-level cache meanwhile. */
#ifndef SHOAL_BACKEND_CPU_MATMUL_FLOAT_H
#define SHOAL_BACKEND_CPU_MATMUL_FLOAT_H

#include "backend/cpu/inline.h"
#include "backend/cpu/k_walk.h"
#include "backend/cpu/kernels.h"

#include <string.h>

enum {
    ACCUMULATORS = TILE * PANELS * VECTORS, /* of a full tile; no other has more */
    K_COLUMNS = 128,                        /* of a block */
    TOKENS_MAX = 48,                        /* that share a block: a multiple of TILE */
    CHUNK = 8,                              /* panels under one copy: a multiple of PANELS */
    COLUMNS = CHUNK * PANEL_ROWS,
    LANES = PANEL_ROWS / VECTORS,
};

struct scratch {
    float x[TOKENS_MAX * K_COLUMNS];
    float part[TOKENS_MAX * COLUMNS], level[K_LEVELS * TOKENS_MAX * COLUMNS];
};

/* Panels side by side with tokens. */
struct float_tile {
    const uint8_t *panel[PANELS > ONE_PANELS ? PANELS : ONE_PANELS]; /* at some column */
    const float *x; /* the same column of the first token */
    size_t stride;
};

FORCE_INLINE size_t weight_bytes(const enum pack_format format)
{
    return format == PACK_F32 ? sizeof(float) : sizeof(struct f16);
}

/* From panel i and column k; panels that do not exist are the last one again. */
FORCE_INLINE struct float_tile tile_at(const struct packed *w, int i, int end, size_t k,
                                       const int n_panels, const enum pack_format format)
{
    size_t bytes = k * PANEL_ROWS * weight_bytes(format);
    struct float_tile tile = {.x = NULL};
    for (int p = 0; p < n_panels; p++)
        tile.panel[p] = packed_panel(w, i + p < end ? i + p : end - 1) + bytes;
    return tile;
}

/* acc[token][panel and vector] + columns [begin, end); the counts are constants. */
FORCE_INLINE void add_columns(vec *acc, const struct float_tile *tile, size_t begin, size_t end,
                              const int n_panels, const int n, const enum pack_format format)
{
    for (size_t k = begin; k < end; k++) {
        vec w[ACCUMULATORS];
        UNROLL
        for (int i = 0; i < n_panels * VECTORS; i++)
            w[i] = weights_at(tile->panel[i / VECTORS], k, i % VECTORS, format);
        UNROLL
        for (int t = 0; t < n; t++) {
            vec x = vec_all(tile->x[t * tile->stride + k]);
            UNROLL
            for (int i = 0; i < n_panels * VECTORS; i++)
                acc[t * n_panels * VECTORS + i] = vec_fma(w[i], x, acc[t * n_panels * VECTORS + i]);
        }
    }
}

/* section_tree of kernels.h; the vectors of a section are `stride` apart. */
FORCE_INLINE vec tree(const vec *s, size_t stride)
{
    vec a = vec_add(vec_add(s[0], s[stride]), vec_add(s[2 * stride], s[3 * stride]));
    vec b = vec_add(vec_add(s[4 * stride], s[5 * stride]), vec_add(s[6 * stride], s[7 * stride]));
    return vec_add(a, b);
}

/* --- one tile of tokens --- */

FORCE_INLINE void few_n(const struct matmul *m, int panel_i, int panel_end, const int n_panels,
                        const int n, const enum pack_format format)
{
    struct float_tile tile = tile_at(m->w, panel_i, panel_end, 0, n_panels, format);
    vec section[K_SECTIONS][ACCUMULATORS];
    size_t n_cols = (size_t)m->w->n_cols, begin = 0;
    int n_blocks = packed_n_blocks(m->w);
    tile.x = m->x;
    tile.stride = n_cols;
    for (int s = 0; s < K_SECTIONS; s++) {
        size_t end = (size_t)section_begin(n_blocks, s + 1) * GROUP;
        end = end < n_cols ? end : n_cols;
        vec acc[ACCUMULATORS];
        for (int i = 0; i < n * n_panels * VECTORS; i++)
            acc[i] = vec_zero();
        add_columns(acc, &tile, begin, end, n_panels, n, format);
        for (int i = 0; i < n * n_panels * VECTORS; i++)
            section[s][i] = acc[i];
        begin = end;
    }
    for (int i = 0; i < n * n_panels * VECTORS; i++) {
        int p = i / VECTORS % n_panels;
        if (panel_i + p < panel_end)
            store_sums(m, panel_i + p, i % VECTORS, i / VECTORS / n_panels,
                       tree(&section[0][i], ACCUMULATORS));
    }
}

FORCE_INLINE void few(const struct matmul *m, int panel_begin, int panel_end,
                      const enum pack_format format)
{
    const int step = m->n <= ONE_TOKENS ? ONE_PANELS : PANELS;
    for (int i = panel_begin; i < panel_end; i += step) {
        switch (m->n) {
        case 1: few_n(m, i, panel_end, ONE_PANELS, 1, format); break;
        case 2: few_n(m, i, panel_end, ONE_TOKENS < 2 ? PANELS : ONE_PANELS, 2, format); break;
        case 3: few_n(m, i, panel_end, ONE_TOKENS < 3 ? PANELS : ONE_PANELS, 3, format); break;
        case 4: few_n(m, i, panel_end, PANELS, 4, format); break;
        case 5: few_n(m, i, panel_end, PANELS, 5, format); break;
        default: few_n(m, i, panel_end, PANELS, TILE, format); break;
        }
    }
}

/* --- many tokens --- */

/* n_columns of k by n tokens (a constant), whose sums are at `at` of the route. */
FORCE_INLINE void block_n(const struct float_tile *tile, size_t n_columns, const struct route *r,
                          size_t at, const int n, const enum pack_format format)
{
    vec acc[ACCUMULATORS];
    UNROLL
    for (int i = 0; i < n * PANELS * VECTORS; i++) {
        size_t to = at + (size_t)(i / VECTORS / PANELS * COLUMNS + i % (VECTORS * PANELS) * LANES);
        acc[i] = r->from == NULL ? vec_zero() : vec_load(r->from + to);
    }
    add_columns(acc, tile, 0, n_columns, PANELS, n, format);
    UNROLL
    for (int i = 0; i < n * PANELS * VECTORS; i++) {
        size_t to = at + (size_t)(i / VECTORS / PANELS * COLUMNS + i % (VECTORS * PANELS) * LANES);
        for (int j = 0; j < r->n_partners; j++)
            acc[i] = vec_add(vec_load(r->partner[j] + to), acc[i]);
        vec_store(r->to + to, acc[i]);
    }
}

FORCE_INLINE void block(const struct float_tile *tile, size_t n_columns, const struct route *r,
                        size_t at, int n, const enum pack_format format)
{
    switch (n) {
    case 1: block_n(tile, n_columns, r, at, 1, format); break;
    case 2: block_n(tile, n_columns, r, at, 2, format); break;
    case 3: block_n(tile, n_columns, r, at, 3, format); break;
    case 4: block_n(tile, n_columns, r, at, 4, format); break;
    case 5: block_n(tile, n_columns, r, at, 5, format); break;
    default: block_n(tile, n_columns, r, at, TILE, format); break;
    }
}

/* Tokens of the next tile when `left` are left: all alike at the end, because few accumulators
 * would wait for each other. */
FORCE_INLINE int tile_tokens(int left)
{
    return left >= 2 * TILE || left == TILE ? TILE : left > TILE ? (left + 1) / 2 : left;
}

/* Panels from i by n tokens whose columns are in s->x, sums from column `at` of the route; the
 * weights of `next`, n_columns too, are asked for meanwhile. */
FORCE_INLINE void tokens_product(struct float_tile tile, const struct float_tile *next,
                                 const struct k_walk *k, size_t at, int n, const struct scratch *s,
                                 const enum pack_format format)
{
    size_t bytes = k->n * PANEL_ROWS * weight_bytes(format);
    int n_tiles = (n - 1) / TILE + 1, tile_i = 0;
    tile.stride = K_COLUMNS;
    for (int t = 0, count; t < n; t += count, tile_i++) {
        count = tile_tokens(n - t);
        for (int p = 0; p < PANELS; p++)
            prefetch_part(next->panel[p], bytes, (size_t)tile_i, (size_t)n_tiles);
        tile.x = s->x + (size_t)t * K_COLUMNS;
        block(&tile, k->n, &k->route, (size_t)t * COLUMNS + at, count, format);
    }
}

/* The block at which k stands: panels [panel_i, end) by n tokens. */
FORCE_INLINE void k_block(const struct packed *w, int panel_i, int end, const struct k_walk *k,
                          int n, const struct scratch *s, const enum pack_format format)
{
    for (int i = panel_i; i < end; i += PANELS) {
        size_t at = (size_t)(i - panel_i) * PANEL_ROWS;
        bool last = i + PANELS >= end;
        struct float_tile tile = tile_at(w, i, end, k->begin, PANELS, format);
        struct float_tile next = tile_at(w, last ? panel_i : i + PANELS, end,
                                         k->begin + (last ? k->n : 0), PANELS, format);
        tokens_product(tile, &next, k, at, n, s, format);
    }
}

/* Panels [panel_i, end), CHUNK at most, by n tokens from t. */
FORCE_INLINE void chunk_product(const struct matmul *m, int panel_i, int end, int t, int n,
                                struct scratch *s, const enum pack_format format)
{
    size_t n_cols = (size_t)m->w->n_cols;
    struct k_walk k;
    k_walk_init(&k, m->w, 1, K_COLUMNS, false, s->part, s->level, TOKENS_MAX * COLUMNS);
    while (k_walk_next(&k)) {
        for (int i = 0; i < n; i++)
            memcpy(s->x + (size_t)i * K_COLUMNS, m->x + (size_t)(t + i) * n_cols + k.begin,
                   k.n * sizeof(float));
        k_block(m->w, panel_i, end, &k, n, s, format);
    }
    for (int i = 0; i < n; i++)
        for (int v = 0; v < (end - panel_i) * VECTORS; v++)
            store_sums(m, panel_i + v / VECTORS, v % VECTORS, t + i,
                       vec_load(s->level + (size_t)(i * COLUMNS + v * LANES)));
}

FORCE_INLINE void matmul_float(const struct matmul *m, int panel_begin, int panel_end,
                               const enum pack_format format)
{
    if (m->n <= TILE) {
        few(m, panel_begin, panel_end, format);
        return;
    }
    struct scratch s;
    for (int t = 0; t < m->n; t += TOKENS_MAX) {
        int n = m->n - t < TOKENS_MAX ? m->n - t : TOKENS_MAX;
        for (int i = panel_begin; i < panel_end; i += CHUNK)
            chunk_product(m, i, panel_end - i < CHUNK ? panel_end : i + CHUNK, t, n, &s, format);
    }
}

#endif
