/* Packed groups (pack.h) into registers: codes of four rows, by step, and f32 scales of all 16.
 * Every scale is exact: an f16 times an integer of at most 8 bits. Codes of 4 and 6 bits stay
 * unsigned; what they are offset by is code_offset. */
#ifndef SHOAL_BACKEND_CPU_ARM_DECODE_NEON_H
#define SHOAL_BACKEND_CPU_ARM_DECODE_NEON_H

#include "backend/cpu/arm/neon_impl.h"

enum { STEPS = GROUP / 4 };

/* Of one group of 16 rows. */
struct scales {
    float32x4_t scale[2][QUADS]; /* of each half; [1] only Q6_K */
    float32x4_t min[QUADS];      /* Q4_K */
};

/* A group in its panel. */
struct place {
    const uint8_t *block;
    int i; /* which group of the block */
};

FORCE_INLINE struct place place_of(const struct packed *w, const uint8_t *panel, size_t g,
                                   const enum pack_format format)
{
    const size_t per_block = (size_t)pack_block(format) / GROUP;
    struct place p = {panel + g / per_block * w->block_bytes, (int)(g % per_block)};
    return p;
}

FORCE_INLINE int code_offset(const enum pack_format format)
{
    return format == PACK_Q4_0 ? 8 : format == PACK_Q6_K ? 32 : 0;
}

FORCE_INLINE void sixteen_f16(float32x4_t to[QUADS], const uint8_t *at)
{
    UNROLL
    for (int i = 0; i < 2; i++) {
        uint16x8_t halves = halves_at(at + 16 * i);
        to[2 * i] = low_f16(halves);
        to[2 * i + 1] = high_f16(halves);
    }
}

/* to = f16s at `at` times 16 signed bytes (where unsigned, below 128). */
FORCE_INLINE void sixteen_products(float32x4_t to[QUADS], const uint8_t *at, int8x16_t bytes)
{
    float32x4_t by[QUADS];
    int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    sixteen_f16(by, at);
    to[0] = vmulq_f32(by[0], vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))));
    to[1] = vmulq_f32(by[1], vcvtq_f32_s32(vmovl_high_s16(low)));
    to[2] = vmulq_f32(by[2], vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))));
    to[3] = vmulq_f32(by[3], vcvtq_f32_s32(vmovl_high_s16(high)));
}

FORCE_INLINE void q4_k_scales(struct scales *s, struct place p)
{
    const uint8x16_t two = vdupq_n_u8(0x30);
    uint8x16_t low = vld1q_u8(p.block + Q4_K_LOW_AT + p.i * PANEL_ROWS);
    uint8x16_t high = vld1q_u8(p.block + Q4_K_HIGH_AT + p.i / 2 * PANEL_ROWS);
    high = p.i & 1 ? vshrq_n_u8(high, 4) : high;
    uint8x16_t scale = vorrq_u8(vandq_u8(low, vdupq_n_u8(15)), vandq_u8(vshlq_n_u8(high, 4), two));
    uint8x16_t min = vorrq_u8(vshrq_n_u8(low, 4), vandq_u8(vshlq_n_u8(high, 2), two));
    sixteen_products(s->scale[0], p.block, vreinterpretq_s8_u8(scale));
    sixteen_products(s->min, p.block + 2 * PANEL_ROWS, vreinterpretq_s8_u8(min));
}

FORCE_INLINE void decode_scales(struct scales *s, struct place p, const enum pack_format format)
{
    if (format == PACK_Q4_K) {
        q4_k_scales(s, p);
    } else if (format == PACK_Q6_K) {
        const uint8_t *bytes = p.block + q6_k_scales_at(p.i);
        UNROLL
        for (int h = 0; h < 2; h++)
            sixteen_products(s->scale[h], p.block,
                             vreinterpretq_s8_u8(vld1q_u8(bytes + h * PANEL_ROWS)));
    } else {
        sixteen_f16(s->scale[0], p.block + p.i * 2 * PANEL_ROWS);
    }
}

/* Steps 0 … 7 of rows 4 quad … 4 quad + 3, [4 rows][4 values] each, of nibbles. */
FORCE_INLINE void decode_nibbles(int8x16_t code[STEPS], const uint8_t *group, int quad)
{
    UNROLL
    for (int step = 0; step < 4; step++) {
        uint8x16_t pair = vld1q_u8(group + 64 * step + 16 * quad);
        code[step] = vreinterpretq_s8_u8(vandq_u8(pair, vdupq_n_u8(15)));
        code[step + 4] = vreinterpretq_s8_u8(vshrq_n_u8(pair, 4));
    }
}

/* The same of Q6_K: four steps from three vectors of six bits and two. */
FORCE_INLINE void decode_six_bits(int8x16_t code[STEPS], const uint8_t *group, int quad)
{
    UNROLL
    for (int h = 0; h < 2; h++, code += 4, group += Q6_HALF_BYTES) {
        uint8x16_t three[3], top = vdupq_n_u8(0);
        UNROLL
        for (int j = 0; j < 3; j++) {
            three[j] = vld1q_u8(group + 64 * j + 16 * quad);
            code[j] = vreinterpretq_s8_u8(vandq_u8(three[j], vdupq_n_u8(63)));
            top = vorrq_u8(vshlq_n_u8(top, 2), vshrq_n_u8(three[j], 6));
        }
        code[3] = vreinterpretq_s8_u8(top);
    }
}

FORCE_INLINE void decode_codes(int8x16_t code[STEPS], struct place p, int quad,
                               const enum pack_format format)
{
    switch (format) {
    case PACK_Q8_0:
        UNROLL
        for (int step = 0; step < STEPS; step++)
            code[step] = vreinterpretq_s8_u8(
                vld1q_u8(p.block + PAIR_CODES_AT + p.i * Q8_GROUP_BYTES + 64 * step + 16 * quad));
        break;
    case PACK_Q4_0:
        decode_nibbles(code, p.block + PAIR_CODES_AT + p.i * Q4_GROUP_BYTES, quad);
        break;
    case PACK_Q4_K:
        decode_nibbles(code, p.block + Q4_K_CODES_AT + p.i * Q4_GROUP_BYTES, quad);
        break;
    default: decode_six_bits(code, p.block + q6_k_codes_at(p.i), quad); break;
    }
}

#endif
