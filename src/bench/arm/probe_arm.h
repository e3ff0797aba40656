/* Loops of the Arm probes. Each file is built for its instruction set. */
#ifndef SHOAL_BENCH_ARM_PROBE_ARM_H
#define SHOAL_BENCH_ARM_PROBE_ARM_H

#include <stddef.h>
#include <stdint.h>

enum { PROBE_SDOT_ROUND = 24 * 16, PROBE_SMMLA_ROUND = 24 * 32, PROBE_FMA_NEON_ROUND = 24 * 4 };

uint64_t probe_read_neon(const void *p, size_t bytes);
float probe_fma_neon(long rounds);
int32_t probe_dot_sdot(long rounds);
int32_t probe_dot_smmla(long rounds);

#endif
