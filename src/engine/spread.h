/* Over how many flights decoding sequences are spread, in a ring of N stages that may have N + 1 on
 * their way.
 *
 * With a flight more than there are stages, no stage waits for a frame. But each flight reads the
 * weights of every stage once more, and with few rows that is nearly all a step costs. A step of r
 * rows keeps a stage for a + b r; R sequences have come round once after
 *
 *   N a + b R + gap        in N flights (gap: of a step's way, what the slowest stage idles)
 *   (N + 1) a + b R        in one more, which hides the gap
 *
 * so the flight more pays where the gap is longer than a. The gap is seen only in N flights, which
 * is what there are at first and, when the last look is long ago, again for some steps. Pure: times
 * come in as arguments. */
#ifndef SHOAL_ENGINE_SPREAD_H
#define SHOAL_ENGINE_SPREAD_H

#include <stdbool.h>
#include <stdint.h>

struct spread {
    double gap_us; /* lately */
    int n_gaps;    /* measurements of it, since it was last looked at */
    int n_steps;   /* since there is one flight more */
    bool is_wide;  /* there is */
};

/* A step whose way nothing but the ring itself held up left the slowest stage idle for gap_us. */
void spread_note_gap(struct spread *s, int64_t gap_us);

/* A step of decode rows has returned; a step costs `own_us` whatever its rows (a). */
void spread_decide(struct spread *s, double own_us);

#endif
