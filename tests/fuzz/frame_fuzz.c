/* Frames as a neighbour may send them. step_read believes nothing; whatever it lets through is read
 * to the end here, and written again it is the same bytes.
 *
 * The first four bytes choose the hidden size that is expected. A checksum would stop every
 * mutation, so it is put right first, except when the fourth byte is odd. */
#include "base/panic.h"
#include "stage/step.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_round_trip(const struct frame *in, const struct step *step, const float *payload)
{
    float *room;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < step->n_updates; i++)
        sum += step->updates[i].slot + step->updates[i].block + step->updates[i].from;
    for (uint32_t i = 0; i < step->n_rows; i++)
        sum += step->rows[i].token + step->rows[i].position + step->rows[i].slot;
    volatile uint64_t sink = sum;
    (void)sink;
    struct frame *out = step_write(step, &room);
    ASSERT(out != NULL && (room == NULL) == (payload == NULL));
    if (room != NULL)
        memcpy(room, payload, (size_t)step->n_rows * step->hidden * sizeof(float));
    frame_seal(out);
    ASSERT(out->bytes == in->bytes && memcmp(out->data, in->data, in->bytes) == 0);
    frame_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    enum { HEADER_BYTES = 80 };
    if (bytes < 4)
        return 0;
    uint32_t hidden = data[0] | (uint32_t)data[1] << 8;
    struct frame *f = frame_new(bytes - 4);
    ASSERT(f != NULL);
    memcpy(f->data, data + 4, bytes - 4);
    if ((data[3] & 1) == 0 && f->bytes >= HEADER_BYTES)
        frame_seal(f);
    struct step step;
    const float *payload;
    struct error e;
    if (step_read(f->data, f->bytes, hidden, &step, &payload, &e) == OK)
        check_round_trip(f, &step, payload);
    frame_free(f);
    return 0;
}
