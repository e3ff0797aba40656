/* What several Arm kernels share. Four vectors of 4 lanes make the 16 rows of a panel (its `quads`)
 * or the 16 stripes of a reduction. Ragged ends go through small buffers. */
#ifndef SHOAL_BACKEND_CPU_ARM_NEON_IMPL_H
#define SHOAL_BACKEND_CPU_ARM_NEON_IMPL_H

#include "backend/cpu/arm/arm.h"
#include "tensor/exact_math.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

enum { QUADS = PANEL_ROWS / 4 };

/* The first min(n, 4) floats, zeros after them; n >= 1. */
FORCE_INLINE float32x4_t load_first(const float *at, size_t n)
{
    float buffer[4] = {0};
    if (n >= 4)
        return vld1q_f32(at);
    memcpy(buffer, at, n * sizeof *at);
    return vld1q_f32(buffer);
}

FORCE_INLINE void store_first(float *at, size_t n, float32x4_t v)
{
    float buffer[4];
    if (n >= 4) {
        vst1q_f32(at, v);
    } else {
        vst1q_f32(buffer, v);
        memcpy(at, buffer, n * sizeof *at);
    }
}

/* stripe_tree of kernels.h over stripes 0 … 3, 4 … 7, 8 … 11, 12 … 15. */
FORCE_INLINE float stripe_tree_neon(const float32x4_t s[4])
{
    float32x4_t four = vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3]));
    return vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}

/* section_tree of kernels.h. */
FORCE_INLINE float32x4_t section_tree_neon(const float32x4_t s[K_SECTIONS])
{
    float32x4_t a = vaddq_f32(vaddq_f32(s[0], s[1]), vaddq_f32(s[2], s[3]));
    float32x4_t b = vaddq_f32(vaddq_f32(s[4], s[5]), vaddq_f32(s[6], s[7]));
    return vaddq_f32(a, b);
}

/* 8 numbers of 16 bits, at any alignment. */
FORCE_INLINE uint16x8_t halves_at(const uint8_t *at)
{
    return vreinterpretq_u16_u8(vld1q_u8(at));
}

FORCE_INLINE float32x4_t low_f16(uint16x8_t halves)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(halves)));
}

FORCE_INLINE float32x4_t high_f16(uint16x8_t halves)
{
    return vcvt_high_f32_f16(vreinterpretq_f16_u16(halves));
}

/* Sums of the four rows from `row`, one token, as struct matmul asks; rows that do not exist are
 * left out. */
FORCE_INLINE void store_quad(const struct matmul *m, int row, size_t t, float32x4_t sum)
{
    if (row >= m->w->n_rows)
        return;
    float *y = m->y + t * m->y_stride + row - m->first_row;
    size_t n = (size_t)(m->w->n_rows - row);
    store_first(y, n, m->add ? vaddq_f32(load_first(y, n), sum) : sum);
}

FORCE_INLINE void store_panel(const struct matmul *m, int panel_i, size_t t,
                              const float32x4_t sums[QUADS])
{
    UNROLL
    for (int q = 0; q < QUADS; q++)
        store_quad(m, panel_i * PANEL_ROWS + 4 * q, t, sums[q]);
}

FORCE_INLINE float32x4_t pow2_neon(int32x4_t n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

/* exact_expf, lane by lane, for EXPF_MIN <= x < EXPF_MAX; a NaN for a NaN, else nonsense. */
FORCE_INLINE float32x4_t exp_inside_neon(float32x4_t x)
{
    const float32x4_t shift = vdupq_n_f32(EXPF_SHIFT), one = vdupq_n_f32(1.0f);
    float32x4_t shifted = vfmaq_f32(shift, x, vdupq_n_f32(EXPF_LOG2E));
    int32x4_t n = vsubq_s32(vreinterpretq_s32_f32(shifted), vreinterpretq_s32_f32(shift));
    float32x4_t whole = vsubq_f32(shifted, shift);
    float32x4_t r = vfmaq_f32(x, whole, vdupq_n_f32(-EXPF_LN2_HI));
    r = vfmaq_f32(r, whole, vdupq_n_f32(-EXPF_LN2_LO));
    float32x4_t p = vdupq_n_f32(EXPF_C7);
    p = vfmaq_f32(vdupq_n_f32(EXPF_C6), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXPF_C5), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXPF_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXPF_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(EXPF_C2), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    int32x4_t half = vshrq_n_s32(n, 1);
    p = vmulq_f32(p, pow2_neon(half));
    return vmulq_f32(p, pow2_neon(vsubq_s32(n, half)));
}

/* exact_expf, lane by lane. */
FORCE_INLINE float32x4_t exact_expf_neon(float32x4_t x)
{
    float32x4_t p = exp_inside_neon(x);
    p = vbslq_f32(vcleq_f32(x, vdupq_n_f32(EXPF_MIN)), vdupq_n_f32(0.0f), p);
    return vbslq_f32(vcgeq_f32(x, vdupq_n_f32(EXPF_MAX)), vdupq_n_f32(INFINITY), p);
}

#endif
