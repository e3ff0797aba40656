/* A processor that has no probe loops of its own. */
#include "bench/probe_loops.h"

const struct probe_loops probe_isas[] = {
    {"ref", "plain C", probe_always, probe_read_c, probe_dot_c, 2L * PROBE_C_ROUND, "plain C",
     probe_fma_c, 2L * PROBE_C_ROUND},
    {0},
};
