/* Choosing a token. The idea that keeps it simple and quick: tokens have one total order, by logit
 * and then by id (the lower first), written as a 64-bit key, larger is better. Top-k, top-p and
 * min-p each keep a beginning of that order, so together they are one number, the least key that
 * is kept (`cutoff`); nothing is ever sorted but the few best tokens that top-p looks at. The
 * draw then walks over the kept tokens by id: a filter that removes nothing changes nothing. */
#include "sampler/sampler.h"

#include "base/panic.h"
#include "sampler/counted_random.h"
#include "sampler/exp_many.h"
#include "sampler/order_keys.h"
#include "tensor/exact_math.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

struct sampler_scratch {
    int vocab;
    int32_t *counts; /* [vocab] of each token in the penalty window; zeros between calls */
    uint64_t *keys;  /* [vocab] */
    uint64_t *work;  /* [vocab] for selection */
    float *weights;  /* [vocab] */
};

struct sampler_scratch *sampler_scratch_new(int vocab)
{
    ASSERT(vocab >= 1);
    struct sampler_scratch *s = xcalloc(1, sizeof(*s));
    size_t n = (size_t)vocab;
    s->vocab = vocab;
    s->counts = xcalloc(n, sizeof(s->counts[0]));
    s->keys = xcalloc(n, sizeof(s->keys[0]));
    s->work = xcalloc(n, sizeof(s->work[0]));
    s->weights = xcalloc(n, sizeof(s->weights[0]));
    return s;
}

void sampler_scratch_free(struct sampler_scratch *s)
{
    if (s == NULL)
        return;
    free(s->counts);
    free(s->keys);
    free(s->work);
    free(s->weights);
    free(s);
}

/* ---- is it a usable set of logits, of settings? ---- */

static enum err check_logits(const float *logits, int vocab, struct error *e)
{
    int n_finite = 0;
    for (int i = 0; i < vocab; i++) {
        n_finite += isfinite(logits[i]) != 0;
        if (isnan(logits[i]) || logits[i] == INFINITY)
            return error_set(e, ERR_INVALID, "the model gave the logit %g for token %d",
                             (double)logits[i], i);
    }
    if (n_finite == 0)
        return error_set(e, ERR_INVALID, "the model gave no finite logit (%d tokens)", vocab);
    return OK;
}

static enum err check_range(const char *name, float value, float least, float most,
                            struct error *e)
{
    if (value >= least && value <= most) /* false for NaN */
        return OK;
    return error_set(e, ERR_INVALID, "%s: expected %g to %g, found %g", name, (double)least,
                     (double)most, (double)value);
}

static enum err check_bias(const struct logit_bias *b, int vocab, struct error *e)
{
    if (b->token < 0 || b->token >= vocab)
        return error_set(e, ERR_INVALID, "logit_bias: expected a token from 0 to %d, found %d",
                         vocab - 1, b->token);
    if (b->bias == -INFINITY)
        return OK;
    return check_range("logit_bias", b->bias, -100, 100, e);
}

enum err sampling_check(const struct sampling *s, int vocab, struct error *e)
{
    const struct {
        const char *name;
        float value, least, most;
    } fields[] = {
        {"temperature", s->temperature, 0, SAMPLING_MAX_TEMPERATURE},
        {"top_p", s->top_p, FLT_MIN, 1},
        {"min_p", s->min_p, 0, 1},
        {"repetition_penalty", s->repetition_penalty, 1e-3f, 1e3f},
        {"presence_penalty", s->presence_penalty, -2, 2},
        {"frequency_penalty", s->frequency_penalty, -2, 2},
    };
    enum err err = OK;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]) && err == OK; i++)
        err = check_range(fields[i].name, fields[i].value, fields[i].least, fields[i].most, e);
    if (err == OK && s->top_k < 0)
        err = error_set(e, ERR_INVALID, "top_k: expected 0 or more, found %d", s->top_k);
    if (err == OK && s->penalty_last_n < -1)
        err = error_set(e, ERR_INVALID, "penalty_last_n: expected -1 or more, found %d",
                        s->penalty_last_n);
    for (int i = 0; i < s->n_logit_bias && err == OK; i++)
        err = check_bias(&s->logit_bias[i], vocab, e);
    return err;
}

/* ---- bias and penalties ---- */

