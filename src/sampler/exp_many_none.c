/* Where the baseline of the processor has an fma instruction there is nothing to choose. */
#include "sampler/exp_many.h"

void exp_many(float *x, int n)
{
    exp_many_plain(x, n);
}
