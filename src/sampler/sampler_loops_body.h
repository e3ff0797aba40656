/* The loops in plain C, written so that a compiler makes vectors of them: included by each variant,
 * which is built with its own flags. */
#ifndef SHOAL_SAMPLER_SAMPLER_LOOPS_BODY_H
#define SHOAL_SAMPLER_SAMPLER_LOOPS_BODY_H

#include "sampler/sampler_loops_impl.h"

#include <math.h>
#include <stddef.h>

enum { LANES = 16 };

static inline bool block_bests(const float *logits, int n_blocks, float *best)
{
    int32_t good[LANES];
    for (int lane = 0; lane < LANES; lane++)
        good[lane] = 1;
    for (int b = 0; b < n_blocks; b++) {
        const float *x = logits + (size_t)b * BLOCK_TOKENS;
        float most[LANES];
        for (int lane = 0; lane < LANES; lane++)
            most[lane] = -INFINITY;
        for (int i = 0; i < BLOCK_TOKENS; i += LANES) {
            for (int lane = 0; lane < LANES; lane++) {
                most[lane] = x[i + lane] > most[lane] ? x[i + lane] : most[lane];
                good[lane] &= x[i + lane] < INFINITY;
            }
        }
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int lane = 0; lane < half; lane++)
                most[lane] = most[lane + half] > most[lane] ? most[lane + half] : most[lane];
        best[b] = most[0];
    }
    int all = 1;
    for (int lane = 0; lane < LANES; lane++)
        all &= good[lane];
    return all != 0;
}

static inline struct key_range range_of_keys(const uint32_t *keys, int n)
{
    struct key_range r = {UINT32_MAX, 0};
    for (int i = 0; i < n; i++) {
        r.least = keys[i] < r.least ? keys[i] : r.least;
        r.most = keys[i] > r.most ? keys[i] : r.most;
    }
    return r;
}

/* From i on, with n_kept there already. Without branches: what is kept is hard to foresee. */
static inline int keep_rest(const uint32_t *keys, int i, int n, struct key_range r, const float *a,
                            float *a_out, const uint32_t *b, uint32_t first, uint32_t *b_out,
                            int n_kept)
{
    for (; i < n; i++) {
        uint32_t above = keys[i] - r.least, item = b != NULL ? b[i] : first + (uint32_t)i;
        if (a != NULL)
            a_out[n_kept] = a[i];
        b_out[n_kept] = item;
        n_kept += above <= r.most - r.least;
    }
    return n_kept;
}

#endif
