/* Many tokens times quantised weights with AVX-512 VNNI: bound by the dot-product units, which must
 * never wait for anything else. (Fewer are taken straight from the panel: matmul_avx512.c, which
 * says from how many on.)
 *
 * Work goes by pairs of panels (32 rows) and blocks of k of up to 8 groups. Such a block of weights
 * is decoded once into the first-level cache, unsigned codes ready for vpdpbusd, and then
 * multiplied with all tokens in tiles of 6: the 12 integer and 12 float accumulators of a tile stay
 * in registers, each activation that is broadcast serves both panels, each code vector all 6
 * tokens. Of the 10 operations of a group, token and panel on the multipliers, 8 are dot products
 * (scale product and fma are the others): 80 % of the units' peak is the ceiling of this
 * arithmetic.
 *
 * The sections of k come one after the other (k_walk.h). */
#include "backend/cpu/k_walk.h"
#include "backend/cpu/x86/decode_avx512.h"

enum {
    PAIR = 2 * PANEL_ROWS, /* rows */
    TILE = 6,              /* tokens */
    K_GROUPS = 8,          /* groups decoded at a time */
    TOKENS_MAX = 132,      /* tokens under one decoding: a multiple of TILE */
    X_BYTES = 512 << 10,   /* of activations: what a second-level cache holds beside the weights */
};

/* One group of a pair of panels. */
struct pair {
    struct group panel[2];
};

struct scratch {
    struct pair weights[K_GROUPS];
    float part[TOKENS_MAX * PAIR];            /* sums of a section that is not complete */
    float level[K_LEVELS][TOKENS_MAX * PAIR]; /* sums of sections that wait for their partners */
};

FORCE_INLINE void start_offsets(__m512i sum[TILE][2], const struct quant_group *x, size_t stride,
                                int half, const int n, const enum pack_format format)
{
    UNROLL
    for (int t = 0; t < n; t++)
        sum[t][0] = sum[t][1] = offset_start(x + t * stride, half, format);
}

/* Four steps of a group, from `begin`. */
FORCE_INLINE void add_steps(__m512i sum[TILE][2], const struct pair *w, int begin,
                            const struct quant_group *x, size_t stride, const int n)
{
    UNROLL
    for (int step = begin; step < begin + 4; step++) {
        __m512i first = w->panel[0].code[step], second = w->panel[1].code[step];
        UNROLL
        for (int t = 0; t < n; t++) {
            __m512i four = broadcast4(x[t * stride].codes + 4 * step);
            sum[t][0] = _mm512_dpbusd_epi32(sum[t][0], first, four);
            sum[t][1] = _mm512_dpbusd_epi32(sum[t][1], second, four);
        }
    }
}

FORCE_INLINE void add_scaled(__m512 acc[TILE][2], __m512i sum[TILE][2], const struct pair *w,
                             int half, const struct quant_group *x, size_t stride, const int n)
{
    UNROLL
    for (int t = 0; t < n; t++) {
        __m512 scale = _mm512_set1_ps(x[t * stride].scale);
        UNROLL
        for (int p = 0; p < 2; p++)
            acc[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][p]),
                                        _mm512_mul_ps(scale, w->panel[p].scale[half]), acc[t][p]);
    }
}

FORCE_INLINE void add_minima(__m512 acc[TILE][2], const struct pair *w, const struct quant_group *x,
                             size_t stride, const int n)
{
    UNROLL
    for (int t = 0; t < n; t++) {
        __m512 sum = _mm512_set1_ps(x[t * stride].scaled_sum);
        UNROLL
        for (int p = 0; p < 2; p++)
            acc[t][p] = _mm512_fnmadd_ps(w->panel[p].min, sum, acc[t][p]);
    }
}

