/* The x86 probes. As for the kernels, the processor is asked here, in a file built for the
 * baseline. */
#include "bench/probe_loops.h"
#include "bench/x86/probe_x86.h"

#include <cpuid.h>

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* The 256-bit dot product without AVX-512: CPUID leaf 7, subleaf 1, bit 4 of EAX. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1) != 0;
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vnni");
}

const struct probe_loops probe_isas[] = {
    {"ref", "plain C", probe_always, probe_read_c, probe_dot_c, 2L * PROBE_C_ROUND, "plain C",
     probe_fma_c, 2L * PROBE_C_ROUND},
    {"avx2", "vpmaddubsw ymm", has_avx2, probe_read_avx2, probe_dot_avx2, 2L * PROBE_AVX2_ROUND,
     "vfmadd ymm", probe_fma_avx2, 2L * PROBE_FMA_AVX2_ROUND},
    {"avxvnni", "vpdpbusd ymm", has_avxvnni, probe_read_avx2, probe_dot_avxvnni,
     2L * PROBE_AVXVNNI_ROUND, "vfmadd ymm", probe_fma_avx2, 2L * PROBE_FMA_AVX2_ROUND},
    {"avx512", "vpdpbusd zmm", has_avx512, probe_read_avx512, probe_dot_avx512,
     2L * PROBE_AVX512_ROUND, "vfmadd zmm", probe_fma_avx512, 2L * PROBE_FMA_AVX512_ROUND},
    {0},
};
