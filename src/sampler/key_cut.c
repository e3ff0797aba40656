/* Buckets: the range of the keys is divided into up to 1024 equal parts (a power of two wide), the
 * weights of each are added up, and the bucket in which the sum reaches the goal is looked into the
 * same way, until it holds one key only. Each round makes the range at least 512 times smaller, so
 * there are at most four; usually the second has few items left. */
#include "sampler/key_cut_impl.h"

#include "base/panic.h"
#include "sampler/sampler_loops_impl.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKET_BITS = 10, N_BUCKETS = 1 << BUCKET_BITS };

struct key_cut_work {
    int n_max;
    uint32_t *keys;
    float *weights;
    /* Neighbours add to different halves: one does not wait for the other's store. */
    uint64_t sums[2][N_BUCKETS];
};

struct key_cut_work *key_cut_work_new(int n_max)
{
    struct key_cut_work *w = xcalloc(1, sizeof *w);
    w->n_max = n_max;
    w->keys = xcalloc((size_t)n_max, sizeof w->keys[0]);
    w->weights = xcalloc((size_t)n_max, sizeof w->weights[0]);
    return w;
}

void key_cut_work_free(struct key_cut_work *w)
{
    if (w == NULL)
        return;
    free(w->keys);
    free(w->weights);
    free(w);
}

struct items {
    const uint32_t *keys;
    const float *weights; /* NULL: 1 each */
    int n;
};

/* Keys r.least and up, in buckets 2^shift wide. */
static int shift_for(struct key_range r)
{
    int shift = 0;
    while ((r.most - r.least) >> shift >= N_BUCKETS)
        shift++;
    return shift;
}

static uint64_t weight_of(const struct items *items, int i)
{
    return items->weights == NULL ? 1 : weight_units(items->weights[i]);
}

static void fill_buckets(struct key_cut_work *w, const struct items *items, uint32_t least,
                         int shift)
{
    memset(w->sums, 0, sizeof w->sums);
    const uint32_t *keys = items->keys;
    if (items->weights == NULL)
        for (int i = 0; i < items->n; i++)
            w->sums[i & 1][(keys[i] - least) >> shift]++;
    else
        for (int i = 0; i < items->n; i++)
            w->sums[i & 1][(keys[i] - least) >> shift] += weight_units(items->weights[i]);
}

/* The bucket in which the goal is reached, from `bucket` down; what is above it is taken off the
 * goal. */
static uint32_t find_bucket(const struct key_cut_work *w, uint32_t bucket, uint64_t *goal)
{
    for (;; bucket--) {
        uint64_t sum = w->sums[0][bucket] + w->sums[1][bucket];
        if (sum >= *goal)
            return bucket;
        *goal -= sum;
        ASSERT(bucket > 0); /* the goal is at most the sum of all */
    }
}

/* One round: the items of the bucket in which the goal is reached. */
static void look_closer(struct key_cut_work *w, struct items *items, struct key_range r,
                        uint64_t *goal)
{
    int shift = shift_for(r);
    fill_buckets(w, items, r.least, shift);
    uint32_t bucket = find_bucket(w, (r.most - r.least) >> shift, goal);
    struct key_range inside = {.least = r.least + (bucket << shift)};
    inside.most = inside.least + ((1u << shift) - 1);
    if (inside.most < inside.least || inside.most > r.most) /* the last one may reach too far */
        inside.most = r.most;
    int n = sampler_loops()->keep(items->keys, items->n, inside, items->weights, w->weights,
                                  items->keys, 0, w->keys);
    *items = (struct items){w->keys, items->weights != NULL ? w->weights : NULL, n};
}

struct key_cut key_cut_find(struct key_cut_work *w, const uint32_t *keys, const float *weights,
                            int n, uint64_t goal)
{
    ASSERT(n >= 1 && n <= w->n_max && goal >= 1);
    const struct sampler_loops *loops = sampler_loops();
    struct items items = {keys, weights, n};
    struct key_range r = loops->range(keys, n);
    while (r.least != r.most) {
        look_closer(w, &items, r, &goal);
        r = loops->range(items.keys, items.n);
    }
    struct key_cut cut = {r.least, 0};
    for (uint64_t sum = 0; sum < goal; cut.n_equal++) {
        ASSERT(cut.n_equal < items.n);
        sum += weight_of(&items, cut.n_equal);
    }
    return cut;
}
