/* The order in which a matrix product with many tokens goes over k: section by section
 * (docs/numerics.md), each in blocks small enough that a decoded piece of the weights stays in the
 * first-level cache.
 *
 *     struct k_walk k;
 *     for (k_walk_init(&k, w, most, unit, part, level, floats); k_walk_next(&k);)
 *         ... values of units [k.begin, k.begin + k.n) of k, accumulators as k.route says ...
 *
 * After the last block the product is in level[0]. The sums of complete sections wait in at most
 * three arrays, a binary counter, so that they meet in the order of section_tree. */
#ifndef SHOAL_BACKEND_CPU_K_WALK_H
#define SHOAL_BACKEND_CPU_K_WALK_H

#include "backend/cpu/pack.h"

enum { K_LEVELS = 3 }; /* log2(K_SECTIONS) */

/* Where the accumulators of a block of k come from and go to; arrays of the same shape. */
struct route {
    const float *from;              /* NULL: they start at 0 */
    const float *partner[K_LEVELS]; /* added at the end, each before what is there, in this order */
    int n_partners;
    float *to;
    size_t first; /* units of the first of two sections, whose sums are added before; 0: just one */
};

struct k_walk {
    size_t begin, n; /* of the block, in units; n is 0 where a section has none */
    struct route route;

    size_t unit, all, most; /* values of a unit, units of k, units of a block at most */
    size_t end;             /* of the section */
    int n_blocks, block;    /* of k as sections cut it; values of one */
    int section, top;
    bool two;
    float *part, *level;
    size_t floats; /* of one array */
};

/* Units of `unit` values, at most `most` at a time, and where `two` says so those of two whole
 * sections; `part` one array and `level` K_LEVELS of them, `floats` long. */
static inline void k_walk_init(struct k_walk *k, const struct packed *w, size_t unit, size_t most,
                               bool two, float *part, float *level, size_t floats)
{
    *k = (struct k_walk){.unit = unit,
                         .all = (size_t)w->n_cols / unit,
                         .most = most,
                         .n_blocks = packed_n_blocks(w),
                         .block = pack_block(w->format),
                         .section = -1,
                         .two = two,
                         .part = part,
                         .level = level,
                         .floats = floats};
}

/* Units before the end of a section. */
static inline size_t k_walk_section_end(const struct k_walk *k, int section)
{
    size_t end = (size_t)section_begin(k->n_blocks, section + 1) * ((size_t)k->block / k->unit);
    return end < k->all ? end : k->all;
}

/* The next section, or two that make one pair of section_tree, if both have something. */
static inline void k_walk_open(struct k_walk *k)
{
    k->end = k_walk_section_end(k, k->section);
    k->route.from = NULL;
    if (!k->two || k->section % 2 == 1 || k->end == k->begin)
        return;
    size_t end = k_walk_section_end(k, k->section + 1);
    if (end > k->end && end - k->begin <= k->most) {
        k->route.first = k->end - k->begin;
        k->section++;
        k->end = end;
    }
}

static inline bool k_walk_next(struct k_walk *k)
{
    k->begin += k->n;
    k->route = (struct route){.from = k->part, .to = k->part};
    if (k->section < 0 || k->begin == k->end) {
        if (++k->section == K_SECTIONS)
            return false;
        k_walk_open(k);
    }
    k->n = k->end - k->begin < k->most ? k->end - k->begin : k->most;
    if (k->begin + k->n == k->end) { /* it is complete */
        for (int done = k->route.first > 0 ? k->section >> 1 : k->section; done & 1; done >>= 1)
            k->route.partner[k->route.n_partners++] = k->level + (size_t)--k->top * k->floats;
        k->route.to = k->level + (size_t)k->top++ * k->floats;
    }
    return true;
}

/* After this block the product is complete. */
static inline bool k_walk_is_last(const struct k_walk *k)
{
    return k->section == K_SECTIONS - 1 && k->begin + k->n == k->end;
}

/* Ask for `bytes` from `at`, spread over the tiles of a block: part i of n. The processor's own
 * prefetcher loses the thread where a walk changes panels. */
static inline void prefetch_part(const uint8_t *at, size_t bytes, size_t i, size_t n)
{
    for (size_t line = bytes * i / n & ~(size_t)63; line < bytes * (i + 1) / n; line += 64)
        __builtin_prefetch(at + line);
}

#endif
