/* Products of quantised weights with SDOT, which adds, in each 32-bit lane, four products of signed
 * bytes: one step of a panel (pack.h) by the four activations of the step, taken from a vector
 * of 16.
 */
#include "backend/cpu/arm/decode_neon.h"

FORCE_INLINE int32x4_t dot_half(int32x4_t sum, const int8x16_t code[4], int8x16_t x,
                                const enum pack_format format)
{
    (void)format;
    sum = vdotq_laneq_s32(sum, code[0], x, 0);
    sum = vdotq_laneq_s32(sum, code[1], x, 1);
    sum = vdotq_laneq_s32(sum, code[2], x, 2);
    return vdotq_laneq_s32(sum, code[3], x, 3);
}

#include "backend/cpu/arm/gemv_body.h"
#include "backend/cpu/arm/row_parts.h"
#include "backend/cpu/arm/gemm_body.h"

FORCE_INLINE void matmul(const struct matmul *m, int panel_begin, int panel_end,
                         const enum pack_format format)
{
    int block = token_block(m->w, m->n);
    for (int t = 0, n; t < m->n; t += n) {
        n = m->n - t < block ? m->n - t : block;
        if (n == 1)
            gemv(m, panel_begin, panel_end, t, format);
        else
            gemm_block(m, panel_begin, panel_end, t, n, format);
    }
}

void matmul_q8_0_dotprod(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q8_0);
}

void matmul_q4_0_dotprod(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q4_0);
}

void matmul_q4_k_dotprod(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q4_K);
}

void matmul_q6_k_dotprod(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q6_K);
}
