#include "engine/pace.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct pace_bound any = {0}, twice = {.max_stretch = 2},
                               fifty_ms = {.max_step_us = 50000};

static void unknown_is_careful(void **state)
{
    (void)state;
    struct pace p = {0};
    assert_false(pace_is_known(&p));
    assert_int_equal(pace_prompt_rows(&p, &any, 3), INT_MAX);
    assert_int_equal(pace_prompt_rows(&p, &twice, 3), PACE_MIN_ROWS);
    assert_true(pace_least_rate(&p, 1, 0, 0) > 0);
    pace_note(&p, 0, 0, 100);
    pace_note(&p, 3, 0, -1);
    assert_false(pace_is_known(&p));
}

static void a_line_is_found(void **state)
{
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < 20; i++) {
        int n = i % 2 == 0 ? 4 : 20;
        pace_note(&p, n, 0, 20000 + 500 * n);
    }
    assert_in_range((int)p.base_us, 19990, 20010);
    assert_in_range((int)p.per_row_us, 499, 501);
    assert_int_equal(pace_prompt_rows(&p, &twice, 4), PACE_MIN_ROWS); /* of prompts nothing yet */
    for (int i = 0; i < 20; i++)
        pace_note(&p, 4, 10, 22000 + 10 * 1000);
    assert_in_range((int)p.per_prompt_us, 999, 1001);
    assert_in_range((int)p.base_us, 19990, 20010); /* untouched by steps with prompts */
    assert_in_range(pace_prompt_rows(&p, &fifty_ms, 4), 27, 29);
    assert_in_range(pace_prompt_rows(&p, &twice, 4), 21, 23);
    assert_int_equal((int)(100 * pace_least_rate(&p, 1, 0, 0)), 10); /* a row is cheap: its floor */
    assert_in_range((int)(100 * pace_least_rate(&p, 40, 0, 0)), 49, 51);
    assert_in_range((int)(100 * pace_least_rate(&p, 1, 10000, 0)), 50, 52);   /* and half a step */
    assert_in_range((int)(100 * pace_least_rate(&p, 1, 30000, 0)), 148, 151); /* never pays */
}

static void prompt_rows_become_dearer_with_their_position(void **state)
{
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < 30; i++)
        pace_note(&p, 16, 0, 4000);
    int n = 0;
    for (int i = 0; i < 300; i++) {
        n = pace_prompt_rows(&p, &twice, 16);
        pace_note(&p, 16, n, 4000 + n * (100 + i));
    }
    assert_in_range(n, 9, 11); /* 4 ms at 0.4 ms each: they, not the base, were seen to grow */
}

static void equal_steps_say_nothing_of_the_slope(void **state)
{
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < 10; i++)
        pace_note(&p, 16, 0, 32000 + i % 3);
    assert_int_equal((int)p.base_us, 0);               /* as if all of it were rows */
    assert_true(pace_least_rate(&p, 16, 0, 0) < 0.5f); /* but a few guesses would teach better */
    pace_note(&p, 116, 0, 42000);
    assert_in_range((int)p.per_row_us, 95, 105);
    for (int i = 0; i < 50; i++)
        pace_note(&p, 16, 0, 32000);
    assert_in_range((int)p.per_row_us, 95, 105); /* kept */
}

/* One bad moment is not to say for ever that rows are dear: guessing would stop, all steps be
 * alike, and nothing be learned any more. */
static void a_wrong_slope_does_not_last(void **state)
{
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < 4; i++)
        pace_note(&p, 1 + i % 2 * 3, 0, i % 2 == 0 ? 3000 : 30000);
    assert_true(pace_least_rate(&p, 1, 0, 0) > 0.5f);
    int n = 0;
    for (; pace_least_rate(&p, 1, 0, 0) > 0.4f; n++)
        pace_note(&p, 1, 0, 3000);
    assert_in_range(n, 20, 300);
}

static void one_late_step_says_little(void **state)
{
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < 20; i++)
        pace_note(&p, 1 + i % 2 * 3, 0, 3000);
    pace_note(&p, 4, 0, 300000);
    assert_true(pace_step_us(&p, 1) < 9000);
    for (int i = 0; i < 30; i++) /* but if it goes on … */
        pace_note(&p, 1 + i % 2 * 3, 0, 300000);
    assert_true(pace_step_us(&p, 1) > 200000);
}

