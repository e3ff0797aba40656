/* What this processor can run. Bits are equal, so nothing needs to be held down. */
#include "sampler/sampler_loops_impl.h"

#include <stddef.h>

const struct sampler_loops *const *sampler_loops_all(void)
{
    static const struct sampler_loops *const plain[] = {&sampler_loops_plain, NULL};
    static const struct sampler_loops *const avx2[] = {&sampler_loops_plain, &sampler_loops_avx2,
                                                       NULL};
    static const struct sampler_loops *const avx512[] = {&sampler_loops_plain, &sampler_loops_avx2,
                                                         &sampler_loops_avx512, NULL};
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return plain;
    return __builtin_cpu_supports("avx512f") ? avx512 : avx2;
}
