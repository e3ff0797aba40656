/* Built with -mavx512f. */
#include "sampler/sampler_loops_body.h"

#include <immintrin.h>

static bool block_bests_avx512(const float *logits, int n_blocks, float *best)
{
    const __m512 infinity = _mm512_set1_ps(INFINITY);
    __mmask16 bad = 0;
    for (int b = 0; b < n_blocks; b++) {
        const float *x = logits + (size_t)b * BLOCK_TOKENS;
        __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
        __m512 x2 = _mm512_loadu_ps(x + 32), x3 = _mm512_loadu_ps(x + 48);
        bad |= _mm512_cmp_ps_mask(x0, infinity, _CMP_NLT_UQ);
        bad |= _mm512_cmp_ps_mask(x1, infinity, _CMP_NLT_UQ);
        bad |= _mm512_cmp_ps_mask(x2, infinity, _CMP_NLT_UQ);
        bad |= _mm512_cmp_ps_mask(x3, infinity, _CMP_NLT_UQ);
        best[b] = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(x0, x1), _mm512_max_ps(x2, x3)));
    }
    return bad == 0;
}

/* Whole vectors are stored, though only n_kept of them count: what lies behind is within the first
 * i + 16 and has been read. (Storing with a mask takes many times longer on some processors.) */
static int keep_avx512(const uint32_t *keys, int n, struct key_range r, const float *a,
                       float *a_out, const uint32_t *b, uint32_t first, uint32_t *b_out)
{
    const __m512i least = _mm512_set1_epi32((int)r.least);
    const __m512i width = _mm512_set1_epi32((int)(r.most - r.least));
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int i = 0, n_kept = 0;
    for (; i + 16 <= n; i += 16) {
        __m512i above = _mm512_sub_epi32(_mm512_loadu_si512(keys + i), least);
        __mmask16 inside = _mm512_cmple_epu32_mask(above, width);
        if (inside == 0)
            continue;
        __m512i items = b != NULL ? _mm512_loadu_si512(b + i)
                                  : _mm512_add_epi32(_mm512_set1_epi32((int)first + i), count);
        if (a != NULL) {
            __m512 values = _mm512_maskz_compress_ps(inside, _mm512_loadu_ps(a + i));
            _mm512_storeu_ps(a_out + n_kept, values);
        }
        _mm512_storeu_si512(b_out + n_kept, _mm512_maskz_compress_epi32(inside, items));
        n_kept += __builtin_popcount(inside);
    }
    return keep_rest(keys, i, n, r, a, a_out, b, first, b_out, n_kept);
}

const struct sampler_loops sampler_loops_avx512 = {"avx512", token_weights_avx512,
                                                   block_bests_avx512, range_of_keys, keep_avx512};
