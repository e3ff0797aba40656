/* A small model of the LLaMA family whose tensors are filled from a seed: nothing a person would
 * want to talk to, but every tensor is there with its right shape, and two seeds differ. */
#ifndef SHOAL_SIM_SIM_MODEL_H
#define SHOAL_SIM_SIM_MODEL_H

#include "modelfile/modelfile.h"

struct sim_model_options {
    uint64_t seed; /* of the weights */
    int n_layers, hidden, vocab;
    int context;
    int window; /* of attention; 0: none */
};

/* Close with modelfile_close. Loading gives the tensors' memory back (modelfile_discard), so each
 * load needs a new one; equal options make equal tensors, whatever the window. */
enum err sim_model_new(const struct sim_model_options *o, struct modelfile **out, struct error *e);

#endif
