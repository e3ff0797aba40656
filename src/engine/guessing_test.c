/* Guesses in the schedule: what goes into steps, what counts when they return, what it costs
 * others.
 */
#include "base/bounds.h"
#include "engine/draft.h"
#include "engine/schedule_test_impl.h"

static struct schedule *make_guessing(void)
{
    return schedule_new(&(struct schedule_options){.max_context = 1000,
                                                   .n_blocks = 20,
                                                   .n_slots = 2,
                                                   .max_rows = 16,
                                                   .n_flights = 1,
                                                   .max_sequences = 4,
                                                   .max_draft = 4});
}

/* Push the tokens in turn to the rows that count; how many did. */
static int push_each(struct schedule *s, const int32_t *tokens)
{
    int n = schedule_returned(s, NULL), n_pushed = 0;
    for (int i = 0; i < n; i++)
        if (schedule_owner(s, i) >= 0)
            schedule_push(s, schedule_owner(s, i), tokens[n_pushed++]);
    return n_pushed;
}

static void right_guesses_count_and_wrong_ones_do_not(void **state)
{
    (void)state;
    struct schedule *s = make_guessing();
    static const int32_t prompt[] = {5, 6, 7, 8, 9, 10, 1, 2, 5, 6};
    int i = add_tokens(s, prompt, 10, 100, 0);
    next(s);
    push_each(s, (const int32_t[]){7}); /* "5 6 7" again */
    assert_string_equal(next(s), "0@10! 0@11! 0@12! 0@13! 0@14!");
    assert_int_equal(push_each(s, (const int32_t[]){8, 9, 77}), 3); /* 8 9 right, then not 10 */
    struct step step;
    assert_true(schedule_next(s, &step));
    assert_string_equal(text_of(&step), "0@13!");
    assert_int_equal(step.rows[0].token, 77);
    int n_tokens;
    const int32_t *tokens = schedule_tokens(s, i, &n_tokens);
    assert_int_equal(n_tokens, 14);
    assert_memory_equal(tokens + 10, ((const int32_t[]){7, 8, 9, 77}), 4 * sizeof(tokens[0]));
    struct sequence_account account;
    schedule_account(s, i, &account);
    assert_int_equal(account.n_guessed[GUESS_LOOKUP], 4);
    assert_int_equal(account.n_right[GUESS_LOOKUP], 2);
    schedule_free(s);
}

static void all_right_gives_one_more(void **state)
{
    (void)state;
    struct schedule *s = make_guessing();
    static const int32_t prompt[] = {5, 6, 7, 8, 9, 10, 1, 2, 5, 6};
    int i = add_tokens(s, prompt, 10, 6, 0); /* 7 8 9 10 1 and one more: no room for others */
    next(s);
    push_each(s, (const int32_t[]){7});
    assert_string_equal(next(s), "0@10! 0@11! 0@12! 0@13! 0@14!");
    assert_int_equal(push_each(s, (const int32_t[]){8, 9, 10, 1, 2}), 5);
    int n_tokens;
    schedule_tokens(s, i, &n_tokens);
    assert_int_equal(n_tokens, 16);
    schedule_end(s, i);
    schedule_free(s);
}

static void guesses_never_pass_the_room(void **state)
{
    (void)state;
    struct schedule *s = make_guessing();
    static const int32_t prompt[] = {5, 6, 7, 8, 9, 10, 1, 2, 5, 6};
    add_tokens(s, prompt, 10, 3, 0);
    next(s);
    push_each(s, (const int32_t[]){7});
    assert_string_equal(next(s), "0@10! 0@11!"); /* two more tokens: one guess */
    assert_int_equal(push_each(s, (const int32_t[]){8, 9}), 2);
    schedule_free(s);
}

static void an_ended_sequence_takes_no_more_guesses(void **state)
{
    (void)state;
    struct schedule *s = make_guessing();
    static const int32_t prompt[] = {5, 6, 7, 8, 9, 10, 1, 2, 5, 6};
    int i = add_tokens(s, prompt, 10, 50, 0);
    next(s);
    push_each(s, (const int32_t[]){7});
    next(s);
    assert_int_equal(schedule_returned(s, NULL), 5);
    schedule_push(s, schedule_owner(s, 0), 8);
    schedule_end(s, i); /* a stop string, say */
    for (int row = 1; row < 5; row++)
        assert_int_equal(schedule_owner(s, row), -1);
    schedule_free(s);
}

