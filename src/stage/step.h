/* The step: one flight's way through the ring, as a struct and as the bytes of a frame.
 *
 * A step carries ordered updates to the stages' own slot tables, rows (one per token), and, between
 * stages, the hidden states of the rows. Tables are never sent whole: a hop costs the same at
 * position 10 and 100 000. Every stage applies the updates of every step, in step order, before the
 * rows run. The engine alone chooses slots and blocks; all stages use the same ids.
 *
 * On the wire a frame is header, updates, rows, payload, little-endian, without gaps
 * (docs/wire/frame.md); step_read checks everything about a frame that can be checked without a
 * stage (which then checks slots, blocks and positions against its tables). Pure functions, any
 * thread. */
#ifndef SHOAL_STAGE_STEP_H
#define SHOAL_STAGE_STEP_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum { FRAME_VERSION = 2 };

enum update_kind {
    UPDATE_OPEN = 1,   /* slot begins with an empty table */
    UPDATE_APPEND = 2, /* block `block` becomes the next of slot's table */
    UPDATE_COPY = 3,   /* contents of block `from` into block `block` (slot unused) */
    UPDATE_CLOSE = 4,  /* slot and its table are gone */
    UPDATE_TRIM = 5,   /* `block` leading entries of slot's table are holes, be it ever so short */
};

struct step_update {
    uint32_t kind; /* enum update_kind */
    uint32_t slot;
    uint32_t block;
    uint32_t from;
};

enum row_want { WANT_NONE = 0, WANT_LOGITS = 1, WANT_HIDDEN = 2 };

struct step_row {
    uint32_t token;
    uint32_t position;
    uint32_t slot;
    uint32_t want; /* enum row_want */
};

enum frame_codec { CODEC_NONE = 0, CODEC_F32 = 1 };

/* How long the stages so far computed on the step: all together, and the slowest of them. */
struct step_times {
    uint32_t busy_us, slowest_us;
};
/* Another stage has computed on it for `us` (>= 0). */
void step_times_add(struct step_times *t, int64_t us);

struct step {
    uint64_t epoch;
    uint64_t number; /* the previous step's + 1 */
    uint32_t flight;
    uint32_t boundary; /* the first layer that the receiver computes; 0: payload is empty */
    uint32_t hidden;   /* columns of the payload, 0 if empty */
    uint32_t n_updates;
    uint32_t n_rows;
    const struct step_update *updates;
    const struct step_row *rows;
    struct step_times times;
};

/* A frame: one malloc'ed piece, 64-byte aligned. Ownership moves with the pointer. */
struct frame {
    size_t bytes;
    uint8_t *data;
};
struct frame *frame_new(size_t bytes); /* NULL without memory; contents undefined */
void frame_free(struct frame *f);      /* NULL allowed */

/* The frame of `step`, with room for n_rows * hidden floats of payload where hidden > 0; the
 * payload is the caller's to fill (*payload, 16-byte aligned), then frame_seal writes the
 * checksum of the whole frame. NULL without memory. */
struct frame *step_write(const struct step *step, float **payload);
void frame_set_times(struct frame *f, const struct step_times *t); /* before frame_seal */
void frame_seal(struct frame *f);

/* Check a frame's bytes and point *step and *payload (NULL if empty) into it: they live as long as
 * `data`, which must be 16-byte aligned. ERR_FORMAT or ERR_VERSION with what was expected and
 * found. `hidden_expected` is what the payload must have per row; 0 means no payload may come. */
enum err step_read(const uint8_t *data, size_t bytes, uint32_t hidden_expected, struct step *step,
                   const float **payload, struct error *e);

#endif