/* Prompts from the beginning: decode rows are taken to cost as much as theirs. */
static void prompts_alone(void **state)
{
    (void)state;
    struct pace p = {0};
    pace_note(&p, 0, 100, 50000);
    assert_true(pace_is_known(&p));
    assert_in_range(pace_prompt_rows(&p, &twice, 40), 39, 41);
    pace_note(&p, 40, 60, 50000);
    assert_in_range((int)p.per_prompt_us, 499, 501);
}

/* Whatever the times are, the answer is usable, and it follows a machine that becomes slower. */
static void noise_and_change(void **state)
{
    (void)state;
    struct pace p = {0};
    unsigned seed = 3;
    for (int i = 0; i < 3000; i++) {
        int n_prompt = rand_r(&seed) % 3 > 0 ? 0 : rand_r(&seed) % 200;
        pace_note(&p, 1 + rand_r(&seed) % 20, n_prompt, rand_r(&seed) % 100000);
        assert_true(p.weight <= 0 || p.per_row_us > 0);
        assert_true(p.base_us >= 0 && p.per_prompt_us >= 0);
        assert_true(pace_prompt_rows(&p, &twice, 5) >= PACE_MIN_ROWS);
        assert_true(pace_least_rate(&p, 5, 0, 0) > 0);
    }
    for (int slow = 1; slow <= 4; slow *= 2)
        for (int i = 0; i < 60; i++) {
            int n = 1 + rand_r(&seed) % 200;
            pace_note(&p, n, 0, slow * (10000 + 100 * n));
        }
    assert_in_range((int)p.per_row_us, 350, 450);
    struct pace zero = {0};
    pace_note(&zero, 5, 0, 0);
    pace_note(&zero, 5, 5, 0);
    assert_false(pace_is_known(&zero));
    assert_int_equal(pace_prompt_rows(&zero, &twice, 5), PACE_MIN_ROWS);
    struct pace_bound impossible = {.max_step_us = 1};
    assert_int_equal(pace_prompt_rows(&p, &impossible, 5), PACE_MIN_ROWS);
}

static void what_a_step_costs_by_itself(void **state)
{
    (void)state;
    struct pace p = {0};
    double guess = pace_step_cost_rows(&p);
    assert_true(guess >= 2 && guess < 40);
    for (int i = 0; i < 40; i++)
        pace_note(&p, 1 + i % 8, 0, 20000 + 500 * (1 + i % 8));
    assert_true(pace_step_cost_rows(&p) == guess); /* nothing is known of prompt rows */
    for (int i = 0; i < 40; i++)
        pace_note(&p, 0, 100, 20000 + 100 * 1000);
    assert_true(pace_step_cost_rows(&p) > 7.5 && pace_step_cost_rows(&p) < 11);
    for (int i = 0; i < 40; i++)
        pace_note(&p, 0, 500, 20000); /* the rows cost nothing: as large as can be */
    assert_true(pace_step_cost_rows(&p) == 512);
}

/* Where stages wait for each other, a row and a guess cost less of a token. */
static void idle_time_is_cheap(void **state)
{
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < 20; i++)
        pace_note(&p, 1 + i % 3, 0, 8000 + 2000 * (1 + i % 3));
    assert_in_range((int)(1000 * pace_least_rate(&p, 1, 3000, 0)), 498, 502);
    assert_in_range((int)(1000 * pace_least_rate(&p, 1, 3000, 10000)), 248, 252);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_is_careful),
        cmocka_unit_test(a_line_is_found),
        cmocka_unit_test(equal_steps_say_nothing_of_the_slope),
        cmocka_unit_test(prompt_rows_become_dearer_with_their_position),
        cmocka_unit_test(a_wrong_slope_does_not_last),
        cmocka_unit_test(one_late_step_says_little),
        cmocka_unit_test(prompts_alone),
        cmocka_unit_test(noise_and_change),
        cmocka_unit_test(what_a_step_costs_by_itself),
        cmocka_unit_test(idle_time_is_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
