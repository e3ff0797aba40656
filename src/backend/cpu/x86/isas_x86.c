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

/* 256-bit vpdpbusd has an encoding of its own, AVX-VNNI, for processors without AVX-512. */
static bool has_vex_vnni(void)
{
    unsigned a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4) != 0;
}

static bool has_avxvnni(void)
{
    return (has_avx2() && has_vex_vnni()) || has_avx512();
}

static void kernels_either_vnni(struct kernels *k)
{
    (has_vex_vnni() ? kernels_avxvnni : kernels_vnni256)(k);
}

const struct isa kernels_isas[] = {
    {"avx2", has_avx2, kernels_avx2, NULL, NULL},
    {"avxvnni", has_avxvnni, kernels_either_vnni, NULL, NULL},
    {"avx512", has_avx512, kernels_avx512, NULL, NULL},
    {"bf16dot", has_bf16dot, kernels_bf16dot, "bf16dot-1", kernels_ref_bf16dot},
    {NULL, NULL, NULL, NULL, NULL},
};
