#include "engine/spread.h"

enum {
    ENOUGH_GAPS = 12,       /* to decide by */
    LOOK_AGAIN_AFTER = 2000 /* steps */
};
static const double FORGETTING = 0.9, MOST_STRETCH = 3;
static const double CLEARLY = 1.25; /* nothing changes for less */

/* A gap far longer than the others is mostly a thread that had to wait. */
void spread_note_gap(struct spread *s, int64_t gap_us)
{
    double gap = gap_us > 0 ? (double)gap_us : 0;
    if (s->n_gaps > 0 && s->gap_us > 0 && gap > MOST_STRETCH * s->gap_us)
        gap = MOST_STRETCH * s->gap_us;
    s->gap_us = s->n_gaps == 0 ? gap : FORGETTING * s->gap_us + (1 - FORGETTING) * gap;
    if (s->n_gaps < ENOUGH_GAPS)
        s->n_gaps++;
}

void spread_decide(struct spread *s, double own_us)
{
    if (s->n_gaps < ENOUGH_GAPS)
        return;
    if (!s->is_wide) {
        s->is_wide = s->gap_us > CLEARLY * own_us;
        s->n_steps = 0;
    } else if (s->gap_us * CLEARLY < own_us) {
        s->is_wide = false;
    } else if (++s->n_steps == LOOK_AGAIN_AFTER) {
        s->is_wide = false;
        s->n_gaps = 0;
    }
}
