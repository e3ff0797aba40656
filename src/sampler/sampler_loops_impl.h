/* The loops over a whole vocabulary, for each kind of processor: they take nine tenths of the time.
 * All variants give the same bits: comparisons, integer sums, and token_weights. */
#ifndef SHOAL_SAMPLER_SAMPLER_LOOPS_IMPL_H
#define SHOAL_SAMPLER_SAMPLER_LOOPS_IMPL_H

#include "sampler/token_weights.h"

#include <stdbool.h>
#include <stdint.h>

enum { BLOCK_TOKENS = 64 };

struct key_range {
    uint32_t least, most;
};

struct sampler_loops {
    const char *name;
    token_weights_fn *weights;

    /* best[b] = the largest of the 64 logits of block b. False: one of them all is NaN or +inf. */
    bool (*block_bests)(const float *logits, int n_blocks, float *best);

    /* The least and the largest of n >= 1 keys. */
    struct key_range (*range)(const uint32_t *keys, int n);

    /* Of those i < n with r.least <= keys[i] <= r.most, in order, copy a[i] to a_out (a NULL: none)
     * and b[i] to b_out (b NULL: first + i). Answers how many. The outputs have room for n; they
     * may be the inputs, keys too, if they are not ahead of them. */
    int (*keep)(const uint32_t *keys, int n, struct key_range r, const float *a, float *a_out,
                const uint32_t *b, uint32_t first, uint32_t *b_out);
};

/* The best for this processor. */
const struct sampler_loops *sampler_loops(void);
/* Those that it can run, to be compared: the plain one first, the best one last; NULL ends. */
const struct sampler_loops *const *sampler_loops_all(void);

extern const struct sampler_loops sampler_loops_plain;
extern const struct sampler_loops sampler_loops_avx2;   /* x86/, needs AVX2 and FMA */
extern const struct sampler_loops sampler_loops_avx512; /* x86/, needs AVX-512 F */

#endif
