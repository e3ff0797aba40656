/* DRY ("don't repeat yourself"): a token that would continue a repetition is made less likely, the
 * more the longer the repetition is. If the last L tokens stand somewhere before, followed by token
 * t, then t would repeat L + 1 tokens; the longest such L for each t counts. The lengths for all
 * places come from one pass over the window from its end (the Z function of the reversed window),
 * so the time is linear in it, however repetitive it is. (The idea:
 * github.com/oobabooga/text-generation-webui, pull request 5677.) */
#include "sampler/sampler_impl.h"

#include "base/panic.h"
#include "tensor/exact_math.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

static bool is_breaker(const struct sampling *p, int32_t token)
{
    return p->dry_breakers != NULL && (p->dry_breakers[token / 64] >> (token % 64) & 1) != 0;
}

static enum err make_room(struct sampler_scratch *s, int n, struct error *e)
{
    if ((size_t)n <= s->matches_capacity)
        return OK;
    size_t capacity = (size_t)n + (size_t)n / 2;
    int32_t *grown = realloc(s->matches, capacity * sizeof grown[0]);
    if (grown == NULL)
        return error_set(e, ERR_MEMORY, "dry_penalty_last_n: no memory to look at %d tokens", n);
    s->matches = grown;
    s->matches_capacity = capacity;
    return OK;
}

/* Tokens at the end of the window up to the last breaker: what may count as repeated. */
static int breaker_distance(const struct sampling *p, const int32_t *window, int n)
{
    int i = 0;
    while (i < n && !is_breaker(p, window[n - 1 - i]))
        i++;
    return i;
}

/* match[i], 1 <= i < n: how many tokens before window[n - i] (going back) equal those at the end,
 * going back. [left, right) is the reach of the match found so far that ends farthest back: inside
 * it earlier results can be copied. */
static void match_lengths(const int32_t *window, int n, int32_t *match)
{
    int left = 0, right = 0;
    const int32_t *end = window + (n - 1); /* end[-i] is the i-th token from the end */
    for (int i = 1; i < n; i++) {
        int length = 0;
        if (i < right) {
            int known = match[i - left], rest = right - i;
            if (known < rest) {
                match[i] = known;
                continue;
            }
            length = rest;
        }
        while (i + length < n && end[-length] == end[-(i + length)])
            length++;
        match[i] = length;
        if (i + length > right) {
            left = i;
            right = i + length;
        }
    }
}

/* counts[t] = the longest repetition that t would continue, if it is at least dry_allowed_length.
 */
static int longest_by_token(const struct sampling *p, struct sampler_scratch *s,
                            const int32_t *window, int n, int reach)
{
    int n_touched = 0;
    for (int i = 1; i < n; i++) {
        int length = s->matches[i] < reach ? s->matches[i] : reach;
        int32_t next = window[n - i];
        if (length < p->dry_allowed_length || length <= s->counts[next] || is_breaker(p, next))
            continue;
        if (s->counts[next] == 0)
            s->touched[n_touched++] = next;
        s->counts[next] = length;
    }
    return n_touched;
}

static float dry_penalty(const struct sampling *p, int length)
{
    double growth = exact_log((double)p->dry_base) * (length - p->dry_allowed_length);
    double penalty = (double)p->dry_multiplier * exact_exp(growth);
    return penalty < (double)FLT_MAX ? (float)penalty : FLT_MAX;
}

enum err apply_dry(const struct sampler_input *in, struct sampler_scratch *s, struct error *e)
{
    const struct sampling *p = in->sampling;
    int n;
    const int32_t *window = history_window(in, p->dry_penalty_last_n, &n);
    if (p->dry_multiplier <= 0 || n <= p->dry_allowed_length)
        return OK;
    for (int i = 0; i < n; i++)
        ASSERT(window[i] >= 0 && window[i] < s->vocab);
    int reach = breaker_distance(p, window, n);
    if (reach < p->dry_allowed_length)
        return OK;
    enum err err = make_room(s, n, e);
    if (err != OK)
        return err;
    match_lengths(window, n, s->matches);
    int n_touched = longest_by_token(p, s, window, n, reach);
    for (int i = 0; i < n_touched; i++) {
        int32_t token = s->touched[i];
        float logit = in->logits[token];
        if (logit > -INFINITY)
            logit = clamp_finite(logit - dry_penalty(p, s->counts[token]));
        logit_blocks_set(s, in->logits, token, logit);
        s->counts[token] = 0;
    }
    return OK;
}
