#include "bench/probe_loops.h"

#include <string.h>

bool probe_always(void)
{
    return true;
}

uint64_t probe_read_c(const void *p, size_t bytes)
{
    const uint64_t *words = p;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < bytes / sizeof *words; i += 8)
        for (int l = 0; l < 8; l++)
            sums[l] += words[i + l];
    return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

/* Over two arrays that stay in the nearest cache: what the compiler makes of plain C. */
int32_t probe_dot_c(long rounds)
{
    static const int8_t seed[64] = {1, -2, 3, -4, 5, -6, 7, -8};
    int8_t a[PROBE_C_ROUND], b[PROBE_C_ROUND];
    for (size_t i = 0; i < PROBE_C_ROUND; i++)
        a[i] = b[i] = seed[i % 64];
    uint32_t sum = 0;
    for (long r = 0; r < rounds; r++) {
        int32_t part = 0;
        __asm__ volatile("" : : "r"(a), "r"(b) : "memory"); /* the arrays may be others each time */
        for (int i = 0; i < PROBE_C_ROUND; i++)
            part += a[i] * b[i];
        sum += (uint32_t)part;
    }
    return (int32_t)sum;
}

float probe_fma_c(long rounds)
{
    float a[PROBE_C_ROUND], sums[8] = {0};
    for (int i = 0; i < PROBE_C_ROUND; i++)
        a[i] = (float)(i % 64);
    for (long r = 0; r < rounds; r++) {
        __asm__ volatile("" : : "r"(a) : "memory");
        for (int i = 0; i < PROBE_C_ROUND; i += 8)
            for (int l = 0; l < 8; l++)
                sums[l] += a[i + l] * 0.5f;
    }
    return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

const struct probe_loops *probe_choose(const char *variant)
{
    const struct probe_loops *best = &probe_isas[0], *exact = NULL;
    for (const struct probe_loops *l = probe_isas; l->name != NULL; l++) {
        if (!l->present())
            continue;
        best = l;
        if (strcmp(l->isa, variant) == 0)
            exact = l;
    }
    return exact != NULL ? exact : best;
}
