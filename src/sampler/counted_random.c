/* A keyed counter: the seed is the key, (choice, position) the counter. Each round multiplies one
 * half by an odd constant to 64 bits: the high word, mixed with the other half and a key word,
 * becomes the new half, the low word the other. A round can be undone, so for one seed no two
 * counters give the same bits. (The construction and the multiplier are those of Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3", 2011; the key schedule is ours, since a 64-bit key
 * enters here, one word per round.) */
#include "sampler/counted_random.h"

enum { ROUNDS = 12 };

uint64_t counted_bits(uint64_t seed, uint32_t choice, uint32_t position)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t left = position, right = choice;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t product = (uint64_t)left * 0xD2511F53u;
        left = (uint32_t)(product >> 32) ^ right ^ key[round & 1];
        right = (uint32_t)product;
        key[round & 1] += (round & 1) != 0 ? 0xB7E15163u : 0x9E3779B9u;
    }
    return (uint64_t)left << 32 | right;
}

double counted_uniform(uint64_t seed, uint32_t choice, uint32_t position)
{
    return (double)(counted_bits(seed, choice, position) >> 11) * 0x1p-53;
}
