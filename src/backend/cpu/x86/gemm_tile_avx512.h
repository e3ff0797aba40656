/* A tile of a matrix product with AVX-512 VNNI: 4 tokens times a block of k of a pair of panels (32
 * rows) that has been decoded, codes unsigned and ready for vpdpbusd. A part of gemm_avx512.c.
 *
 * Of the 10 operations of a group, token and panel on the multipliers, 8 are dot products (scale
 * product and fma are the others): 80 % of the units' peak is the ceiling of this arithmetic. To
 * come near it, the scaling of one run of dot products (a group, or half of one in Q6_K) is mixed
 * into the steps of the next, which keep the multipliers busy while sums are converted. So a tile
 * holds 8 integer accumulators, as many of the run before, and 8 float ones, all in registers; each
 * activation that is broadcast serves both panels, each code vector all 4 tokens. (Q4_0 on a Zen 5,
 * weights and activations in the caches: 78 % of the peak; one run behind the other, with 6 tokens,
 * 74 %.)
 *
 * A block may hold two sections of k, which one tile then adds: where a tile ends, the multipliers
 * wait (docs/numerics.md has the sections, k_walk.h where sums come from and go to). */
#ifndef SHOAL_BACKEND_CPU_X86_GEMM_TILE_AVX512_H
#define SHOAL_BACKEND_CPU_X86_GEMM_TILE_AVX512_H

#include "backend/cpu/k_walk.h"
#include "backend/cpu/x86/decode_avx512.h"

enum {
    PAIR = 2 * PANEL_ROWS, /* rows */
    TILE = 4,              /* tokens */
};
_Static_assert((int)TILE == (int)QUANT_TILE, "a tile's activations are side by side");

/* One group of a pair of panels. */
struct pair {
    struct group panel[2];
};

/* Part of k with one scale, as a tile sees it: group `w` of the weights, and of the activations of
 * the tile's n tokens, which are side by side. */
struct run {
    const struct pair *w;
    const struct quant_group *x; /* [n] */
    int n, half;                 /* of the group: 0 or 1 in Q6_K, else 0 */
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
        sum[t][0] = sum[t][1] = offset_start(r->x + t, r->half, format);
}

FORCE_INLINE void add_step(__m512i sum[TILE][2], const struct run *r, int step)
{
    __m512i first = r->w->panel[0].code[step], second = r->w->panel[1].code[step];
    UNROLL
    for (int t = 0; t < r->n; t++) {
        __m512i four = broadcast4(r->x[t].codes + 4 * step);
        sum[t][0] = _mm512_dpbusd_epi32(sum[t][0], first, four);
        sum[t][1] = _mm512_dpbusd_epi32(sum[t][1], second, four);
    }
}

