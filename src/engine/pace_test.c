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
    assert_true(pace_least_rate(&p, 1) > 0);
    pace_note(&p, 0, 100);
    pace_note(&p, 3, -1);
    assert_false(pace_is_known(&p));
}

static void a_line_is_found(void **state)
{
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < 20; i++) {
        int n = i % 2 == 0 ? 4 : 100;
        pace_note(&p, n, 20000 + 500 * n);
    }
    assert_in_range((int)p.base_us, 19990, 20010);
    assert_in_range((int)p.per_row_us, 499, 501);
    assert_in_range(pace_prompt_rows(&p, &fifty_ms, 4), 55, 57);
    assert_in_range(pace_prompt_rows(&p, &twice, 4), 43, 45);
    assert_int_equal((int)(100 * pace_least_rate(&p, 1)), 10); /* a row is cheap: its floor */
    assert_in_range((int)(100 * pace_least_rate(&p, 40)), 49, 51);
}

static void equal_steps_say_nothing_of_the_slope(void **state)
{
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < 10; i++)
        pace_note(&p, 16, 32000 + i % 3);
    assert_int_equal(pace_prompt_rows(&p, &twice, 16), 16); /* as if all of it were rows */
    pace_note(&p, 116, 42000);
    assert_in_range((int)p.per_row_us, 95, 105);
    for (int i = 0; i < 50; i++)
        pace_note(&p, 16, 32000);
    assert_in_range((int)p.per_row_us, 95, 105); /* kept */
}

/* Whatever the times are, the answer is usable, and it follows a machine that becomes slower. */
static void noise_and_change(void **state)
{
    (void)state;
    struct pace p = {0};
    unsigned seed = 3;
    for (int i = 0; i < 3000; i++) {
        pace_note(&p, 1 + rand_r(&seed) % 200, rand_r(&seed) % 100000);
        assert_true(p.per_row_us > 0 && p.base_us >= 0);
        assert_true(pace_prompt_rows(&p, &twice, 5) >= PACE_MIN_ROWS);
        assert_true(pace_least_rate(&p, 5) > 0);
    }
    for (int slow = 1; slow <= 4; slow *= 2)
        for (int i = 0; i < 60; i++) {
            int n = 1 + rand_r(&seed) % 200;
            pace_note(&p, n, slow * (10000 + 100 * n));
        }
    assert_in_range((int)p.per_row_us, 350, 450);
    struct pace zero = {0};
    pace_note(&zero, 5, 0);
    assert_false(pace_is_known(&zero));
    assert_int_equal(pace_prompt_rows(&zero, &twice, 5), PACE_MIN_ROWS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_is_careful),
        cmocka_unit_test(a_line_is_found),
        cmocka_unit_test(equal_steps_say_nothing_of_the_slope),
        cmocka_unit_test(noise_and_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
