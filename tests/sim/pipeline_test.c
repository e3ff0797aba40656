/* The ring under credits, over the hashing backend with real threads behind inproc links. */
#include "sim/sim_ring.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct sim_ring_options options_of(int n_stages)
{
    return (struct sim_ring_options){
        .shape = {.model_seed = 1, .n_layers = 4, .n_stages = n_stages, .n_blocks = 8,
                  .n_slots = 4, .max_rows = 8, .max_context = 64},
        .credits = 3,
        .timeout_us = 20 * 1000 * 1000};
}

/* Step i of a sequence in slot 0: token 5 + i at position i, logits wanted. */
static void make_step(struct step *step, struct step_row *row, struct step_update *updates, int i)
{
    *row = (struct step_row){
        .token = 5 + (uint32_t)i, .position = (uint32_t)i, .slot = 0, .want = WANT_LOGITS};
    updates[0] = (struct step_update){.kind = UPDATE_OPEN};
    updates[1] = (struct step_update){.kind = UPDATE_APPEND, .block = (uint32_t)i / KV_BLOCK_TOKENS};
    *step = (struct step){.n_rows = 1, .rows = row, .updates = updates, .n_updates = 0};
    if (i == 0)
        step->n_updates = 2;
    else if (i % KV_BLOCK_TOKENS == 0) {
        step->updates = updates + 1;
        step->n_updates = 1;
    }
}

static enum err submit(struct pipeline *p, int i, struct error *e)
{
    struct step step;
    struct step_row row;
    struct step_update updates[2];
    make_step(&step, &row, updates, i);
    return pipeline_submit(p, &step, e);
}

static enum err collect(struct pipeline *p, struct pipeline_result *out, struct error *e)
{
    return pipeline_collect(p, out, 10 * 1000 * 1000, e);
}

enum { N_STEPS = 20 };

/* The logits of all steps, [N_STEPS][SIM_VOCAB], with as many on their way as there are credits. */
static float *run_all(int n_stages, int credits)
{
    struct sim_ring_options o = options_of(n_stages);
    o.credits = credits;
    struct sim_ring *r;
    assert_int_equal(sim_ring_start(&o, &r, NULL), OK);
    struct pipeline *p = sim_ring_pipeline(r);
    float *logits = calloc(N_STEPS * SIM_VOCAB, sizeof(float));
    int sent = 0;
    for (int back = 0; back < N_STEPS; back++) {
        struct error e;
        while (sent < N_STEPS && sent - back < credits)
            assert_int_equal(submit(p, sent++, &e), OK);
        if (sent - back == credits)
            assert_int_equal(submit(p, sent, &e), ERR_FULL);
        assert_int_equal(pipeline_in_flight(p), sent - back);
        struct pipeline_result result;
        assert_int_equal(collect(p, &result, &e), OK);
        assert_int_equal(result.step.number, back);
        assert_int_equal(result.step.epoch, SIM_EPOCH);
        assert_int_equal(result.step.n_rows, 1);
        assert_int_equal(result.step.rows[0].position, back);
        assert_int_equal(result.n_wanted, 1);
        memcpy(logits + back * SIM_VOCAB, result.logits, SIM_VOCAB * sizeof(float));
    }
    sim_ring_stop(r);
    return logits;
}

static void any_number_of_stages_and_credits_computes_the_same(void **state)
{
    (void)state;
    float *alone = run_all(1, 1);
    for (int i = 1; i < N_STEPS; i++) /* steps differ, or equality would mean nothing */
        assert_memory_not_equal(alone, alone + i * SIM_VOCAB, SIM_VOCAB * sizeof(float));
    for (int n_stages = 1; n_stages <= 5; n_stages++) {
        for (int credits = 1; credits <= 4; credits++) {
            float *ring = run_all(n_stages, credits);
            assert_memory_equal(ring, alone, N_STEPS * SIM_VOCAB * sizeof(float));
            free(ring);
        }
    }
    free(alone);
}

/* After a failure every call answers it. */
static void assert_failed_for_good(struct pipeline *p, enum err code, const char *text)
{
    struct error e = {.code = OK};
    struct pipeline_result result;
    assert_int_equal(submit(p, 1, &e), code);
    assert_string_equal(e.text, text);
    assert_int_equal(collect(p, &result, &e), code);
    assert_string_equal(e.text, text);
}

static void a_dead_stage_fails_the_ring(void **state)
{
    (void)state;
    for (int stage_i = 0; stage_i < 2; stage_i++) {
        struct sim_ring_options o = options_of(3);
        struct sim_ring *r;
        assert_int_equal(sim_ring_start(&o, &r, NULL), OK);
        struct pipeline *p = sim_ring_pipeline(r);
        struct error e;
        struct pipeline_result result;
        sim_ring_kill(r, stage_i);
        /* The dead end reaches the lead whether or not anything is on its way. */
        assert_int_equal(collect(p, &result, &e), ERR_CLOSED);
        assert_failed_for_good(p, ERR_CLOSED, e.text);
        sim_ring_stop(r);
    }
}

static enum err swallow(void *context, struct inbox *to, struct frame *f)
{
    (void)context;
    (void)to;
    frame_free(f);
    return OK;
}

static void silence_fails_the_ring(void **state)
{
    (void)state;
    struct sim_ring_options o = options_of(2);
    o.hook = swallow;
    o.timeout_us = 100 * 1000;
    struct sim_ring *r;
    assert_int_equal(sim_ring_start(&o, &r, NULL), OK);
    struct pipeline *p = sim_ring_pipeline(r);
    struct error e;
    struct pipeline_result result;
    assert_int_equal(pipeline_collect(p, &result, 300 * 1000, &e), ERR_TIMEOUT); /* none awaited */
    assert_int_equal(submit(p, 0, &e), OK);
    assert_int_equal(pipeline_collect(p, &result, 10 * 1000, &e), ERR_TIMEOUT); /* not yet */
    assert_int_equal(collect(p, &result, &e), ERR_UNREACHABLE);
    assert_non_null(strstr(e.text, "step 0"));
    assert_failed_for_good(p, ERR_UNREACHABLE, e.text);
    sim_ring_stop(r);
}

