/* 16-bit floats as they stand in files and KV stores, and their exact conversion.
 *
 * f16 (IEEE binary16) and bf16 (upper half of binary32) are uint16_t in a struct, because not every
 * compiler has the types. To f32 both conversions are exact; from f32 they round to nearest,
 * ties to even, and keep infinities; NaN stays NaN (quiet), as the hardware instructions do.
 * Plain C, the same bits everywhere. */
#ifndef SHOAL_TENSOR_FLOAT16_H
#define SHOAL_TENSOR_FLOAT16_H

#include <stdint.h>

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};

static inline uint32_t f32_bits(float x)
{
    union { float f; uint32_t u; } v = {.f = x};
    return v.u;
}

static inline float f32_from_bits(uint32_t bits)
{
    union { uint32_t u; float f; } v = {.u = bits};
    return v.f;
}

static inline float bf16_to_f32(struct bf16 h)
{
    return f32_from_bits((uint32_t)h.bits << 16);
}

float f16_to_f32(struct f16 h);
struct f16 f16_from_f32(float x);
struct bf16 bf16_from_f32(float x);

#endif