/* ---- several steps of one sequence on their way ---- */

/* A ring of 3 stages with 4 flights. */
static struct schedule *make_ring(int n_slots, int n_blocks)
{
    return schedule_new(&(struct schedule_options){.max_context = 1000,
                                                   .n_blocks = n_blocks,
                                                   .n_slots = n_slots,
                                                   .max_rows = 64,
                                                   .n_flights = 4,
                                                   .max_sequences = 8,
                                                   .max_draft = 4});
}

/* 0 1 … 7 0 1 … : what follows is known to look-up. */
static int add_periodic(struct schedule *s, int n_prompt, int room)
{
    int32_t prompt[200];
    for (int i = 0; i < n_prompt; i++)
        prompt[i] = i % 8;
    return add_tokens(s, prompt, n_prompt, room, 0);
}

static void guesses_follow_a_prompt_and_each_other(void **state)
{
    (void)state;
    struct schedule *s = make_ring(2, 40);
    int i = add_periodic(s, 16, 100);
    const char *first = next(s);
    assert_non_null(
        strstr(first, "0@14 0@15! 0@16! 0@17!")); /* 4 pay: 2 each, in 3 steps at most */
    assert_string_equal(next(s), "0@18! 0@19!");
    assert_string_equal(next(s), "none");
    assert_int_equal(push_each(s, (const int32_t[]){0, 1, 2}), 3);
    /* All right: the answer to the last row was the next step's first. More pay now. */
    const char *more = next(s);
    assert_non_null(strstr(more, "0@20! 0@21!"));
    assert_int_equal(push_each(s, (const int32_t[]){3, 4}), 2);
    int n_tokens;
    const int32_t *tokens = schedule_tokens(s, i, &n_tokens);
    assert_int_equal(n_tokens, 21);
    for (int j = 0; j < n_tokens; j++)
        assert_int_equal(tokens[j], j % 8);
    struct schedule_counts counts;
    schedule_count(s, &counts);
    assert_int_equal(counts.right[GUESS_LOOKUP], 4 + 1); /* 20 is on its way, and right */
    assert_int_equal(counts.shares_ahead, 2);
    schedule_end(s, i);
    schedule_free(s);
}

static void a_wrong_guess_voids_all_behind_it(void **state)
{
    (void)state;
    struct schedule *s = make_ring(2, 40);
    int i = add_periodic(s, 16, 100);
    next(s);
    next(s);
    assert_int_equal(push_each(s, (const int32_t[]){0, 77, 78}), 2); /* not 1 */
    struct step step;
    assert_true(schedule_next(s, &step)); /* at once, while what is void is on its way */
    assert_int_equal(step.rows[0].token, 77);
    assert_int_equal(step.rows[0].position, 17);
    assert_int_equal(step.rows[0].want, WANT_LOGITS);
    assert_int_equal(step.n_rows, 1); /* nobody knows what follows 77 */
    assert_int_equal(push_each(s, (const int32_t[]){5}), 0);
    assert_int_equal(push_each(s, (const int32_t[]){5}), 1);
    int n_tokens;
    const int32_t *tokens = schedule_tokens(s, i, &n_tokens);
    assert_int_equal(n_tokens, 19);
    assert_memory_equal(tokens + 16, ((const int32_t[]){0, 77, 5}), 3 * sizeof(tokens[0]));
    struct sequence_account account;
    schedule_account(s, i, &account);
    assert_int_equal(account.n_guessed[GUESS_LOOKUP], 4);
    assert_int_equal(account.n_right[GUESS_LOOKUP], 1);
    schedule_free(s);
}

/* Where the first token after the prompt was guessed wrong already. */
static void the_first_token_may_be_a_wrong_guess(void **state)
{
    (void)state;
    struct schedule *s = make_ring(2, 40);
    int i = add_periodic(s, 16, 100);
    next(s);
    next(s);
    assert_int_equal(push_each(s, (const int32_t[]){9}), 1);
    assert_string_equal(next(s), "0@16!");
    assert_int_equal(push_each(s, (const int32_t[]){1, 2}), 0);
    assert_int_equal(push_each(s, (const int32_t[]){10}), 1);
    int n_tokens;
    assert_int_equal(schedule_tokens(s, i, &n_tokens)[17], 10);
    assert_int_equal(n_tokens, 18);
    schedule_free(s);
}

