/* Schedules of models whose attention has a window: what it does to room, admission and blocks.
 * (Lives at random, with windows too: schedule_test.c.) */
#include "engine/schedule.h"

#include "engine/schedule_test_impl.h"

/* A sequence of tokens that no other has the beginning of. */
static int add(struct schedule *s, int n_prompt, int room)
{
    static int n_added;
    int32_t prompt[1000];
    n_added++;
    for (int i = 0; i < n_prompt; i++)
        prompt[i] = 1000 * n_added + i;
    return add_tokens(s, prompt, n_prompt, room, 0);
}

/* The oldest step returns; the tokens go in turn to the rows that count, the last of them to all
 * that are left. Answers how many rows that were. */
static int answer(struct schedule *s, const int32_t *tokens, int n_tokens)
{
    int n = schedule_returned(s, NULL), n_pushed = 0;
    for (int i = 0; i < n; i++)
        if (schedule_owner(s, i) >= 0) {
            int at = n_pushed < n_tokens ? n_pushed : n_tokens - 1;
            schedule_push(s, schedule_owner(s, i), tokens[at]);
            n_pushed++;
        }
    return n_pushed;
}

static void room_does_not_end_with_the_pool_where_windows_fit(void **state)
{
    (void)state;
    struct schedule_options o = {.max_context = 1000,
                                 .n_blocks = 3,
                                 .window = 33,
                                 .n_slots = 1,
                                 .max_rows = 8,
                                 .n_flights = 1,
                                 .max_sequences = 4};
    struct schedule *s = schedule_new(&o);
    int room;
    struct error e;
    assert_int_equal(schedule_room(s, 900, -1, &room, &e), OK); /* 33 positions: 3 blocks */
    assert_int_equal(room, 100);
    assert_int_equal(schedule_room(s, 1001, -1, &room, &e), ERR_LIMIT);
    schedule_free(s);
    o.window = 34;
    s = schedule_new(&o);
    assert_int_equal(schedule_room(s, 20, -1, &room, &e), OK);
    assert_int_equal(room, 28);
    assert_int_equal(schedule_room(s, 49, -1, &room, &e), ERR_LIMIT);
    schedule_free(s);
}

/* A prompt of a thousand tokens and all that follows in four blocks, with steps as large as fit. */
static void a_long_prompt_runs_in_a_small_pool(void **state)
{
    (void)state;
    struct schedule *s = schedule_new(&(struct schedule_options){.max_context = 2000,
                                                                 .n_blocks = 4,
                                                                 .window = 20,
                                                                 .n_slots = 2,
                                                                 .max_rows = 64,
                                                                 .n_flights = 1,
                                                                 .max_sequences = 4});
    int i = add(s, 990, 900), n_steps = 0, n_tokens = 0;
    struct step step;
    struct schedule_counts counts;
    while (n_tokens < 1889 && schedule_next(s, &step)) {
        answer(s, (const int32_t[]){7}, 1);
        schedule_tokens(s, i, &n_tokens);
        n_steps++;
    }
    assert_int_equal(n_tokens, 1889);
    assert_in_range(n_steps, 900 + 990 / 64, 900 + 990 / 32); /* 32 or 48 rows each */
    schedule_count(s, &counts);
    assert_int_equal(counts.preempted, 0);
    schedule_free(s);
}

/* As soon as a window's worth and a chunk are free, the next is let in, however long its prompt. */
static void admission_counts_the_window(void **state)
{
    (void)state;
    struct schedule *s = schedule_new(&(struct schedule_options){.max_context = 1000,
                                                                 .n_blocks = 12,
                                                                 .window = 32,
                                                                 .n_slots = 4,
                                                                 .max_rows = 32,
                                                                 .n_flights = 1,
                                                                 .max_sequences = 4});
    add(s, 500, 100); /* 5 blocks at once at most */
    add(s, 500, 100);
    add(s, 500, 100);
    struct step step;
    struct schedule_counts counts;
    assert_true(schedule_next(s, &step));
    schedule_count(s, &counts);
    assert_int_equal(counts.running, 2);
    assert_int_equal(counts.waiting, 1);
    for (int i = 0; i < 60; i++) {
        answer(s, (const int32_t[]){7}, 1);
        assert_true(schedule_next(s, &step));
    }
    schedule_count(s, &counts);
    assert_int_equal(counts.running, 3); /* the first ones decode: 3 blocks each */
    assert_int_equal(counts.preempted, 0);
    schedule_free(s);
}

/* A guess that may be wrong pushes no window on: the row that takes its place sees as far back. */
static void windows_move_behind_chosen_tokens_only(void **state)
{
    (void)state;
    struct schedule *s = schedule_new(&(struct schedule_options){.max_context = 1000,
                                                                 .n_blocks = 20,
                                                                 .window = 4,
                                                                 .n_slots = 2,
                                                                 .max_rows = 16,
                                                                 .n_flights = 1,
                                                                 .max_sequences = 4,
                                                                 .max_draft = 4});
    static const int32_t prompt[] = {5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 1, 2, 5, 6, 7, 8};
    add_tokens(s, prompt, 16, 100, 0);
    next(s);
    answer(s, (const int32_t[]){9}, 1); /* "5 6 7 8 9" again: 10 1 2 3 */
    assert_string_equal(next(s), "a0:1 0@16! 0@17! 0@18! 0@19! 0@20!");
    assert_int_equal(answer(s, (const int32_t[]){10, 77}, 2), 2);
    assert_string_equal(next(s), "0@18!"); /* sees from 15 on, though 20 was sent */
    answer(s, (const int32_t[]){78}, 1);
    assert_string_equal(next(s), "t0:1 0@19!"); /* from 16 on */
    schedule_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(room_does_not_end_with_the_pool_where_windows_fit),
        cmocka_unit_test(a_long_prompt_runs_in_a_small_pool),
        cmocka_unit_test(admission_counts_the_window),
        cmocka_unit_test(windows_move_behind_chosen_tokens_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
