/* Frames on gRPC streams. */
#include "link/grpc/link_grpc.h"

#include "base/bounds.h"
#include "base/log.h"
#include "base/panic.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FRAME_TAG = 1 << 3 | 2, /* field 1, length-delimited */
    PREFIX_MAX = 1 + 5,
};

struct link_grpc {
    struct link base; /* first: link_ops are given its address */
    struct rpc_stream *stream;
    struct inbox *inbox;
    bool receives;
    void (*on_down)(void *context, const struct error *reason);
    void *context;
    char peer[128];
    _Atomic uint64_t frames_sent, bytes_sent, frames_received, bytes_received;
};

/* ---- the prefix of a message ---- */

static size_t write_prefix(uint8_t out[static PREFIX_MAX], size_t frame_bytes)
{
    size_t n = 0;
    out[n++] = FRAME_TAG;
    for (; frame_bytes >= 0x80; frame_bytes >>= 7)
        out[n++] = (uint8_t)(0x80 | (frame_bytes & 0x7f));
    out[n++] = (uint8_t)frame_bytes;
    return n;
}

/* The length of the frame that is the rest of the message. */
static bool read_prefix(struct rpc_message *m, size_t *frame_bytes)
{
    uint8_t byte;
    uint64_t value = 0;
    if (!rpc_message_read(m, &byte, 1) || byte != FRAME_TAG)
        return false;
    for (int shift = 0; shift < 35; shift += 7) {
        if (!rpc_message_read(m, &byte, 1))
            return false;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *frame_bytes = (size_t)value;
            return value == rpc_message_left(m) && value <= FRAME_MAX_BYTES;
        }
    }
    return false;
}

/* ---- receiving; network thread ---- */

