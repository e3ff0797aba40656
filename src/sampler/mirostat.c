/* Mirostat, version 2 (Basu et al., "Mirostat: a neural text decoding algorithm that directly
 * controls perplexity", 2021): tokens with more than mu bits of surprise are left out, and mu
 * follows the surprise of what was drawn, so that it stays about tau. */
#include "sampler/sampler_impl.h"

#include "sampler/token_weights.h"
#include "tensor/exact_math.h"

#define LN_2 0x1.62e42fefa39efp-1

/* Weights below `least` become 0, but never that of the best. The sum of the rest. */
static uint64_t drop_below(struct sampler_scratch *s, int n, double least)
{
    uint64_t total = 0;
    float bound = least < 1 ? (float)least : 1;
    for (int i = 0; i < n; i++) {
        s->weights[i] = s->weights[i] >= bound ? s->weights[i] : 0;
        total += weight_units(s->weights[i]);
    }
    return total;
}

int32_t mirostat_draw(const struct sampler_input *in, struct sampler_scratch *s,
                      const struct candidates *c, struct sampler_memory *memory)
{
    const struct sampling *p = in->sampling;
    double tau = (double)p->mirostat_tau, mu = 2 * tau + memory->mirostat_mu;
    uint64_t total = candidates_weigh(s, c, p->temperature);
    /* -log2(w / total) <= mu */
    double least = (double)total * WEIGHT_UNIT * exact_exp(-mu * LN_2);
    total = drop_below(s, c->n, least);
    int i = candidates_draw(s, c, total, sampler_random(in, RANDOM_DRAW));
    double units = (double)weight_units(s->weights[i]);
    double surprise = (exact_log((double)total) - exact_log(units)) / LN_2;
    memory->mirostat_mu -= (double)p->mirostat_eta * (surprise - tau);
    return c->ids != NULL ? (int32_t)c->ids[i] : i;
}
