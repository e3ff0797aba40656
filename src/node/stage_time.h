/* Where the time of a stage's thread goes, so that a ring's bottleneck can be told: computing,
 * waiting for input, waiting for the network to take its output, and the rest (making and handing
 * over frames). The four add up to all time since the account was opened.
 *
 * Sending never holds the thread up (link.h); but while frames wait for the network and there is
 * nothing to compute, the network and not the stage before is what keeps the stage idle. So of a
 * wait for input, that part counts as waiting to send in which the outgoing link had unsent frames.
 * Pure: the times are given. Sums never shrink, whenever they are looked at. */
#ifndef SHOAL_NODE_STAGE_TIME_H
#define SHOAL_NODE_STAGE_TIME_H

#include "base/clock.h"

enum stage_doing { STAGE_WAITS, STAGE_COMPUTES, STAGE_HANDS_OVER };

struct stage_sums {
    time_us busy_us, input_wait_us, send_wait_us, other_us;
};

struct stage_time {
    struct stage_sums sums; /* as of since_us */
    enum stage_doing doing;
    time_us since_us;
    time_us sending_us; /* what link_sending_us said then */
};

/* The account begins, waiting. */
void stage_time_open(struct stage_time *t, time_us now);

/* From now on it does something else. `sending_us`: how long the outgoing link has had unsent
 * frames, all in all; what is less than before counts as no more. */
void stage_time_turn(struct stage_time *t, enum stage_doing next, time_us now, time_us sending_us);

/* The sums as they are now, with what goes on at the moment. */
struct stage_sums stage_time_sums(const struct stage_time *t, time_us now, time_us sending_us);

#endif
