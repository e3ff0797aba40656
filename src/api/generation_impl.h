/* What the engine makes for one HTTP request: the meeting point of the engine's thread, which must
 * never block, and the connection's, which sleeps while there is nothing to write.
 *
 * One choice per prompt. The engine's events append text under the lock and wake the reader; the
 * reader takes what there is, or goes to sleep, under the same lock, so no wake-up is lost. The
 * connection holds one reference and each choice that the engine still runs another: whoever is
 * last frees it, so a client may go while the engine is still speaking. */
#ifndef SHOAL_API_GENERATION_IMPL_H
#define SHOAL_API_GENERATION_IMPL_H

#include "base/strbuf.h"
#include "engine/engine.h"

#include <pthread.h>
#include <stdbool.h>

struct generation;

/* How to put the reader to sleep and wake it; both called with the lock held, so neither may call
 * a function below. `wake` follows a `sleep`, once. */
struct sleeper {
    void (*sleep)(void *context);
    void (*wake)(void *context);
    void *context;
};

struct choice_state {
    struct strbuf text;     /* not yet taken */
    struct strbuf logprobs; /* of its tokens, where the request wants them: token_logprobs_impl.h */
    enum finish_reason finish;
    struct error error;             /* with FINISH_ERROR */
    struct request_timings timings; /* with any finish */
};

/* NULL without memory. The engine must outlive the last event, as it promises to. */
struct generation *generation_new(struct engine *engine, int n_choices,
                                  const struct sleeper *sleeper);

/* Hand choice_i to the engine; on_event and context are filled in here. What engine_submit says. */
enum err generation_submit(struct generation *g, int choice_i, const struct request_options *o,
                           struct error *e);

enum take_result {
    TAKE_SLEEPING, /* nothing new: the reader was put to sleep, come again when woken */
    TAKE_NEWS,     /* look at the choices */
    TAKE_GONE,     /* given up: write nothing more */
};

/* Has any choice news (text, an end) since the last call; with `whole`, have all ended? Else
 * sleep. */
enum take_result generation_take(struct generation *g, bool whole);

/* The state of one choice for the reader, moved to `out`: its text so far leaves the generation,
 * and with log-probabilities so much of it as whole tokens have come. */
void generation_read(struct generation *g, int choice_i, struct choice_state *out);
void choice_state_release(struct choice_state *c);

/* Stop what the engine still runs. With `gone` nobody is there to read: the reader is woken and
 * told TAKE_GONE; else the choices end as cancelled. Any thread but the engine's. */
void generation_cancel(struct generation *g, bool gone);

/* The connection lets go: cancels what runs, wakes nobody from now on. */
void generation_detach(struct generation *g);

#endif
