/* The engine: requests in, tokens out. One thread of its own schedules, submits steps to the
 * pipeline, samples and applies the stop rules; everybody else talks to it through a bounded queue.
 *
 * Continuous batching: each step takes decode rows of running sequences and chunks of prompts up to
 * the row budget; sequences are spread over flights, stages + 1 of which are on their way. KV blocks are
 * allocated here, for all stages. A request gets the tokens it would get alone (promise 1).
 * When the pipeline fails (a node died), every request ends with that error and the engine stops
 * (`engine_failure`). */
#ifndef SHOAL_ENGINE_ENGINE_H
#define SHOAL_ENGINE_ENGINE_H

#include "base/clock.h"
#include "base/error.h"
#include "pipeline/pipeline.h"
#include "sampler/sampler.h"
#include "text/text.h"

#include <stdbool.h>
#include <stdint.h>

struct engine;

struct engine_options {
    struct pipeline *pipeline;         /* borrowed; only the engine uses it from now on */
    const struct tokenizer *tokenizer; /* borrowed; NULL: token ids only (sim), no stop strings */
    int vocab;
    int max_context; /* positions of one sequence */
    int n_blocks;    /* KV blocks of every stage */
    int n_slots;     /* sequences at once */
    int max_rows;    /* rows of one step: the token budget */
    int n_flights;   /* 0: stages + 1; 1 with one stage, which has nothing to overlap */
    int max_queued;  /* requests beyond n_slots before engine_submit answers ERR_FULL */
};

enum err engine_new(const struct engine_options *o, struct engine **out, struct error *e);
/* Cancels what runs and joins the thread; steps may be left in the pipeline, which is of no use to
 * another engine then. NULL allowed. */
void engine_free(struct engine *g);

enum finish_reason { FINISH_NONE, FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED, FINISH_ERROR };

struct request_timings {
    time_us queued_us;     /* submit to first scheduled */
    time_us prefill_us;    /* first scheduled to first token */
    time_us decode_us;     /* first to last token */
    int n_prompt, n_output;
};

/* What a request's owner hears, from the engine's thread, in order; must not block or call back into
 * the engine other than engine_cancel. The last event has finish != FINISH_NONE and comes exactly
 * once for every accepted request, with the last token where a token ended it (the token that ends
 * generation is told, and counted, too; it has no text). Pointers live during the call. */
struct request_event {
    int32_t token;       /* the new token, or -1: none with this event */
    const char *text;    /* new text: whole UTF-8 characters, stop strings held back and cut */
    size_t text_bytes;
    enum finish_reason finish;
    const char *stop;    /* the stop string that ended it, or NULL */
    const struct error *error; /* with FINISH_ERROR */
    const struct request_timings *timings; /* with the last event */
};
typedef void (*request_fn)(void *context, const struct request_event *event);

struct request_options {
    const int32_t *prompt; /* n_prompt >= 1 ids, copied */
    int n_prompt;
    int max_tokens; /* >= 0; -1: no limit. Held down by the context and by all KV blocks; a running
                     * request reserves blocks for all of it, so a modest limit lets more run at once */
    struct sampling sampling; /* copied with its logit_bias */
    uint32_t choice;
    bool ignore_eos; /* end-of-generation tokens are ordinary */
    bool special_text; /* special tokens appear in the text */
    const char *const *stop; /* n_stop strings, copied */
    int n_stop;
    request_fn on_event;
    void *context;
};

/* Hand a request over. ERR_INVALID (sampling), ERR_LIMIT (prompt longer than the context or than all
 * KV blocks, both numbers named), ERR_FULL (queue), ERR_CLOSED (engine failed or stopping). Any
 * thread. *id serves engine_cancel. */
enum err engine_submit(struct engine *g, const struct request_options *o, uint64_t *id,
                       struct error *e);

/* Stop a request soon; its last event is FINISH_CANCELLED. Unknown or ended ids are ignored. */
void engine_cancel(struct engine *g, uint64_t id);

/* Has the engine failed? Copies the reason. */
bool engine_failure(struct engine *g, struct error *reason);

/* Counters since the start, for /health, bench and tests. */
struct engine_stats {
    int running, queued;
    int blocks_used, blocks_total;
    uint64_t requests, prompt_tokens, output_tokens, steps;
};
void engine_stats(struct engine *g, struct engine_stats *out);

#endif
