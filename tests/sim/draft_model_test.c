/* A draft model of the hashing backend, whose guesses depend on every cell behind them: what it
 * guesses must be what the model itself, fed the same tokens from the beginning, says. */
#include "engine/draft_model.h"

#include "base/bounds.h"
#include "engine/draft.h"
#include "sim/sim_stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CONTEXT = 96, ROOM = 60 };

static struct sim_shape shape_of(int n_blocks, int n_slots, int max_rows)
{
    return (struct sim_shape){.model_seed = 4,
                              .n_layers = 2,
                              .n_stages = 1,
                              .n_blocks = n_blocks,
                              .n_slots = n_slots,
                              .max_rows = max_rows,
                              .max_context = CONTEXT};
}

/* ---- what is right ---- */

/* The greedy token after tokens[0 … n): a new stage, all rows at once. */
static int32_t greedy(const int32_t *tokens, int n)
{
    struct sim_stage stage;
    struct sim_shape shape = shape_of(CONTEXT / KV_BLOCK_TOKENS, 1, CONTEXT);
    assert_int_equal(sim_stage_open(&shape, 0, &stage, NULL), OK);
    struct step_update updates[1 + CONTEXT / KV_BLOCK_TOKENS] = {{.kind = UPDATE_OPEN}};
    struct step_row rows[CONTEXT];
    uint32_t n_updates = 1;
    for (int i = 0; i < n; i++) {
        if (i % KV_BLOCK_TOKENS == 0)
            updates[n_updates++] = (struct step_update){.kind = UPDATE_APPEND,
                                                        .block = (uint32_t)(i / KV_BLOCK_TOKENS)};
        rows[i] = (struct step_row){.token = (uint32_t)tokens[i],
                                    .position = (uint32_t)i,
                                    .want = i == n - 1 ? WANT_LOGITS : WANT_NONE};
    }
    struct step step = {.epoch = SIM_EPOCH,
                        .updates = updates,
                        .n_updates = n_updates,
                        .rows = rows,
                        .n_rows = (uint32_t)n};
    float logits[SIM_VOCAB];
    assert_int_equal(stage_forward(stage.stage, &step, NULL, logits, NULL), OK);
    sim_stage_close(&stage);
    int32_t best = 0;
    for (int32_t i = 1; i < SIM_VOCAB; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* ---- a schedule and its draft model ---- */

struct rig {
    struct schedule *schedule;
    struct sim_stage stage;
    struct draft_model *draft;
    struct step step; /* made last */
    struct step_row rows[64];
};

static void rig_start(struct rig *r, int draft_blocks, int draft_slots, int draft_rows)
{
    struct sim_shape shape = shape_of(draft_blocks, draft_slots, draft_rows);
    assert_int_equal(sim_stage_open(&shape, 0, &r->stage, NULL), OK);
    r->draft = draft_model_new(&(struct draft_model_options){.stage = r->stage.stage,
                                                             .vocab = SIM_VOCAB,
                                                             .epoch = SIM_EPOCH,
                                                             .n_slots = draft_slots,
                                                             .n_blocks = draft_blocks,
                                                             .max_context = CONTEXT,
                                                             .max_rows = draft_rows});
    r->schedule = schedule_new(&(struct schedule_options){.max_context = 200,
                                                          .n_blocks = 60,
                                                          .n_slots = 6,
                                                          .max_rows = 64,
                                                          .n_flights = 1,
                                                          .max_sequences = 8,
                                                          .max_draft = 3});
}

static void rig_stop(struct rig *r)
{
    schedule_free(r->schedule);
    draft_model_free(r->draft);
    sim_stage_close(&r->stage);
}

static int add(struct rig *r, int seed, int n_prompt)
{
    int32_t prompt[200];
    int sequence;
    for (int i = 0; i < n_prompt; i++)
        prompt[i] = (seed * 29 + i * i * 7 + i) % SIM_VOCAB;
    struct sequence_options o = {.prompt = prompt, .n_prompt = n_prompt, .room = ROOM};
    assert_int_equal(schedule_add(r->schedule, &o, &sequence, NULL), OK);
    return sequence;
}

/* Serve wishes and make a step. Answers the guesses in it that are the draft model's, or might be:
 * each row that wants logits but the first of its sequence. */
static int next(struct rig *r)
{
    int n_timed, n_guesses = 0;
    assert_int_equal(draft_model_serve(r->draft, r->schedule, &n_timed, NULL), OK);
    assert_true(schedule_next(r->schedule, &r->step));
    memcpy(r->rows, r->step.rows, r->step.n_rows * sizeof(r->rows[0]));
    for (uint32_t i = 1; i < r->step.n_rows; i++)
        n_guesses += r->rows[i].want == WANT_LOGITS && r->rows[i - 1].want == WANT_LOGITS &&
                     r->rows[i].slot == r->rows[i - 1].slot;
    return n_guesses;
}

/* The guesses behind the last token of the only sequence are those of the model. */
static void check_guesses(const struct rig *r, int sequence)
{
    int n_tokens;
    const int32_t *tokens = schedule_tokens(r->schedule, sequence, &n_tokens);
    int32_t own[200];
    memcpy(own, tokens, (size_t)n_tokens * sizeof(own[0]));
    for (uint32_t i = 0; i < r->step.n_rows; i++) {
        int at = (int)r->rows[i].position;
        if (at < n_tokens)
            continue;
        assert_int_equal(r->rows[i].token, greedy(own, at));
        own[at] = (int32_t)r->rows[i].token;
    }
}

/* The step returns; in each sequence the model is right `n_right` times, then a token comes that
 * nobody guessed. */
static void answer(struct rig *r, int n_right)
{
    int n = schedule_returned(r->schedule, NULL), n_pushed = 0, before = -1;
    for (int i = 0; i < n; i++) {
        int who = schedule_owner(r->schedule, i), n_tokens;
        if (who < 0)
            continue;
        n_pushed = who == before ? n_pushed + 1 : 0;
        before = who;
        const int32_t *tokens = schedule_tokens(r->schedule, who, &n_tokens);
        int32_t token = greedy(tokens, n_tokens);
        schedule_push(r->schedule, who, n_pushed < n_right ? token : (token + 1) % SIM_VOCAB);
    }
}

static void guesses_are_those_of_the_model(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 6, 2, 16);
    int sequence = add(&r, 1, 9), n_guesses = 0;
    next(&r);
    answer(&r, 1);
    for (int round = 0; round < 14; round++) { /* right at times, wrong after 0, 1, 2 at others */
        n_guesses += next(&r);
        check_guesses(&r, sequence);
        answer(&r, round % 5);
    }
    assert_true(n_guesses > 10);
    struct schedule_counts counts;
    schedule_count(r.schedule, &counts);
    assert_true(counts.right[GUESS_MODEL] > 5);
    assert_true(counts.right[GUESS_MODEL] < counts.guessed[GUESS_MODEL]);
    rig_stop(&r);
}

/* A prompt of 60 through passes of 8 rows: until it has caught up, there are no guesses. */
static void it_catches_up_in_pieces(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 6, 2, 8);
    int sequence = add(&r, 2, 60), n_without = 0;
    next(&r);
    answer(&r, 1);
    while (next(&r) == 0) {
        answer(&r, 1);
        assert_in_range(++n_without, 1, 12);
    }
    assert_in_range(n_without, 7, 11); /* 8 of its rows a step, beside a new token each */
    check_guesses(&r, sequence);
    rig_stop(&r);
}

