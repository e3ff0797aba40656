/* Stages of a model that does not exist: synthetic weights from a seed on the hashing backend
 * (backend.h, backend_sim_open), cut into as many stages as wanted. The bottom of the simulator:
 * sim_ring.h puts threads around them, sim_cluster.h an event loop with a fake clock.
 *
 * Everything above the backend is the real thing: model, stage, frames, links, pipeline. */
#ifndef SHOAL_SIM_SIM_STAGE_H
#define SHOAL_SIM_SIM_STAGE_H

#include "model/model.h"
#include "stage/stage.h"

enum { SIM_HIDDEN = 16, SIM_VOCAB = 64, SIM_EPOCH = 7 };

struct sim_shape {
    uint64_t model_seed; /* the weights */
    int n_layers;
    int n_stages; /* 1 … n_layers + 1: with one more than layers the lead has only the head */
    int n_blocks, n_slots, max_rows, max_context;
    int window;      /* of attention; 0: none */
    int64_t pass_us; /* that a stage takes for a step, at least */
};

struct sim_stage {
    struct backend *backend;
    struct model *model;
    struct stage *stage;
};

/* Stage stage_i of the shape's n_stages: layers are shared out evenly; the first embeds, the last
 * has the head. */
enum err sim_stage_open(const struct sim_shape *shape, int stage_i, struct sim_stage *out,
                        struct error *e);
void sim_stage_close(struct sim_stage *s); /* a zeroed one is allowed */
int sim_stage_first_layer(const struct sim_shape *shape, int stage_i);

/* What a worker does with a frame: read, compute, write the frame for the stage that begins with
 * layer next_first. `in` stays the caller's. With `step_inside` the stage computes that step instead of
 * the one in the frame, which is passed on unchanged all the same: a fault inside a node. */
enum err sim_stage_relay(struct sim_stage *s, const struct frame *in, int next_first,
                         const struct step *step_inside, struct frame **out, struct error *e);

#endif
