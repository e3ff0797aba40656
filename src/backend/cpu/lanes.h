/* 16 f32 lanes: the vocabulary of kernels that are written once for all instruction sets. A file
 * that is compiled for one of them (attention_avx2.c) includes this and then the kernel's body
 * (attention_body.h). A lane is computed as if it were alone, each operation rounding once, so a
 * body has the same bits everywhere.
 *
 *   struct lanes                  16 floats in registers
 *   LANES_TILE                    rows of operands that a body keeps products for: 8, 6 …
 *   LANES_SUMS                    struct lanes that may be accumulators at a time
 *   lanes_zero()                  +0
 *   lanes_all(x)                  x in every lane
 *   lanes_load(p), lanes_store(p, v)                 16 floats, any alignment
 *   lanes_load_f16(p), lanes_load_i8(p)              16 f16 or int8, exactly as floats
 *   lanes_add, sub, mul, div(a, b), lanes_fma(a, b, c) = a * b + c
 *   lanes_max(a, b)               a > b ? a : b (b where one is a NaN)
 *   lanes_first(n, yes, no)       yes in the first n lanes (n <= 0: none), else no
 *   lanes_exp(x)                  exact_expf, for x <= 0 or NaN
 *   lanes_greatest(v)             the greatest lane; no lane is a NaN
 *   lanes_sum(v)                  stripe_tree (kernels.h)
 *   lanes_transpose(to, from, i)  to[16][LANES_TILE] = from[LANES_TILE][i … i + 15]
 *   lanes_prefetch(p)             the line of p into a cache that is near enough: the second with 256
 *                                 and 128 bits, where more lines can be on their way than into the
 *                                 first, that one with 512; p may be any address */
#ifndef SHOAL_BACKEND_CPU_LANES_H
#define SHOAL_BACKEND_CPU_LANES_H

#if defined(__AVX512F__)
#include "backend/cpu/x86/lanes_avx512.h"
#elif defined(__AVX2__)
#include "backend/cpu/x86/lanes_avx2.h"
#elif defined(__aarch64__)
#include "backend/cpu/arm/lanes_neon.h"
#else
#error "no lanes for this instruction set"
#endif

#endif