/* The sums of a run are complete: add them to those of token t. */
FORCE_INLINE void add_scaled(__m512 acc[TILE][2], __m512i sum[TILE][2], const struct run *r, int t,
                             const enum pack_format format)
{
    const struct quant_group *x = r->x + t;
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

/* Where complete sums go: the rows of a pair of panels. */
struct output {
    float *y; /* of the block's first token */
    size_t stride;
    __mmask16 first, second; /* rows that there are of each panel */
    bool add;
};

/* The sums of n tokens (a constant) from token t on. Tile by tile, so that the products go on while
 * lines of y, which lie far apart, come from memory. */
FORCE_INLINE void put_sums(const struct output *out, size_t t, __m512 acc[TILE][2], const int n)
{
    float *y = out->y + t * out->stride;
    UNROLL
    for (int i = 0; i < n; i++, y += out->stride) {
        __m512 a = acc[i][0], b = acc[i][1];
        if (out->add) {
            a = _mm512_add_ps(_mm512_maskz_loadu_ps(out->first, y), a);
            b = _mm512_add_ps(_mm512_maskz_loadu_ps(out->second, y + PANEL_ROWS), b);
        }
        _mm512_mask_storeu_ps(y, out->first, a);
        _mm512_mask_storeu_ps(y + PANEL_ROWS, out->second, b);
    }
}

/* A block of k as its tiles see it. */
struct tiles {
    const struct pair *w; /* [n_groups] */
    size_t n_groups;
    const struct route *route;
    float *first;             /* [TILE * PAIR] */
    const struct output *out; /* NULL: the sums are not complete, and go as the route says */
};

/* The sums of the first section are complete, of two: those of the second begin. */
FORCE_INLINE void next_section(__m512 acc[TILE][2], float *first, const int n)
{
    UNROLL
    for (int i = 0; i < 2 * n; i++) {
        _mm512_storeu_ps(first + i * PANEL_ROWS, acc[i / 2][i % 2]);
        acc[i / 2][i % 2] = _mm512_setzero_ps();
    }
}

/* The groups of a block of k, at least one, by n tokens (a constant). */
FORCE_INLINE void add_groups(__m512 acc[TILE][2], const struct tiles *b,
                             const struct quant_group *x, const int n,
                             const enum pack_format format)
{
    const bool halved = runs_of_group(format) == 2;
    __m512i sum[TILE][2];
    struct run first = {b->w, x, n, 0}, second = {b->w, x, n, 1};
    add_run(acc, sum, NULL, &first, format);
    if (halved)
        add_run(acc, sum, &first, &second, format);
    struct run last = halved ? second : first;
    for (size_t g = 1; g < b->n_groups; g++) {
        first = (struct run){b->w + g, x + g * QUANT_TILE, n, 0};
        second = (struct run){b->w + g, x + g * QUANT_TILE, n, 1};
        add_run(acc, sum, &last, &first, format);
        if (g == b->route->first)
            next_section(acc, b->first, n);
        if (halved)
            add_run(acc, sum, &first, &second, format);
        last = halved ? second : first;
    }
    UNROLL
    for (int t = 0; t < n; t++)
        add_scaled(acc, sum, &last, t, format);
}

/* acc = sums + acc, n tokens (a constant). */
FORCE_INLINE void add_sums(__m512 acc[TILE][2], const float *sums, const int n)
{
    UNROLL
    for (int i = 0; i < 2 * n; i++)
        acc[i / 2][i % 2] =
            _mm512_add_ps(_mm512_loadu_ps(sums + i * PANEL_ROWS), acc[i / 2][i % 2]);
}

/* A block of k by n tokens (a constant) from token t of the route. */
FORCE_INLINE void tile_n(const struct tiles *b, const struct quant_group *x, size_t t, const int n,
                         const enum pack_format format)
{
    const struct route *r = b->route;
    __m512 acc[TILE][2];
    UNROLL
    for (int i = 0; i < 2 * n; i++)
        acc[i / 2][i % 2] = r->from == NULL ? _mm512_setzero_ps()
                                            : _mm512_loadu_ps(r->from + t * PAIR + i * PANEL_ROWS);
    if (b->n_groups > 0)
        add_groups(acc, b, x, n, format);
    if (r->first > 0)
        add_sums(acc, b->first, n);
    for (int j = 0; j < r->n_partners; j++)
        add_sums(acc, r->partner[j] + t * PAIR, n);
    if (b->out != NULL) {
        put_sums(b->out, t, acc, n);
        return;
    }
    UNROLL
    for (int i = 0; i < 2 * n; i++)
        _mm512_storeu_ps(r->to + t * PAIR + i * PANEL_ROWS, acc[i / 2][i % 2]);
}

FORCE_INLINE void tile(const struct tiles *b, const struct quant_group *x, size_t t, size_t n,
                       const enum pack_format format)
{
    switch (n) {
    case 1: tile_n(b, x, t, 1, format); break;
    case 2: tile_n(b, x, t, 2, format); break;
    case 3: tile_n(b, x, t, 3, format); break;
    default: tile_n(b, x, t, TILE, format); break;
    }
}

#endif
