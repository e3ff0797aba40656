/* The engine: requests in, tokens out. One thread of its own schedules, submits steps to the
 * pipeline, samples and applies the stop rules; everybody else talks to it through a bounded queue.
 *
 * Continuous batching: each step takes decode rows of running sequences and chunks of prompts up to
 * the row budget; sequences are spread over flights, stages + 1 of which are on their way. KV
 * blocks are allocated here, for all stages, and kept for prompts that begin alike; who runs out of
 * them waits and is computed again (schedule.h). A request gets the tokens it would get alone
 * (promise 1). When the pipeline fails (a node died), every request ends with that error and the
 * engine stops
 * (`engine_failure`). */
#ifndef SHOAL_ENGINE_ENGINE_H
#define SHOAL_ENGINE_ENGINE_H

#include "base/clock.h"
#include "base/error.h"
#include "engine/acceptance.h"
#include "engine/draft_model.h"
#include "engine/histogram.h"
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
    int max_context;           /* positions of one sequence */
    int window;                /* of the model's attention; 0: none */
    int n_blocks;              /* KV blocks of every stage */
    int n_slots;               /* sequences at once */
    int max_rows;              /* rows of one step: the token budget */
    int n_flights;             /* 0: up to stages + 1; 1 with one stage, which has nothing to overlap */
    int max_queued;            /* requests beyond n_slots before engine_submit answers ERR_FULL */
    int max_draft;             /* tokens guessed ahead for a sequence in a step; 0: none */
    struct draft_model *draft; /* borrowed, likewise; NULL: guesses by look-up only */
    time_us max_itl_us; /* between two tokens of a stream while prompts are computed; 0: any */
    float max_stretch;  /* of a step by prompt rows beside running streams; 0: any */
    uint64_t cache_key; /* stands for model and KV type, and is best kept secret */
    bool no_reuse;      /* no prefix cache */
};

enum err engine_new(const struct engine_options *o, struct engine **out, struct error *e);
/* Cancels what runs and joins the thread; steps may be left in the pipeline, which is of no use to
 * another engine then. NULL allowed. */
void engine_free(struct engine *g);

enum finish_reason { FINISH_NONE, FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED, FINISH_ERROR };

struct request_timings {
    time_us queued_us;  /* submit to first scheduled */
    time_us prefill_us; /* first scheduled to first token */
    time_us decode_us;  /* first to last token */
    time_us stalled_us; /* of the two before: waiting again, having lost its blocks to others */
    int n_prompt, n_output;
    int n_truncated;                /* tokens at the beginning of the prompt that were dropped */
    int n_cached;                   /* tokens of the prompt that had been computed before */
    int n_preempted;                /* how often it lost its blocks */
    int n_guessed[N_GUESS_SOURCES]; /* tokens guessed ahead, by source, … */
    int n_right[N_GUESS_SOURCES];   /* … and those that were right */
};

/* Where the text of a token stands in all text of its request, as it is before stop strings are
 * looked for. The token's text is told as far as stop strings let it: perhaps with a later event,
 * and never if all of it is cut. A token that ends inside a character has `end` one byte behind the
 * text that is there by then: it is told when the character is. */
struct text_span {
    size_t begin, end; /* bytes */
    size_t characters; /* in front of it */
};

/* What a request's owner hears, from the engine's thread, in order; must not block or call back
 * into the engine other than engine_cancel. The last event has finish != FINISH_NONE and comes
 * exactly once for every accepted request, with the last token where a token ended it (the token
 * that ends generation is told, and counted, too; it has no text). Pointers live during the call.
 */
struct request_event {
    int32_t token;    /* the new token, or -1: none with this event */
    const char *text; /* new text: whole UTF-8 characters, stop strings held back and cut */
    size_t text_bytes;
    enum finish_reason finish;
    const char *stop;                        /* the stop string that ended it, or NULL */
    const struct error *error;               /* with FINISH_ERROR */
    struct text_span span;                   /* of the token */
    const struct sampler_logprobs *logprobs; /* of the token, where wanted; or NULL */
    const struct request_timings *timings;   /* with the last event */
};
typedef void (*request_fn)(void *context, const struct request_event *event);

