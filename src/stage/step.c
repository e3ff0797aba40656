/* Frames: the bytes of a step. Layout in docs/wire/frame.md; the structs below are that layout, and
 * little-endian processors (all that Shoal runs on) read and write them in place. */
#include "stage/step.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "base/size.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the hash state on our stack */
#include <xxhash.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are written in place");

enum { FRAME_MAGIC = 0x314c4853 /* "SHL1" */, FRAME_ALIGN = 64 };

struct frame_header {
    uint32_t magic;
    uint16_t version;
    uint16_t header_bytes;
    uint64_t epoch;
    uint64_t number;
    uint32_t flight;
    uint32_t boundary;
    uint32_t n_updates;
    uint32_t n_rows;
    uint32_t hidden;
    uint32_t codec;
    uint64_t payload_bytes;
    struct step_times times;
    uint64_t reserved; /* 0 */
    uint64_t checksum; /* xxh3-64 of the whole frame with this field 0 */
};
static_assert(sizeof(struct frame_header) == 80, "docs/wire/frame.md");
static_assert(offsetof(struct frame_header, epoch) == 8, "docs/wire/frame.md");
static_assert(offsetof(struct frame_header, n_updates) == 32, "docs/wire/frame.md");
static_assert(offsetof(struct frame_header, payload_bytes) == 48, "docs/wire/frame.md");
static_assert(offsetof(struct frame_header, times) == 56, "docs/wire/frame.md");
static_assert(offsetof(struct frame_header, checksum) == 72, "docs/wire/frame.md");
static_assert(sizeof(struct step_update) == 16, "docs/wire/frame.md");
static_assert(sizeof(struct step_row) == 16, "docs/wire/frame.md");

struct frame *frame_new(size_t bytes)
{
    uint64_t rounded;
    if (!size_align(bytes > 0 ? bytes : 1, FRAME_ALIGN, &rounded))
        return NULL;
    struct frame *f = malloc(sizeof *f);
    uint8_t *data = aligned_alloc(FRAME_ALIGN, rounded);
    if (f == NULL || data == NULL) {
        free(f);
        free(data);
        return NULL;
    }
    *f = (struct frame){.bytes = bytes, .data = data};
    return f;
}

void frame_free(struct frame *f)
{
    if (f == NULL)
        return;
    free(f->data);
    free(f);
}

struct frame *step_write(const struct step *step, float **payload)
{
    ASSERT(step->n_rows <= STEP_MAX_ROWS && step->n_updates <= STEP_MAX_UPDATES);
    ASSERT(step->hidden <= SHAPE_MAX_WIDTH);
    size_t updates = step->n_updates * sizeof(struct step_update);
    size_t rows = step->n_rows * sizeof(struct step_row);
    size_t floats = (size_t)step->n_rows * step->hidden * sizeof(float);
    struct frame *f = frame_new(sizeof(struct frame_header) + updates + rows + floats);
    if (f == NULL)
        return NULL;
    struct frame_header header = {
        .magic = FRAME_MAGIC,
        .version = FRAME_VERSION,
        .header_bytes = sizeof header,
        .epoch = step->epoch,
        .number = step->number,
        .flight = step->flight,
        .boundary = step->boundary,
        .n_updates = step->n_updates,
        .n_rows = step->n_rows,
        .hidden = step->hidden,
        .codec = step->hidden > 0 ? CODEC_F32 : CODEC_NONE,
        .payload_bytes = floats,
        .times = step->times,
    };
    uint8_t *at = f->data;
    memcpy(at, &header, sizeof header);
    at += sizeof header;
    if (updates > 0)
        memcpy(at, step->updates, updates);
    at += updates;
    if (rows > 0)
        memcpy(at, step->rows, rows);
    at += rows;
    *payload = floats > 0 ? (float *)(void *)at : NULL;
    return f;
}

void frame_set_times(struct frame *f, const struct step_times *t)
{
    ASSERT(f->bytes >= sizeof(struct frame_header));
    memcpy(f->data + offsetof(struct frame_header, times), t, sizeof(*t));
}

void step_times_add(struct step_times *t, int64_t us)
{
    uint32_t most = UINT32_MAX - t->busy_us, more = us < most ? (uint32_t)us : most;
    t->busy_us += more;
    if (more > t->slowest_us)
        t->slowest_us = more;
}

/* The checksum of a frame whose checksum field may hold anything. */
static uint64_t frame_checksum(const uint8_t *data, size_t bytes)
{
    struct frame_header header;
    memcpy(&header, data, sizeof header);
    header.checksum = 0;
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, &header, sizeof header);
    XXH3_64bits_update(&state, data + sizeof header, bytes - sizeof header);
    return XXH3_64bits_digest(&state);
}

