/* Many tokens times quantised weights with AVX-512 VNNI: bound by the dot-product units, which must
 * never wait for anything else. (Fewer are taken straight from the panel: matmul_avx512.c, which
 * says from how many on.)
 *
 * Work goes by pairs of panels (32 rows) and blocks of k of up to 8 groups. Such a block of weights
 * is decoded once into the first-level cache, unsigned codes ready for vpdpbusd, and then
 * multiplied with all tokens in tiles of 4. Of the 10 operations of a group, token and panel on the
 * multipliers, 8 are dot products (scale product and fma are the others): 80 % of the units' peak
 * is the ceiling of this arithmetic.
 *
 * To come near it, the scaling of one run of dot products (a group, or half of one in Q6_K) is mixed
 * into the steps of the next, which keep the multipliers busy while sums are converted. So a tile
 * holds 8 integer accumulators, as many of the run before, and 8 float ones, all in registers; each
 * activation that is broadcast serves both panels, each code vector all 4 tokens. (Q4_0 on a Zen 5,
 * weights and activations in the caches: 78 % of the peak; one run behind the other, with 6 tokens,
 * 74 %.)
 *
 * The sections of k come one after the other (k_walk.h). */
#include "backend/cpu/k_walk.h"
#include "backend/cpu/x86/decode_avx512.h"

enum {
    PAIR = 2 * PANEL_ROWS, /* rows */
    TILE = 4,              /* tokens */
    STORE_AHEAD = 12,      /* tokens whose lines of y are asked for ahead */
    K_GROUPS = 8,          /* groups decoded at a time */
    TOKENS_MAX = 132,      /* tokens under one decoding: a multiple of TILE */
    X_BYTES = 768 << 10,   /* of activations: what a second-level cache holds beside the weights */
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

/* Part of k with one scale, as a tile sees it: group `w` of the weights, and of the activations of
 * the tile's n tokens, `stride` apart. */
struct run {
    const struct pair *w;
    const struct quant_group *x;
    size_t stride;
    int n, half; /* of the group: 0 or 1 in Q6_K, else 0 */
};

FORCE_INLINE int runs_of_group(const enum pack_format format)
{
    return format == PACK_Q6_K ? 2 : 1;
}

FORCE_INLINE void start_run(__m512i sum[TILE][2], const struct run *r,
                            const enum pack_format format)
{
    UNROLL
    for (int t = 0; t < r->n; t++)
        sum[t][0] = sum[t][1] = offset_start(r->x + t * r->stride, r->half, format);
}

FORCE_INLINE void add_step(__m512i sum[TILE][2], const struct run *r, int step)
{
    __m512i first = r->w->panel[0].code[step], second = r->w->panel[1].code[step];
    UNROLL
    for (int t = 0; t < r->n; t++) {
        __m512i four = broadcast4(r->x[t * r->stride].codes + 4 * step);
        sum[t][0] = _mm512_dpbusd_epi32(sum[t][0], first, four);
        sum[t][1] = _mm512_dpbusd_epi32(sum[t][1], second, four);
    }
}

/* The sums of a run are complete: add them to those of token t. */
FORCE_INLINE void add_scaled(__m512 acc[TILE][2], __m512i sum[TILE][2], const struct run *r, int t,
                             const enum pack_format format)
{
    const struct quant_group *x = r->x + t * r->stride;
    __m512 scale = _mm512_set1_ps(x->scale);
    UNROLL
    for (int p = 0; p < 2; p++)
        acc[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][p]),
                                    _mm512_mul_ps(scale, r->w->panel[p].scale[r->half]), acc[t][p]);
    if (format != PACK_Q4_K)
        return;
    __m512 scaled_sum = _mm512_set1_ps(x->scaled_sum);
    UNROLL
    for (int p = 0; p < 2; p++)
        acc[t][p] = _mm512_fnmadd_ps(r->w->panel[p].min, scaled_sum, acc[t][p]);
}

/* The dot products of a run, and between them the scaling of the one before, whose sums are in
 * `sum` and make room for its own. The first run has none before it (NULL). */
FORCE_INLINE void add_run(__m512 acc[TILE][2], __m512i sum[TILE][2], const struct run *before,
                          const struct run *r, const enum pack_format format)
{
    const int n_steps = GROUP / 4 / runs_of_group(format);
    __m512i next[TILE][2];
    start_run(next, r, format);
    UNROLL
    for (int i = 0; i < n_steps; i++) {
        add_step(next, r, r->half * n_steps + i);
        UNROLL
        for (int t = 0; t < r->n; t++)
            if (before != NULL && t * n_steps / r->n == i)
                add_scaled(acc, sum, before, t, format);
        KEEP_ORDER;
    }
    UNROLL
    for (int i = 0; i < 2 * r->n; i++)
        sum[i / 2][i % 2] = next[i / 2][i % 2];
}

