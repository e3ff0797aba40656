/* Several tokens times quantised weights with SMMLA, which multiplies 2 tokens x 8 values by 8
 * values x 2 rows: a vector of four products is [2 tokens][2 rows]. A single token would leave half
 * of it idle and goes to SDOT. */
#include "backend/cpu/arm/decode_neon.h"

enum { COLUMN_TOKENS = 2, PARTS = 2 * QUADS };

struct column {
    int8x16_t x[4];                /* 8 values of token a, 8 of token b */
    float32x4_t scale, scaled_sum; /* a, a, b, b */
};

FORCE_INLINE int8x16_t low_eights(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

FORCE_INLINE int8x16_t high_eights(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

FORCE_INLINE struct column load_column(const struct quant_group *a, const struct quant_group *b)
{
    int8x16_t a0 = vld1q_s8(a->codes), a1 = vld1q_s8(a->codes + 16);
    int8x16_t b0 = vld1q_s8(b->codes), b1 = vld1q_s8(b->codes + 16);
    return (struct column){
        {low_eights(a0, b0), high_eights(a0, b0), low_eights(a1, b1), high_eights(a1, b1)},
        vcombine_f32(vdup_n_f32(a->scale), vdup_n_f32(b->scale)),
        vcombine_f32(vdup_n_f32(a->scaled_sum), vdup_n_f32(b->scaled_sum))};
}

/* Steps 2i and 2i + 1 of two rows make 8 values of each. */
FORCE_INLINE void arrange(int8x16_t to[PARTS][STEPS / 2], const int8x16_t code[STEPS], int quad)
{
    UNROLL
    for (int i = 0; i < STEPS / 2; i++) {
        int32x4_t a = vreinterpretq_s32_s8(code[2 * i]), b = vreinterpretq_s32_s8(code[2 * i + 1]);
        to[2 * quad][i] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
        to[2 * quad + 1][i] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
    }
}

FORCE_INLINE void spread(float32x4_t to[PARTS], float32x4_t rows, int quad)
{
    to[2 * quad] = vcombine_f32(vget_low_f32(rows), vget_low_f32(rows));
    to[2 * quad + 1] = vcombine_f32(vget_high_f32(rows), vget_high_f32(rows));
}

FORCE_INLINE int32x4_t dot_part(int32x4_t sum, const int8x16_t code[STEPS / 2],
                                const struct column *x, int half, const enum pack_format format)
{
    (void)format;
    sum = vmmlaq_s32(sum, x->x[2 * half], code[2 * half]);
    return vmmlaq_s32(sum, x->x[2 * half + 1], code[2 * half + 1]);
}

FORCE_INLINE float32x4_t add_scaled(float32x4_t acc, int32x4_t sum, float32x4_t scale,
                                    const struct column *x)
{
    return vfmaq_f32(acc, vcvtq_f32_s32(sum), vmulq_f32(scale, x->scale));
}

FORCE_INLINE float32x4_t less_min(float32x4_t acc, float32x4_t min, const struct column *x)
{
    return vfmsq_f32(acc, min, x->scaled_sum);
}

FORCE_INLINE void panel_sums(float32x4_t sums[QUADS], const float *at, int i)
{
    UNROLL
    for (int q = 0; q < QUADS; q++) {
        float32x4_t a = vld1q_f32(at + 8 * q), b = vld1q_f32(at + 8 * q + 4);
        sums[q] = i == 0 ? vcombine_f32(vget_low_f32(a), vget_low_f32(b))
                         : vcombine_f32(vget_high_f32(a), vget_high_f32(b));
    }
}

#include "backend/cpu/arm/gemm_body.h"

FORCE_INLINE void matmul(const struct matmul *m, int panel_begin, int panel_end,
                         const enum pack_format format)
{
    int block = token_block(m->w, m->n);
    for (int t = 0, n; t < m->n; t += n) {
        n = m->n - t < block ? m->n - t : block;
        gemm_block(m, panel_begin, panel_end, t, n, format);
    }
}

void matmul_q8_0_i8mm(const struct matmul *m, int panel_begin, int panel_end)
{
    if (m->n == 1)
        matmul_q8_0_dotprod(m, panel_begin, panel_end);
    else
        matmul(m, panel_begin, panel_end, PACK_Q8_0);
}

void matmul_q4_0_i8mm(const struct matmul *m, int panel_begin, int panel_end)
{
    if (m->n == 1)
        matmul_q4_0_dotprod(m, panel_begin, panel_end);
    else
        matmul(m, panel_begin, panel_end, PACK_Q4_0);
}

void matmul_q4_k_i8mm(const struct matmul *m, int panel_begin, int panel_end)
{
    if (m->n == 1)
        matmul_q4_k_dotprod(m, panel_begin, panel_end);
    else
        matmul(m, panel_begin, panel_end, PACK_Q4_K);
}

void matmul_q6_k_i8mm(const struct matmul *m, int panel_begin, int panel_end)
{
    if (m->n == 1)
        matmul_q6_k_dotprod(m, panel_begin, panel_end);
    else
        matmul(m, panel_begin, panel_end, PACK_Q6_K);
}