static void names_are_used_again(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 6, 2, 32);
    int n_guesses = 0;
    for (int i = 0; i < 8; i++) {
        int sequence = add(&r, i, 5 + i); /* always the same name */
        next(&r);
        answer(&r, 1);
        for (int round = 0; round < 3; round++) {
            n_guesses += next(&r);
            check_guesses(&r, sequence);
            answer(&r, 4);
        }
        schedule_end(r.schedule, sequence);
    }
    assert_true(n_guesses > 20);
    rig_stop(&r);
}

/* Room for one sequence of two: the others have their steps without guesses, and nothing else
 * happens to them. With room again, all have them. */
static void without_room_there_are_no_guesses(void **state)
{
    (void)state;
    for (int n_blocks = 2; n_blocks <= 10; n_blocks += 8) {
        struct rig r;
        rig_start(&r, n_blocks, 4, 64);
        for (int i = 0; i < 3; i++)
            add(&r, i + 1, 17); /* two blocks each */
        next(&r);
        answer(&r, 1);
        int n_guesses = next(&r);
        assert_true(n_blocks == 2 ? n_guesses >= 1 && n_guesses <= 3 : n_guesses >= 6);
        answer(&r, 1);
        rig_stop(&r);
    }
}

/* Positions that the draft model does not have: it falls silent. */
static void beyond_its_context_it_is_silent(void **state)
{
    (void)state;
    struct rig r;
    rig_start(&r, 2, 1, 64); /* 32 positions */
    int sequence = add(&r, 3, 28), n_tokens = 0;
    next(&r);
    answer(&r, 1);
    struct schedule_counts counts = {0};
    while (schedule_tokens(r.schedule, sequence, &n_tokens), n_tokens < 45) {
        uint64_t before = counts.guessed[GUESS_MODEL];
        next(&r);
        schedule_count(r.schedule, &counts);
        int n_guesses = (int)(counts.guessed[GUESS_MODEL] - before);
        assert_true(n_guesses == 0 || n_tokens + n_guesses <= 32 + 1); /* the last needs no cell */
        answer(&r, 4);
    }
    assert_in_range(counts.guessed[GUESS_MODEL], 1, 5);
    rig_stop(&r);
}

/* Sequences that begin alike, and end: slots and blocks are found again. */
static void many_come_and_go(void **state)
{
    (void)state;
    struct rig r;
    unsigned seed = 5;
    int names[6], n_live = 0, n_guesses = 0;
    rig_start(&r, 9, 3, 12);
    for (int round = 0; round < 300; round++) {
        if (n_live < 5)
            names[n_live++] = add(&r, rand_r(&seed) % 3, 3 + rand_r(&seed) % 40);
        n_guesses += next(&r);
        answer(&r, rand_r(&seed) % 4);
        for (int i = n_live - 1; i >= 0; i--) {
            int n_tokens;
            schedule_tokens(r.schedule, names[i], &n_tokens);
            if (rand_r(&seed) % 8 == 0 || n_tokens > 45) {
                schedule_end(r.schedule, names[i]);
                names[i] = names[--n_live];
            }
        }
    }
    struct schedule_counts counts;
    schedule_count(r.schedule, &counts);
    assert_true(n_guesses > 200 && counts.right[GUESS_MODEL] > 80);
    rig_stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_are_those_of_the_model),
        cmocka_unit_test(it_catches_up_in_pieces),
        cmocka_unit_test(names_are_used_again),
        cmocka_unit_test(without_room_there_are_no_guesses),
        cmocka_unit_test(beyond_its_context_it_is_silent),
        cmocka_unit_test(many_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