/* Groups [0, n_groups) of a block of k, at least one, by n tokens (a constant). */
FORCE_INLINE void add_groups(__m512 acc[TILE][2], const struct pair *w, size_t n_groups,
                             const struct quant_group *x, size_t stride, const int n,
                             const enum pack_format format)
{
    const bool halved = runs_of_group(format) == 2;
    __m512i sum[TILE][2];
    struct run first = {w, x, stride, n, 0}, second = {w, x, stride, n, 1};
    add_run(acc, sum, NULL, &first, format);
    if (halved)
        add_run(acc, sum, &first, &second, format);
    struct run last = halved ? second : first;
    for (size_t g = 1; g < n_groups; g++) {
        first = (struct run){w + g, x + g, stride, n, 0};
        second = (struct run){w + g, x + g, stride, n, 1};
        add_run(acc, sum, &last, &first, format);
        if (halved)
            add_run(acc, sum, &first, &second, format);
        last = halved ? second : first;
    }
    UNROLL
    for (int t = 0; t < n; t++)
        add_scaled(acc, sum, &last, t, format);
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
    if (n_groups > 0)
        add_groups(acc, w, n_groups, x, stride, n, format);
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
    default: tile_n(w, n_groups, x, stride, r, t, TILE, format); break;
    }
}

/* Tokens of the next tile when `left` are left: all alike at the end, rather than one alone. */
FORCE_INLINE size_t tile_tokens(size_t left)
{
    return left >= 2 * TILE || left == TILE ? TILE : left > TILE ? (left + 1) / 2 : left;
}

/* The tokens of a product that one decoding serves, and a pair of panels. */
struct part {
    const struct matmul *m;
    int token, n;      /* from `token` on */
    int panel, second; /* the same one twice, where there is no second */
};

/* The lines where a tile's sums will go, or be added. (Prefill of a 1B model 2 % faster.) */
FORCE_INLINE void prefetch_stores(const struct part *p, size_t t)
{
    const struct matmul *m = p->m;
    long row = (long)p->panel * PANEL_ROWS;
    for (size_t end = t + TILE; t < end && t < (size_t)p->n; t++) {
        const float *y = m->y + ((size_t)p->token + t) * m->y_stride + row - m->first_row;
        __builtin_prefetch(y, 1);
        __builtin_prefetch(y + PANEL_ROWS, 1);
    }
}

/* The sums of n tokens from the t-th of the part: they are complete. Tile by tile, so that the
 * products go on while lines of y, which lie far apart, come from memory. */
FORCE_INLINE void store_tile(const struct part *p, size_t t, size_t n, const float *sums)
{
    const struct matmul *m = p->m;
    long row = (long)p->panel * PANEL_ROWS, left = m->w->n_rows - row;
    __mmask16 first = first_lanes(left);
    __mmask16 second = p->second > p->panel ? first_lanes(left - PANEL_ROWS) : 0;
    float *y = m->y + ((size_t)p->token + t) * m->y_stride + row - m->first_row;
    for (size_t i = 0; i < n; i++, y += m->y_stride, sums += PAIR) {
        __m512 a = _mm512_loadu_ps(sums), b = _mm512_loadu_ps(sums + PANEL_ROWS);
        if (m->add) {
            a = _mm512_add_ps(_mm512_maskz_loadu_ps(first, y), a);
            b = _mm512_add_ps(_mm512_maskz_loadu_ps(second, y + PANEL_ROWS), b);
        }
        _mm512_mask_storeu_ps(y, first, a);
        _mm512_mask_storeu_ps(y + PANEL_ROWS, second, b);
    }
}

/* One block of k. */
FORCE_INLINE void k_block(const struct part *p, const struct k_walk *k, struct pair *decoded,
                          const enum pack_format format)
{
    const struct packed *w = p->m->w;
    const uint8_t *panels[2] = {packed_panel(w, p->panel), packed_panel(w, p->second)};
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    size_t bytes = (k->n + per_block - 1) / per_block * w->block_bytes;
    size_t next = (k->begin + k->n) / per_block * w->block_bytes;
    for (int i = 0; i < 2; i++) {
        for (size_t g = 0; g < k->n; g += per_block) {
            struct block block;
            open_block(&block, panels[i] + (k->begin + g) / per_block * w->block_bytes, format);
            for (size_t j = 0; j < per_block && g + j < k->n; j++)
                decode(&decoded[g + j].panel[i], &block, (int)j, format);
        }
    }
    size_t stride = (size_t)(w->n_cols / GROUP), all = (size_t)p->n;
    const struct quant_group *x = p->m->q + (size_t)p->token * stride + k->begin;
    size_t n_tiles = (all - 1) / TILE + 1, tile_i = 0;
    for (size_t t = 0, n; t < all; t += n, tile_i++) {
        n = tile_tokens(all - t);
        for (int i = 0; i < 2; i++)
            prefetch_part(panels[i] + next, bytes, tile_i, n_tiles);
        if (k_walk_is_last(k))
            prefetch_stores(p, t + STORE_AHEAD);
        tile(decoded, k->n, x + t * stride, stride, &k->route, t, n, format);
        if (k_walk_is_last(k))
            store_tile(p, t, n, k->route.to + t * PAIR);
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
    int block = token_block(m->w, m->n);
    for (int t = 0; t < m->n; t += block) {
        int n = m->n - t < block ? m->n - t : block;
        for (int i = panel_begin; i < panel_end; i += 2) {
            struct part part = {m, t, n, i, i + 1 < panel_end ? i + 1 : i};
            struct k_walk k;
            k_walk_init(&k, m->w, GROUP, K_GROUPS, s.part, s.level[0], TOKENS_MAX * PAIR);
            while (k_walk_next(&k))
                k_block(&part, &k, s.weights, format);
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
