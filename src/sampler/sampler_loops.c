#include "sampler/sampler_loops_impl.h"

#include <stddef.h>

const struct sampler_loops *sampler_loops(void)
{
    const struct sampler_loops *const *best = sampler_loops_all();
    while (best[1] != NULL)
        best++;
    return *best;
}

uint64_t token_weights(const float *logits, int n, float best, float temperature, float *weights)
{
    return sampler_loops()->weights(logits, n, best, temperature, weights);
}
