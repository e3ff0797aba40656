/* The lanes of lanes.h in four NEON registers. */
#ifndef SHOAL_BACKEND_CPU_ARM_LANES_NEON_H
#define SHOAL_BACKEND_CPU_ARM_LANES_NEON_H

#include "backend/cpu/arm/neon_impl.h"

enum { LANES_TILE = 6, LANES_SUMS = 6 }; /* 24 registers of 32 */

struct lanes {
    float32x4_t v[4];
};

FORCE_INLINE struct lanes lanes_all(float x)
{
    float32x4_t v = vdupq_n_f32(x);
    return (struct lanes){{v, v, v, v}};
}

FORCE_INLINE struct lanes lanes_zero(void)
{
    return lanes_all(0.0f);
}

FORCE_INLINE struct lanes lanes_load(const float *p)
{
    return (struct lanes){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}

FORCE_INLINE void lanes_store(float *p, struct lanes a)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, a.v[i]);
}

FORCE_INLINE struct lanes lanes_load_f16(const void *p)
{
    uint16x8_t low = halves_at(p), high = halves_at((const uint8_t *)p + 16);
    return (struct lanes){{low_f16(low), high_f16(low), low_f16(high), high_f16(high)}};
}

FORCE_INLINE struct lanes lanes_load_i8(const void *p)
{
    int8x16_t bytes = vld1q_s8(p);
    int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    return (struct lanes){
        {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
         vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}

FORCE_INLINE struct lanes lanes_add(struct lanes a, struct lanes b)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = vaddq_f32(a.v[i], b.v[i]);
    return a;
}

FORCE_INLINE struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = vsubq_f32(a.v[i], b.v[i]);
    return a;
}

FORCE_INLINE struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = vmulq_f32(a.v[i], b.v[i]);
    return a;
}

FORCE_INLINE struct lanes lanes_div(struct lanes a, struct lanes b)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = vdivq_f32(a.v[i], b.v[i]);
    return a;
}

FORCE_INLINE struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
    return c;
}

FORCE_INLINE float32x4_t greater_neon(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

FORCE_INLINE struct lanes lanes_max(struct lanes a, struct lanes b)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] = greater_neon(a.v[i], b.v[i]);
    return a;
}

FORCE_INLINE struct lanes lanes_first(int n, struct lanes yes, struct lanes no)
{
    static const int32_t index[4] = {0, 1, 2, 3};
    UNROLL
    for (int i = 0; i < 4; i++)
        yes.v[i] =
            vbslq_f32(vcltq_s32(vld1q_s32(index), vdupq_n_s32(n - 4 * i)), yes.v[i], no.v[i]);
    return yes;
}

/* From EXPF_MIN down the result rounds to 0. */
FORCE_INLINE struct lanes lanes_exp(struct lanes a)
{
    UNROLL
    for (int i = 0; i < 4; i++) /* the greater of a number and a NaN is the NaN here */
        a.v[i] = exp_inside_neon(vmaxq_f32(vdupq_n_f32(EXPF_MIN), a.v[i]));
    return a;
}

FORCE_INLINE float lanes_greatest(struct lanes a)
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}

FORCE_INLINE float lanes_sum(struct lanes a)
{
    return stripe_tree_neon(a.v);
}

FORCE_INLINE void lanes_transpose(float *to, const float *const *from, size_t first)
{
    for (int j = 0; j < LANES_TILE; j++)
        for (int i = 0; i < 16; i++)
            to[i * LANES_TILE + j] = from[j][first + i];
}

FORCE_INLINE void lanes_prefetch(const void *p)
{
    __builtin_prefetch(p, 0, 2); /* the second level */
}

#endif
