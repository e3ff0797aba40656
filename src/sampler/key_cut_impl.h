/* The shortest beginning of an order that has some weight, without sorting. Items have a key,
 * larger is better, and among equal keys the earlier item comes first. Pure. */
#ifndef SHOAL_SAMPLER_KEY_CUT_IMPL_H
#define SHOAL_SAMPLER_KEY_CUT_IMPL_H

#include <stdint.h>

/* Keeps what is above `key`, and the first n_equal of those that equal it. */
struct key_cut {
    uint32_t key;
    int n_equal;
};

struct key_cut_work;
struct key_cut_work *key_cut_work_new(int n_max);
void key_cut_work_free(struct key_cut_work *w); /* NULL allowed */

/* The shortest beginning whose weights (in units, token_weights.h) add up to at least `goal`;
 * weights NULL: each counts 1. 1 <= n <= n_max, 1 <= goal <= the sum of all. Time linear in n. */
struct key_cut key_cut_find(struct key_cut_work *w, const uint32_t *keys, const float *weights,
                            int n, uint64_t goal);

#endif
