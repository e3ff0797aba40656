/* Time as a scalar: microseconds of the monotonic clock. Only shells read the clock; scheduler,
 * planner and the other pure parts are given the time. */
#ifndef SHOAL_BASE_CLOCK_H
#define SHOAL_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

typedef int64_t time_us;

time_us clock_now_us(void);      /* monotonic; start is arbitrary */
int64_t clock_unix_s(void);      /* seconds since 1970, for "created" fields */
void clock_sleep_us(time_us us); /* at least that long, signals included */
/* Until clock_now_us() says so; not later by more than waking up takes (the timers of the calling
 * thread are made exact). For what stands for work of a known length. */
void clock_wait_until_us(time_us moment);

/* The CLOCK_MONOTONIC moment `us` from now, for pthread_cond_timedwait. */
struct timespec clock_deadline(time_us us);

#endif
