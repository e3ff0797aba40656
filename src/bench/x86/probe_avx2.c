#include "bench/x86/probe_x86.h"

#include <immintrin.h>

uint64_t probe_read_avx2(const void *p, size_t bytes)
{
    __m256i s[8];
    for (int i = 0; i < 8; i++)
        s[i] = _mm256_setzero_si256();
    const __m256i *end = (const __m256i *)((const char *)p + bytes);
    for (const __m256i *q = p; q < end; q += 8)
        for (int i = 0; i < 8; i++)
            s[i] = _mm256_add_epi64(s[i], _mm256_load_si256(q + i));
    for (int i = 1; i < 8; i++)
        s[0] = _mm256_add_epi64(s[0], s[i]);
    uint64_t words[4];
    _mm256_storeu_si256((__m256i *)words, s[0]);
    return words[0] + words[1] + words[2] + words[3];
}

/* Four products of bytes are added as 16-bit sums before they are widened: for 4-bit codes that
 * cannot overflow, and nothing that this instruction set has is faster. */
static __m256i four_products(__m256i a, __m256i b)
{
    __m256i sum = _mm256_maddubs_epi16(a, b);
    for (int i = 1; i < 4; i++) {
        __asm__ volatile("" : "+x"(a)); /* not known to be the same product again */
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(a, b));
    }
    return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
}

int32_t probe_dot_avx2(long rounds)
{
    enum { N = 3 };
    __m256i s[N], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
    for (int i = 0; i < N; i++)
        s[i] = _mm256_setzero_si256();
    for (long r = 0; r < rounds; r++) {
        for (int i = 0; i < N; i++) {
            __asm__ volatile("" : "+x"(a));
            s[i] = _mm256_add_epi32(s[i], four_products(a, b));
        }
    }
    uint32_t lanes[8], sum = 0;
    _mm256_storeu_si256((__m256i *)lanes, _mm256_add_epi32(_mm256_add_epi32(s[0], s[1]), s[2]));
    for (int i = 0; i < 8; i++)
        sum += lanes[i];
    return (int32_t)sum;
}

float probe_fma_avx2(long rounds)
{
    enum { N = 12 };
    __m256 s[N], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(2.0f);
    for (int i = 0; i < N; i++)
        s[i] = _mm256_setzero_ps();
    for (long r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
        for (int i = 0; i < N; i++)
            s[i] = _mm256_fmadd_ps(a, b, s[i]);
    }
    for (int i = 1; i < N; i++)
        s[0] = _mm256_add_ps(s[0], s[i]);
    float lanes[8], sum = 0;
    _mm256_storeu_ps(lanes, s[0]);
    for (int i = 0; i < 8; i++)
        sum += lanes[i];
    return sum;
}
