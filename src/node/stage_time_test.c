/* A stage's time is told apart without gap or overlap. */
#include "node/stage_time.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_sums(struct stage_sums s, time_us busy, time_us input, time_us send,
                        time_us other)
{
    assert_int_equal(s.busy_us, busy);
    assert_int_equal(s.input_wait_us, input);
    assert_int_equal(s.send_wait_us, send);
    assert_int_equal(s.other_us, other);
}

static void every_moment_is_somewhere(void **state)
{
    (void)state;
    struct stage_time t;
    stage_time_open(&t, 1000);
    assert_sums(stage_time_sums(&t, 1000, 0), 0, 0, 0, 0);
    assert_sums(stage_time_sums(&t, 1500, 0), 0, 500, 0, 0); /* while it goes on */
    stage_time_turn(&t, STAGE_COMPUTES, 1600, 0);
    assert_sums(stage_time_sums(&t, 1650, 0), 50, 600, 0, 0);
    stage_time_turn(&t, STAGE_HANDS_OVER, 1700, 0);
    stage_time_turn(&t, STAGE_WAITS, 1707, 3);
    assert_sums(stage_time_sums(&t, 1707, 3), 100, 600, 0, 7);
}

static void unsent_frames_are_why_it_waits(void **state)
{
    (void)state;
    struct stage_time t;
    stage_time_open(&t, 0);
    stage_time_turn(&t, STAGE_COMPUTES, 10, 0);
    stage_time_turn(&t, STAGE_WAITS, 20, 8); /* sending beside computing costs nothing */
    assert_sums(stage_time_sums(&t, 20, 8), 10, 10, 0, 0);
    assert_sums(stage_time_sums(&t, 50, 38), 10, 10, 30, 0); /* the frame is still not out */
    assert_sums(stage_time_sums(&t, 60, 43), 10, 15, 35, 0); /* it was, 5 ago */
    stage_time_turn(&t, STAGE_COMPUTES, 100, 43);
    assert_sums(stage_time_sums(&t, 100, 43), 10, 55, 35, 0);
}

static void sums_never_shrink(void **state)
{
    (void)state;
    struct stage_time t;
    stage_time_open(&t, 100);
    stage_time_turn(&t, STAGE_WAITS, 50, 0); /* a clock read by another thread, a bit earlier */
    assert_sums(stage_time_sums(&t, 120, 0), 0, 20, 0, 0);
    stage_time_turn(&t, STAGE_WAITS, 120, 90); /* more than has passed: of before */
    assert_sums(stage_time_sums(&t, 120, 90), 0, 0, 20, 0);
    assert_sums(stage_time_sums(&t, 130, 0), 0, 10, 20, 0); /* the link is gone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_moment_is_somewhere),
        cmocka_unit_test(unsent_frames_are_why_it_waits),
        cmocka_unit_test(sums_never_shrink),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
