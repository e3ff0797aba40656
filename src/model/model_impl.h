/* What a loaded model is made of; for the files of this module only. */
#ifndef SHOAL_MODEL_MODEL_IMPL_H
#define SHOAL_MODEL_MODEL_IMPL_H

#include "model/architectures.h"
#include "model/model.h"

/* The tensors of a part, found in the file and checked; indexes are roles. */
struct layer_binding {
    const struct model_tensor *tensors[N_LAYER_ROLES];
};
struct binding {
    struct model_params params;
    const struct architecture *architecture;
    struct layer_binding *layers; /* [last - first] */
    int n_layers;
    const struct model_tensor *embedding, *final_norm, *head, *rope_factors; /* NULL: not ours */
    bool head_is_embedding; /* embedding and head of this part are one tensor */
};

/* Find and check every tensor of the part. On success release with binding_release. */
enum err binding_init(struct binding *b, const struct modelfile *file,
                      const struct model_part *part, struct error *e);
void binding_release(struct binding *b);

/* A layer in memory; indexes are roles. Vectors are in `vectors`, matrices in `matrices`. */
struct layer {
    struct weight *matrices[N_LAYER_ROLES];
    struct tensor *vectors[N_LAYER_ROLES];
};

struct model {
    struct model_params params;
    struct model_part part;
    struct backend *backend;
    struct layer *layers; /* [part.last - part.first] */
    struct weight *embedding;
    struct weight *head; /* may be == embedding */
    struct tensor *final_norm;
    struct rope_spec rope;
    double *inv_freq;
    size_t weight_bytes;
};

/* The rope frequencies: inv_freq[i], i < rope_size / 2, scaled as params say, and divided by
 * factors[i] where given. */
void rope_frequencies(const struct model_params *p, const float *factors, double *inv_freq);

#endif
