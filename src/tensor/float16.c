/* 16-bit floats in integer arithmetic only: no rounding mode, no flush-to-zero setting and no
 * compiler option can change a bit of the result. */
#include "tensor/float16.h"

/* f16: 1 sign, 5 exponent (bias 15), 10 fraction bits. f32: 1, 8 (bias 127), 23. */
float f16_to_f32(struct f16 h)
{
    uint32_t sign = (uint32_t)(h.bits & 0x8000u) << 16;
    uint32_t exponent = (h.bits >> 10) & 0x1fu;
    uint32_t fraction = h.bits & 0x3ffu;

    if (exponent == 0x1f) {
        uint32_t quiet = fraction ? 0x00400000u : 0;
        return f32_from_bits(sign | 0x7f800000u | quiet | fraction << 13);
    }
    if (exponent != 0)
        return f32_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    if (fraction == 0)
        return f32_from_bits(sign);
    /* A denormal: fraction * 2^-24. Shift until the leading one stands at the hidden bit. */
    uint32_t shift = (uint32_t)__builtin_clz(fraction) - 21;
    return f32_from_bits(sign | (113 - shift) << 23 | (fraction << shift & 0x3ffu) << 13);
}

/* `value` >> `shift` (1..31), rounded to nearest, ties to even. */
static uint32_t shift_round(uint32_t value, uint32_t shift)
{
    uint32_t half = 1u << (shift - 1);
    uint32_t rest = value & ((1u << shift) - 1);
    uint32_t whole = value >> shift;
    return whole + (rest > half || (rest == half && (whole & 1)));
}

struct f16 f16_from_f32(float x)
{
    uint32_t bits = f32_bits(x);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    uint32_t magnitude = bits & 0x7fffffffu;

    if (magnitude > 0x7f800000u) /* NaN: keep the top of the payload, make it quiet */
        return (struct f16){(uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu))};
    if (magnitude >= 0x47800000u) /* 65536 and more, infinity */
        return (struct f16){(uint16_t)(sign | 0x7c00u)};
    if (magnitude >= 0x38800000u) /* 2^-14: normal; a carry out of the fraction is right too */
        return (struct f16){(uint16_t)(sign | shift_round(magnitude - (112u << 23), 13))};
    if (magnitude < 0x33000000u) /* below 2^-25: nearer to zero than to the least denormal */
        return (struct f16){sign};
    uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;
    return (struct f16){(uint16_t)(sign | shift_round(fraction, 126 - (magnitude >> 23)))};
}

struct bf16 bf16_from_f32(float x)
{
    uint32_t bits = f32_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (struct bf16){(uint16_t)(bits >> 16 | 0x40u)};
    return (struct bf16){(uint16_t)(shift_round(bits, 16))};
}