static enum err take_message(void *context, struct rpc_message *m, struct error *e)
{
    struct link_grpc *l = context;
    size_t bytes, left = rpc_message_left(m);
    if (!l->receives)
        return error_set(e, ERR_INVALID, "no frames expected on this stream");
    if (!read_prefix(m, &bytes))
        return error_set(e, ERR_FORMAT, "a message of %zu bytes that is no Frame", left);
    struct frame *f = frame_new(bytes);
    if (f == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a frame of %zu bytes", bytes);
    if (!rpc_message_read(m, f->data, bytes)) {
        frame_free(f);
        return error_set(e, ERR_FORMAT, "a message of %zu bytes that ends early", left);
    }
    l->frames_received++;
    l->bytes_received += bytes;
    enum err err = inbox_put_frame(l->inbox, f);
    if (err == ERR_FULL)
        return error_set(e, err, "more frames on their way than the ring has credits");
    return err == OK ? OK : error_set(e, err, "this end is closing");
}

static void pass_on_down(void *context, const struct error *reason)
{
    struct link_grpc *l = context;
    struct error why = *reason;
    rpc_error_role(&why, l->peer);
    log_debug("link: %s", why.text);
    if (l->on_down != NULL)
        l->on_down(l->context, &why);
    inbox_put_down(l->inbox, &why);
}

/* ---- sending ---- */

static void release_frame(void *context)
{
    frame_free(context);
}

static enum err send_frame(struct link *base, struct frame *f)
{
    struct link_grpc *l = (struct link_grpc *)base;
    uint8_t prefix[PREFIX_MAX];
    if (f->bytes > FRAME_MAX_BYTES) {
        frame_free(f);
        return ERR_LIMIT;
    }
    l->frames_sent++;
    l->bytes_sent += f->bytes;
    return rpc_stream_send(l->stream,
                           &(struct rpc_outgoing){.head = prefix,
                                                  .head_bytes = write_prefix(prefix, f->bytes),
                                                  .body = f->data,
                                                  .body_bytes = f->bytes,
                                                  .release = release_frame,
                                                  .body_context = f});
}

static void close_link(struct link *base)
{
    link_grpc_close((struct link_grpc *)base, NULL);
}

static int64_t sending_us(struct link *base)
{
    return rpc_stream_sending_us(((struct link_grpc *)base)->stream);
}

static const struct link_ops ops = {
    .send = send_frame, .sending_us = sending_us, .close = close_link};

/* ---- making ---- */

static struct link_grpc *new_link(const struct link_grpc_options *o)
{
    ASSERT(o->inbox != NULL);
    struct link_grpc *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return NULL;
    l->base.ops = &ops;
    l->inbox = o->inbox;
    l->receives = o->receives;
    l->on_down = o->on_down;
    l->context = o->context;
    snprintf(l->peer, sizeof(l->peer), "%s", o->peer);
    return l;
}

static struct rpc_stream_handler handler_of(struct link_grpc *l)
{
    return (struct rpc_stream_handler){
        .on_message = take_message, .on_down = pass_on_down, .context = l};
}

enum err link_grpc_open(struct rpc_loop *loop, struct rpc_channel *channel, uint64_t epoch,
                        enum link_role role, const struct link_grpc_options *o,
                        struct link_grpc **out, struct error *e)
{
    *out = NULL;
    struct link_grpc *l = new_link(o);
    if (l == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a link");
    struct rpc_metadata metadata[2] = {{.key = "shoal-epoch"}, {.key = "shoal-role"}};
    snprintf(metadata[0].value, sizeof(metadata[0].value), "%" PRIu64, epoch);
    snprintf(metadata[1].value, sizeof(metadata[1].value), "%s",
             role == LINK_ROLE_LEAD ? "lead" : "stage");
    struct rpc_stream_handler handler = handler_of(l);
    enum err err = rpc_stream_open(loop, channel, LINK_GRPC_METHOD, metadata, 2, &handler,
                                   o->max_queued, &l->stream, e);
    if (err != OK) {
        free(l);
        return err;
    }
    *out = l;
    return OK;
}

static const char *value_of(const struct rpc_metadata *metadata, int n, const char *key)
{
    for (int i = 0; i < n; i++)
        if (strcmp(metadata[i].key, key) == 0)
            return metadata[i].value;
    return "";
}

enum err link_grpc_metadata(const struct rpc_metadata *metadata, int n_metadata, uint64_t *epoch,
                            enum link_role *role, struct error *e)
{
    const char *number = value_of(metadata, n_metadata, "shoal-epoch");
    const char *name = value_of(metadata, n_metadata, "shoal-role");
    size_t digits = strspn(number, "0123456789");
    errno = 0;
    *epoch = strtoull(number, NULL, 10);
    if (digits == 0 || number[digits] != 0 || errno != 0)
        return error_set(e, ERR_INVALID, "Forward: expected a number in shoal-epoch, found \"%s\"",
                         number);
    if (strcmp(name, "lead") != 0 && strcmp(name, "stage") != 0)
        return error_set(e, ERR_INVALID,
                         "Forward: expected \"lead\" or \"stage\" in shoal-role, found \"%s\"",
                         name);
    *role = name[0] == 'l' ? LINK_ROLE_LEAD : LINK_ROLE_STAGE;
    return OK;
}

enum err link_grpc_accept(struct rpc_stream *stream, const struct link_grpc_options *o,
                          struct link_grpc **out, struct error *e)
{
    *out = NULL;
    struct link_grpc *l = new_link(o);
    if (l == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a link");
    l->stream = stream;
    struct rpc_stream_handler handler = handler_of(l);
    enum err err = rpc_stream_accept(stream, &handler, o->max_queued, e);
    if (err != OK) {
        free(l);
        return err;
    }
    *out = l;
    return OK;
}

struct link *link_grpc_link(struct link_grpc *l)
{
    return &l->base;
}

bool link_grpc_is_accepted(struct link_grpc *l)
{
    return rpc_stream_is_accepted(l->stream);
}

void link_grpc_close(struct link_grpc *l, const struct error *reason)
{
    if (l == NULL)
        return;
    rpc_stream_close(l->stream, reason);
    free(l);
}

void link_grpc_counts(struct link_grpc *l, struct link_grpc_counts *out)
{
    *out = (struct link_grpc_counts){l->frames_sent, l->bytes_sent, l->frames_received,
                                     l->bytes_received};
}
