/* One request inside the engine: its settings, and what turns its tokens into events. The engine's
 * thread owns it from the moment it was handed over (`cancelled` is guarded by the engine's lock).
 * Knows nothing of steps and slots. */
#ifndef SHOAL_ENGINE_REQUEST_IMPL_H
#define SHOAL_ENGINE_REQUEST_IMPL_H

#include "engine/engine.h"
#include "engine/schedule.h"
#include "engine/stop_filter.h"

struct request {
    uint64_t id;
    int32_t *prompt;           /* until it was given to the schedule */
    int n_prompt, n_truncated; /* left, and dropped of what was given */
    int room;                  /* tokens it may get */
    struct sampling sampling;
    uint32_t choice;
    const struct tokenizer *tokenizer; /* NULL: ids only */
    bool ignore_eos;
    request_fn on_event;
    void *context;

    struct logit_bias *bias;
    uint64_t *breakers;           /* DRY's; NULL: none */
    struct sampler_memory memory; /* as of its tokens now */
    bool wants_logprobs;
    struct sampler_logprobs logprobs; /* of the token at hand */
    struct detokenizer detokenizer;
    struct stop_filter *stops;
    struct strbuf piece;                    /* of the token at hand, before the stop filter */
    struct strbuf text;                     /* and after it */
    struct text_span span;                  /* of the token at hand */
    size_t n_text_bytes, n_text_characters; /* of all pieces so far */

    int sequence;   /* in the schedule; -1: not there */
    bool cancelled; /* engine.lock */
    int n_output;
    time_us submitted_us, added_us, first_us, last_us; /* 0: not yet */
    time_us deadline_us, deadline_at_us;               /* 0: none */
    int priority;
    bool no_draft;
    struct sequence_account account; /* what the schedule said last */
};

/* ERR_INVALID, ERR_LIMIT, ERR_MEMORY. Everything of `o` is copied; of its prompt the last
 * `most_prompt` tokens if there are more, the first of which is the BOS token where the prompt
 * begins with it. */
enum err request_new(const struct request_options *o, int most_prompt,
                     const struct tokenizer *tokenizer, int vocab, struct request **out,
                     struct error *e);
void request_free(struct request *r); /* NULL allowed */

/* What a new token means for the request. FINISH_NONE: an event was given and more is to come;
 * FINISH_ERROR: *e says why. In any other case than FINISH_NONE nothing was given yet: the token's
 * text is in r->text, and request_finish gives both. */
enum finish_reason request_token(struct request *r, int32_t token, bool last, time_us now,
                                 const char **stop, struct error *e);

/* Times and counts as they stand. */
void request_timings(const struct request *r, time_us now, struct request_timings *out);

/* The last event. `token` is -1 when none comes with it. The request is freed by the caller. */
void request_finish(struct request *r, enum finish_reason finish, int32_t token, const char *stop,
                    const struct error *error, time_us now);

#endif
