/* The x86 instruction sets. CPUID comes through the compiler's support library, which also checks
 * that the operating system saves the vector registers (XGETBV); clang's does not know F16C. */
#include "backend/cpu/x86/x86.h"

#include <cpuid.h>

static bool has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

static bool has_bf16dot(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

const struct isa kernels_isas[] = {
    {"avx2", has_avx2, kernels_avx2, NULL, NULL},
    {"avx512", has_avx512, kernels_avx512, NULL, NULL},
    {"bf16dot", has_bf16dot, kernels_bf16dot, "bf16dot-1", kernels_ref_bf16dot},
    {NULL, NULL, NULL, NULL, NULL},
};
