/* Several tokens times quantised weights: bound by the multipliers. The body for every Arm
 * instruction set; the file that includes it, after decode_neon.h, defines how a panel by some
 * tokens is cut into vectors of four products:
 *
 *   PARTS                parts of a panel's 16 rows: vectors of accumulators per column
 *   COLUMN_TOKENS        tokens of a column: PARTS == QUADS * COLUMN_TOKENS
 *   struct column        a group of the activations of a column
 *   load_column(a, b)    of token a, and of b where a column has two
 *   arrange(to, code, quad)       decoded codes of four rows to those of their parts
 *   spread(to, v, quad)           a vector of four rows, e.g. scales, likewise
 *   dot_part(sum, code, x, half, format)   sum + 16 values of a part's rows by a column
 *   add_scaled(acc, sum, scale, x), less_min(acc, min, x)    as docs/numerics.md
 *   panel_sums(sums, at, i)       the sums of token i of a column in memory, by rows
 *
 * Work goes panel by panel and by blocks of k of up to 8 groups. Such a block of weights is decoded
 * once into the first-level cache, as signed bytes in the order that the multipliers take, and then
 * multiplied with all tokens in tiles of 4, whose 16 float accumulators stay in registers; each
 * vector of codes is loaded once for a tile. */
#include "backend/cpu/k_walk.h"

enum {
    TILE = 4, /* tokens */
    COLUMNS = TILE / COLUMN_TOKENS,
    PART_CODES = STEPS / COLUMN_TOKENS, /* vectors of a group's codes of a part */
    K_GROUPS = 8,                       /* groups decoded at a time */
    TOKENS_MAX = 64,                    /* tokens under one decoding: a multiple of TILE */
    X_BYTES = 512 << 10, /* of activations: what a second-level cache holds beside the weights */
};
_Static_assert(PARTS == QUADS * COLUMN_TOKENS, "a part's four products are rows x tokens");

/* One group of a panel, decoded. */
struct decoded {
    int8x16_t code[PARTS][PART_CODES];
    float32x4_t scale[2][PARTS]; /* of each half; [1] only Q6_K */
    float32x4_t min[PARTS];      /* Q4_K */
};

enum { SUMS = TOKENS_MAX * PANEL_ROWS }; /* in memory: [columns][PARTS][4] */

struct scratch {
    struct decoded weights[K_GROUPS];
    float part[SUMS], level[K_LEVELS * SUMS];
};

FORCE_INLINE void decode(struct decoded *to, struct place p, const enum pack_format format)
{
    struct scales s;
    decode_scales(&s, p, format);
    UNROLL
    for (int q = 0; q < QUADS; q++) {
        int8x16_t code[STEPS];
        decode_codes(code, p, q, format);
        UNROLL
        for (int i = 0; i < STEPS; i++)
            code[i] = vsubq_s8(code[i], vdupq_n_s8((int8_t)code_offset(format)));
        arrange(to->code, code, q);
        spread(to->scale[0], s.scale[0][q], q);
        if (format == PACK_Q6_K)
            spread(to->scale[1], s.scale[1][q], q);
        if (format == PACK_Q4_K)
            spread(to->min, s.min[q], q);
    }
}

/* acc + a group by n columns. */
FORCE_INLINE void tile_group(float32x4_t acc[COLUMNS][PARTS], const struct decoded *w,
                             const struct column x[COLUMNS], const int n,
                             const enum pack_format format)
{
    const int32x4_t zero = vdupq_n_s32(0);
    const bool halves = format == PACK_Q6_K;
    UNROLL
    for (int p = 0; p < PARTS; p++) {
        UNROLL
        for (int c = 0; c < n; c++) {
            int32x4_t sum = dot_part(zero, w->code[p], &x[c], 0, format);
            if (halves) {
                acc[c][p] = add_scaled(acc[c][p], sum, w->scale[0][p], &x[c]);
                sum = zero;
            }
            sum = dot_part(sum, w->code[p], &x[c], 1, format);
            acc[c][p] = add_scaled(acc[c][p], sum, w->scale[halves][p], &x[c]);
            if (format == PACK_Q4_K)
                acc[c][p] = less_min(acc[c][p], w->min[p], &x[c]);
        }
    }
}

/* The tokens of a product that one decoding serves. */
struct tokens {
    const struct quant_group *x; /* of the first */
    size_t stride;               /* groups of a token */
    int n;
};

