/* How often something took how long: counts in fixed buckets, as Prometheus wants them. Plain data:
 * whoever owns it adds, copies are read. */
#ifndef SHOAL_ENGINE_HISTOGRAM_H
#define SHOAL_ENGINE_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_BOUNDS = 18 };
/* Upper bounds in seconds, ascending; what is longer falls into the last bucket. */
extern const double histogram_bounds[HISTOGRAM_BOUNDS];

struct histogram {
    uint64_t counts[HISTOGRAM_BOUNDS + 1]; /* each bucket by itself, not summed up */
    uint64_t n;
    double sum_s;
};

void histogram_add(struct histogram *h, int64_t us);

#endif
