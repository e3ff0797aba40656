/* Waiting for a moment, exactly. A thread's timers are late on purpose (by 50 us, so that wake-ups
 * can be bundled), which Linux lets every thread take back; the way out of sleep, a few tens of
 * microseconds, is looked at the clock through. */
#include "base/clock.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/prctl.h>

enum { WAKING_US = 40 };

static _Thread_local bool timers_are_exact;

void clock_wait_until_us(time_us moment)
{
    if (!timers_are_exact)
        prctl(PR_SET_TIMERSLACK, 1UL);
    timers_are_exact = true;
    time_us sleep_until = moment - WAKING_US;
    struct timespec until = {.tv_sec = sleep_until / 1000000,
                             .tv_nsec = sleep_until % 1000000 * 1000};
    if (sleep_until > clock_now_us())
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            continue;
    while (clock_now_us() < moment)
        continue;
}
