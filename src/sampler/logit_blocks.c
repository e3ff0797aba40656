#include "sampler/sampler_impl.h"

#include "base/panic.h"

#include <math.h>

/* The last block may be a shorter one. Its maximum, and is it free of NaN and +inf? */
static bool scan_last(const float *x, int n, float *best)
{
    bool good = true;
    *best = -INFINITY;
    for (int i = 0; i < n; i++) {
        *best = x[i] > *best ? x[i] : *best;
        good &= x[i] < INFINITY;
    }
    return good;
}

/* Blocks [b, end); false: NaN or +inf. */
static bool scan(struct sampler_scratch *s, const float *logits, int b, int end)
{
    const float *x = logits + (size_t)b * BLOCK_TOKENS;
    int left = s->vocab - b * BLOCK_TOKENS, n_whole = end - b;
    if (n_whole * BLOCK_TOKENS <= left)
        return sampler_loops()->block_bests(x, n_whole, s->block_best + b);
    n_whole--;
    bool good = sampler_loops()->block_bests(x, n_whole, s->block_best + b);
    const float *last = x + (size_t)n_whole * BLOCK_TOKENS;
    return scan_last(last, left - n_whole * BLOCK_TOKENS, &s->block_best[end - 1]) && good;
}

static enum err first_bad(const float *logits, int n, struct error *e)
{
    for (int i = 0; i < n; i++)
        if (!(logits[i] < INFINITY))
            return error_set(e, ERR_INVALID, "the model gave the logit %g for token %d",
                             (double)logits[i], i);
    return OK;
}

enum err logit_blocks_scan(struct sampler_scratch *s, const float *logits, struct error *e)
{
    if (!scan(s, logits, 0, s->n_blocks))
        return first_bad(logits, s->vocab, e);
    if (logit_blocks_best(s, logits) < 0)
        return error_set(e, ERR_INVALID, "the model gave no finite logit (%d tokens)", s->vocab);
    return OK;
}

void logit_blocks_set(struct sampler_scratch *s, float *logits, int32_t token, float logit)
{
    ASSERT(token >= 0 && token < s->vocab);
    logits[token] = logit;
    s->block_stale[token / BLOCK_TOKENS] = true;
}

void logit_blocks_refresh(struct sampler_scratch *s, const float *logits)
{
    for (int b = 0; b < s->n_blocks; b++) {
        int end = b;
        while (end < s->n_blocks && s->block_stale[end])
            s->block_stale[end++] = false;
        if (end > b) {
            scan(s, logits, b, end);
            b = end;
        }
    }
}

int32_t logit_blocks_best(const struct sampler_scratch *s, const float *logits)
{
    int block = 0;
    for (int b = 1; b < s->n_blocks; b++)
        if (s->block_best[b] > s->block_best[block])
            block = b;
    float best = s->block_best[block];
    if (best == -INFINITY)
        return -1;
    int32_t token = block * BLOCK_TOKENS;
    while (logits[token] != best)
        token++;
    return token;
}
