/* From logits to a token.
 *
 * Order: logit bias, then penalties (repetition, presence, frequency, over the last `penalty_last_n`
 * tokens of prompt and output), then temperature 0: the largest logit (ties: the lower id); else
 * top-k, top-p, min-p on the softmax, then temperature, then one draw. Random numbers are
 * counted, not drawn from a state: a function of (seed, choice, position), so that a token does not
 * depend on what was sampled elsewhere or replayed. Arithmetic is exact (tensor/exact_math.h): the
 * same tokens on every machine. The default order and values are those of docs/sampling.md.
 * Pure; any thread; the scratch belongs to its caller. */
#ifndef SHOAL_SAMPLER_SAMPLER_H
#define SHOAL_SAMPLER_SAMPLER_H

#include "base/error.h"

#include <stdint.h>

#define SAMPLING_MAX_TEMPERATURE 1000.0f

struct logit_bias {
    int32_t token;
    float bias; /* -100 … 100; -inf bans */
};

struct sampling {
    float temperature;        /* 0 … SAMPLING_MAX_TEMPERATURE; 0: greedy */
    int top_k;                /* >= 0; 0: off */
    float top_p;              /* (0, 1]; 1: off */
    float min_p;              /* [0, 1]; 0: off */
    float repetition_penalty; /* 0.001 … 1000; 1: off */
    float presence_penalty;   /* -2 … 2; 0: off */
    float frequency_penalty;  /* -2 … 2; 0: off */
    int penalty_last_n;       /* tokens looked back at; 0: off, -1: all; default -1 */
    uint64_t seed;
    const struct logit_bias *logit_bias; /* n_logit_bias entries, tokens inside the vocabulary */
    int n_logit_bias;
};

#define SAMPLING_GREEDY \
    ((struct sampling){.top_p = 1, .repetition_penalty = 1, .penalty_last_n = -1})

/* Every value in its range? ERR_INVALID names the field by its API name, the range and the value. */
enum err sampling_check(const struct sampling *s, int vocab, struct error *e);

struct sampler_scratch; /* for one vocabulary size */
struct sampler_scratch *sampler_scratch_new(int vocab);
void sampler_scratch_free(struct sampler_scratch *s);

/* Choose. `logits` [vocab] may be changed. `history` are prompt and output so far; `choice` is the
 * index of the completion (n > 1), `position` that of the new token. `history` may be NULL if
 * n_history is 0; its tokens lie inside the vocabulary. ERR_INVALID when no logit is finite or one
 * is NaN or +inf (a broken model, told as such), or when logit_bias bans all that is left. */
enum err sampler_pick(const struct sampling *s, struct sampler_scratch *scratch, float *logits,
                      const int32_t *history, int n_history, uint32_t choice, uint32_t position,
                      int32_t *token, struct error *e);

#endif
