/* What tests of the engine share: an engine with its thread over a ring of the hashing backend,
 * what the owner of a request heard, and requests that are a function of their number, with what
 * each is answered alone. A call that cannot do what it says fails the test. */
#ifndef SHOAL_TESTS_ENGINE_RIG_H
#define SHOAL_TESTS_ENGINE_RIG_H

#include "engine/engine.h"
#include "sim/sim_ring.h"

#include <pthread.h>

/* ---- a ring with an engine ---- */

struct rig {
    struct sim_ring *ring;
    struct sim_stage draft_stage;
    struct draft_model *draft; /* NULL: none */
    struct engine *engine;
};

struct rig_options {
    int n_stages, n_flights, max_rows, n_slots, n_blocks, max_queued, max_draft, window;
    int draft_blocks; /* > 0: a draft model guesses, as good as the model, with so many of them */
    int64_t pass_us;
    const struct tokenizer *tokenizer;
};

enum { CONTEXT = 128 };

struct rig rig_start(struct rig_options o); /* numbers that are 0: small ones */
void rig_stop(struct rig *rig);

/* Wait until nothing runs and no block is held: steps in flight still hold those of ended requests.
 */
void assert_all_free(struct engine *g);

/* ---- what a request's owner heard ---- */

struct heard {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_tokens;
    int32_t tokens[CONTEXT];
    struct text_span spans[CONTEXT];
    float logprobs[CONTEXT]; /* 1: not told */
    char text[4096];
    size_t text_bytes;
    enum finish_reason finish;
    int n_last; /* events with finish */
    char stop[64];
    struct error error;
    struct request_timings timings;
    struct engine *engine; /* cancel there … */
    uint64_t id;           /* … this request … */
    int cancel_after;      /* … when so many tokens came; 0: never */
};

void heard_init(struct heard *h);
void hear(void *context, const struct request_event *event); /* request_options.on_event */
void wait_tokens(struct heard *h, int n);                    /* … or the end */
enum finish_reason wait_end(struct heard *h);

/* ---- requests ---- */

/* The prompt (room for CONTEXT) is a function of its length. Greedy, over end tokens. */
struct request_options plain(int32_t *prompt, int n_prompt, int max_tokens, struct heard *h);
uint64_t submit_options(struct engine *g, const struct request_options *o);

enum { N_REQUESTS = 24 };
extern struct heard alone[N_REQUESTS]; /* filled by compute_alone */

/* Request i, of all kinds of lengths and sampling; room for 64 in `prompt`. */
struct request_options request_of(int i, int32_t *prompt, struct heard *h);
uint64_t submit(struct engine *g, int i, struct heard *h);

/* A group's setup: each request for itself, one row at a time, on one stage: what all others must
 * equal. */
int compute_alone(void **state);
void assert_as_alone(const struct heard *h, int i);

#endif
