/* Products of quantised weights with what every 64-bit Arm processor has: bytes are multiplied to
 * 16 bits, where two products of Q8_0 codes or four of smaller ones have room, and pairs of these
 * are added to 32 bits. */
#include "backend/cpu/arm/decode_neon.h"

/* Two steps of four rows: the products, [row][4] of 16 bits, rows 0, 1 and rows 2, 3. */
FORCE_INLINE int16x8x2_t two_steps(int8x16_t code0, int8x16_t code1, int8x16_t x0, int8x16_t x1)
{
    int16x8_t low = vmull_s8(vget_low_s8(code0), vget_low_s8(x0));
    int16x8_t high = vmull_high_s8(code0, x0);
    int16x8x2_t sums = {
        {vmlal_s8(low, vget_low_s8(code1), vget_low_s8(x1)), vmlal_high_s8(high, code1, x1)}};
    return sums;
}

/* The four activations of a step, for each row. */
#define STEP_OF(x, step) vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), step))

FORCE_INLINE int32x4_t dot_half(int32x4_t sum, const int8x16_t code[4], int8x16_t x,
                                const enum pack_format format)
{
    int16x8x2_t a = two_steps(code[0], code[1], STEP_OF(x, 0), STEP_OF(x, 1));
    int16x8x2_t b = two_steps(code[2], code[3], STEP_OF(x, 2), STEP_OF(x, 3));
    if (format != PACK_Q8_0) { /* 4 * 63 * 127 < 2^15 */
        int32x4_t low = vpaddlq_s16(vaddq_s16(a.val[0], b.val[0]));
        int32x4_t high = vpaddlq_s16(vaddq_s16(a.val[1], b.val[1]));
        return vaddq_s32(sum, vpaddq_s32(low, high));
    }
    int32x4_t low = vpadalq_s16(vpaddlq_s16(a.val[0]), b.val[0]); /* 2 * 128 * 127 < 2^15 */
    int32x4_t high = vpadalq_s16(vpaddlq_s16(a.val[1]), b.val[1]);
    return vaddq_s32(sum, vpaddq_s32(low, high));
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

void matmul_q8_0_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q8_0);
}

void matmul_q4_0_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q4_0);
}

void matmul_q4_k_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q4_K);
}

void matmul_q6_k_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, PACK_Q6_K);
}
