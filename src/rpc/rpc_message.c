/* Between gRPC's byte buffers (lists of reference-counted slices) and plain memory. */
#include "rpc/rpc_impl.h"

#include "base/panic.h"

#include <stdlib.h>
#include <string.h>

void rpc_buffer_release(struct rpc_buffer *b)
{
    free(b->data);
    *b = (struct rpc_buffer){0};
}

grpc_byte_buffer *rpc_outgoing_buffer(const struct rpc_outgoing *m)
{
    grpc_slice slices[2];
    size_t n = 0;
    if (m->head_bytes > 0)
        slices[n++] = grpc_slice_from_copied_buffer(m->head, m->head_bytes);
    if (m->body_bytes > 0 && m->release != NULL)
        slices[n++] = grpc_slice_new_with_user_data((void *)m->body, m->body_bytes, m->release,
                                                    m->body_context);
    else if (m->body_bytes > 0)
        slices[n++] = grpc_slice_from_copied_buffer(m->body, m->body_bytes);
    else if (m->release != NULL)
        m->release(m->body_context);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(slices, n);
    for (size_t i = 0; i < n; i++)
        grpc_slice_unref(slices[i]);
    return buffer;
}

grpc_byte_buffer *rpc_bytes_buffer(const void *data, size_t bytes)
{
    return rpc_outgoing_buffer(&(struct rpc_outgoing){.head = data, .head_bytes = bytes});
}

void rpc_message_init(struct rpc_message *m, grpc_byte_buffer *from)
{
    *m = (struct rpc_message){.left = grpc_byte_buffer_length(from)};
    /* A compressed message is inflated here; its length on the wire is not what can be read. */
    if (!grpc_byte_buffer_reader_init(&m->reader, from))
        m->left = 0;
}

void rpc_message_release(struct rpc_message *m)
{
    if (m->has_slice)
        grpc_slice_unref(m->slice);
    grpc_byte_buffer_reader_destroy(&m->reader);
}

size_t rpc_message_left(const struct rpc_message *m)
{
    return m->left;
}

/* Make m->slice one with unread bytes. */
static bool next_slice(struct rpc_message *m)
{
    while (!m->has_slice || m->at == GRPC_SLICE_LENGTH(m->slice)) {
        if (m->has_slice)
            grpc_slice_unref(m->slice);
        m->at = 0;
        m->has_slice = grpc_byte_buffer_reader_next(&m->reader, &m->slice) != 0;
        if (!m->has_slice)
            return false;
    }
    return true;
}

bool rpc_message_read(struct rpc_message *m, void *into, size_t n)
{
    uint8_t *to = into;
    if (n > m->left)
        return false;
    m->left -= n;
    while (n > 0) {
        if (!next_slice(m))
            return false;
        size_t here = GRPC_SLICE_LENGTH(m->slice) - m->at;
        if (here > n)
            here = n;
        memcpy(to, GRPC_SLICE_START_PTR(m->slice) + m->at, here);
        m->at += here;
        to += here;
        n -= here;
    }
    return true;
}

enum err rpc_buffer_copy(grpc_byte_buffer *from, struct rpc_buffer *out, struct error *e)
{
    struct rpc_message m;
    rpc_message_init(&m, from);
    size_t bytes = m.left;
    out->data = malloc(bytes > 0 ? bytes : 1);
    out->bytes = bytes;
    bool whole = out->data != NULL && rpc_message_read(&m, out->data, bytes);
    rpc_message_release(&m);
    if (whole)
        return OK;
    bool no_memory = out->data == NULL;
    rpc_buffer_release(out);
    if (no_memory)
        return error_set(e, ERR_MEMORY, "no memory for a message of %zu bytes", bytes);
    return error_set(e, ERR_FORMAT, "a message that ends early");
}
