/* Built with -mavx2 -mfma. */
#include "sampler/sampler_loops_body.h"

#include <immintrin.h>

/* Eight at a time: usually none of them is inside, or most. */
static int keep_avx2(const uint32_t *keys, int n, struct key_range r, const float *a, float *a_out,
                     const uint32_t *b, uint32_t first, uint32_t *b_out)
{
    const __m256i least = _mm256_set1_epi32((int)r.least);
    const __m256i width = _mm256_set1_epi32((int)(r.most - r.least));
    int i = 0, n_kept = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i above = _mm256_sub_epi32(_mm256_loadu_si256((const __m256i *)(keys + i)), least);
        __m256i inside = _mm256_cmpeq_epi32(_mm256_min_epu32(above, width), above);
        int mask = _mm256_movemask_ps(_mm256_castsi256_ps(inside));
        if (mask == 0)
            continue;
        n_kept = keep_rest(keys, i, i + 8, r, a, a_out, b, first, b_out, n_kept);
    }
    return keep_rest(keys, i, n, r, a, a_out, b, first, b_out, n_kept);
}

const struct sampler_loops sampler_loops_avx2 = {"avx2", token_weights_avx2, block_bests,
                                                 range_of_keys, keep_avx2};
