/* The messages of proto/shoal.proto as bytes and back. What arrives is bounded: strings and arrays
 * by proto/shoal.options, lists and byte fields by the callers of this module. Pure functions. */
#ifndef SHOAL_NODE_MESSAGES_H
#define SHOAL_NODE_MESSAGES_H

#include "base/error.h"
#include "modelfile/modelfile.h"
#include "rpc/rpc.h"

#include "health.pb.h"
#include "shoal.pb.h"

/* Of these messages and of frames; two nodes talk only when theirs are equal. */
enum { NODE_PROTOCOL = 3 };

enum {
    CHUNK_BYTES = 1 << 20,        /* data of one TensorChunk */
    PROBE_MAX_BYTES = 4 << 20,    /* payload of a Probe */
    ASSIGN_MAX_TENSORS = 1 << 17, /* tensors of one part */
};

#define NODE_SERVICE "/shoal.v1.Node/"

/* Any message without callback fields. `what` names it in errors: "Assign from the lead". */
enum err message_decode(const pb_msgdesc_t *fields, void *message, const void *data, size_t bytes,
                        const char *what, struct error *e);
enum err message_encode(const pb_msgdesc_t *fields, const void *message, struct rpc_buffer *out,
                        struct error *e);

/* The tensors of an Assign; decoding reserves, the caller releases. */
struct tensor_list {
    struct modelfile_remote_tensor *items;
    int n, capacity;
};
enum err tensor_list_add(struct tensor_list *l, const struct model_tensor *t, struct error *e);
void tensor_list_release(struct tensor_list *l);

enum err assign_encode(const shoal_v1_AssignRequest *request, const struct tensor_list *tensors,
                       struct rpc_buffer *out, struct error *e);
enum err assign_decode(const void *data, size_t bytes, shoal_v1_AssignRequest *request,
                       struct tensor_list *tensors, struct error *e);

/* A byte field: room of the caller for at most `capacity`. */
struct byte_field {
    uint8_t *data;
    size_t capacity, bytes;
};
/* The part of a TensorChunk before its data, which follows as it is. At most CHUNK_HEAD_MAX. */
enum { CHUNK_HEAD_MAX = 48 };
size_t chunk_head_encode(uint64_t offset, uint64_t xxh3, size_t data_bytes,
                         uint8_t out[static CHUNK_HEAD_MAX]);
enum err chunk_decode(const void *data, size_t bytes, shoal_v1_TensorChunk *chunk,
                      struct byte_field *field, struct error *e);

enum err probe_request_encode(uint32_t answer_bytes, const struct byte_field *payload,
                              struct rpc_buffer *out, struct error *e);
enum err probe_request_decode(const void *data, size_t bytes, uint32_t *answer_bytes,
                              struct byte_field *payload, struct error *e);
enum err probe_response_encode(uint64_t handling_us, const struct byte_field *payload,
                               struct rpc_buffer *out, struct error *e);
enum err probe_response_decode(const void *data, size_t bytes, uint64_t *handling_us,
                               struct byte_field *payload, struct error *e);

/* Hyper-parameters there and back. Values out of range are ERR_INVALID; whether they fit together,
 * modelfile_new_remote and the model check. */
void params_to_message(const struct model_params *p, shoal_v1_ModelParams *out);
enum err params_from_message(const shoal_v1_ModelParams *m, struct model_params *out,
                             struct error *e);

void identity_to_message(const struct model_identity *i, shoal_v1_ModelIdentity *out);
bool identity_equals(const struct model_identity *i, const shoal_v1_ModelIdentity *m);

#endif
