/* Softmax without the division: each token's weight is e^((logit - best) / temperature), the bits
 * of exact_expf, and what is added up are whole numbers: weights in units of 2^-40. Integer
 * addition has no order, so a sum has the same bits whoever adds it, in lanes, in buckets or in a
 * row. A weight below 2^-41 of the best counts as 0: over a vocabulary of 2^17 tokens that is a
 * share of less than 2^-24. 2^22 tokens (SHAPE_MAX_VOCAB) of weight 1 fit into 62 bits. */
#ifndef SHOAL_SAMPLER_TOKEN_WEIGHTS_H
#define SHOAL_SAMPLER_TOKEN_WEIGHTS_H

#include <stdint.h>
#include <string.h>

/* Doubles from here to twice this have steps of 2^-40: adding it rounds a weight to a unit
 * (nearest, ties to even), and the number of units stands in the low bits. */
#define WEIGHT_SHIFT 0x1.8p12
#define WEIGHT_SHIFT_BITS 0x40b8000000000000u
#define WEIGHT_UNIT 0x1p-40

/* The units of a weight, 0 <= w <= 1. */
static inline uint64_t weight_units(float w)
{
    double shifted = (double)w + WEIGHT_SHIFT;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return bits - WEIGHT_SHIFT_BITS;
}

/* weights[i] of n logits <= best (-inf gives 0, NaN is not allowed; best is finite), and the sum of
 * their units. temperature > 0. Any alignment; weights == logits is allowed. */
uint64_t token_weights(const float *logits, int n, float best, float temperature, float *weights);

/* What it is made of, by processor (sampler_loops_impl.h chooses). */
typedef uint64_t token_weights_fn(const float *logits, int n, float best, float temperature,
                                  float *weights);
token_weights_fn token_weights_plain;
token_weights_fn token_weights_avx2;   /* x86/, needs AVX2 and FMA */
token_weights_fn token_weights_avx512; /* x86/, needs AVX-512 F */

#endif
