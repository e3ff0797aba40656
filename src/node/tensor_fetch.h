/* Tensors over the network: the lead answers FetchTensors from its file, a worker without the file
 * fetches each tensor when loading needs it. Chunks carry their hash; a broken transfer goes on
 * where it stopped. Weights travel as bytes of the model file, never packed. */
#ifndef SHOAL_NODE_TENSOR_FETCH_H
#define SHOAL_NODE_TENSOR_FETCH_H

#include "modelfile/modelfile.h"
#include "rpc/rpc.h"

#include <stdatomic.h>

/* The answering side: the `produce` function of FetchTensors. */
enum err tensor_serve(const struct modelfile *file, struct rpc_call *call, const void *request,
                      size_t bytes, struct error *e);

/* The asking side. */
struct tensor_source {
    struct rpc_channel *channel; /* to who has the file */
    struct model_identity identity;
    uint8_t *chunk; /* CHUNK_BYTES of room */
    _Atomic uint64_t fetched_bytes;
};
enum err tensor_source_open(struct tensor_source *s, const char *address,
                            const struct model_identity *identity, struct error *e);
void tensor_source_close(struct tensor_source *s);

/* A modelfile_fetch; context is the struct tensor_source. One thread. */
enum err tensor_source_fetch(void *context, const struct model_tensor *t, void *into,
                             struct error *e);

#endif
