/* Asking for a panel's bytes before they are needed, by kernels that read it from end to end. */
#ifndef SHOAL_BACKEND_CPU_X86_PANEL_AHEAD_H
#define SHOAL_BACKEND_CPU_X86_PANEL_AHEAD_H

#include "backend/cpu/inline.h"
#include "backend/cpu/pack.h"

#include <immintrin.h>

enum { PREFETCH_BYTES = 8192 /* ahead of the group being decoded */ };

/* Before group g of a panel is multiplied by n tokens (a constant). The processor's own prefetcher
 * loses the thread over the parts of a block that are not read in order of address, and stops early
 * where a group takes long. (One token on a Zen 5, GB/s of the 41 that memory gives, 512-bit
 * kernels: Q4_K 28 to 40, Q6_K 28 to 39, Q4_0 38 to 40; AVX2: 12 to 37, 25 to 36, 33 to 40, Q8_0 35
 * to 38.)
 *
 * Where memory is the limit, asked for as what is read once (NTA): such lines do not push others
 * down, which reads 2 % faster with one thread and 3 to 6 % with two. From 8 tokens on it makes no
 * difference.
 *
 * Several tokens of Q8_0 only into the second-level cache, from where that prefetcher goes on:
 * asked for into the first, so many lines wait for one of its few miss buffers, and the loads of
 * activations behind them (8 tokens on a Zen 4: 200 Gop/s, not 335; a Zen 5 does not mind). */
FORCE_INLINE void prefetch_group(const uint8_t *panel, size_t g, const int n,
                                 const enum pack_format format)
{
    const size_t bytes = format == PACK_Q8_0   ? PAIR_CODES_AT / 2 + Q8_GROUP_BYTES
                         : format == PACK_Q6_K ? (Q6_K_PAIRS_AT / 4 + Q6_K_PAIR_BYTES) / 2
                                               : PAIR_CODES_AT / 2 + Q4_GROUP_BYTES;
    for (size_t line = 0; line < bytes; line += 64) {
        const char *at = (const char *)panel + g * bytes + PREFETCH_BYTES + line;
        if (format == PACK_Q8_0 && n > 2)
            _mm_prefetch(at, _MM_HINT_T1);
        else if (n <= 4)
            _mm_prefetch(at, _MM_HINT_NTA);
        else
            _mm_prefetch(at, _MM_HINT_T0);
    }
}

#endif