static void an_end_voids_all_flights(void **state)
{
    (void)state;
    struct schedule *s = make_ring(1, 40);
    int i = add_periodic(s, 16, 100);
    next(s);
    next(s);
    int n = schedule_returned(s, NULL);
    assert_int_equal(n, 3);
    assert_int_equal(schedule_owner(s, 0), i);
    schedule_push(s, i, 0);
    schedule_end(s, i); /* a stop string, say */
    int other = add_tokens(s, (const int32_t[]){1, 2, 3}, 3, 9, 0);
    assert_int_equal(schedule_owner(s, 1), -1);
    assert_int_equal(schedule_owner(s, 2), -1);
    assert_non_null(strstr(next(s), "c0 o0"));
    assert_int_equal(push_each(s, NULL), 0);
    assert_int_equal(push_each(s, (const int32_t[]){4}), 1);
    int n_tokens;
    schedule_tokens(s, other, &n_tokens);
    assert_int_equal(n_tokens, 4);
    schedule_free(s);
}

static void preemption_voids_all_flights(void **state)
{
    (void)state;
    struct schedule *s = make_ring(1, 40);
    int low = add_periodic(s, 16, 100);
    next(s);
    next(s);
    int high = add_tokens(s, (const int32_t[]){1, 2, 3}, 3, 9, 1);
    assert_non_null(strstr(next(s), "c0 o0")); /* takes the slot */
    assert_int_equal(push_each(s, NULL), 0);
    assert_int_equal(push_each(s, NULL), 0);
    assert_int_equal(push_each(s, (const int32_t[]){4}), 1);
    schedule_end(s, high);
    const char *again = next(s);
    assert_non_null(strstr(again, "0@15! 0@16!"));
    assert_int_equal(push_each(s, (const int32_t[]){0, 9}), 2);
    int n_tokens;
    const int32_t *tokens = schedule_tokens(s, low, &n_tokens);
    assert_int_equal(n_tokens, 18);
    assert_int_equal(tokens[16], 0);
    assert_int_equal(tokens[17], 9);
    schedule_free(s);
}

/* However many are right: rows end in front of the last token that there is room for. */
static void the_room_ends_guesses_in_all_flights(void **state)
{
    (void)state;
    for (int room = 1; room < 30; room++) {
        struct schedule *s = make_ring(1, 40);
        int i = add_periodic(s, 16, room), n_tokens = 16, in_flight = 0;
        for (bool more = true; more;) {
            struct step step;
            for (; schedule_next(s, &step); in_flight++)
                for (uint32_t row = 0; row < step.n_rows; row++)
                    assert_true((int)step.rows[row].position <= 16 + room - 2 ||
                                (int)step.rows[row].position < n_tokens);
            assert_true(in_flight > 0);
            int n = schedule_returned(s, NULL);
            in_flight--;
            for (int j = 0; j < n && more; j++)
                if (schedule_owner(s, j) >= 0)
                    more = schedule_push(s, i, n_tokens++ % 8);
        }
        assert_int_equal(n_tokens, 16 + room);
        schedule_end(s, i);
        schedule_free(s);
    }
}

/* With as many streams as stages every stage has work: guesses go with their tokens only. */
static void a_full_ring_guesses_nothing_ahead(void **state)
{
    (void)state;
    struct schedule_counts counts;
    for (int n = 1; n <= 4; n++) {
        struct schedule *s = make_ring(4, 100);
        for (int i = 0; i < n; i++) {
            int32_t prompt[20];
            for (int j = 0; j < 20; j++)
                prompt[j] = 10 * i + j % 5;
            add_tokens(s, prompt, 20, 200, 0);
        }
        for (int round = 0; round < 50; round++) {
            struct step step;
            while (schedule_next(s, &step))
                ;
            int n_wanted = schedule_returned(s, NULL), n_tokens;
            for (int j = 0; j < n_wanted; j++) {
                int who = schedule_owner(s, j);
                if (who < 0)
                    continue;
                const int32_t *tokens = schedule_tokens(s, who, &n_tokens);
                schedule_push(s, who, tokens[n_tokens - 5]); /* always as guessed */
            }
        }
        schedule_count(s, &counts);
        assert_true(counts.right[GUESS_LOOKUP] > 50);
        assert_int_equal(counts.shares_ahead > 5,
                         n == 1); /* 3 stages: two streams leave one idle */
        schedule_free(s);
    }
}

