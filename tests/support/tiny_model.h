/* Small random models in memory for tests: any shape, any computable type, from a seed. */
#ifndef SHOAL_TESTS_TINY_MODEL_H
#define SHOAL_TESTS_TINY_MODEL_H

#include "modelfile/modelfile.h"

struct tiny_shape {
    int n_layers, hidden, ffn, n_heads, n_kv_heads, head_size, vocab;
    int window; /* of attention; 0: none */
    bool tied;
    enum rope_pairing pairing;
    enum dtype type;        /* of the matrices; F32 or Q8_0 */
    const char *without;    /* leave this tensor out; NULL: none */
    const char *transposed; /* give this tensor a wrong shape; NULL: none */
    const char *extra;      /* a tensor that no model has; NULL: none */
};

/* A LLaMA of this shape, with weights that keep activations of order one. The test fails if it
 * cannot be made. Close with modelfile_close. */
struct modelfile *tiny_model(const struct tiny_shape *shape, uint64_t seed);

#endif
