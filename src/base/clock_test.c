#include "base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static time_us as_us(struct timespec t)
{
    return (time_us)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void a_deadline_is_that_far_away(void **state)
{
    (void)state;
    static const time_us waits[] = {0, 1, 999999, 1000000, 1000001, 3600ll * 1000000 + 7};
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++) {
        time_us before = clock_now_us();
        struct timespec t = clock_deadline(waits[i]);
        time_us after = clock_now_us();
        assert_true(t.tv_nsec >= 0 && t.tv_nsec < 1000000000);
        assert_true(as_us(t) >= before + waits[i]);
        assert_true(as_us(t) <= after + waits[i]);
    }
}

static void now_does_not_go_back(void **state)
{
    (void)state;
    time_us last = clock_now_us();
    for (int i = 0; i < 1000; i++) {
        time_us now = clock_now_us();
        assert_true(now >= last);
        last = now;
    }
    assert_true(clock_unix_s() > 1700000000);
}

static void wake(int signal)
{
    (void)signal;
}

static void *disturb(void *sleeper)
{
    for (int i = 0; i < 5; i++) {
        clock_sleep_us(2000);
        pthread_kill(*(pthread_t *)sleeper, SIGUSR1);
    }
    return NULL;
}

static void a_sleep_lasts_through_signals(void **state)
{
    (void)state;
    struct sigaction action, old;
    memset(&action, 0, sizeof action);
    action.sa_handler = wake;
    assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
    pthread_t self = pthread_self(), other;
    assert_int_equal(pthread_create(&other, NULL, disturb, &self), 0);
    time_us before = clock_now_us();
    clock_sleep_us(30000);
    assert_true(clock_now_us() - before >= 30000);
    pthread_join(other, NULL);
    sigaction(SIGUSR1, &old, NULL);
}

static void a_wait_ends_at_its_moment(void **state)
{
    (void)state;
    time_us soonest = 1000000;
    for (int i = 0; i < 20; i++) {
        time_us moment = clock_now_us() + 1500;
        clock_wait_until_us(moment);
        time_us late = clock_now_us() - moment;
        assert_true(late >= 0);
        soonest = late < soonest ? late : soonest;
    }
    assert_true(soonest < 500);
    clock_wait_until_us(clock_now_us() - 10); /* over already */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_deadline_is_that_far_away),
        cmocka_unit_test(now_does_not_go_back),
        cmocka_unit_test(a_sleep_lasts_through_signals),
        cmocka_unit_test(a_wait_ends_at_its_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
