/* Top-k, typical, top-p, min-p, XTC: each leaves fewer candidates, never none. Probabilities are
 * those at temperature 1 among the candidates that are left. A test on a weight runs through tokens
 * far from it quickly by a bound on the logit, wide enough that rounding cannot matter. */
#include "sampler/sampler_impl.h"

#include "sampler/token_weights.h"
#include "tensor/exact_math.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* Logits below this have weights below w, whatever was rounded on the way. */
static float bound_of_weight(const struct candidates *c, double w)
{
    return (float)((double)c->best + exact_log(w) - 1e-3);
}

static bool is_whole(const struct sampler_scratch *s, const struct candidates *c)
{
    return c->ids == NULL && c->n == s->vocab;
}

/* A part of the total, at least 1. */
static uint64_t share(uint64_t total, float part)
{
    double goal = (double)part * (double)total;
    uint64_t units = goal < (double)total ? (uint64_t)goal : total;
    return units > 0 ? units : 1;
}

static uint32_t positive_bits(float x) /* ordered like x >= 0 itself */
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void find_best(struct candidates *c)
{
    float best = -INFINITY;
    for (int i = 0; i < c->n; i++)
        best = c->logits[i] > best ? c->logits[i] : best;
    c->best = best;
}

/* ---- typical ---- */

/* The mean of the distance from the best logit, which differs from the entropy by the log of the
 * sum of weights only: so much are the surprises different from it, too, and it cancels out. */
static float mean_distance(struct sampler_scratch *s, const struct candidates *c, uint64_t total)
{
    uint64_t sum = 0;
    for (int i = 0; i < c->n; i++) {
        float distance = c->best - c->logits[i];
        distance = distance < -EXPF_MIN ? distance : -EXPF_MIN; /* not inf: its weight is 0 */
        sum += weight_units(distance * s->weights[i]);          /* below 1 / e */
    }
    return (float)((double)sum / (double)total);
}

/* Best is what is nearest to the entropy. */
static void keep_typical(struct sampler_scratch *s, struct candidates *c, float typical_p)
{
    uint64_t total = candidates_weigh(s, c, 1);
    float mean = mean_distance(s, c, total);
    for (int i = 0; i < c->n; i++)
        s->keys[i] = UINT32_MAX - positive_bits(fabsf(c->best - c->logits[i] - mean));
    uint64_t goal = share(total, typical_p);
    candidates_cut(s, c, key_cut_find(s->cut_work, s->keys, s->weights, c->n, goal));
    find_best(c);
}

/* ---- top-p ---- */

/* All tokens below an n-th of what may be missing have less than that together: they are not needed
 * to reach the goal. With a flat distribution there are no such tokens: nothing is tried then. */
static void drop_hopeless(struct sampler_scratch *s, struct candidates *c, uint64_t total,
                          uint64_t goal)
{
    double hopeless = (double)(total - goal) * WEIGHT_UNIT / c->n;
    if (hopeless < 1e-8) /* units are too coarse for the argument */
        return;
    float least = bound_of_weight(c, hopeless);
    int n_blocks = 0;
    for (int b = 0; b < s->n_blocks; b++)
        n_blocks += s->block_best[b] >= least;
    if (n_blocks > s->n_blocks / 2)
        return;
    candidates_from(s, c, least);
    candidates_weigh(s, c, 1);
}

static void keep_top_p(struct sampler_scratch *s, struct candidates *c, float top_p)
{
    uint64_t total = candidates_weigh(s, c, 1), goal = share(total, top_p);
    if (is_whole(s, c))
        drop_hopeless(s, c, total, goal);
    fill_logit_keys(s, c->logits, c->n);
    candidates_cut(s, c, key_cut_find(s->cut_work, s->keys, s->weights, c->n, goal));
}

/* ---- min-p ---- */

static void keep_min_p(struct sampler_scratch *s, struct candidates *c, float min_p)
{
    candidates_from(s, c, bound_of_weight(c, (double)min_p));
    candidates_weigh(s, c, 1);
    for (int i = 0; i < c->n; i++)
        s->keys[i] = positive_bits(s->weights[i]);
    candidates_cut(s, c, (struct key_cut){positive_bits(min_p), INT_MAX});
}

/* ---- XTC ---- */

/* Remove all tokens that have at least the threshold of the probability but the last of them. */
static void exclude_top(struct sampler_scratch *s, struct candidates *c, float threshold)
{
    uint64_t goal = share(candidates_weigh(s, c, 1), threshold);
    int n_top = 0, last = -1;
    for (int i = 0; i < c->n; i++) {
        s->keys[i] = weight_units(s->weights[i]) < goal;
        if (s->keys[i] != 0)
            continue;
        n_top++;
        if (last < 0 || c->logits[i] <= c->logits[last]) /* among equals the higher id is last */
            last = i;
    }
    if (n_top < 2)
        return;
    s->keys[last] = 1;
    candidates_cut(s, c, (struct key_cut){.key = 0, .n_equal = 0});
    find_best(c);
}

static bool xtc_happens(const struct sampler_input *in)
{
    double u = (double)sampler_random(in, RANDOM_XTC) * 0x1p-53;
    return u < (double)in->sampling->xtc_probability;
}

void filter(const struct sampler_input *in, struct sampler_scratch *s, struct candidates *c)
{
    const struct sampling *p = in->sampling;
    if (p->top_k > 0 && p->top_k < c->n)
        candidates_top(s, c, p->top_k);
    if (p->typical_p < 1)
        keep_typical(s, c, p->typical_p);
    if (p->top_p < 1)
        keep_top_p(s, c, p->top_p);
    if (p->min_p > 0)
        keep_min_p(s, c, p->min_p);
    if (p->xtc_probability > 0 && xtc_happens(in))
        exclude_top(s, c, p->xtc_threshold);
}