/* Guesses take no block that others will ask for soon: of the 2, 3 … blocks that are left, each
 * that runs has one, and who stands in line what it needs. */
static void guesses_take_no_blocks_from_others(void **state)
{
    (void)state;
    for (int n_blocks = 4; n_blocks <= 5; n_blocks++) {
        struct schedule *s = make_ring(2, n_blocks);
        add_periodic(s, 16, 40); /* its block is full */
        add_tokens(s, (const int32_t[]){9}, 1, 40, 0);
        assert_int_equal(strstr(next(s), " 0@16!") != NULL, n_blocks == 5);
        schedule_free(s);
        s = make_ring(1, n_blocks);
        add_periodic(s, 16, 40);
        add_periodic(s, 30, 9); /* waits for the slot, and will need two blocks */
        assert_int_equal(strstr(next(s), " 0@16!") != NULL, n_blocks == 5);
        schedule_free(s);
    }
}

/* What may be found by others is what was chosen, never what was guessed. */
static void guesses_are_found_by_nobody(void **state)
{
    (void)state;
    struct schedule *s = make_ring(3, 40);
    int first = add_periodic(s, 28, 100); /* guesses fill the second block */
    next(s);
    next(s);
    int32_t guessed[40], chosen[40];
    for (int j = 0; j < 40; j++)
        guessed[j] = chosen[j] = j % 8;
    chosen[29] = 77;
    push_each(s, (const int32_t[]){4, 77}); /* 28 right, 29 not */
    push_each(s, NULL);
    for (int32_t token = 100; token < 106; token++) {
        next(s);
        chosen[token - 70] = token;
        push_each(s, &token);
    }
    struct sequence_account account;
    int wrong = add_tokens(s, guessed, 36, 9, 0), right = add_tokens(s, chosen, 36, 9, 0);
    while (strcmp(next(s), "none") != 0)
        ;
    schedule_account(s, wrong, &account);
    assert_int_equal(account.n_cached, 29); /* 28 of the prompt, and the guess that was right */
    schedule_account(s, right, &account);
    assert_in_range(account.n_cached, 32, 35);
    schedule_end(s, first);
    schedule_free(s);
}

/* ---- a draft model ---- */

static void a_model_is_asked_where_look_up_knows_nothing(void **state)
{
    (void)state;
    struct schedule *s = make_ring(2, 40);
    struct guess_wish wishes[4];
    int i = add_tokens(s, (const int32_t[]){1, 2, 3}, 3, 100, 0);
    assert_int_equal(schedule_wishes(s, wishes, 4), 0); /* it waits */
    next(s);
    /* While the prompt is on its way: at what follows it. */
    assert_int_equal(schedule_wishes(s, wishes, 4), 1);
    assert_int_equal(wishes[0].sequence, i);
    assert_int_equal(wishes[0].n_tokens, 3);
    assert_int_equal(wishes[0].n_assumed, 3);
    assert_int_equal(wishes[0].n_wanted, 2);
    assert_memory_equal(wishes[0].tokens, ((const int32_t[]){1, 2, 3}), 3 * sizeof(int32_t));
    schedule_offer(s, i, (const int32_t[]){4, 5}, 2);
    assert_int_equal(schedule_wishes(s, wishes, 4), 0); /* enough for a step */
    assert_string_equal(next(s), "0@3! 0@4!");
    assert_int_equal(schedule_wishes(s, wishes, 4), 1);
    assert_int_equal(wishes[0].n_assumed, 5);
    assert_int_equal(wishes[0].tokens[4], 5);
    schedule_offer(s, i, (const int32_t[]){6}, 1); /* it had no more */
    assert_string_equal(next(s), "0@5!");
    assert_int_equal(push_each(s, (const int32_t[]){4}), 1);
    assert_int_equal(push_each(s, (const int32_t[]){5, 6}), 2);
    assert_int_equal(push_each(s, (const int32_t[]){1}), 1);
    struct sequence_account account;
    schedule_account(s, i, &account);
    assert_int_equal(account.n_guessed[GUESS_MODEL], 3);
    assert_int_equal(account.n_right[GUESS_MODEL], 3);
    assert_int_equal(account.n_guessed[GUESS_LOOKUP], 0);
    schedule_end(s, i);
    add_periodic(s, 16, 100);
    next(s);
    assert_int_equal(schedule_wishes(s, wishes, 4), 0); /* look-up knows */
    schedule_free(s);
}

