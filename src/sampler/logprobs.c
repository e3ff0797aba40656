/* What OpenAI calls logprobs: of the distribution that the model gave, before any setting. */
#include "sampler/sampler_impl.h"

#include "base/panic.h"
#include "sampler/token_weights.h"
#include "tensor/exact_math.h"

#include <math.h>

/* Insert into a list that is sorted best first; tokens come by ascending id, so equals stay so. */
static void insert(struct token_logprob *top, int n, struct token_logprob t)
{
    int i = n;
    for (; i > 0 && top[i - 1].logprob < t.logprob; i--)
        top[i] = top[i - 1];
    top[i] = t;
}

double logprobs_of(struct sampler_scratch *s, int n_top, struct sampler_logprobs *out)
{
    ASSERT(n_top >= 0 && n_top <= SAMPLING_MAX_LOGPROBS);
    struct candidates c = {.logits = s->raw, .n = s->vocab};
    c.best = s->raw[logit_blocks_best(s, s->raw)];
    uint64_t total = candidates_weigh(s, &c, 1);
    double log_total = (double)c.best + exact_log((double)total * WEIGHT_UNIT);
    out->n = 0;
    if (n_top == 0)
        return log_total;
    candidates_top(s, &c, n_top);
    for (int i = 0; i < c.n; i++) {
        struct token_logprob t = {c.ids != NULL ? (int32_t)c.ids[i] : i, c.logits[i]};
        if (t.logprob > -INFINITY)
            insert(out->top, out->n++, t);
    }
    for (int i = 0; i < out->n; i++)
        out->top[i].logprob = (float)((double)out->top[i].logprob - log_total);
    return log_total;
}
