/* A small model of the LLaMA family whose tensors are filled from a seed: nothing a person would
 * want to talk to, but every tensor is there with its right shape, and two seeds differ. */
#ifndef SHOAL_SIM_SIM_MODEL_H
#define SHOAL_SIM_SIM_MODEL_H

#include "modelfile/modelfile.h"

/* Close with modelfile_close. Loading gives the tensors' memory back (modelfile_discard), so each
 * load needs a new one; equal arguments make equal tensors. */
enum err sim_model_new(uint64_t seed, int n_layers, int hidden, int vocab, int context,
                       struct modelfile **out, struct error *e);

#endif