/* The block at which k stands by n columns (a constant) from column `first`. */
FORCE_INLINE void tile_n(const struct decoded *w, const struct k_walk *k,
                         const struct tokens *tokens, int first, const int n,
                         const enum pack_format format)
{
    const struct quant_group *at[TILE];
    const size_t to = (size_t)first * PARTS * 4;
    const struct route *r = &k->route;
    float32x4_t acc[COLUMNS][PARTS];
    UNROLL
    for (int i = 0; i < n * COLUMN_TOKENS; i++) { /* the last token again for one too many */
        int t = first * COLUMN_TOKENS + i;
        at[i] = tokens->x + (size_t)(t < tokens->n ? t : tokens->n - 1) * tokens->stride + k->begin;
    }
    UNROLL
    for (int i = 0; i < n * PARTS; i++)
        acc[i / PARTS][i % PARTS] =
            r->from == NULL ? vdupq_n_f32(0) : vld1q_f32(r->from + to + 4 * i);
    for (size_t g = 0; g < k->n; g++) {
        struct column x[COLUMNS];
        UNROLL
        for (int c = 0; c < n; c++)
            x[c] = load_column(at[c * COLUMN_TOKENS] + g,
                               at[c * COLUMN_TOKENS + COLUMN_TOKENS - 1] + g);
        tile_group(acc, &w[g], x, n, format);
    }
    UNROLL
    for (int i = 0; i < n * PARTS; i++) {
        float32x4_t sum = acc[i / PARTS][i % PARTS];
        for (int j = 0; j < r->n_partners; j++)
            sum = vaddq_f32(vld1q_f32(r->partner[j] + to + 4 * i), sum);
        vst1q_f32(r->to + to + 4 * i, sum);
    }
}

FORCE_INLINE void tile(const struct decoded *w, const struct k_walk *k, const struct tokens *tokens,
                       int first, int n, const enum pack_format format)
{
    if (n >= COLUMNS)
        tile_n(w, k, tokens, first, COLUMNS, format);
    else if (n == 1)
        tile_n(w, k, tokens, first, 1, format);
    else if (n == 2)
        tile_n(w, k, tokens, first, COLUMNS > 2 ? 2 : 1, format);
    else
        tile_n(w, k, tokens, first, COLUMNS > 3 ? 3 : 1, format);
}

/* The block at which k stands, of a panel by all tokens; what comes after it is asked for. */
FORCE_INLINE void k_block(const struct packed *w, const uint8_t *panel, const struct k_walk *k,
                          const struct tokens *tokens, struct decoded *decoded,
                          const enum pack_format format)
{
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    size_t bytes = (k->n + per_block - 1) / per_block * w->block_bytes;
    const uint8_t *next = panel + (k->begin + k->n) / per_block * w->block_bytes;
    for (size_t g = 0; g < k->n; g++)
        decode(&decoded[g], place_of(w, panel, k->begin + g, format), format);
    int n_columns = (tokens->n - 1) / COLUMN_TOKENS + 1;
    size_t n_tiles = (size_t)(n_columns - 1) / COLUMNS + 1, tile_i = 0;
    for (int c = 0; c < n_columns; c += COLUMNS, tile_i++) {
        prefetch_part(next, bytes, tile_i, n_tiles);
        tile(decoded, k, tokens, c, n_columns - c, format);
    }
}

/* How many of n tokens to take at a time. */
static int token_block(const struct packed *w, int n)
{
    size_t row_bytes = (size_t)(w->n_cols / GROUP) * sizeof(struct quant_group);
    size_t max = X_BYTES / row_bytes / TILE * TILE;
    max = max < 4 * TILE ? 4 * TILE : max > TOKENS_MAX ? TOKENS_MAX : max;
    return even_tokens(n, (int)max, TILE);
}

/* Tokens [t, t + n), n <= TOKENS_MAX. */
FORCE_INLINE void gemm_block(const struct matmul *m, int panel_begin, int panel_end, int t, int n,
                             const enum pack_format format)
{
    struct scratch s;
    size_t stride = (size_t)(m->w->n_cols / GROUP);
    struct tokens tokens = {quant_row(&m->q, (size_t)t), stride, n};
    for (int panel_i = panel_begin; panel_i < panel_end; panel_i++) {
        struct k_walk k;
        k_walk_init(&k, m->w, GROUP, K_GROUPS, false, s.part, s.level, SUMS);
        while (k_walk_next(&k))
            k_block(m->w, packed_panel(m->w, panel_i), &k, &tokens, s.weights, format);
        for (int i = 0; i < n; i++) {
            float32x4_t sums[QUADS];
            panel_sums(sums, s.level + i / COLUMN_TOKENS * PARTS * 4, i % COLUMN_TOKENS);
            store_panel(m, panel_i, (size_t)(t + i), sums);
        }
    }
}
