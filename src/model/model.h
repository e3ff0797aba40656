/* A model in memory: hyper-parameters, the weights of layers [first, last) bound with their shapes
 * checked, and the one forward pass over them.
 *
 * Architectures are rows of a table (architectures.c): which names a file may call it, which
 * tensors a layer has. Only the LLaMA family stands in it now. docs/models/llama.md.
 * A loaded model is immutable; the forward pass works in a struct model_scratch of its caller. */
#ifndef SHOAL_MODEL_MODEL_H
#define SHOAL_MODEL_MODEL_H

#include "backend/backend.h"
#include "modelfile/modelfile.h"

struct model;

/* Which part of the model to load. The embedding goes with layer 0, the head (final norm and output
 * matrix) where asked; first == last with a head is a stage of only norm and head. */
struct model_part {
    int first, last; /* layers, 0 <= first <= last <= n_layers */
    bool embedding;  /* usually first == 0 */
    bool head;
};

/* Called while loading, from the loading thread: `done` of `total` bytes of tensors taken over. */
typedef void (*model_progress)(uint64_t done_bytes, uint64_t total_bytes, void *context);

/* Check the architecture and every tensor of the part (presence, type, shape) before anything is
 * read, then load. ERR_NOT_FOUND / ERR_MISMATCH / ERR_UNSUPPORTED name the tensor, the shape or
 * type expected and found. A mapped tensor's pages are given back after packing. */
enum err model_load(struct modelfile *file, struct backend *backend, const struct model_part *part,
                    model_progress progress, void *context, struct model **out, struct error *e);
void model_free(struct model *m); /* NULL allowed */

const struct model_params *model_params(const struct model *m);
const struct model_part *model_part(const struct model *m);
size_t model_weight_bytes(const struct model *m); /* packed, of the loaded part */

/* The tensors that a part needs, without loading: for planning, FetchTensors, memory accounts.
 * Calls `visit` for each (NULL where an optional one is absent is not visited). */
typedef enum err (*model_tensor_visit)(const struct model_tensor *t, void *context,
                                       struct error *e);
enum err model_part_tensors(const struct modelfile *file, const struct model_part *part,
                            model_tensor_visit visit, void *context, struct error *e);

/* Refuse a model that this program cannot run, before any plan is made: architecture, types and
 * shapes of all its tensors. */
enum err model_check(const struct modelfile *file, struct error *e);

/* Working memory of forward passes of up to max_rows rows. */
struct model_scratch;
enum err model_scratch_new(const struct model *m, int max_rows, struct model_scratch **out,
                           struct error *e);
void model_scratch_free(struct model_scratch *s);
size_t model_scratch_bytes(const struct model_scratch *s);
/* What model_scratch_bytes will be, before anything is loaded. */
uint64_t model_activation_bytes(const struct model_params *p, int max_rows, bool head);

/* Run rows 0 … batch->n - 1 through the loaded layers. Exactly one of tokens (embedding loaded) and
 * hidden_in is given. Without the head all rows go to hidden_out [n][hidden]; with it, `wanted`
 * lists n_wanted row indexes in ascending order whose logits go to logits [n_wanted][vocab], and of
 * the last layer the other rows take only what the KV store needs. */
struct model_io {
    const struct batch *batch;
    const int32_t *tokens;
    const float *hidden_in;
    float *hidden_out;
    const int32_t *wanted;
    int n_wanted;
    float *logits;
};
void model_forward(const struct model *m, struct model_scratch *scratch, struct kv_store *kv,
                   const struct model_io *io);

/* The shape of the KV store of this part. */
void model_kv_shape(const struct model *m, int n_blocks, enum kv_type type, struct kv_shape *out);

#endif
