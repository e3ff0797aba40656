#include "engine/acceptance.h"

/* Certainty is not to be had, however many were right: without a bound, one chain of a lucky stream
 * would be as long as it may be. */
static const float SUREST = 0.98f;
static const float FORGETTING = 0.03f; /* a token, of what a wrong guess would say */

/* Texts that repeat do so for a while and then stop: look-up is to notice both soon. A model is
 * about equally good all the time. */
struct acceptance acceptance_begin(enum guess_source source)
{
    return source == GUESS_LOOKUP ? (struct acceptance){.rate = 0.75f, .newness = 0.2f}
                                  : (struct acceptance){.rate = 0.75f, .newness = 0.1f};
}

void acceptance_note(struct acceptance *a, bool right)
{
    a->rate += a->newness * ((right ? 1.0f : 0.0f) - a->rate);
}

int acceptance_reach(const struct acceptance *a, float least, int most)
{
    float rate = a->rate < SUREST ? a->rate : SUREST, worth = rate;
    int n = 0;
    for (; n < most && worth >= least; n++)
        worth *= rate;
    return n;
}

void acceptance_forget(struct acceptance *a, float least)
{
    if (a->rate < least && least <= SUREST)
        a->rate += FORGETTING * a->newness;
}
