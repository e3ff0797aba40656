/* Products of F32, F16 and BF16 weights with NEON: one row is one lane, four vectors are a panel, k
 * goes in order, one fma each. A panel by 4 tokens keeps 16 accumulators, enough to hide that each
 * waits for itself; with one token, 4 sections of k run side by side instead. */
#include "backend/cpu/arm/neon_impl.h"

enum {
    TILE = 4,         /* tokens */
    SIDE = 4,         /* sections side by side */
    TOKEN_BLOCK = 64, /* tokens whose activations stay in the second-level cache */
};

/* The 16 weights of column k. */
FORCE_INLINE void column(float32x4_t w[QUADS], const uint8_t *panel, size_t k,
                         const enum pack_format format)
{
    if (format == PACK_F32) {
        const float *at = (const float *)(const void *)(panel + k * 64);
        UNROLL
        for (int q = 0; q < QUADS; q++)
            w[q] = vld1q_f32(at + 4 * q);
        return;
    }
    UNROLL
    for (int i = 0; i < 2; i++) {
        uint16x8_t halves = halves_at(panel + k * 32 + 16 * i);
        if (format == PACK_F16) {
            w[2 * i] = low_f16(halves);
            w[2 * i + 1] = high_f16(halves);
        } else { /* zeros below each half: little-endian */
            uint16x8_t zero = vdupq_n_u16(0);
            w[2 * i] = vreinterpretq_f32_u16(vzip1q_u16(zero, halves));
            w[2 * i + 1] = vreinterpretq_f32_u16(vzip2q_u16(zero, halves));
        }
    }
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

/* acc + column k by n tokens. */
FORCE_INLINE void add_column(float32x4_t acc[][QUADS], const uint8_t *panel, const float *x,
                             size_t stride, size_t k, const int n, const enum pack_format format)
{
    float32x4_t w[QUADS];
    column(w, panel, k, format);
    UNROLL
    for (int t = 0; t < n; t++) {
        UNROLL
        for (int q = 0; q < QUADS; q++)
            acc[t][q] = vfmaq_n_f32(acc[t][q], w[q], x[t * stride + k]);
    }
}

/* Sums of all sections for one token. */
struct sections {
    float32x4_t sum[QUADS][K_SECTIONS];
};

FORCE_INLINE void store_sections(const struct matmul *m, int panel_i, int t,
                                 const struct sections *s)
{
    float32x4_t sums[QUADS];
    UNROLL
    for (int q = 0; q < QUADS; q++)
        sums[q] = section_tree_neon(s->sum[q]);
    store_panel(m, panel_i, (size_t)t, sums);
}

/* A panel by n tokens (a constant) from t. */
FORCE_INLINE void tile(const struct matmul *m, int panel_i, int t, const int n,
                       const enum pack_format format)
{
    const struct packed *w = m->w;
    const float *x = m->x + (size_t)t * w->n_cols;
    struct sections sections[TILE];
    for (int s = 0; s < K_SECTIONS; s++) {
        size_t begin, end;
        float32x4_t acc[TILE][QUADS];
        UNROLL
        for (int i = 0; i < n * QUADS; i++)
            acc[i / QUADS][i % QUADS] = vdupq_n_f32(0);
        section_columns(w, s, &begin, &end);
        for (size_t k = begin; k < end; k++)
            add_column(acc, packed_panel(w, panel_i), x, (size_t)w->n_cols, k, n, format);
        UNROLL
        for (int i = 0; i < n * QUADS; i++)
            sections[i / QUADS].sum[i % QUADS][s] = acc[i / QUADS][i % QUADS];
    }
    for (int i = 0; i < n; i++)
        store_sections(m, panel_i, t + i, &sections[i]);
}

/* Sections [first, first + SIDE) of one panel by one token, side by side as far as the shortest
 * reaches. */
FORCE_INLINE void side_by_side(struct sections *sections, const struct packed *w,
                               const uint8_t *panel, const float *x, int first,
                               const enum pack_format format)
{
    size_t begin[SIDE], end[SIDE], common = SIZE_MAX;
    float32x4_t acc[SIDE][QUADS];
    for (int s = 0; s < SIDE; s++) {
        section_columns(w, first + s, &begin[s], &end[s]);
        common = end[s] - begin[s] < common ? end[s] - begin[s] : common;
    }
    UNROLL
    for (int i = 0; i < SIDE * QUADS; i++)
        acc[i / QUADS][i % QUADS] = vdupq_n_f32(0);
    for (size_t k = 0; k < common; k++) {
        UNROLL
        for (int s = 0; s < SIDE; s++)
            add_column(&acc[s], panel, x, 0, begin[s] + k, 1, format);
    }
    UNROLL
    for (int s = 0; s < SIDE; s++) {
        for (size_t k = begin[s] + common; k < end[s]; k++)
            add_column(&acc[s], panel, x, 0, k, 1, format);
        UNROLL
        for (int q = 0; q < QUADS; q++)
            sections->sum[q][first + s] = acc[s][q];
    }
}

FORCE_INLINE void one_token(const struct matmul *m, int panel_i, int t,
                            const enum pack_format format)
{
    struct sections sections;
    const float *x = m->x + (size_t)t * m->w->n_cols;
    for (int s = 0; s < K_SECTIONS; s += SIDE)
        side_by_side(&sections, m->w, packed_panel(m->w, panel_i), x, s, format);
    store_sections(m, panel_i, t, &sections);
}

FORCE_INLINE void product(const struct matmul *m, int panel_begin, int panel_end,
                          const enum pack_format format)
{
    for (int block = 0; block < m->n; block += TOKEN_BLOCK) {
        int end = block + TOKEN_BLOCK < m->n ? block + TOKEN_BLOCK : m->n;
        for (int panel_i = panel_begin; panel_i < panel_end; panel_i++) {
            int t = block;
            for (; end - t >= TILE; t += TILE)
                tile(m, panel_i, t, TILE, format);
            switch (end - t) {
            case 3: tile(m, panel_i, t, 3, format); break;
            case 2: tile(m, panel_i, t, 2, format); break;
            case 1: one_token(m, panel_i, t, format); break;
            default: break;
            }
        }
    }
}

void matmul_f32_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    product(m, panel_begin, panel_end, PACK_F32);
}

void matmul_f16_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    product(m, panel_begin, panel_end, PACK_F16);
}

void matmul_bf16_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    product(m, panel_begin, panel_end, PACK_BF16);
}