static enum err gone(void *context, struct error *e)
{
    return ++*(int *)context < 2 ? OK : error_set(e, ERR_TIMEOUT, "10.1.2.3:50100 is gone");
}

static void asking_after_the_nodes(void **state)
{
    (void)state;
    int n_asked = 0;
    struct sim_ring_options o = options_of(2);
    o.hook = swallow;
    o.check = gone;
    o.check_context = &n_asked;
    struct sim_ring *r;
    assert_int_equal(sim_ring_start(&o, &r, NULL), OK);
    struct pipeline *p = sim_ring_pipeline(r);
    struct error e;
    struct pipeline_result result;
    assert_int_equal(submit(p, 0, &e), OK);
    assert_int_equal(collect(p, &result, &e), ERR_UNREACHABLE);
    assert_int_equal(n_asked, 2);
    assert_failed_for_good(p, ERR_UNREACHABLE, "10.1.2.3:50100 is gone");
    sim_ring_stop(r);
}

/* A frame that reaches the lead, made by hand from step 0 of a two-stage ring. */
enum { LEAD_FIRST = 2, FLIGHT = 0 };

static struct frame *arriving(uint64_t epoch, uint64_t number, uint32_t boundary, uint32_t hidden,
                              uint32_t token, uint32_t n_updates)
{
    struct step step;
    struct step_row rows[2];
    struct step_update updates[2];
    make_step(&step, rows, updates, 0);
    rows[0].token = token;
    step.epoch = epoch;
    step.number = number;
    step.boundary = boundary;
    step.hidden = hidden;
    step.n_updates = n_updates;
    float *payload;
    struct frame *f = step_write(&step, &payload);
    memset(payload, 0, hidden * sizeof(float));
    frame_seal(f);
    return f;
}

static void unexpected_frames_fail_the_ring(void **state)
{
    (void)state;
    struct frame *frames[] = {
        arriving(SIM_EPOCH, 0, LEAD_FIRST, SIM_HIDDEN, 5, 2), /* the right one */
        arriving(SIM_EPOCH - 1, 0, LEAD_FIRST, SIM_HIDDEN, 5, 2),
        arriving(SIM_EPOCH + 1, 0, LEAD_FIRST, SIM_HIDDEN, 5, 2),
        arriving(SIM_EPOCH, 1, LEAD_FIRST, SIM_HIDDEN, 5, 2),
        arriving(SIM_EPOCH, 0, LEAD_FIRST + 1, SIM_HIDDEN, 5, 2),
        arriving(SIM_EPOCH, 0, LEAD_FIRST, SIM_HIDDEN + 1, 5, 2),
        arriving(SIM_EPOCH, 0, LEAD_FIRST, SIM_HIDDEN, 6, 2),
        arriving(SIM_EPOCH, 0, LEAD_FIRST, SIM_HIDDEN, 5, 1),
        arriving(SIM_EPOCH, 0, LEAD_FIRST, SIM_HIDDEN, 5, 2), /* changed below */
    };
    const char *texts[] = {NULL,       "epoch 7, found 6", "epoch 7, found 8", "found 1",
                           "boundary", "hidden size 16",   "row 0",            "2 updates",
                           "checksum"};
    frames[8]->data[frames[8]->bytes - 1] ^= 0x10;
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        struct sim_ring_options o = options_of(2);
        o.hook = swallow;
        struct sim_ring *r;
        assert_int_equal(sim_ring_start(&o, &r, NULL), OK);
        struct pipeline *p = sim_ring_pipeline(r);
        struct error e = {.text = ""};
        struct pipeline_result result;
        assert_int_equal(submit(p, 0, &e), OK);
        assert_int_equal(inbox_put_frame(sim_ring_lead_inbox(r), frames[i]), OK);
        enum err err = collect(p, &result, &e);
        assert_int_equal(err, texts[i] == NULL ? OK : ERR_FORMAT);
        if (texts[i] != NULL) {
            if (strstr(e.text, texts[i]) == NULL)
                fail_msg("expected \"%s\" in \"%s\"", texts[i], e.text);
            assert_failed_for_good(p, ERR_FORMAT, e.text);
        }
        sim_ring_stop(r);
    }
}

static void a_frame_that_nobody_awaits_fails_the_ring(void **state)
{
    (void)state;
    struct sim_ring_options o = options_of(2);
    struct sim_ring *r;
    assert_int_equal(sim_ring_start(&o, &r, NULL), OK);
    struct frame *f = arriving(SIM_EPOCH, 0, LEAD_FIRST, SIM_HIDDEN, 5, 2);
    assert_int_equal(inbox_put_frame(sim_ring_lead_inbox(r), f), OK);
    struct error e;
    struct pipeline_result result;
    assert_int_equal(collect(sim_ring_pipeline(r), &result, &e), ERR_FORMAT);
    assert_failed_for_good(sim_ring_pipeline(r), ERR_FORMAT, e.text);
    sim_ring_stop(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_stages_and_credits_computes_the_same),
        cmocka_unit_test(a_dead_stage_fails_the_ring),
        cmocka_unit_test(silence_fails_the_ring),
        cmocka_unit_test(asking_after_the_nodes),
        cmocka_unit_test(unexpected_frames_fail_the_ring),
        cmocka_unit_test(a_frame_that_nobody_awaits_fails_the_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
