/* A whole ring in one process with real threads: the workers' stages each on a thread of its own,
 * joined by inproc links, and the pipeline that the lead sees. For tests of what runs in threads
 * (pipeline, engine); what wants to be replayed uses sim_cluster.h. */
#ifndef SHOAL_SIM_SIM_RING_H
#define SHOAL_SIM_SIM_RING_H

#include "pipeline/pipeline.h"
#include "sim/sim_stage.h"

struct sim_ring;

struct sim_ring_options {
    struct sim_shape shape;
    int credits;
    time_us timeout_us; /* as in struct pipeline_options; the next two also */
    enum err (*check)(void *context, struct error *e);
    void *check_context;
    inproc_hook hook;   /* on the link to the first stage, or NULL */
    void *hook_context;
};

enum err sim_ring_start(const struct sim_ring_options *o, struct sim_ring **out, struct error *e);
struct pipeline *sim_ring_pipeline(struct sim_ring *r);
struct inbox *sim_ring_lead_inbox(struct sim_ring *r); /* NULL with one stage */
/* Worker stage_i dies: it takes no more frames and its link to the next stage closes. Any thread,
 * once for each. */
void sim_ring_kill(struct sim_ring *r, int stage_i);
void sim_ring_stop(struct sim_ring *r); /* nobody uses the pipeline any more; NULL allowed */

#endif