FORCE_INLINE void add_group(__m512 acc[TILE][2], const struct pair *w, const struct quant_group *x,
                            size_t stride, const int n, const enum pack_format format)
{
    __m512i sum[TILE][2];
    start_offsets(sum, x, stride, 0, n, format);
    add_steps(sum, w, 0, x, stride, n);
    if (format == PACK_Q6_K) {
        add_scaled(acc, sum, w, 0, x, stride, n);
        start_offsets(sum, x, stride, 1, n, format);
    }
    add_steps(sum, w, 4, x, stride, n);
    add_scaled(acc, sum, w, format == PACK_Q6_K, x, stride, n);
    if (format == PACK_Q4_K)
        add_minima(acc, w, x, stride, n);
}

/* A block of k by n tokens (a constant) from token t of the route. */
FORCE_INLINE void tile_n(const struct pair *w, size_t n_groups, const struct quant_group *x,
                         size_t stride, const struct route *r, size_t t, const int n,
                         const enum pack_format format)
{
    __m512 acc[TILE][2];
    UNROLL
    for (int i = 0; i < 2 * n; i++)
        acc[i / 2][i % 2] = r->from == NULL ? _mm512_setzero_ps()
                                            : _mm512_loadu_ps(r->from + t * PAIR + i * PANEL_ROWS);
    for (size_t g = 0; g < n_groups; g++)
        add_group(acc, w + g, x + g, stride, n, format);
    for (int j = 0; j < r->n_partners; j++) {
        UNROLL
        for (int i = 0; i < 2 * n; i++)
            acc[i / 2][i % 2] = _mm512_add_ps(
                _mm512_loadu_ps(r->partner[j] + t * PAIR + i * PANEL_ROWS), acc[i / 2][i % 2]);
    }
    UNROLL
    for (int i = 0; i < 2 * n; i++)
        _mm512_storeu_ps(r->to + t * PAIR + i * PANEL_ROWS, acc[i / 2][i % 2]);
}

FORCE_INLINE void tile(const struct pair *w, size_t n_groups, const struct quant_group *x,
                       size_t stride, const struct route *r, size_t t, size_t n,
                       const enum pack_format format)
{
    switch (n) {
    case 1: tile_n(w, n_groups, x, stride, r, t, 1, format); break;
    case 2: tile_n(w, n_groups, x, stride, r, t, 2, format); break;
    case 3: tile_n(w, n_groups, x, stride, r, t, 3, format); break;
    case 4: tile_n(w, n_groups, x, stride, r, t, 4, format); break;
    case 5: tile_n(w, n_groups, x, stride, r, t, 5, format); break;
    default: tile_n(w, n_groups, x, stride, r, t, TILE, format); break;
    }
}

/* Tokens of the next tile when `left` are left: all alike at the end, rather than one alone. */
FORCE_INLINE size_t tile_tokens(size_t left)
{
    return left >= 2 * TILE || left == TILE ? TILE : left > TILE ? (left + 1) / 2 : left;
}

/* The tokens of a product that one decoding serves. */
struct tokens {
    const struct quant_group *x; /* of the first */
    size_t stride;               /* groups of a token */
    size_t n;
};

/* Groups [g, g + n_groups) of a pair of panels (the same one twice, where there is no second). */
FORCE_INLINE void k_block(const struct packed *w, const uint8_t *const panels[2], size_t g,
                          size_t n_groups, const struct tokens *x, const struct route *r,
                          struct pair *decoded, const enum pack_format format)
{
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    size_t bytes = (n_groups + per_block - 1) / per_block * w->block_bytes;
    size_t next = (g + n_groups) / per_block * w->block_bytes;
    for (int p = 0; p < 2; p++) {
        for (size_t i = 0; i < n_groups; i += per_block) {
            struct block block;
            open_block(&block, panels[p] + (g + i) / per_block * w->block_bytes, format);
            for (size_t j = 0; j < per_block && i + j < n_groups; j++)
                decode(&decoded[i + j].panel[p], &block, (int)j, format);
        }
    }
    size_t n_tiles = (x->n - 1) / TILE + 1, tile_i = 0;
    for (size_t t = 0, n; t < x->n; t += n, tile_i++) {
        n = tile_tokens(x->n - t);
        for (int p = 0; p < 2; p++)
            prefetch_part(panels[p] + next, bytes, tile_i, n_tiles);
        tile(decoded, n_groups, x->x + t * x->stride + g, x->stride, r, t, n, format);
    }
}

