#include "node/stage_time.h"

void stage_time_open(struct stage_time *t, time_us now)
{
    *t = (struct stage_time){.doing = STAGE_WAITS, .since_us = now};
}

static time_us clamp(time_us value, time_us most)
{
    return value < 0 ? 0 : value < most ? value : most;
}

struct stage_sums stage_time_sums(const struct stage_time *t, time_us now, time_us sending_us)
{
    struct stage_sums sums = t->sums;
    time_us passed = now > t->since_us ? now - t->since_us : 0;
    time_us sent = clamp(sending_us - t->sending_us, passed);
    switch (t->doing) {
    case STAGE_WAITS:
        sums.send_wait_us += sent;
        sums.input_wait_us += passed - sent;
        break;
    case STAGE_COMPUTES: sums.busy_us += passed; break;
    case STAGE_HANDS_OVER: sums.other_us += passed; break;
    }
    return sums;
}

void stage_time_turn(struct stage_time *t, enum stage_doing next, time_us now, time_us sending_us)
{
    t->sums = stage_time_sums(t, now, sending_us);
    t->doing = next;
    t->since_us = now > t->since_us ? now : t->since_us;
    t->sending_us = sending_us;
}
