/* Inputs for the kernel tests: a fixed random sequence, and weights in file layout. */
#ifndef SHOAL_BACKEND_CPU_CHECK_DATA_H
#define SHOAL_BACKEND_CPU_CHECK_DATA_H

#include "base/panic.h"
#include "tensor/dtype.h"
#include "tensor/float16.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_u64(struct random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Uniform in [-1, 1). */
static inline float random_unit(struct random *r)
{
    return (float)(int64_t)(random_u64(r) >> 40) * 0x1p-23f - 1.0f;
}

/* What values a test takes. The sequences of the hostile kinds hold no NaN and no infinity. */
enum fill {
    FILL_RANDOM,
    FILL_EXTREME, /* largest codes (-128, 0, 15, 63) and scales of one sign: sums as large as can be
                   */
    FILL_ZERO,
    FILL_DENORMAL, /* tiny activations and scales */
    FILL_HUGE,
    N_FILLS
};

static inline float fill_value(struct random *r, enum fill fill)
{
    float unit = random_unit(r);
    switch (fill) {
    case FILL_RANDOM: return unit;
    case FILL_EXTREME: return random_u64(r) & 8 ? 1.0f : -1.0f;
    case FILL_ZERO: return random_u64(r) & 1 ? 0.0f : -0.0f;
    case FILL_DENORMAL: return random_u64(r) & 3 ? unit * 0x1p-128f : unit * 0x1p-120f;
    default: return unit * 0x1p60f;
    }
}

static inline uint8_t fill_code(struct random *r, enum fill fill)
{
    uint8_t byte = (uint8_t)random_u64(r);
    return fill == FILL_ZERO ? 0 : fill == FILL_EXTREME ? (byte & 7 ? 0x80 : 0x7f) : byte;
}

static inline void fill_scale(struct random *r, enum fill fill, uint8_t *at)
{
    float unit = random_unit(r);
    float scale = fill == FILL_EXTREME    ? 65504.0f
                  : fill == FILL_DENORMAL ? unit * 0x1p-16f
                  : fill == FILL_ZERO     ? 0.0f
                                          : unit * 0.03f;
    struct f16 h = f16_from_f32(scale);
    memcpy(at, &h, 2);
}

/* A matrix in file layout; `rows` has room for n_rows rows. */
static inline void fill_weights(struct random *r, enum fill fill, enum dtype type, size_t n_elems,
                                uint8_t *at)
{
    const struct dtype_info *info = dtype_info(type);
    for (size_t i = 0; i < n_elems; i += (size_t)info->block_elems, at += info->block_bytes) {
        float value = fill_value(r, fill);
        struct f16 half = f16_from_f32(value);
        struct bf16 brain = bf16_from_f32(value);
        if (fill == FILL_HUGE)
            half = f16_from_f32(random_unit(r) * 65000.0f);
        switch (type) {
        case DTYPE_F32: memcpy(at, &value, 4); break;
        case DTYPE_F16: memcpy(at, &half, 2); break;
        case DTYPE_BF16: memcpy(at, &brain, 2); break;
        default:
            for (int b = 0; b < info->block_bytes; b++)
                at[b] = fill_code(r, fill);
            fill_scale(r, fill, type == DTYPE_Q6_K ? at + 208 : at);
            if (type == DTYPE_Q4_K) /* the scale of the minima */
                fill_scale(r, fill, at + 2);
        }
    }
}

#endif
