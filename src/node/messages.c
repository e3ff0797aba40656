/* nanopb around the edges: sizes, callbacks for lists and bytes, conversions. */
#include "node/messages.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <assert.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <stdlib.h>
#include <string.h>

/* ---- any message ---- */

enum err message_decode(const pb_msgdesc_t *fields, void *message, const void *data, size_t bytes,
                        const char *what, struct error *e)
{
    pb_istream_t stream = pb_istream_from_buffer(data, bytes);
    if (pb_decode(&stream, fields, message))
        return OK;
    return error_set(e, ERR_FORMAT, "%s: a malformed message of %zu bytes (%s)", what, bytes,
                     PB_GET_ERROR(&stream));
}

enum err message_encode(const pb_msgdesc_t *fields, const void *message, struct rpc_buffer *out,
                        struct error *e)
{
    size_t bytes = 0;
    *out = (struct rpc_buffer){0};
    if (!pb_get_encoded_size(&bytes, fields, message))
        return error_set(e, ERR_INTERNAL, "a message that cannot be encoded");
    out->data = malloc(bytes > 0 ? bytes : 1);
    if (out->data == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a message of %zu bytes", bytes);
    pb_ostream_t stream = pb_ostream_from_buffer(out->data, bytes);
    bool encoded = pb_encode(&stream, fields, message);
    ASSERT(encoded && stream.bytes_written == bytes);
    out->bytes = bytes;
    return OK;
}

/* ---- the tensors of an Assign ---- */

static struct modelfile_remote_tensor *tensor_list_push(struct tensor_list *l)
{
    if (l->n == l->capacity) {
        int wanted = l->capacity > 0 ? l->capacity * 2 : 64;
        void *grown = realloc(l->items, (size_t)wanted * sizeof(*l->items));
        if (grown == NULL)
            return NULL;
        l->items = grown;
        l->capacity = wanted;
    }
    return memset(&l->items[l->n++], 0, sizeof(*l->items));
}

enum err tensor_list_add(struct tensor_list *l, const struct model_tensor *t, struct error *e)
{
    if (l->n >= ASSIGN_MAX_TENSORS)
        return error_set(e, ERR_LIMIT, "more than %d tensors in one part", ASSIGN_MAX_TENSORS);
    struct modelfile_remote_tensor *item = tensor_list_push(l);
    if (item == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a list of tensors");
    ASSERT(strlen(t->name) < sizeof(item->name));
    strcpy(item->name, t->name);
    item->type = t->type;
    item->n_dims = t->n_dims;
    memcpy(item->dims, t->dims, sizeof(item->dims));
    return OK;
}

void tensor_list_release(struct tensor_list *l)
{
    free(l->items);
    *l = (struct tensor_list){0};
}

static bool encode_tensors(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct tensor_list *l = *arg;
    for (int i = 0; i < l->n; i++) {
        shoal_v1_Tensor t = {.type = l->items[i].type, .dims_count = (pb_size_t)l->items[i].n_dims};
        strcpy(t.name, l->items[i].name);
        memcpy(t.dims, l->items[i].dims, sizeof(t.dims));
        if (!pb_encode_tag_for_field(stream, field) ||
            !pb_encode_submessage(stream, shoal_v1_Tensor_fields, &t))
            return false;
    }
    return true;
}

static bool decode_tensor(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct tensor_list *l = *arg;
    shoal_v1_Tensor t = shoal_v1_Tensor_init_zero;
    if (l->n >= ASSIGN_MAX_TENSORS)
        PB_RETURN_ERROR(stream, "too many tensors");
    if (!pb_decode(stream, shoal_v1_Tensor_fields, &t))
        return false;
    struct modelfile_remote_tensor *item = tensor_list_push(l);
    if (item == NULL)
        PB_RETURN_ERROR(stream, "no memory");
    static_assert(sizeof(t.name) == sizeof(item->name), "proto/shoal.options");
    static_assert(sizeof(t.dims) == sizeof(item->dims), "proto/shoal.options");
    memcpy(item->name, t.name, sizeof(item->name));
    item->type = t.type;
    item->n_dims = t.dims_count;
    memcpy(item->dims, t.dims, sizeof(item->dims));
    return true;
}

enum err assign_encode(const shoal_v1_AssignRequest *request, const struct tensor_list *tensors,
                       struct rpc_buffer *out, struct error *e)
{
    shoal_v1_AssignRequest *copy = malloc(sizeof(*copy));
    if (copy == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a message");
    *copy = *request;
    copy->tensors = (pb_callback_t){.funcs.encode = encode_tensors, .arg = (void *)tensors};
    enum err err = message_encode(shoal_v1_AssignRequest_fields, copy, out, e);
    free(copy);
    return err;
}

enum err assign_decode(const void *data, size_t bytes, shoal_v1_AssignRequest *request,
                       struct tensor_list *tensors, struct error *e)
{
    *request = (shoal_v1_AssignRequest)shoal_v1_AssignRequest_init_zero;
    *tensors = (struct tensor_list){0};
    request->tensors = (pb_callback_t){.funcs.decode = decode_tensor, .arg = tensors};
    enum err err = message_decode(shoal_v1_AssignRequest_fields, request, data, bytes, "Assign", e);
    request->tensors = (pb_callback_t){0};
    if (err != OK)
        tensor_list_release(tensors);
    return err;
}

/* ---- bytes ---- */

static bool encode_bytes(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct byte_field *f = *arg;
    return f->bytes == 0 ||
           (pb_encode_tag_for_field(stream, field) && pb_encode_string(stream, f->data, f->bytes));
}

static bool decode_bytes(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct byte_field *f = *arg;
    if (stream->bytes_left > f->capacity)
        PB_RETURN_ERROR(stream, "too many bytes");
    f->bytes = stream->bytes_left;
    return pb_read(stream, f->data, f->bytes);
}

size_t chunk_head_encode(uint64_t offset, uint64_t xxh3, size_t data_bytes,
                         uint8_t out[static CHUNK_HEAD_MAX])
{
    shoal_v1_TensorChunk chunk = {.offset = offset, .xxh3 = xxh3};
    pb_ostream_t stream = pb_ostream_from_buffer(out, CHUNK_HEAD_MAX);
    bool encoded = pb_encode(&stream, shoal_v1_TensorChunk_fields, &chunk) &&
                   pb_encode_tag(&stream, PB_WT_STRING, shoal_v1_TensorChunk_data_tag) &&
                   pb_encode_varint(&stream, data_bytes);
    ASSERT(encoded);
    return stream.bytes_written;
}

enum err chunk_decode(const void *data, size_t bytes, shoal_v1_TensorChunk *chunk,
                      struct byte_field *field, struct error *e)
{
    *chunk = (shoal_v1_TensorChunk){
        .data = {.funcs.decode = decode_bytes, .arg = field},
    };
    field->bytes = 0;
    return message_decode(shoal_v1_TensorChunk_fields, chunk, data, bytes, "FetchTensors", e);
}

enum err probe_request_encode(uint32_t answer_bytes, const struct byte_field *payload,
                              struct rpc_buffer *out, struct error *e)
{
    shoal_v1_ProbeRequest m = {.answer_bytes = answer_bytes,
                               .payload = {.funcs.encode = encode_bytes, .arg = (void *)payload}};
    return message_encode(shoal_v1_ProbeRequest_fields, &m, out, e);
}

enum err probe_request_decode(const void *data, size_t bytes, uint32_t *answer_bytes,
                              struct byte_field *payload, struct error *e)
{
    shoal_v1_ProbeRequest m = {.payload = {.funcs.decode = decode_bytes, .arg = payload}};
    payload->bytes = 0;
    enum err err = message_decode(shoal_v1_ProbeRequest_fields, &m, data, bytes, "Probe", e);
    if (err == OK && m.answer_bytes > PROBE_MAX_BYTES)
        err = error_set(e, ERR_LIMIT, "Probe: an answer of %u bytes asked for, limit %d",
                        m.answer_bytes, PROBE_MAX_BYTES);
    *answer_bytes = m.answer_bytes;
    return err;
}

enum err probe_response_encode(uint64_t handling_us, const struct byte_field *payload,
                               struct rpc_buffer *out, struct error *e)
{
    shoal_v1_ProbeResponse m = {.handling_us = handling_us,
                                .payload = {.funcs.encode = encode_bytes, .arg = (void *)payload}};
    return message_encode(shoal_v1_ProbeResponse_fields, &m, out, e);
}

enum err probe_response_decode(const void *data, size_t bytes, uint64_t *handling_us,
                               struct byte_field *payload, struct error *e)
{
    shoal_v1_ProbeResponse m = {.payload = {.funcs.decode = decode_bytes, .arg = payload}};
    payload->bytes = 0;
    enum err err = message_decode(shoal_v1_ProbeResponse_fields, &m, data, bytes, "Probe", e);
    *handling_us = m.handling_us;
    return err;
}

/* ---- conversions ---- */

void params_to_message(const struct model_params *p, shoal_v1_ModelParams *out)
{
    *out = (shoal_v1_ModelParams){
        .n_layers = (uint32_t)p->n_layers,
        .hidden = (uint32_t)p->hidden,
        .ffn = (uint32_t)p->ffn,
        .n_heads = (uint32_t)p->n_heads,
        .n_kv_heads = (uint32_t)p->n_kv_heads,
        .head_size = (uint32_t)p->head_size,
        .rope_size = (uint32_t)p->rope_size,
        .vocab = (uint32_t)p->vocab,
        .context = (uint32_t)p->context,
        .norm_eps = p->norm_eps,
        .rope_base = p->rope_base,
        .rope_pairing = p->rope_pairing,
        .rope_scaling = p->rope_scaling,
        .rope_factor = p->rope_factor,
        .rope_low_freq_factor = p->rope_low_freq_factor,
        .rope_high_freq_factor = p->rope_high_freq_factor,
        .rope_original_context = (uint32_t)p->rope_original_context,
        .tied_head = p->tied_head,
        .window = (uint32_t)p->window,
    };
    static_assert(sizeof(out->architecture) == sizeof(p->architecture), "proto/shoal.options");
    static_assert(sizeof(out->name) == sizeof(p->name), "proto/shoal.options");
    memcpy(out->architecture, p->architecture, sizeof(out->architecture));
    memcpy(out->name, p->name, sizeof(out->name));
}

enum err params_from_message(const shoal_v1_ModelParams *m, struct model_params *out,
                             struct error *e)
{
    const uint32_t counts[] = {
        m->n_layers,  m->hidden,    m->ffn,   m->n_heads, m->n_kv_heads,
        m->head_size, m->rope_size, m->vocab, m->context, m->rope_original_context};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        if (counts[i] > INT32_MAX)
            return error_set(e, ERR_INVALID, "a hyper-parameter of %u", counts[i]);
    if (m->window > SHAPE_MAX_CONTEXT)
        return error_set(e, ERR_LIMIT, "an attention window of %u positions, expected at most %d",
                         m->window, SHAPE_MAX_CONTEXT);
    if (m->rope_pairing > ROPE_HALVES || m->rope_scaling > ROPE_SCALING_LLAMA3)
        return error_set(e, ERR_INVALID, "unknown rope pairing %u or scaling %u", m->rope_pairing,
                         m->rope_scaling);
    *out = (struct model_params){
        .n_layers = (int)m->n_layers,
        .hidden = (int)m->hidden,
        .ffn = (int)m->ffn,
        .n_heads = (int)m->n_heads,
        .n_kv_heads = (int)m->n_kv_heads,
        .head_size = (int)m->head_size,
        .rope_size = (int)m->rope_size,
        .vocab = (int)m->vocab,
        .context = (int)m->context,
        .norm_eps = m->norm_eps,
        .rope_base = m->rope_base,
        .rope_pairing = (enum rope_pairing)m->rope_pairing,
        .rope_scaling = (enum rope_scaling)m->rope_scaling,
        .rope_factor = m->rope_factor,
        .rope_low_freq_factor = m->rope_low_freq_factor,
        .rope_high_freq_factor = m->rope_high_freq_factor,
        .rope_original_context = (int)m->rope_original_context,
        .tied_head = m->tied_head,
        .window = (int)m->window,
    };
    memcpy(out->architecture, m->architecture, sizeof(out->architecture));
    memcpy(out->name, m->name, sizeof(out->name));
    return OK;
}

void identity_to_message(const struct model_identity *i, shoal_v1_ModelIdentity *out)
{
    *out = (shoal_v1_ModelIdentity){i->total_bytes, i->hash[0], i->hash[1]};
}

bool identity_equals(const struct model_identity *i, const shoal_v1_ModelIdentity *m)
{
    return i->total_bytes == m->total_bytes && i->hash[0] == m->hash_low &&
           i->hash[1] == m->hash_high;
}
