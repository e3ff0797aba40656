/* Where there is nothing to choose from. */
#include "sampler/sampler_loops_impl.h"

#include <stddef.h>

const struct sampler_loops *const *sampler_loops_all(void)
{
    static const struct sampler_loops *const all[] = {&sampler_loops_plain, NULL};
    return all;
}
