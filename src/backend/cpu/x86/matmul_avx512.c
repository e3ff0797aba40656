/* A few tokens times quantised weights with AVX-512 VNNI: bound by how fast the panels come from
 * memory, so each is read once from end to end, and a group is decoded into registers and used for
 * every token there. vpdpbusd adds, in each 32-bit lane, four products of unsigned by signed bytes:
 * one step of the panel (pack.h) against four activations broadcast to all lanes. The unsigned side
 * is the weight code plus an offset, which the start of the sum takes off again through the
 * activations' sums: integer arithmetic, so the result is exactly ref's. More tokens:
 * gemm_avx512.c. */
#include "backend/cpu/x86/decode_avx512.h"
#include "backend/cpu/x86/panel_ahead.h"

enum {
    FEW = 8,     /* tokens of a tile */
    X_AHEAD = 4, /* groups of activations asked for ahead */
};

/* sum + the products of four codes in each lane with four activations: vpdpbusd reads them from
 * memory for all lanes, which no intrinsic says. (A register in between costs one token 3 % and two
 * tokens 7 %.) */
FORCE_INLINE __m512i dot4(__m512i sum, __m512i codes, const int8_t *x)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(*(const int8_t(*)[4])x));
    return sum;
}

/* start + the products of steps [begin, begin + 4) with 16 activations. */
FORCE_INLINE __m512i dot_half(__m512i start, const struct group *r, int begin, const int8_t *x)
{
    UNROLL
    for (int step = 0; step < 4; step++)
        start = dot4(start, r->code[begin + step], x + 4 * step);
    return start;
}

FORCE_INLINE __m512 scaled(__m512i sum, __m512 scale, __m512 x_scale, __m512 acc)
{
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, x_scale), acc);
}

/* acc + one group. */
FORCE_INLINE __m512 add_group(__m512 acc, const struct group *r, const struct quant_group *x,
                              const enum pack_format format)
{
    __m512 x_scale = _mm512_set1_ps(x->scale);
    __m512i a = dot_half(offset_start(x, 0, format), r, 0, x->codes);
    if (format == PACK_Q6_K) {
        __m512i b = dot_half(offset_start(x, 1, format), r, 4, x->codes + 16);
        return scaled(b, r->scale[1], x_scale, scaled(a, r->scale[0], x_scale, acc));
    }
    __m512i b = dot_half(_mm512_setzero_si512(), r, 4, x->codes + 16);
    acc = scaled(_mm512_add_epi32(a, b), r->scale[0], x_scale, acc);
    if (format == PACK_Q4_K)
        acc = _mm512_fnmadd_ps(r->min, _mm512_set1_ps(x->scaled_sum), acc);
    return acc;
}

/* Blocks [begin, end) of a panel by n tokens (a constant), `stride` groups apart. */
FORCE_INLINE void add_blocks(__m512 acc[FEW], const struct packed *w, const uint8_t *panel,
                             size_t begin, size_t end, const struct quant_group *x, size_t stride,
                             const int n, const enum pack_format format)
{
    const int per_block = pack_block(format) / GROUP;
    for (size_t b = begin; b < end; b++) {
        struct block block;
        open_block(&block, panel + b * w->block_bytes, format);
        for (int pair = 0; pair < per_block; pair += 2) {
            UNROLL
            for (int i = pair; i < pair + 2; i++) {
                size_t g = b * per_block + i;
                if (g >= stride) /* the last block may be half */
                    break;
                struct group r;
                decode(&r, &block, i, format);
                if (n > 1 || format != PACK_Q8_0) /* which comes in order, and soon: 4 % slower */
                    prefetch_group(panel, g, n, format);
                /* A long panel drives one token's activations out of the first-level cache: asking
                 * for them gives 1 to 2 % by 8192 columns, and costs nothing by 2048. */
                if (n == 1)
                    _mm_prefetch((const char *)(x + g + X_AHEAD), _MM_HINT_T0);
                UNROLL
                for (int t = 0; t < n; t++)
                    acc[t] = add_group(acc[t], &r, x + t * stride + g, format);
            }
        }
    }
}

FORCE_INLINE void store_rows(const struct matmul *m, int panel_i, int t, __m512 sum)
{
    long row = (long)panel_i * PANEL_ROWS;
    __mmask16 rows = first_lanes(m->w->n_rows - row);
    float *y = m->y + (size_t)t * m->y_stride + row - m->first_row;
    if (m->add)
        sum = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, y), sum);
    _mm512_mask_storeu_ps(y, rows, sum);
}

/* A panel by n tokens (a constant) from t. */
FORCE_INLINE void panel_product(const struct matmul *m, int panel_i, int t, const int n,
                                const enum pack_format format)
{
    const struct packed *w = m->w;
    size_t stride = (size_t)(w->n_cols / GROUP);
    const struct quant_group *x = quant_row(&m->q, (size_t)t);
    int n_blocks = packed_n_blocks(w);
    __m512 section[K_SECTIONS][FEW];
    for (int s = 0; s < K_SECTIONS; s++) {
        __m512 acc[FEW];
        UNROLL
        for (int i = 0; i < n; i++)
            acc[i] = _mm512_setzero_ps();
        add_blocks(acc, w, packed_panel(w, panel_i), (size_t)section_begin(n_blocks, s),
                   (size_t)section_begin(n_blocks, s + 1), x, stride, n, format);
        UNROLL
        for (int i = 0; i < n; i++)
            section[s][i] = acc[i];
    }
    for (int i = 0; i < n; i++)
        store_rows(m, panel_i, t + i, section_tree_avx512(&section[0][i], FEW));
}

FORCE_INLINE void tile(const struct matmul *m, int panel_i, int t, int n,
                       const enum pack_format format)
{
    switch (n) {
    case 1: panel_product(m, panel_i, t, 1, format); break;
    case 2: panel_product(m, panel_i, t, 2, format); break;
    case 3: panel_product(m, panel_i, t, 3, format); break;
    case 4: panel_product(m, panel_i, t, 4, format); break;
    case 5: panel_product(m, panel_i, t, 5, format); break;
    case 6: panel_product(m, panel_i, t, 6, format); break;
    case 7: panel_product(m, panel_i, t, 7, format); break;
    default: panel_product(m, panel_i, t, FEW, format); break;
    }
}

FORCE_INLINE void matmul(const struct matmul *m, int begin, int end, const enum pack_format format)
{
    if (m->q.interleaved) {
        gemm_avx512(m, begin, end);
        return;
    }
    int tiles = (m->n - 1) / FEW + 1; /* about equally large */
    for (int panel_i = begin; panel_i < end; panel_i++) {
        for (int i = 0; i < tiles; i++) {
            int t = m->n * i / tiles;
            tile(m, panel_i, t, m->n * (i + 1) / tiles - t, format);
        }
    }
}

void matmul_q8_0_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q8_0);
}

void matmul_q4_0_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q4_0);
}

void matmul_q4_k_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q4_K);
}

void matmul_q6_k_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q6_K);
}
