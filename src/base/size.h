/* Checked size arithmetic: lengths that come from outside are multiplied and added here, so that
 * a product that wraps is an error and not a small allocation. True means the result is good. */
#ifndef SHOAL_BASE_SIZE_H
#define SHOAL_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool size_mul(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline bool size_add(uint64_t a, uint64_t b, uint64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

/* `bytes` rounded up to a multiple of `alignment` (a power of two); false on overflow. */
static inline bool size_align(uint64_t bytes, uint64_t alignment, uint64_t *aligned)
{
    uint64_t sum;
    if (__builtin_add_overflow(bytes, alignment - 1, &sum))
        return false;
    *aligned = sum & ~(alignment - 1);
    return true;
}

#endif
