/* Activations to int8, in groups of 32: the definition (docs/numerics.md, "Quantised activations").
 */
#include "backend/cpu/ref/ref.h"

/* 1.5 * 2^23: adding it rounds to an integer (ties to even) that stands in the low bits. */
static const float ROUND = 0x1.8p23f;

static int round_to_int(float x) /* |x| < 2^22 */
{
    return (int32_t)(f32_bits(x + ROUND) - f32_bits(ROUND));
}

/* The greatest magnitude, as bits: they order like the magnitudes, with NaN above infinity. */
static uint32_t greatest_magnitude(const float *x)
{
    uint32_t greatest = 0;
    for (int i = 0; i < GROUP; i++) {
        uint32_t magnitude = f32_bits(x[i]) & 0x7fffffffu;
        if (magnitude > greatest)
            greatest = magnitude;
    }
    return greatest;
}

/* Finite groups: d = amax / 127, code = round(x * (127 / amax)). A group whose 127 / amax overflows
 * (amax below 2^-121) counts as zeros; one with an infinity or NaN has scale NaN and codes 0, so
 * that every product with it is NaN and no conversion is undefined. */
static void quantise_group(struct quant_group *q, const float *x)
{
    uint32_t bits = greatest_magnitude(x);
    float amax = f32_from_bits(bits);
    float inverse = 127.0f / amax;
    bool finite = bits < F32_INFINITY_BITS;
    bool usable = finite && f32_bits(inverse) < F32_INFINITY_BITS;
    q->scale = usable ? amax / 127.0f : finite ? 0.0f : f32_from_bits(F32_NAN_BITS);
    q->less_sum = q->less_first = 0;
    for (int i = 0; i < GROUP; i++) {
        q->codes[i] = usable ? (int8_t)round_to_int(x[i] * inverse) : 0;
        q->less_sum -= q->codes[i];
        if (i < GROUP / 2)
            q->less_first -= q->codes[i];
    }
    q->scaled_sum = (float)-q->less_sum * q->scale;
}

void quantise_ref(const struct quant_rows *to, size_t row, size_t group, const float *x,
                  size_t n_rows, size_t n_groups)
{
    for (size_t r = 0; r < n_rows; r++)
        for (size_t g = 0; g < n_groups; g++, x += GROUP)
            quantise_group(quant_at(to, row + r, group + g), x);
}