void frame_seal(struct frame *f)
{
    ASSERT(f->bytes >= sizeof(struct frame_header));
    uint64_t checksum = frame_checksum(f->data, f->bytes);
    memcpy(f->data + offsetof(struct frame_header, checksum), &checksum, sizeof checksum);
}

/* Is this the header of a frame that we understand, with counts inside their bounds? */
static enum err check_header(const struct frame_header *h, uint32_t hidden, struct error *e)
{
    if (h->magic != FRAME_MAGIC)
        return error_set(e, ERR_FORMAT, "frame: expected magic %08x, found %08x", FRAME_MAGIC,
                         h->magic);
    if (h->version != FRAME_VERSION || h->header_bytes != sizeof *h)
        return error_set(e, ERR_VERSION,
                         "frame: expected version %d with a header of %zu bytes, found %u with %u",
                         FRAME_VERSION, sizeof *h, h->version, h->header_bytes);
    if (h->reserved != 0)
        return error_set(e, ERR_FORMAT, "frame: expected 0 in the reserved field, found %llx",
                         (unsigned long long)h->reserved);
    if (h->n_rows > STEP_MAX_ROWS)
        return error_set(e, ERR_FORMAT, "frame: at most %d rows expected, found %u", STEP_MAX_ROWS,
                         h->n_rows);
    if (h->n_updates > STEP_MAX_UPDATES)
        return error_set(e, ERR_FORMAT, "frame: at most %d updates expected, found %u",
                         STEP_MAX_UPDATES, h->n_updates);
    uint32_t codec = hidden > 0 ? CODEC_F32 : CODEC_NONE;
    if (h->codec != codec)
        return error_set(e, ERR_FORMAT, "frame: expected codec %u, found %u", codec, h->codec);
    if (h->hidden != hidden)
        return error_set(e, ERR_FORMAT, "frame: expected hidden size %u, found %u", hidden,
                         h->hidden);
    return OK;
}

static enum err check_rows(const struct step *step, struct error *e)
{
    for (uint32_t i = 0; i < step->n_updates; i++)
        if (step->updates[i].kind < UPDATE_OPEN || step->updates[i].kind > UPDATE_TRIM)
            return error_set(e, ERR_FORMAT, "frame: update %u: expected kind 1 to 5, found %u", i,
                             step->updates[i].kind);
    for (uint32_t i = 0; i < step->n_rows; i++)
        if (step->rows[i].want > WANT_HIDDEN)
            return error_set(e, ERR_FORMAT, "frame: row %u: expected want 0 to 2, found %u", i,
                             step->rows[i].want);
    return OK;
}

enum err step_read(const uint8_t *data, size_t bytes, uint32_t hidden_expected, struct step *step,
                   const float **payload, struct error *e)
{
    ASSERT(((uintptr_t)data & 15) == 0);
    struct frame_header h;
    if (bytes < sizeof h)
        return error_set(e, ERR_FORMAT, "frame: expected at least %zu bytes, found %zu", sizeof h,
                         bytes);
    memcpy(&h, data, sizeof h);
    enum err err = check_header(&h, hidden_expected, e);
    if (err != OK)
        return err;
    /* The bounds that check_header has put on the counts keep these sums far from wrapping. */
    uint64_t updates = (uint64_t)h.n_updates * sizeof(struct step_update);
    uint64_t rows = (uint64_t)h.n_rows * sizeof(struct step_row);
    uint64_t floats = (uint64_t)h.n_rows * h.hidden * sizeof(float);
    if (h.payload_bytes != floats || bytes != sizeof h + updates + rows + floats)
        return error_set(e, ERR_FORMAT,
                         "frame: expected %llu bytes for %u updates, %u rows of %u, found %zu",
                         (unsigned long long)(sizeof h + updates + rows + floats), h.n_updates,
                         h.n_rows, h.hidden, bytes);
    uint64_t checksum = frame_checksum(data, bytes);
    if (h.checksum != checksum)
        return error_set(e, ERR_FORMAT, "frame: expected checksum %016llx, found %016llx",
                         (unsigned long long)checksum, (unsigned long long)h.checksum);
    const uint8_t *at = data + sizeof h;
    *step = (struct step){
        .epoch = h.epoch,
        .number = h.number,
        .flight = h.flight,
        .boundary = h.boundary,
        .hidden = h.hidden,
        .n_updates = h.n_updates,
        .n_rows = h.n_rows,
        .updates = (const struct step_update *)(const void *)at,
        .rows = (const struct step_row *)(const void *)(at + updates),
        .times = h.times,
    };
    *payload = floats > 0 ? (const float *)(const void *)(at + updates + rows) : NULL;
    return check_rows(step, e);
}
