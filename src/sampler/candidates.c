/* The tokens that are left, and the cuts that make them fewer. */
#include "sampler/sampler_impl.h"

#include "base/panic.h"
#include "sampler/token_weights.h"

#include <float.h>
#include <math.h>
#include <string.h>

void fill_logit_keys(struct sampler_scratch *s, const float *logits, int n)
{
    for (int i = 0; i < n; i++)
        s->keys[i] = logit_key(logits[i]);
}

/* The list is now what stands in s->logits and s->ids. */
static void become_list(struct sampler_scratch *s, struct candidates *c, int n)
{
    ASSERT(n >= 1);
    c->logits = s->logits;
    c->ids = s->ids;
    c->n = n;
}

/* Of logits[0 .. n), tokens from `first` on (or ids), append those from `least` on to the list. */
static int append_from(struct sampler_scratch *s, const float *logits, const uint32_t *ids,
                       uint32_t first, int n, float least, int n_list)
{
    for (int i = 0; i < n; i++) {
        float logit = logits[i];
        s->logits[n_list] = logit;
        s->ids[n_list] = ids != NULL ? ids[i] : first + (uint32_t)i;
        n_list += logit >= least;
    }
    return n_list;
}

void candidates_from(struct sampler_scratch *s, struct candidates *c, float least)
{
    least = least > -FLT_MAX ? least : -FLT_MAX;
    int n = 0;
    if (c->ids != NULL) {
        become_list(s, c, append_from(s, c->logits, c->ids, 0, c->n, least, 0));
        return;
    }
    for (int b = 0; b < s->n_blocks; b++) {
        if (s->block_best[b] < least)
            continue;
        int first = b * BLOCK_TOKENS, left = c->n - first;
        n = append_from(s, c->logits + first, NULL, (uint32_t)first,
                        left < BLOCK_TOKENS ? left : BLOCK_TOKENS, least, n);
    }
    become_list(s, c, n);
}

/* Behind the last of the items that are kept although they equal the key. */
static int end_of_equal(const uint32_t *keys, int n, struct key_cut cut)
{
    int i = 0;
    for (int left = cut.n_equal; left > 0 && i < n; i++)
        left -= keys[i] == cut.key;
    return i;
}

void candidates_cut(struct sampler_scratch *s, struct candidates *c, struct key_cut cut)
{
    const struct sampler_loops *loops = sampler_loops();
    int end = end_of_equal(s->keys, c->n, cut);
    struct key_range from = {cut.key, UINT32_MAX}, above = {cut.key + 1, UINT32_MAX};
    int n = loops->keep(s->keys, end, from, c->logits, s->logits, c->ids, 0, s->ids);
    if (cut.key < UINT32_MAX)
        n += loops->keep(s->keys + end, c->n - end, above, c->logits + end, s->logits + n,
                         c->ids != NULL ? c->ids + end : NULL, (uint32_t)end, s->ids + n);
    become_list(s, c, n);
}

/* At least k blocks have a best token from here on, so the k best tokens are from here on too. */
static float bound_of_top(struct sampler_scratch *s, int k)
{
    fill_logit_keys(s, s->block_best, s->n_blocks);
    struct key_cut cut = key_cut_find(s->cut_work, s->keys, NULL, s->n_blocks, (uint64_t)k);
    int b = 0;
    while (s->keys[b] != cut.key)
        b++;
    return s->block_best[b];
}

void candidates_top(struct sampler_scratch *s, struct candidates *c, int k)
{
    if (c->ids == NULL && k <= s->n_blocks)
        candidates_from(s, c, bound_of_top(s, k));
    if (c->n <= k)
        return;
    fill_logit_keys(s, c->logits, c->n);
    candidates_cut(s, c, key_cut_find(s->cut_work, s->keys, NULL, c->n, (uint64_t)k));
}

uint64_t candidates_weigh(struct sampler_scratch *s, const struct candidates *c, float temperature)
{
    return token_weights(c->logits, c->n, c->best, temperature, s->weights);
}

int candidates_draw(const struct sampler_scratch *s, const struct candidates *c, uint64_t total,
                    uint64_t u)
{
    __extension__ typedef unsigned __int128 wide;
    uint64_t target = (uint64_t)((wide)u * total >> 53), sum = 0;
    for (int i = 0; i < c->n; i++) {
        sum += weight_units(s->weights[i]);
        if (sum > target)
            return i;
    }
    PANIC("weights add up to less than %llu", (unsigned long long)total);
}
