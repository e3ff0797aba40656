/* One token times quantised weights with AVX-512 VNNI: bound by how fast the panels come from
 * memory, so each is read once from end to end. vpdpbusd adds, in each 32-bit lane, four products
 * of unsigned by signed bytes: one step of the panel (pack.h) against four activations broadcast to
 * all lanes. The unsigned side is the weight code plus an offset, which the start of the sum takes
 * off again through the activations' sums: integer arithmetic, so the result is exactly ref's.
 * Several tokens: gemm_avx512.c. */
#include "backend/cpu/x86/decode_avx512.h"

/* start + the products of steps [begin, begin + 4) with 16 activations. */
FORCE_INLINE __m512i dot_half(__m512i start, const struct group *r, int begin, const int8_t *x)
{
    UNROLL
    for (int step = 0; step < 4; step++)
        start = _mm512_dpbusd_epi32(start, r->code[begin + step], broadcast4(x + 4 * step));
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

FORCE_INLINE __m512 panel_product(const struct packed *w, const uint8_t *panel,
                                  const struct quant_group *x, const enum pack_format format)
{
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    size_t n_groups = (size_t)(w->n_cols / GROUP);
    int n_blocks = packed_n_blocks(w);
    __m512 section[K_SECTIONS];
    for (int s = 0; s < K_SECTIONS; s++) {
        __m512 acc = _mm512_setzero_ps();
        for (size_t b = (size_t)section_begin(n_blocks, s);
             b < (size_t)section_begin(n_blocks, s + 1); b++) {
            UNROLL
            for (size_t i = 0; i < per_block; i++) {
                size_t g = b * per_block + i;
                if (g < n_groups) {
                    struct group r;
                    decode(&r, w, panel, g, format);
                    acc = add_group(acc, &r, x + g, format);
                }
            }
        }
        section[s] = acc;
    }
    return section_tree_avx512(section, 1);
}

FORCE_INLINE void matmul(const struct matmul *m, int panel_begin, int panel_end,
                         const enum pack_format format)
{
    if (m->n > 1) {
        gemm_avx512(m, panel_begin, panel_end);
        return;
    }
    for (int panel_i = panel_begin; panel_i < panel_end; panel_i++) {
        __m512 sum = panel_product(m->w, packed_panel(m->w, panel_i), m->q, format);
        long row = (long)panel_i * PANEL_ROWS;
        __mmask16 rows = first_lanes(m->w->n_rows - row);
        float *y = m->y + row - m->first_row;
        if (m->add)
            sum = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, y), sum);
        _mm512_mask_storeu_ps(y, rows, sum);
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
