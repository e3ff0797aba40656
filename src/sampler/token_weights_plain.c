#include "sampler/token_weights.h"

#include "tensor/exact_math.h"

uint64_t token_weights_plain(const float *logits, int n, float best, float temperature,
                             float *weights)
{
    uint64_t total = 0;
    for (int i = 0; i < n; i++) {
        weights[i] = exact_expf((logits[i] - best) / temperature);
        total += weight_units(weights[i]);
    }
    return total;
}