/* All of k for a pair of panels: the sums end in level[0]. */
FORCE_INLINE void pair_product(const struct packed *w, const uint8_t *const panels[2],
                               const struct tokens *x, struct scratch *s,
                               const enum pack_format format)
{
    struct k_walk k;
    k_walk_init(&k, w, GROUP, K_GROUPS, s->part, s->level[0], TOKENS_MAX * PAIR);
    while (k_walk_next(&k))
        k_block(w, panels, k.begin, k.n, x, &k.route, s->weights, format);
}

static void store_rows(const struct matmul *m, int panel_i, int t, int n, const float *sums)
{
    long row = (long)panel_i * PANEL_ROWS;
    __mmask16 rows = first_lanes(m->w->n_rows - row);
    float *y = m->y + (size_t)t * m->y_stride + row - m->first_row;
    for (int i = 0; i < n; i++, y += m->y_stride, sums += PAIR) {
        __m512 sum = _mm512_loadu_ps(sums);
        if (m->add)
            sum = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, y), sum);
        _mm512_mask_storeu_ps(y, rows, sum);
    }
}

static int token_block(const struct packed *w, int n)
{
    size_t row_bytes = (size_t)(w->n_cols / GROUP) * sizeof(struct quant_group);
    size_t max = X_BYTES / row_bytes / TILE * TILE;
    return even_tokens(n,
                       max < 4 * TILE     ? 4 * TILE
                       : max > TOKENS_MAX ? TOKENS_MAX
                                          : (int)max,
                       TILE);
}

FORCE_INLINE void gemm(const struct matmul *m, int panel_begin, int panel_end,
                       const enum pack_format format)
{
    struct scratch s;
    size_t stride = (size_t)(m->w->n_cols / GROUP);
    int block = token_block(m->w, m->n);
    for (int t = 0; t < m->n; t += block) {
        int n = m->n - t < block ? m->n - t : block;
        struct tokens x = {m->q + t * stride, stride, (size_t)n};
        for (int i = panel_begin; i < panel_end; i += 2) {
            int second = i + 1 < panel_end ? i + 1 : i;
            const uint8_t *panels[2] = {packed_panel(m->w, i), packed_panel(m->w, second)};
            pair_product(m->w, panels, &x, &s, format);
            store_rows(m, i, t, n, s.level[0]);
            if (second > i)
                store_rows(m, second, t, n, s.level[0] + PANEL_ROWS);
        }
    }
}

static void gemm_q8_0(const struct matmul *m, int panel_begin, int panel_end)
{
    gemm(m, panel_begin, panel_end, PACK_Q8_0);
}

static void gemm_q4_0(const struct matmul *m, int panel_begin, int panel_end)
{
    gemm(m, panel_begin, panel_end, PACK_Q4_0);
}

static void gemm_q4_k(const struct matmul *m, int panel_begin, int panel_end)
{
    gemm(m, panel_begin, panel_end, PACK_Q4_K);
}

static void gemm_q6_k(const struct matmul *m, int panel_begin, int panel_end)
{
    gemm(m, panel_begin, panel_end, PACK_Q6_K);
}

void gemm_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    switch (m->w->format) {
    case PACK_Q8_0: gemm_q8_0(m, panel_begin, panel_end); break;
    case PACK_Q4_0: gemm_q4_0(m, panel_begin, panel_end); break;
    case PACK_Q4_K: gemm_q4_k(m, panel_begin, panel_end); break;
    default: gemm_q6_k(m, panel_begin, panel_end); break;
    }
}
