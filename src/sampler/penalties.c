/* Logit bias and the three penalties on tokens that are in the window. */
#include "sampler/sampler_impl.h"

#include "base/panic.h"

#include <float.h>
#include <math.h>

float clamp_finite(float x)
{
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

const int32_t *history_window(const struct sampler_input *in, int last_n, int *n)
{
    *n = last_n >= 0 && last_n < in->n_history ? last_n : in->n_history;
    return *n == 0 ? NULL : in->history + (in->n_history - *n);
}

void apply_bias(const struct sampler_input *in, struct sampler_scratch *s)
{
    for (int i = 0; i < in->sampling->n_logit_bias; i++) {
        const struct logit_bias *b = &in->sampling->logit_bias[i];
        logit_blocks_set(s, in->logits, b->token, in->logits[b->token] + b->bias);
    }
}

static float penalised(const struct sampling *s, float logit, int32_t count)
{
    if (logit == -INFINITY)
        return logit;
    logit = logit > 0 ? logit / s->repetition_penalty : logit * s->repetition_penalty;
    logit -= (float)count * s->frequency_penalty;
    return clamp_finite(logit - s->presence_penalty);
}

void apply_penalties(const struct sampler_input *in, struct sampler_scratch *s)
{
    const struct sampling *p = in->sampling;
    if (p->repetition_penalty == 1 && p->presence_penalty == 0 && p->frequency_penalty == 0)
        return;
    int n, n_touched = 0;
    const int32_t *window = history_window(in, p->penalty_last_n, &n);
    for (int i = 0; i < n; i++) {
        ASSERT(window[i] >= 0 && window[i] < s->vocab);
        s->touched[n_touched < s->vocab ? n_touched : 0] = window[i];
        n_touched += s->counts[window[i]]++ == 0;
    }
    for (int i = 0; i < n_touched; i++) {
        int32_t token = s->touched[i];
        logit_blocks_set(s, in->logits, token, penalised(p, in->logits[token], s->counts[token]));
        s->counts[token] = 0;
    }
}
