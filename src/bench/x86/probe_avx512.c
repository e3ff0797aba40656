#include "bench/x86/probe_x86.h"

#include <immintrin.h>

uint64_t probe_read_avx512(const void *p, size_t bytes)
{
    __m512i s[8];
    for (int i = 0; i < 8; i++)
        s[i] = _mm512_setzero_si512();
    const __m512i *end = (const __m512i *)((const char *)p + bytes);
    for (const __m512i *q = p; q < end; q += 8)
        for (int i = 0; i < 8; i++)
            s[i] = _mm512_add_epi64(s[i], _mm512_load_si512(q + i));
    for (int i = 1; i < 8; i++)
        s[0] = _mm512_add_epi64(s[0], s[i]);
    uint64_t words[8], sum = 0;
    _mm512_storeu_si512(words, s[0]);
    for (int i = 0; i < 8; i++)
        sum += words[i];
    return sum;
}

int32_t probe_dot_avx512(long rounds)
{
    enum { N = 16 };
    __m512i s[N], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
    for (int i = 0; i < N; i++)
        s[i] = _mm512_setzero_si512();
    for (long r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+v"(a), "+v"(b)); /* not known to be the same each time */
        for (int i = 0; i < N; i++)
            s[i] = _mm512_dpbusd_epi32(s[i], a, b);
    }
    for (int i = 1; i < N; i++)
        s[0] = _mm512_add_epi32(s[0], s[i]);
    uint32_t lanes[16], sum = 0;
    _mm512_storeu_si512(lanes, s[0]);
    for (int i = 0; i < 16; i++)
        sum += lanes[i];
    return (int32_t)sum;
}

float probe_fma_avx512(long rounds)
{
    enum { N = 16 };
    __m512 s[N], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(2.0f);
    for (int i = 0; i < N; i++)
        s[i] = _mm512_setzero_ps();
    for (long r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
        for (int i = 0; i < N; i++)
            s[i] = _mm512_fmadd_ps(a, b, s[i]);
    }
    for (int i = 1; i < N; i++)
        s[0] = _mm512_add_ps(s[0], s[i]);
    return _mm512_reduce_add_ps(s[0]);
}
