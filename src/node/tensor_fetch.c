/* Both sides of FetchTensors. */
#include "node/tensor_fetch.h"

#include "base/log.h"
#include "node/messages.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    FETCH_TRIES = 4,                 /* of one tensor; each goes on where the last one stopped */
    FETCH_SILENCE_US = 20 * 1000000, /* without a chunk: try again */
    FETCH_PAUSE_US = 200 * 1000,
};

/* ---- serving ---- */

static enum err find_tensor(const struct modelfile *file, const void *data, size_t bytes,
                            const struct model_tensor **t, uint64_t *offset, struct error *e)
{
    shoal_v1_FetchTensorsRequest request = shoal_v1_FetchTensorsRequest_init_zero;
    enum err err = message_decode(shoal_v1_FetchTensorsRequest_fields, &request, data, bytes,
                                  "FetchTensors", e);
    if (err != OK)
        return err;
    struct model_identity identity;
    modelfile_identity(file, &identity);
    if (!request.has_identity || !identity_equals(&identity, &request.identity))
        return error_set(e, ERR_MISMATCH, "FetchTensors: another model is asked for than %s",
                         modelfile_path(file));
    *t = modelfile_find(file, request.name);
    if (*t == NULL)
        return error_set(e, ERR_NOT_FOUND, "FetchTensors: no tensor %s in %s", request.name,
                         modelfile_path(file));
    if (request.offset > (*t)->bytes)
        return error_set(e, ERR_INVALID, "FetchTensors: %s has %llu bytes, offset %llu asked for",
                         request.name, (unsigned long long)(*t)->bytes,
                         (unsigned long long)request.offset);
    *offset = request.offset;
    return OK;
}

static void keep(void *context)
{
    (void)context; /* the mapping outlives the server */
}

enum err tensor_serve(const struct modelfile *file, struct rpc_call *call, const void *request,
                      size_t bytes, struct error *e)
{
    const struct model_tensor *t = NULL;
    uint64_t at = 0;
    enum err err = find_tensor(file, request, bytes, &t, &at, e);
    if (err != OK)
        return err;
    const uint8_t *data = modelfile_data(file, t);
    while (at < t->bytes) {
        size_t n = t->bytes - at < CHUNK_BYTES ? (size_t)(t->bytes - at) : CHUNK_BYTES;
        uint8_t head[CHUNK_HEAD_MAX];
        struct rpc_outgoing chunk = {
            .head = head, .body = data + at, .body_bytes = n, .release = keep};
        chunk.head_bytes = chunk_head_encode(at, XXH3_64bits(data + at, n), n, head);
        if (rpc_call_send(call, &chunk) != OK)
            return error_set(e, ERR_CANCELLED, "FetchTensors: the caller has gone");
        at += n;
    }
    return OK;
}

/* ---- fetching ---- */

enum err tensor_source_open(struct tensor_source *s, const char *address,
                            const struct model_identity *identity, struct error *e)
{
    memset(s, 0, sizeof(*s));
    s->identity = *identity;
    s->chunk = malloc(CHUNK_BYTES);
    if (s->chunk == NULL)
        return error_set(e, ERR_MEMORY, "no memory to fetch tensors");
    enum err err = rpc_channel_open(address, &s->channel, e);
    if (err != OK)
        tensor_source_close(s);
    return err;
}

void tensor_source_close(struct tensor_source *s)
{
    rpc_channel_close(s->channel);
    free(s->chunk);
    s->channel = NULL;
    s->chunk = NULL;
}

/* Take one chunk over: it must be the next one, fit and have its hash. */
static enum err take_chunk(struct tensor_source *s, const struct model_tensor *t, uint8_t *into,
                           uint64_t *done, const struct rpc_buffer *message, struct error *e)
{
    shoal_v1_TensorChunk chunk;
    struct byte_field field = {.data = s->chunk, .capacity = CHUNK_BYTES};
    enum err err = chunk_decode(message->data, message->bytes, &chunk, &field, e);
    if (err != OK)
        return err;
    if (chunk.offset != *done || field.bytes == 0 || field.bytes > t->bytes - *done)
        return error_set(e, ERR_FORMAT,
                         "FetchTensors: expected bytes from %llu of %llu, found %zu "
                         "from %llu",
                         (unsigned long long)*done, (unsigned long long)t->bytes, field.bytes,
                         (unsigned long long)chunk.offset);
    uint64_t hash = XXH3_64bits(field.data, field.bytes);
    if (hash != chunk.xxh3)
        return error_set(e, ERR_FORMAT, "FetchTensors: expected hash %016llx, found %016llx",
                         (unsigned long long)chunk.xxh3, (unsigned long long)hash);
    memcpy(into + *done, field.data, field.bytes);
    *done += field.bytes;
    atomic_fetch_add(&s->fetched_bytes, field.bytes);
    return OK;
}

/* One call, from *done on. */
static enum err fetch_from(struct tensor_source *s, const struct model_tensor *t, uint8_t *into,
                           uint64_t *done, struct error *e)
{
    shoal_v1_FetchTensorsRequest request = {.has_identity = true, .offset = *done};
    struct rpc_buffer message;
    struct rpc_reader *reader;
    identity_to_message(&s->identity, &request.identity);
    strncpy(request.name, t->name, sizeof(request.name) - 1);
    enum err err = message_encode(shoal_v1_FetchTensorsRequest_fields, &request, &message, e);
    if (err != OK)
        return err;
    err = rpc_reader_open(s->channel, NODE_SERVICE "FetchTensors", message.data, message.bytes,
                          &reader, e);
    rpc_buffer_release(&message);
    while (err == OK) {
        err = rpc_reader_next(reader, FETCH_SILENCE_US, &message, e);
        if (err == OK)
            err = take_chunk(s, t, into, done, &message, e);
        rpc_buffer_release(&message);
    }
    rpc_reader_close(reader);
    if (err == ERR_CLOSED && *done == t->bytes)
        return OK;
    return err != ERR_CLOSED ? err
                             : error_set(e, ERR_FORMAT,
                                         "%s: FetchTensors ended after %llu of %llu "
                                         "bytes",
                                         rpc_channel_address(s->channel), (unsigned long long)*done,
                                         (unsigned long long)t->bytes);
}

static bool is_worth_another_try(enum err err)
{
    return err == ERR_UNREACHABLE || err == ERR_TIMEOUT || err == ERR_FORMAT || err == ERR_MEMORY;
}

enum err tensor_source_fetch(void *context, const struct model_tensor *t, void *into,
                             struct error *e)
{
    struct tensor_source *s = context;
    uint64_t done = 0;
    enum err err = OK;
    struct error why = {.code = OK};
    for (int i = 0; i < FETCH_TRIES; i++) {
        err = fetch_from(s, t, into, &done, &why);
        if (err == OK || !is_worth_another_try(err) || i == FETCH_TRIES - 1)
            break;
        log_warn("tensor %s: %s", t->name, why.text);
        clock_sleep_us(FETCH_PAUSE_US << i);
    }
    if (err != OK)
        error_set(e, err, "tensor %s: %s", t->name, why.text);
    return err;
}