struct request_options {
    const int32_t *prompt; /* n_prompt >= 1 ids, copied */
    int n_prompt;
    bool truncate;   /* a prompt that leaves no room for max_tokens (-1: for one token) loses its
                      * beginning, but for a BOS token in front */
    int truncate_to; /* so does one of more tokens than this; 0: any number is fine */
    int max_tokens;  /* >= 0; -1: no limit. Held down by the context and by all KV blocks */
    struct sampling sampling; /* copied with its logit_bias and dry_breakers */
    const char *const
        *breakers;  /* n_breakers strings for DRY, where sampling has no dry_breakers; */
    int n_breakers; /* NULL: the usual ones (engine/breakers.h) */
    bool logprobs;  /* events carry them, and sampling.n_logprobs best tokens */
    uint32_t choice;
    int priority;            /* higher is served first, whoever came first; usually 0 */
    time_us deadline_us;     /* from now; then it ends with ERR_TIMEOUT, wherever it is; 0: none */
    bool no_draft;           /* nothing is guessed ahead for it */
    bool ignore_eos;         /* end-of-generation tokens are ordinary */
    bool special_text;       /* special tokens appear in the text */
    const char *const *stop; /* n_stop strings, copied */
    int n_stop;
    request_fn on_event;
    void *context;
};

/* Hand a request over. ERR_INVALID (sampling; max_tokens that leave no room for a prompt that may
 * be truncated), ERR_LIMIT (prompt longer than the context or than all KV blocks, both numbers
 * named), ERR_FULL (queue), ERR_CLOSED (engine failed or stopping). Any thread. *id serves
 * engine_cancel. */
enum err engine_submit(struct engine *g, const struct request_options *o, uint64_t *id,
                       struct error *e);

/* Stop a request soon; its last event is FINISH_CANCELLED. Unknown or ended ids are ignored. */
void engine_cancel(struct engine *g, uint64_t id);

/* Has the engine failed? Copies the reason. */
bool engine_failure(struct engine *g, struct error *reason);

/* How things stand, and counters since the start: for /health, /metrics, bench and tests. */
struct engine_stats {
    int running, queued, in_flight; /* in_flight: steps */
    int n_slots, n_flights;
    int n_decode_flights; /* of these, decoding sequences are spread over */
    int blocks_used, blocks_idle, blocks_total; /* idle: kept in case a prompt begins alike */
    uint64_t requests, refused, prompt_tokens;  /* taken in; refused because the queue was full */
    uint64_t output_tokens, steps, rows;
    uint64_t prompt_rows; /* of rows: of prompts, and of what is computed again */
    uint64_t preempted, cached_tokens, started_tokens; /* tokens of prompts begun; not computed */
    uint64_t guessed[N_GUESS_SOURCES], right[N_GUESS_SOURCES]; /* ahead, and right, by source */
    time_us way_us, computed_us; /* steps on their way, summed; of that, stages computed on them */
    uint64_t shares_ahead; /* of steps: guesses sent while those before them had no answer */
    uint64_t ended[FINISH_ERROR + 1]; /* by finish */
    time_us busy_us;                  /* the lead's own stage computed */
    time_us draft_us;                 /* the draft model guessed */
    time_us wait_us;                  /* the engine waited for the ring */
    time_us send_wait_us;             /* of this: the network had not taken all steps yet */
    time_us idle_us;                  /* there was nothing to do */
    time_us other_us;                 /* scheduling and sampling: all other time since the start */
    struct histogram first_token, between_tokens, whole, queue, prefill, decode;
};
void engine_stats(struct engine *g, struct engine_stats *out);

#endif
