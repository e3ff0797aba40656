#include "bench/arm/probe_arm.h"

#include <arm_neon.h>

int32_t probe_dot_sdot(long rounds)
{
    enum { N = 24 };
    int32x4_t s[N];
    int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(-5);
    for (int i = 0; i < N; i++)
        s[i] = vdupq_n_s32(0);
    for (long r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+w"(a), "+w"(b)); /* not known to be the same each time */
        for (int i = 0; i < N; i++)
            s[i] = vdotq_s32(s[i], a, b);
    }
    for (int i = 1; i < N; i++)
        s[0] = vaddq_s32(s[0], s[i]);
    return vaddvq_s32(s[0]);
}
