#include "bench/x86/probe_x86.h"

#include <immintrin.h>

int32_t probe_dot_avxvnni(long rounds)
{
    enum { N = 12 };
    __m256i s[N], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
    for (int i = 0; i < N; i++)
        s[i] = _mm256_setzero_si256();
    for (long r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+x"(a), "+x"(b)); /* not known to be the same each time */
        for (int i = 0; i < N; i++)
            s[i] = _mm256_dpbusd_avx_epi32(s[i], a, b);
    }
    for (int i = 1; i < N; i++)
        s[0] = _mm256_add_epi32(s[0], s[i]);
    uint32_t lanes[8], sum = 0;
    _mm256_storeu_si256((__m256i *)lanes, s[0]);
    for (int i = 0; i < 8; i++)
        sum += lanes[i];
    return (int32_t)sum;
}
