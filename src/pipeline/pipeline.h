/* The ring as the lead sees it: steps go in, finished steps come out in the same order.
 *
 * The lead is the last stage. With one stage a step runs here and now; with more, the step goes to
 * stage 0 over `first`, the hidden states of the stage before the lead arrive in `inbox`, and the
 * lead's own stage finishes them. At most `credits` steps are on their way: pipeline_submit answers
 * ERR_FULL beyond that, so no queue anywhere overflows and the ring cannot deadlock.
 * A link that goes down, a frame that is not the expected one (epoch, number, rows) or silence longer
 * than timeout_us fails the pipeline for good: every later call returns that error.
 * One thread (the engine's) uses a pipeline. */
#ifndef SHOAL_PIPELINE_PIPELINE_H
#define SHOAL_PIPELINE_PIPELINE_H

#include "base/clock.h"
#include "link/link.h"
#include "stage/stage.h"

struct pipeline;

struct pipeline_options {
    struct stage *stage;  /* the lead's own, with the head; borrowed */
    int vocab;
    int hidden;
    struct link *first;   /* to stage 0; NULL when the lead is the only stage; borrowed */
    struct inbox *inbox;  /* from the stage before; NULL likewise; borrowed */
    int n_stages;
    int first_layer;      /* of the lead's stage: the boundary its frames must state */
    int credits;          /* <= room of every inbox */
    int max_rows;
    uint64_t epoch;
    time_us timeout_us;   /* silence with steps on their way; 0: none */
    enum err (*check)(void *context, struct error *e); /* NULL, or asked while waiting: not OK when
                                                          a node is gone; on the caller's thread */
    void *check_context;
};

enum err pipeline_new(const struct pipeline_options *o, struct pipeline **out, struct error *e);
void pipeline_free(struct pipeline *p);
int pipeline_n_stages(const struct pipeline *p);
int pipeline_in_flight(const struct pipeline *p);

/* Send a step off; epoch and number are filled in here, the arrays are copied. */
enum err pipeline_submit(struct pipeline *p, struct step *step, struct error *e);

/* The oldest step on its way, finished: its rows (as submitted), the times of all stages, and the
 * logits of its wanted rows, [n_wanted][vocab], valid until the next call. ERR_TIMEOUT when wait_us (>= 0) passed (nothing
 * is wrong), ERR_CLOSED/ERR_UNREACHABLE/ERR_FORMAT/ERR_MEMORY when the ring failed. With one stage
 * the step is computed now, whatever wait_us says. With nothing on its way it only looks whether the
 * ring still stands. */
struct pipeline_result {
    struct step step;
    int n_wanted;
    float *logits; /* may be changed by the caller */
};
enum err pipeline_collect(struct pipeline *p, struct pipeline_result *out, time_us wait_us,
                          struct error *e);

/* What the lead's own stage has done so far. Any thread, at any time. */
struct pipeline_stats {
    uint64_t steps, rows;
    time_us busy_us;      /* inside stage_forward */
    time_us send_wait_us; /* of the waiting in pipeline_collect: the network had not taken all steps */
};
void pipeline_stats(const struct pipeline *p, struct pipeline_stats *out);

#endif
