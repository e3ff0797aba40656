/* The parts of the sampler, for each other. What makes it quick is here:
 *
 *  - the maximum of every 64 logits is taken once; whatever looks for the best few tokens then goes
 *    past almost all blocks without looking inside;
 *  - candidates are a list in order of id (or the whole vocabulary in place), and a filter is a cut
 *    in the order of some key: nothing is ever sorted. The cut is found by adding up weights in
 *    buckets of keys (key_cut.c); sums are of whole numbers, so buckets give the bits that
 *    walking down a sorted list would.
 *
 * Scratch is zero where it says so between calls; all else is garbage from the call before. */
#ifndef SHOAL_SAMPLER_SAMPLER_IMPL_H
#define SHOAL_SAMPLER_SAMPLER_IMPL_H

#include "sampler/key_cut_impl.h"
#include "sampler/sampler.h"
#include "sampler/sampler_loops_impl.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct sampler_scratch {
    int vocab, n_blocks;
    float *block_best; /* [n_blocks] the largest logit of each block */
    bool *block_stale; /* [n_blocks] it has changed since; false between calls */
    int32_t *counts;   /* [vocab] zeros between calls */
    int32_t *touched;  /* [vocab] tokens whose count is not 0 */
    float *logits;     /* [vocab] of the candidates, where they are a list */
    uint32_t *ids;     /* [vocab] which tokens they are, ascending */
    float *weights;    /* [vocab] of the candidates */
    uint32_t *keys;    /* [vocab] of the candidates */
    float *raw;        /* [vocab] logits as the model gave them, for logprobs */
    struct key_cut_work *cut_work;
    int32_t *matches; /* DRY's, grows with the history */
    size_t matches_capacity;
};

/* The tokens that are left. */
struct candidates {
    const float *logits;
    const uint32_t *ids; /* NULL: logits[i] is token i, all of them */
    int n;               /* >= 1 */
    float best;          /* the largest logit, finite */
};

/* ---- logit_blocks.c ---- */

/* Fill block_best. ERR_INVALID: a logit that is NaN or +inf, or none finite. */
enum err logit_blocks_scan(struct sampler_scratch *s, const float *logits, struct error *e);
/* Change one logit; logit_blocks_refresh is due before block_best is read again. */
void logit_blocks_set(struct sampler_scratch *s, float *logits, int32_t token, float logit);
void logit_blocks_refresh(struct sampler_scratch *s, const float *logits);
/* The best token, the lower id among equals; -1 when all are -inf. */
int32_t logit_blocks_best(const struct sampler_scratch *s, const float *logits);

/* ---- penalties.c, dry.c: steps 1 to 4 of docs/sampling.md ---- */

void apply_bias(const struct sampler_input *in, struct sampler_scratch *s);
void apply_penalties(const struct sampler_input *in, struct sampler_scratch *s);
enum err apply_dry(const struct sampler_input *in, struct sampler_scratch *s, struct error *e);
/* The last last_n tokens of the history, all of them for -1. */
const int32_t *history_window(const struct sampler_input *in, int last_n, int *n);
/* Penalties may leave the range of a float; the order of what remains is what counts. */
float clamp_finite(float x);

/* ---- candidates.c ---- */

/* Order by logit: larger is better. -0 and +0 are equal; not NaN. */
static inline uint32_t logit_key(float logit)
{
    float positive_zero = logit + 0.0f; /* -0 + 0 is +0 */
    uint32_t bits;
    memcpy(&bits, &positive_zero, sizeof bits);
    return bits ^ ((uint32_t) - (int32_t)(bits >> 31) | 0x80000000u); /* in order, as unsigned */
}
/* These keys of n logits, into s->keys. */
void fill_logit_keys(struct sampler_scratch *s, const float *logits, int n);
/* Keep those with at least this logit (and finite). */
void candidates_from(struct sampler_scratch *s, struct candidates *c, float least);
/* Keep what the cut keeps in s->keys. */
void candidates_cut(struct sampler_scratch *s, struct candidates *c, struct key_cut cut);
/* The k best, k >= 1; fewer if there are fewer, or if only fewer are finite. */
void candidates_top(struct sampler_scratch *s, struct candidates *c, int k);
/* s->weights at this temperature; their sum in units. */
uint64_t candidates_weigh(struct sampler_scratch *s, const struct candidates *c, float temperature);
/* Walk by id until the running sum of s->weights exceeds u of the total, 0 <= u < 1 in units of
 * 2^-53: the index of that candidate. */
int candidates_draw(const struct sampler_scratch *s, const struct candidates *c, uint64_t total,
                    uint64_t u);

/* ---- filters.c, mirostat.c, logprobs.c ---- */

/* Top-k to XTC. */
void filter(const struct sampler_input *in, struct sampler_scratch *s, struct candidates *c);
/* Temperature, the cut at the surprise that mu allows, the draw; memory moves on. */
int32_t mirostat_draw(const struct sampler_input *in, struct sampler_scratch *s,
                      const struct candidates *c, struct sampler_memory *memory);
/* The n_top best of s->raw, of which block_best must be; all but out->chosen is filled in. Answers
 * what is to be taken off a logit to get its logprob. */
double logprobs_of(struct sampler_scratch *s, int n_top, struct sampler_logprobs *out);

/* The random numbers of one token, in units of 2^-53. */
enum random_use { RANDOM_DRAW, RANDOM_XTC };
uint64_t sampler_random(const struct sampler_input *in, enum random_use use);

#endif
