/* A cluster in one process and one thread, with a fake clock: every run is a function of its
 * options, so a seed that fails fails again. Scheduler, sampler, pipeline, frames, stages are the
 * real ones; the backend hashes; frames take random times on their links (in order on each, as on a
 * stream), requests come and are cancelled at times given by the caller. */
#ifndef SHOAL_SIM_SIM_CLUSTER_H
#define SHOAL_SIM_SIM_CLUSTER_H

#include "engine/draft_model.h"
#include "sampler/sampler.h"
#include "sim/sim_fault.h"
#include "sim/sim_stage.h"

enum { SIM_MAX_FLIGHTS = 16, SIM_MAX_TOKENS = 64, SIM_END_TOKEN = 0 };

struct sim_request {
    const int32_t *prompt; /* [n_prompt], the caller's */
    int n_prompt;
    int max_tokens; /* 1 … SIM_MAX_TOKENS */
    struct sampling sampling;
    uint32_t choice;
    int priority;
    bool no_draft;
    int64_t arrives_at;
    int64_t cancelled_at; /* fake time; < 0: never */
    /* What came of it. */
    struct sampler_memory memory;
    int32_t tokens[SIM_MAX_TOKENS]; /* SIM_END_TOKEN ends a request and is the last */
    int n_tokens;
    bool ended, cancelled;
};

struct sim_cluster_options {
    struct sim_shape shape;
    int n_flights; /* <= SIM_MAX_FLIGHTS */
    bool fit_flights;
    int min_chunk;
    int max_draft;
    int draft_blocks;    /* > 0: a draft model guesses, with so many key-value blocks, … */
    uint64_t draft_seed; /* … and these weights: those of the model are always right */
    int64_t max_itl;     /* fake time; 0: any. The next one likewise */
    float max_stretch;
    bool no_reuse;
    uint64_t seed;          /* of the delays */
    struct sim_fault fault; /* zeroed: none */
};

struct sim_outcome {
    struct schedule_counts left; /* when all was over */
    uint64_t n_steps, n_rows;
    int64_t ended_at; /* fake time */
    bool fault_happened;
};

/* Run until every request has ended. An error is what a part of the cluster complained of;
 * ERR_UNREACHABLE if nothing moves any more while a step is on its way. */
enum err sim_cluster_run(const struct sim_cluster_options *o, struct sim_request *requests,
                         int n_requests, struct sim_outcome *out, struct error *e);

#endif