/* Penalties may leave the range of a float; the order of what remains is what counts. */
static float clamp_finite(float x)
{
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

static float penalised(const struct sampling *s, float logit, int32_t count)
{
    if (logit == -INFINITY)
        return logit;
    logit = logit > 0 ? logit / s->repetition_penalty : logit * s->repetition_penalty;
    logit -= (float)count * s->frequency_penalty;
    return clamp_finite(logit - s->presence_penalty);
}

static void apply_penalties(const struct sampling *s, struct sampler_scratch *scratch,
                            float *logits, const int32_t *history, int n_history)
{
    if (s->repetition_penalty == 1 && s->presence_penalty == 0 && s->frequency_penalty == 0)
        return;
    int n = n_history;
    if (s->penalty_last_n >= 0 && s->penalty_last_n < n)
        n = s->penalty_last_n;
    const int32_t *window = history + (n_history - n);
    for (int i = 0; i < n; i++) {
        ASSERT(window[i] >= 0 && window[i] < scratch->vocab);
        scratch->counts[window[i]]++;
    }
    for (int i = 0; i < n; i++) {
        int32_t token = window[i];
        if (scratch->counts[token] > 0)
            logits[token] = penalised(s, logits[token], scratch->counts[token]);
        scratch->counts[token] = 0; /* each token once, and the zeros are back */
    }
}

/* The best token, the lower id among equals; -1 when all are banned. */
static int32_t best_token(const float *logits, int vocab)
{
    int32_t best = -1;
    float best_logit = -INFINITY;
    for (int32_t i = 0; i < vocab; i++) {
        if (logits[i] > best_logit) {
            best = i;
            best_logit = logits[i];
        }
    }
    return best;
}

/* ---- the filters: each answers the new cutoff ---- */

struct candidates {
    const float *logits;
    float max;       /* the largest logit */
    uint64_t cutoff; /* tokens with keys from here on are kept */
    int n_kept;
};

static uint64_t top_k_cutoff(struct sampler_scratch *s, int top_k)
{
    return order_keys_nth(s->keys, s->vocab, top_k, s->work);
}

/* weights[i] = e^((logit - max) / temperature) of the kept tokens, 0 of others; their sum. Few are
 * taken one by one, many all together: the same bits. */
static double weigh(const struct candidates *c, struct sampler_scratch *s, float temperature)
{
    bool few = c->n_kept < s->vocab / 32;
    for (int i = 0; i < s->vocab; i++) {
        bool kept = s->keys[i] >= c->cutoff;
        float distance = kept ? (c->logits[i] - c->max) / temperature : -INFINITY;
        if (few)
            s->weights[i] = kept ? exact_expf(distance) : 0;
        else
            s->weights[i] = distance;
    }
    if (!few)
        exp_many(s->weights, s->vocab);
    double total = 0;
    for (int i = 0; i < s->vocab; i++)
        total += (double)s->weights[i];
    return total;
}

/* The least key of the shortest beginning of the order that has `goal` of the weight. Looked for
 * among the best 64 first, then eight times as many, and so on: usually few hold it. */
static uint64_t top_p_cutoff(const struct candidates *c, struct sampler_scratch *s, double goal)
{
    for (int n = 64;; n = n > INT32_MAX / 8 ? INT32_MAX : n * 8) {
        if (n > c->n_kept)
            n = c->n_kept;
        int n_best = order_keys_best(s->keys, s->vocab, n, s->work);
        double sum = 0;
        for (int i = 0; i < n_best; i++) {
            sum += (double)s->weights[order_key_token(s->work[i])];
            if (sum >= goal)
                return s->work[i];
        }
        if (n == c->n_kept)
            return c->cutoff; /* goal was missed by rounding: all are needed */
    }
}

static uint64_t min_p_cutoff(const struct candidates *c, const struct sampler_scratch *s,
                             float min_p)
{
    uint64_t cutoff = UINT64_MAX;
    for (int i = 0; i < s->vocab; i++)
        if (s->keys[i] >= c->cutoff && s->weights[i] >= min_p && s->keys[i] < cutoff)
            cutoff = s->keys[i];
    return cutoff;
}

static void filter(const struct sampling *s, struct sampler_scratch *scratch, struct candidates *c)
{
    if (s->top_k > 0 && s->top_k < c->n_kept) {
        c->cutoff = top_k_cutoff(scratch, s->top_k);
        c->n_kept = s->top_k;
    }
    if (s->top_p >= 1 && s->min_p <= 0)
        return;
    double total = weigh(c, scratch, 1);
    if (s->top_p < 1)
        c->cutoff = top_p_cutoff(c, scratch, (double)s->top_p * total);
    if (s->min_p > 0)
        c->cutoff = min_p_cutoff(c, scratch, s->min_p);
}

/* The first token, by id, at which the running sum of weights exceeds u * total. */
static int32_t draw(const struct candidates *c, struct sampler_scratch *s, float temperature,
                    double u)
{
    double target = u * weigh(c, s, temperature), sum = 0;
    int32_t last = -1;
    for (int32_t i = 0; i < s->vocab; i++) {
        if (s->weights[i] == 0)
            continue;
        last = i;
        sum += (double)s->weights[i];
        if (sum > target)
            return i;
    }
    ASSERT(last >= 0); /* the largest logit has weight 1 */
    return last;
}

enum err sampler_pick(const struct sampling *s, struct sampler_scratch *scratch, float *logits,
                      const int32_t *history, int n_history, uint32_t choice, uint32_t position,
                      int32_t *token, struct error *e)
{
    *token = -1;
    enum err err = check_logits(logits, scratch->vocab, e);
    if (err != OK)
        return err;
    for (int i = 0; i < s->n_logit_bias; i++)
        logits[s->logit_bias[i].token] += s->logit_bias[i].bias;
    apply_penalties(s, scratch, logits, history, n_history);
    int32_t best = best_token(logits, scratch->vocab);
    if (best < 0)
        return error_set(e, ERR_INVALID, "logit_bias: every token that the model allows is banned");
    *token = best;
    if (s->temperature <= 0 || s->top_k == 1)
        return OK;
    struct candidates c = {.logits = logits, .max = logits[best], .n_kept = scratch->vocab};
    for (int i = 0; i < scratch->vocab; i++)
        scratch->keys[i] = order_key(logits[i], i);
    filter(s, scratch, &c);
    *token = draw(&c, scratch, s->temperature, counted_uniform(s->seed, choice, position));
    return OK;
}
