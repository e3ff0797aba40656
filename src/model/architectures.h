/* The table of architectures: which tensors a model of each has, under which names and shapes.
 * A new architecture is a row here (and, where its layer computes differently, a flag that the
 * forward pass reads). Names and traps per architecture: docs/models/. */
#ifndef SHOAL_MODEL_ARCHITECTURES_H
#define SHOAL_MODEL_ARCHITECTURES_H

#include "base/error.h"
#include "modelfile/modelfile.h"

#include <stdbool.h>

/* A dimension of a tensor in terms of the hyper-parameters. */
enum model_dim {
    DIM_ONE,
    DIM_HIDDEN,
    DIM_QUERIES, /* n_heads * head_size */
    DIM_KEYS,    /* n_kv_heads * head_size */
    DIM_FFN,
    DIM_VOCAB,
    DIM_ROPE_PAIRS, /* rope_size / 2 */
    N_DIMS
};

/* What a tensor is for; the slots of struct layer and struct model. */
enum tensor_role {
    ROLE_ATTN_NORM,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_ATTN_OUT,
    ROLE_FFN_NORM,
    ROLE_GATE,
    ROLE_UP,
    ROLE_DOWN,
    N_LAYER_ROLES,
    ROLE_EMBEDDING = N_LAYER_ROLES,
    ROLE_FINAL_NORM,
    ROLE_HEAD,         /* absent where tied_head: the embedding serves */
    ROLE_ROPE_FACTORS, /* optional: divisors of the rope frequencies */
    N_ROLES
};

struct tensor_spec {
    const char *name; /* of a layer's tensor: what follows "blk.N." */
    enum model_dim rows, cols;
    bool vector; /* kept as f32: norm gains */
};

struct architecture {
    const char *names[4]; /* as GGUF and config.json call it; ends with NULL */
    struct tensor_spec tensors[N_ROLES];
};

/* The row for `params->architecture`; ERR_UNSUPPORTED lists the ones there are. */
enum err architecture_find(const struct model_params *params, const struct architecture **out,
                           struct error *e);

uint64_t model_dim_size(const struct model_params *p, enum model_dim dim);

#endif
