/* From logits to a token.
 *
 * Order: logit bias; penalties (repetition, frequency, presence); DRY; temperature 0: the largest
 * logit (ties: the lower id); else top-k, typical, top-p, min-p, XTC, temperature, one draw.
 * Mirostat, where asked for, stands for top-k to XTC. Rules, ranges and reasons: docs/sampling.md.
 * Random numbers are counted, not drawn from a state: a function of (seed, choice, position), so
 * that a token does not depend on what was sampled elsewhere or replayed. Arithmetic is exact
 * (tensor/exact_math.h, token_weights.h): the same tokens on every machine.
 * What a request carries from token to token is one struct sampler_memory, the caller's.
 * No clock, no global state; any thread; the scratch belongs to its caller. */
#ifndef SHOAL_SAMPLER_SAMPLER_H
#define SHOAL_SAMPLER_SAMPLER_H

#include "base/error.h"

#include <stdint.h>

#define SAMPLING_MAX_TEMPERATURE 1000.0f
enum { SAMPLING_MAX_LOGPROBS = 20 };

struct logit_bias {
    int32_t token;
    float bias; /* -100 … 100; -inf bans */
};

struct sampling {
    float temperature;            /* 0 … SAMPLING_MAX_TEMPERATURE; 0: greedy */
    int top_k;                    /* >= 0; 0: off */
    float typical_p;              /* (0, 1]; 1: off */
    float top_p;                  /* (0, 1]; 1: off */
    float min_p;                  /* [0, 1]; 0: off */
    float xtc_probability;        /* [0, 1]; 0: off */
    float xtc_threshold;          /* [0, 1]; above 0.5 it never removes anything; default 0.1 */
    float repetition_penalty;     /* 0.001 … 1000; 1: off */
    float presence_penalty;       /* -2 … 2; 0: off */
    float frequency_penalty;      /* -2 … 2; 0: off */
    int penalty_last_n;           /* tokens looked back at; 0: off, -1: all; default -1 */
    float dry_multiplier;         /* 0 … 100; 0: off */
    float dry_base;               /* 1 … 100; default 1.75 */
    int dry_allowed_length;       /* >= 1; default 2 */
    int dry_penalty_last_n;       /* tokens looked back at; 0: off, -1: all; default -1 */
    const uint64_t *dry_breakers; /* bit token % 64 of word token / 64: a repetition ends there;
                                   * NULL: nowhere */
    int mirostat;                 /* 0: off, 2: version 2 */
    float mirostat_tau;           /* 0 … 100 bits of surprise aimed at; default 5 */
    float mirostat_eta;           /* 0 … 1: how quickly; default 0.1 */
    int n_logprobs;               /* 0 … SAMPLING_MAX_LOGPROBS likeliest tokens to be told */
    uint64_t seed;
    const struct logit_bias *logit_bias; /* n_logit_bias entries, tokens inside the vocabulary */
    int n_logit_bias;
};

#define SAMPLING_GREEDY \
    ((struct sampling){.typical_p = 1, \
                       .top_p = 1, \
                       .xtc_threshold = 0.1f, \
                       .repetition_penalty = 1, \
                       .penalty_last_n = -1, \
                       .dry_base = 1.75f, \
                       .dry_allowed_length = 2, \
                       .dry_penalty_last_n = -1, \
                       .mirostat_tau = 5, \
                       .mirostat_eta = 0.1f})

/* Every value in its range? ERR_INVALID names the field by its API name, the range and the value.
 */
enum err sampling_check(const struct sampling *s, int vocab, struct error *e);

/* What one completion remembers between its tokens; zeros at its beginning. After each token that
 * is accepted it is a function of the settings, the tokens and their logits, so it may be copied
 * with them: to go back some tokens, take the copy of then; to recover without one, pick the tokens
 * that are known again from their recomputed logits. */
struct sampler_memory {
    double mirostat_mu; /* above 2 tau, where it begins */
};

struct token_logprob {
    int32_t token;
    float logprob; /* natural; of the logits as the model gave them, before any setting */
};

struct sampler_logprobs {
    float chosen; /* of the token that was chosen */
    int n;        /* n_logprobs, or fewer where the model allows fewer */
    struct token_logprob top[SAMPLING_MAX_LOGPROBS]; /* best first; among equals the lower id */
};

struct sampler_scratch; /* for one vocabulary size */
struct sampler_scratch *sampler_scratch_new(int vocab);
void sampler_scratch_free(struct sampler_scratch *s);

struct sampler_input {
    const struct sampling *sampling;
    float *logits;          /* [vocab]; may be changed */
    const int32_t *history; /* prompt and output so far, inside the vocabulary */
    int n_history;          /* 0: history may be NULL */
    uint32_t choice;        /* index of the completion (n > 1), below 2^31 */
    uint32_t position;      /* of the new token */
};

/* Choose. `memory` is read and written by mirostat only and may be NULL without it; it is unchanged
 * after an error. `logprobs` NULL: not wanted.
 * ERR_INVALID when no logit is finite or one is NaN or +inf (a broken model, told as such), or when
 * logit_bias bans all that is left; *token is then -1. ERR_MEMORY: DRY over a long history. */
enum err sampler_choose(struct sampler_scratch *s, const struct sampler_input *in,
                        struct sampler_memory *memory, int32_t *token,
                        struct sampler_logprobs *logprobs, struct error *e);

/* The same for a request that has no memory: mirostat is ERR_INVALID. */
enum err sampler_pick(const struct sampling *s, struct sampler_scratch *scratch, float *logits,
                      const int32_t *history, int n_history, uint32_t choice, uint32_t position,
                      int32_t *token, struct error *e);

#endif
