/* A leading process put together: model file, plan, cluster, this node's own layers, pipeline and
 * engine.
 *
 * lead_open does in order: check the model, reach the nodes, plan, load the layers (the lead's own
 * and the workers' at the same time) and lay the ring, start the engine. progress is called from
 * the opening thread, or where there are no workers while that thread loads.
 * What it leaves is plain structs that the verbs read. One thread opens and closes. */
#ifndef SHOAL_LEAD_LEAD_H
#define SHOAL_LEAD_LEAD_H

#include "backend/backend.h"
#include "engine/engine.h"
#include "lead/lead_draft.h"
#include "modelfile/modelfile.h"
#include "node/cluster.h"
#include "pipeline/pipeline.h"
#include "plan/plan.h"

struct lead_options {
    struct modelfile *file;            /* borrowed */
    const struct tokenizer *tokenizer; /* borrowed; for the engine's text; NULL: ids only */
    const char *nodes;                 /* "H:P,…"; NULL: this process alone */
    const char *layers;                /* plan by hand, as plan_by_hand; NULL: by memory */
    int threads;                       /* of this process; 0: pool_default_threads() */
    bool pin;                          /* its compute threads to one processor each */
    struct backend_choice backend;     /* workers with other numerics are refused */
    enum kv_type kv_type;
    int context;       /* positions of one sequence; 0: the model's */
    int n_slots;       /* sequences at once */
    int max_rows;      /* of one step */
    uint64_t kv_bytes; /* memory for keys and values of all layers; 0: kv_share of what is free, or
                        * less if the slots need less */
    float kv_share;    /* 0: a quarter */
    int n_flights;     /* steps on their way at once; 0: up to stages + 1, alone 1 */
    int max_queued;    /* requests that wait; 0: 4 for each slot and 64 */
    struct modelfile *draft_file; /* a small model with the same vocabulary that guesses ahead;
                                   * NULL: none. Borrowed. Its keys and values get up to a quarter
                                   * of kv_bytes beside them. Not with no_engine */
    int max_draft;                /* the next three as in engine_options */
    time_us max_itl_us;
    float max_stretch;
    bool no_reuse;  /* no prefix cache */
    bool insecure;  /* workers on other machines may fetch tensors from here: see
                     * cluster_options */
    bool no_engine; /* the caller drives the pipeline itself */
    model_progress progress;
    void *progress_context;
};

struct lead {
    struct model_params params;
    struct pool *pool;
    struct backend *backend;
    struct cluster *cluster; /* NULL: alone */
    uint64_t free_bytes;     /* memory of this machine that was free before anything was loaded */
    struct plan plan;
    struct model *model;
    struct stage *stage;
    struct pipeline *pipeline;
    struct lead_draft draft;
    struct engine *engine; /* NULL with no_engine */
    int context;           /* positions of one sequence, what came of the option */
    int n_blocks;
    time_us load_us;
};

/* Everything or nothing: on failure *lead needs no close and *e names the cause. */
enum err lead_open(const struct lead_options *o, struct lead *lead, struct error *e);
void lead_close(struct lead *lead);

/* Make the plan only: reach the nodes (or not), fill lead->params, cluster, plan, context and
 * n_blocks. On success lead_close after; on failure *lead needs none. */
enum err lead_plan(const struct lead_options *o, struct lead *lead, struct error *e);

/* "127.0.0.1:50100", or "lead" for this process. */
const char *lead_stage_name(const struct lead *lead, int stage_i);

#endif
