/* The Arm probes; the system says what the processor has. */
#include "bench/arm/probe_arm.h"
#include "bench/probe_loops.h"

#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

static bool has_sdot(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}

static bool has_smmla(void)
{
    return has_sdot() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
}

uint64_t probe_read_neon(const void *p, size_t bytes)
{
    uint64x2_t s[8];
    for (int i = 0; i < 8; i++)
        s[i] = vdupq_n_u64(0);
    const uint64_t *end = (const uint64_t *)((const char *)p + bytes);
    for (const uint64_t *q = p; q < end; q += 16)
        for (int i = 0; i < 8; i++)
            s[i] = vaddq_u64(s[i], vld1q_u64(q + 2 * i));
    for (int i = 1; i < 8; i++)
        s[0] = vaddq_u64(s[0], s[i]);
    return vaddvq_u64(s[0]);
}

float probe_fma_neon(long rounds)
{
    enum { N = 24 };
    float32x4_t s[N], a = vdupq_n_f32(0.5f), b = vdupq_n_f32(2.0f);
    for (int i = 0; i < N; i++)
        s[i] = vdupq_n_f32(0);
    for (long r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+w"(a), "+w"(b));
        for (int i = 0; i < N; i++)
            s[i] = vfmaq_f32(s[i], a, b);
    }
    for (int i = 1; i < N; i++)
        s[0] = vaddq_f32(s[0], s[i]);
    return vaddvq_f32(s[0]);
}

const struct probe_loops probe_isas[] = {
    {"ref", "plain C", probe_always, probe_read_c, probe_dot_c, 2L * PROBE_C_ROUND, "plain C",
     probe_fma_c, 2L * PROBE_C_ROUND},
    {"neon", "sdot", has_sdot, probe_read_neon, probe_dot_sdot, 2L * PROBE_SDOT_ROUND, "fmla",
     probe_fma_neon, 2L * PROBE_FMA_NEON_ROUND},
    {"i8mm", "smmla", has_smmla, probe_read_neon, probe_dot_smmla, 2L * PROBE_SMMLA_ROUND, "fmla",
     probe_fma_neon, 2L * PROBE_FMA_NEON_ROUND},
    {0},
};
