/* Random numbers that are counted, not drawn: a pure function of (seed, choice, position), so that
 * a token does not depend on what was sampled elsewhere, before, or twice (DESIGN, section 5). */
#ifndef SHOAL_SAMPLER_COUNTED_RANDOM_H
#define SHOAL_SAMPLER_COUNTED_RANDOM_H

#include <stdint.h>

/* 64 well-mixed bits: every input bit flips each of them with probability about 1/2. */
uint64_t counted_bits(uint64_t seed, uint32_t choice, uint32_t position);

/* A multiple of 2^-53 in [0, 1). */
double counted_uniform(uint64_t seed, uint32_t choice, uint32_t position);

#endif
