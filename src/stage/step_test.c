#include "stage/step.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct step_update updates[] = {{UPDATE_OPEN, 3, 0, 0}, {UPDATE_APPEND, 3, 17, 0}};
static const struct step_row rows[] = {{100, 0, 3, WANT_NONE}, {101, 1, 3, WANT_LOGITS}};

static struct frame *make_frame(uint32_t hidden)
{
    struct step s = {.epoch = 7,
                     .number = 42,
                     .flight = 1,
                     .boundary = hidden > 0 ? 4 : 0,
                     .hidden = hidden,
                     .n_updates = 2,
                     .n_rows = 2,
                     .updates = updates,
                     .rows = rows};
    float *payload;
    struct frame *f = step_write(&s, &payload);
    assert_non_null(f);
    assert_int_equal(payload != NULL, hidden > 0);
    for (uint32_t i = 0; i < 2 * hidden; i++)
        payload[i] = (float)i / 3;
    frame_seal(f);
    return f;
}

static void a_step_survives_its_frame(void **state)
{
    (void)state;
    for (uint32_t hidden = 0; hidden <= 5; hidden += 5) {
        struct frame *f = make_frame(hidden);
        struct step s;
        const float *payload;
        assert_int_equal(f->bytes, 80 + 2 * 16 + 2 * 16 + 2 * hidden * 4);
        assert_int_equal(step_read(f->data, f->bytes, hidden, &s, &payload, NULL), OK);
        assert_int_equal(s.epoch, 7);
        assert_int_equal(s.number, 42);
        assert_int_equal(s.flight, 1);
        assert_int_equal(s.boundary, hidden > 0 ? 4 : 0);
        assert_memory_equal(s.updates, updates, sizeof updates);
        assert_memory_equal(s.rows, rows, sizeof rows);
        assert_int_equal(payload != NULL, hidden > 0);
        for (uint32_t i = 0; i < 2 * hidden; i++)
            assert_true(payload[i] == (float)i / 3);
        frame_free(f);
    }
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    struct frame *f = make_frame(5);
    struct step s;
    const float *payload;
    for (size_t bit = 0; bit < f->bytes * 8; bit++) {
        f->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct error e = {OK, ""};
        assert_int_not_equal(step_read(f->data, f->bytes, 5, &s, &payload, &e), OK);
        assert_true(strncmp(e.text, "frame: ", 7) == 0);
        f->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(step_read(f->data, f->bytes, 5, &s, &payload, NULL), OK);
    frame_free(f);
}

static void every_cut_is_noticed(void **state)
{
    (void)state;
    struct frame *f = make_frame(5);
    struct step s;
    const float *payload;
    for (size_t bytes = 0; bytes < f->bytes; bytes++) {
        struct frame *cut =
            frame_new(bytes); /* exactly as long, so that ASan sees a read past it */
        memcpy(cut->data, f->data, bytes);
        assert_int_equal(step_read(cut->data, bytes, 5, &s, &payload, NULL), ERR_FORMAT);
        frame_free(cut);
    }
    frame_free(f);
}

static void resealed(struct frame *f, size_t offset, uint32_t value, const char *reason)
{
    uint32_t old;
    struct step s;
    const float *payload;
    struct error e;
    memcpy(&old, f->data + offset, 4);
    memcpy(f->data + offset, &value, 4);
    frame_seal(f);
    assert_int_not_equal(step_read(f->data, f->bytes, 5, &s, &payload, &e), OK);
    assert_string_equal(e.text, reason);
    memcpy(f->data + offset, &old, 4);
}

static void well_sealed_lies_are_noticed(void **state)
{
    (void)state;
    struct frame *f = make_frame(5);
    resealed(f, 0, 1, "frame: expected magic 314c4853, found 00000001");
    resealed(f, 4, 1 | 80 << 16,
             "frame: expected version 2 with a header of 80 bytes, found 1 with 80");
    resealed(f, 32, 0xffffffff, "frame: at most 65536 updates expected, found 4294967295");
    resealed(f, 36, 0xffffffff, "frame: at most 4096 rows expected, found 4294967295");
    resealed(f, 36, 3, "frame: expected 220 bytes for 2 updates, 3 rows of 5, found 184");
    resealed(f, 40, 6, "frame: expected hidden size 5, found 6");
    resealed(f, 44, 2, "frame: expected codec 1, found 2");
    resealed(f, 64, 7, "frame: expected 0 in the reserved field, found 7");
    resealed(f, 80, 9, "frame: update 0: expected kind 1 to 5, found 9");
    resealed(f, 80 + 32 + 12, 3, "frame: row 0: expected want 0 to 2, found 3");
    frame_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_survives_its_frame),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(every_cut_is_noticed),
        cmocka_unit_test(well_sealed_lies_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
