/* Loops of the x86 probes. Each file is built for its instruction set. */
#ifndef SHOAL_BENCH_X86_PROBE_X86_H
#define SHOAL_BENCH_X86_PROBE_X86_H

#include <stddef.h>
#include <stdint.h>

/* Products and sums of one round: instructions side by side, so that none waits for another. */
enum {
    PROBE_AVX512_ROUND = 16 * 64,
    PROBE_AVXVNNI_ROUND = 12 * 32,
    PROBE_AVX2_ROUND = 3 * 4 * 32,
    PROBE_FMA_AVX512_ROUND = 16 * 16,
    PROBE_FMA_AVX2_ROUND = 12 * 8,
};

uint64_t probe_read_avx512(const void *p, size_t bytes);
int32_t probe_dot_avx512(long rounds);
uint64_t probe_read_avx2(const void *p, size_t bytes);
int32_t probe_dot_avx2(long rounds);
int32_t probe_dot_avxvnni(long rounds);
float probe_fma_avx512(long rounds);
float probe_fma_avx2(long rounds);

#endif
