/* An engine for tests, in the place of src/engine at link time: it says what the test tells it to,
 * from a thread of its own, as slowly as the test wants. Token i of a request has the text
 * "<ids of the prompt>.<i> ", and the logarithm of its probability is -i. */
#ifndef SHOAL_API_FAKE_ENGINE_IMPL_H
#define SHOAL_API_FAKE_ENGINE_IMPL_H

#include "engine/engine.h"

#include <pthread.h>

enum { FAKE_JOBS = 64 };

struct fake_job {
    uint64_t id; /* 0: free */
    struct request_options options;
    int emitted;
    bool cancelled;
    size_t text_bytes; /* of its tokens so far */
    char late[64];     /* text that is still to come */
};

struct engine {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool stopping;
    struct fake_job jobs[FAKE_JOBS];
    uint64_t last_id;

    /* What tests set with fake_engine_set. */
    int max_jobs;              /* more are ERR_FULL */
    int allowed;               /* tokens that each request may have got by now */
    enum finish_reason finish; /* after max_tokens, or 3 tokens if those are unlimited */
    const char *text;          /* of each token, instead of the usual */
    bool late_text;   /* as with stop strings: half of a token's text comes with the next */
    enum err refusal; /* of engine_submit */
    bool failed;

    /* What tests look at. */
    struct request_options last; /* as submitted last; its arrays are gone */
    int32_t last_prompt[64];
    int n_submitted, n_cancelled; /* n_cancelled: last events FINISH_CANCELLED */
};

struct engine *fake_engine_new(void);
void fake_engine_free(struct engine *g);
/* Change the settings under the lock: fake_engine_set(g, g->allowed = 5). */
#define fake_engine_set(g, assignment) \
    do { \
        pthread_mutex_lock(&(g)->lock); \
        assignment; \
        pthread_cond_broadcast(&(g)->changed); \
        pthread_mutex_unlock(&(g)->lock); \
    } while (0)
/* Wait until `n` requests have ended as cancelled; false after ten seconds. */
bool fake_engine_await_cancelled(struct engine *g, int n);

#endif
