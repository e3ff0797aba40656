/* Tokens in one total order, best first: the larger logit, then the lower id. A token's place is a
 * 64-bit key, larger is better: comparing keys is comparing tokens, and no two are equal.
 * Selecting the best n of them takes time linear in the vocabulary, never a full sort. Pure. */
#ifndef SHOAL_SAMPLER_ORDER_KEYS_H
#define SHOAL_SAMPLER_ORDER_KEYS_H

#include <stdint.h>
#include <string.h>

/* `logit` is not NaN; -0 and +0 are equal. */
static inline uint64_t order_key(float logit, int32_t token)
{
    float positive_zero = logit + 0.0f; /* -0 + 0 is +0 */
    uint32_t bits;
    memcpy(&bits, &positive_zero, sizeof(bits));
    bits ^= (bits >> 31) != 0 ? UINT32_MAX : 0x80000000u; /* floats in order, as unsigned */
    return (uint64_t)bits << 32 | (UINT32_MAX - (uint32_t)token);
}

static inline int32_t order_key_token(uint64_t key)
{
    return (int32_t)(UINT32_MAX - (uint32_t)key);
}

/* The n-th largest of n_keys different keys, 1 <= n <= n_keys. `work` has room for n_keys. */
uint64_t order_keys_nth(const uint64_t *keys, int n_keys, int n, uint64_t *work);

/* The n largest keys in descending order, to `best`, which has room for n_keys. Answers n. */
int order_keys_best(const uint64_t *keys, int n_keys, int n, uint64_t *best);

#endif
