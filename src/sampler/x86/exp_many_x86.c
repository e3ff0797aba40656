/* Which exp_many this processor runs. Bits are equal, so nothing needs to be held down. */
#include "sampler/exp_many.h"

void exp_many(float *x, int n)
{
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        exp_many_avx2(x, n);
    else
        exp_many_plain(x, n);
}
