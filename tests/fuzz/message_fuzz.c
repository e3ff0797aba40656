/* The protobuf messages of the node service as anybody may send them. The first byte chooses which.
 * What decodes is looked at and, where it can be, encoded and decoded again. */
#include "base/panic.h"
#include "node/messages.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void assign(const uint8_t *data, size_t bytes)
{
    shoal_v1_AssignRequest *r = malloc(sizeof(*r)), *again = malloc(sizeof(*again));
    struct tensor_list tensors, same;
    struct rpc_buffer b;
    struct model_params params;
    if (assign_decode(data, bytes, r, &tensors, NULL) == OK) {
        ASSERT(strlen(r->path) < sizeof(r->path) && strlen(r->next) < sizeof(r->next));
        params_from_message(&r->params, &params, NULL);
        for (int i = 0; i < tensors.n; i++)
            ASSERT(strlen(tensors.items[i].name) < sizeof(tensors.items[i].name) &&
                   tensors.items[i].n_dims <= MODEL_MAX_DIMS);
        ASSERT(assign_encode(r, &tensors, &b, NULL) == OK);
        ASSERT(assign_decode(b.data, b.bytes, again, &same, NULL) == OK);
        ASSERT(same.n == tensors.n && strcmp(again->path, r->path) == 0);
        rpc_buffer_release(&b);
        tensor_list_release(&same);
        tensor_list_release(&tensors);
    }
    free(r);
    free(again);
}

static void with_bytes(int which, const uint8_t *data, size_t bytes)
{
    enum { ROOM = 4096 };
    struct byte_field field = {.data = malloc(ROOM), .capacity = ROOM};
    shoal_v1_TensorChunk chunk;
    uint32_t answer_bytes;
    uint64_t handling_us;
    if (which == 0)
        chunk_decode(data, bytes, &chunk, &field, NULL);
    else if (which == 1)
        probe_request_decode(data, bytes, &answer_bytes, &field, NULL);
    else
        probe_response_decode(data, bytes, &handling_us, &field, NULL);
    ASSERT(field.bytes <= ROOM);
    free(field.data);
}

/* Messages of fixed size: decoding and encoding is all there is to them. */
static void plain(const pb_msgdesc_t *fields, size_t size, const uint8_t *data, size_t bytes)
{
    void *message = calloc(1, size);
    struct rpc_buffer b;
    if (message_decode(fields, message, data, bytes, "message", NULL) == OK) {
        ASSERT(message_encode(fields, message, &b, NULL) == OK);
        rpc_buffer_release(&b);
    }
    free(message);
}

#define PLAIN(type) plain(type##_fields, sizeof(type), data, bytes)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    int which = data[0] % 10;
    data++;
    bytes--;
    switch (which) {
    case 0: assign(data, bytes); break;
    case 1: with_bytes(0, data, bytes); break;
    case 2: with_bytes(1, data, bytes); break;
    case 3: with_bytes(2, data, bytes); break;
    case 4: PLAIN(shoal_v1_FetchTensorsRequest); break;
    case 5: PLAIN(shoal_v1_DescribeResponse); break;
    case 6: PLAIN(shoal_v1_StatsResponse); break;
    case 7: PLAIN(shoal_v1_AssignResponse); break;
    case 8: PLAIN(shoal_v1_UnassignRequest); break;
    default: PLAIN(grpc_health_v1_HealthCheckRequest); break;
    }
    return 0;
}
