/* Many tokens times quantised weights with AVX-512 VNNI: bound by the dot-product units, which must
 * never wait for anything else. (Fewer are taken straight from the panel: matmul_avx512.c.)
 *
 * Work goes by pairs of panels and blocks of k of up to 16 groups. Such a block of weights is
 * decoded once into the first-level cache, where it stays while it is multiplied with all tokens
 * (gemm_tile_avx512.h). Their activations come from the second-level cache: a slice of k for some
 * pairs of panels, then the next slice. */
#include "backend/cpu/x86/gemm_tile_avx512.h"

enum {
    K_GROUPS = 16,       /* groups decoded at a time */
    TOKENS_MAX = 264,    /* tokens under one decoding: a multiple of TILE */
    X_BYTES = 400 << 10, /* of the activations in a slice of k: what the second-level cache holds */
    PAIRS = 2,           /* of panels that a slice serves in turn */
    STORE_AHEAD = 12,    /* tokens whose lines of y are asked for ahead */
};

/* Sums of a pair of panels. */
struct sums {
    float part[TOKENS_MAX * PAIR];            /* of a section that is not complete */
    float level[K_LEVELS][TOKENS_MAX * PAIR]; /* of sections that wait for their partners */
};

struct scratch {
    struct pair weights[K_GROUPS];
    float first[TILE * PAIR]; /* sums of the first section in a block of two */
    struct sums sums[PAIRS];
};

/* The tokens of a product that one decoding serves, and a pair of panels. */
struct part {
    const struct matmul *m;
    int token, n;      /* from `token` on */
    int panel, second; /* the same one twice, where there is no second */
};

static struct output output(const struct part *p)
{
    const struct matmul *m = p->m;
    long row = (long)p->panel * PANEL_ROWS, left = m->w->n_rows - row;
    return (struct output){
        .y = m->y + (size_t)p->token * m->y_stride + row - m->first_row,
        .stride = m->y_stride,
        .first = first_lanes(left),
        .second = p->second > p->panel ? first_lanes(left - PANEL_ROWS) : 0,
        .add = m->add,
    };
}

/* The lines where the sums of a tile will go, or be added. (Prefill of a 1B model 2 % faster.) */
FORCE_INLINE void prefetch_output(const struct output *out, size_t t, size_t n)
{
    for (size_t end = t + TILE; t < end && t < n; t++) {
        const float *y = out->y + t * out->stride;
        __builtin_prefetch(y, 1);
        __builtin_prefetch(y + PANEL_ROWS, 1);
    }
}

/* Groups [begin, begin + n) of a pair of panels. */
FORCE_INLINE void decode_block(struct pair *decoded, const struct packed *w,
                               const uint8_t *const panels[2], size_t begin, size_t n,
                               const enum pack_format format)
{
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    for (int i = 0; i < 2; i++) {
        for (size_t g = 0; g < n; g += per_block) {
            struct block block;
            open_block(&block, panels[i] + (begin + g) / per_block * w->block_bytes, format);
            for (size_t j = 0; j < per_block && g + j < n; j++)
                decode(&decoded[g + j].panel[i], &block, (int)j, format);
        }
    }
}

/* One block of k. Meanwhile the bytes of the next are asked for. */
FORCE_INLINE void k_block(const struct part *p, const struct k_walk *k, struct scratch *s,
                          const enum pack_format format)
{
    const struct packed *w = p->m->w;
    const uint8_t *panels[2] = {packed_panel(w, p->panel), packed_panel(w, p->second)};
    decode_block(s->weights, w, panels, k->begin, k->n, format);
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    size_t bytes = (k->n + per_block - 1) / per_block * w->block_bytes;
    size_t next = (k->begin + k->n) / per_block * w->block_bytes;
    struct output out = output(p);
    bool last = k_walk_is_last(k);
    struct tiles tiles = {s->weights, k->n, &k->route, s->first, last ? &out : NULL};
    size_t all = (size_t)p->n, n_tiles = (all - 1) / TILE + 1;
    for (size_t i = 0; i < n_tiles; i++) {
        size_t t = i * TILE, n = all - t < TILE ? all - t : TILE;
        for (int j = 0; j < 2; j++)
            prefetch_part(panels[j] + next, bytes, i, n_tiles);
        if (last)
            prefetch_output(&out, t + STORE_AHEAD, all);
        tile(&tiles, quant_at(&p->m->q, (size_t)p->token + t, k->begin), t, n, format);
    }
}

/* Panels [begin, end), at most PAIRS pairs, by n tokens from one on: slice by slice of k. */
FORCE_INLINE void pairs(const struct matmul *m, int token, int n, int begin, int end,
                        struct scratch *s, const enum pack_format format)
{
    struct k_walk walks[PAIRS];
    for (int i = begin; i < end; i += 2) {
        struct sums *sums = &s->sums[(i - begin) / 2];
        k_walk_init(&walks[(i - begin) / 2], m->w, GROUP, K_GROUPS, true, sums->part,
                    sums->level[0], TOKENS_MAX * PAIR);
    }
    size_t groups = (size_t)(m->w->n_cols / GROUP);
    size_t slice = X_BYTES / ((size_t)n * sizeof(struct quant_group)) / K_GROUPS * K_GROUPS;
    for (size_t stop = 0; stop < groups;) {
        stop = stop + slice < groups ? stop + slice : groups;
        for (int i = begin; i < end; i += 2) {
            struct part part = {m, token, n, i, i + 1 < end ? i + 1 : i};
            struct k_walk *k = &walks[(i - begin) / 2];
            while (k->begin + k->n < stop && k_walk_next(k))
                k_block(&part, k, s, format);
        }
    }
}

FORCE_INLINE void gemm(const struct matmul *m, int panel_begin, int panel_end,
                       const enum pack_format format)
{
    struct scratch s;
    int tokens = even_tokens(m->n, TOKENS_MAX, TILE);
    for (int t = 0; t < m->n; t += tokens) {
        int n = m->n - t < tokens ? m->n - t : tokens;
        for (int i = panel_begin; i < panel_end; i += 2 * PAIRS)
            pairs(m, t, n, i, panel_end - i < 2 * PAIRS ? panel_end : i + 2 * PAIRS, &s, format);
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
