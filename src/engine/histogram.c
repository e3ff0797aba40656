#include "engine/histogram.h"

const double histogram_bounds[HISTOGRAM_BOUNDS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                   0.075, 0.1,    0.15,  0.25, 0.5,   1,
                                                   2.5,   5,      10,    30,   60,    120};

void histogram_add(struct histogram *h, int64_t us)
{
    double s = (double)(us > 0 ? us : 0) / 1e6;
    int i = 0;
    while (i < HISTOGRAM_BOUNDS && s > histogram_bounds[i])
        i++;
    h->counts[i]++;
    h->n++;
    h->sum_s += s;
}