/* What was offered and not sent when a token comes: kept if it goes on so, forgotten if not. */
static void offers_wait_for_their_step(void **state)
{
    (void)state;
    for (int right = 0; right <= 1; right++) {
        struct schedule *s = make_ring(2, 40);
        struct guess_wish wishes[4];
        int i = add_tokens(s, (const int32_t[]){1, 2, 3}, 3, 100, 0);
        next(s);
        assert_int_equal(schedule_wishes(s, wishes, 4), 1);
        schedule_offer(s, i, (const int32_t[]){4, 5}, 2);
        push_each(s, (const int32_t[]){right ? 4 : 9});
        struct step step;
        assert_true(schedule_next(s, &step));
        assert_string_equal(text_of(&step), right ? "0@3! 0@4!" : "0@3!");
        assert_int_equal(step.rows[0].token, right ? 4 : 9);
        struct sequence_account account;
        schedule_account(s, i, &account);
        assert_int_equal(account.n_guessed[GUESS_MODEL], right);
        schedule_free(s);
    }
}

/* Steps of 10 ms, and a model that takes guess_us for each guess, half of which are right: how many
 * of 300 tokens it was asked for. */
static int asked_when_a_guess_takes(int64_t guess_us)
{
    struct schedule *s = schedule_new(&(struct schedule_options){.max_context = 1000,
                                                                 .n_blocks = 100,
                                                                 .n_slots = 1,
                                                                 .max_rows = 16,
                                                                 .n_flights = 1,
                                                                 .max_sequences = 4,
                                                                 .max_draft = 4});
    int n_asked = 0, n_tokens = 1, i = add_tokens(s, (const int32_t[]){1000}, 1, 900, 0);
    int64_t now = 1;
    while (n_tokens < 300) {
        struct guess_wish wish;
        struct step step;
        if (schedule_wishes(s, &wish, 1) > 0) {
            int32_t guesses[DRAFT_MAX];
            for (int j = 0; j < wish.n_wanted; j++) {
                int at = wish.n_assumed + j;
                bool right = ((uint32_t)at * 2654435761u >> 20) % 2 == 0; /* at random */
                guesses[j] = right ? 1000 + at : 0;
            }
            schedule_offer(s, i, guesses, wish.n_wanted);
            schedule_offer_time(s, wish.n_wanted, guess_us * wish.n_wanted);
            n_asked++;
        }
        schedule_clock(s, now);
        assert_true(schedule_next(s, &step));
        struct step_times times = {0};
        step_times_add(&times, 9000 + 1000 * (int64_t)step.n_rows);
        schedule_clock(s, now += times.busy_us);
        int n = schedule_returned(s, &times);
        for (int j = 0; j < n; j++)
            if (schedule_owner(s, j) >= 0)
                schedule_push(s, i, 1000 + n_tokens++);
    }
    schedule_free(s);
    return n_asked;
}

static void a_model_that_takes_too_long_is_left_alone(void **state)
{
    (void)state;
    assert_true(asked_when_a_guess_takes(1) > 100);
    assert_in_range(asked_when_a_guess_takes(6000), 2, 75); /* tried again at times */
    assert_in_range(asked_when_a_guess_takes(20000), 1, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_guesses_count_and_wrong_ones_do_not),
        cmocka_unit_test(all_right_gives_one_more),
        cmocka_unit_test(guesses_never_pass_the_room),
        cmocka_unit_test(an_ended_sequence_takes_no_more_guesses),
        cmocka_unit_test(guesses_follow_a_prompt_and_each_other),
        cmocka_unit_test(a_wrong_guess_voids_all_behind_it),
        cmocka_unit_test(the_first_token_may_be_a_wrong_guess),
        cmocka_unit_test(an_end_voids_all_flights),
        cmocka_unit_test(preemption_voids_all_flights),
        cmocka_unit_test(the_room_ends_guesses_in_all_flights),
        cmocka_unit_test(a_full_ring_guesses_nothing_ahead),
        cmocka_unit_test(guesses_take_no_blocks_from_others),
        cmocka_unit_test(guesses_are_found_by_nobody),
        cmocka_unit_test(a_model_is_asked_where_look_up_knows_nothing),
        cmocka_unit_test(offers_wait_for_their_step),
        cmocka_unit_test(a_model_that_takes_too_long_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
