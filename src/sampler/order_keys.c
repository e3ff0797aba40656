/* Selection by digits from the top: a histogram of the leading 11 bits tells which digit the n-th
 * key has; only the keys with that digit go on to the next one. Linear whatever the values. */
#include "sampler/order_keys.h"

#include "base/panic.h"

#include <stdlib.h>

enum { DIGIT_BITS = 11, N_DIGITS = 1 << DIGIT_BITS };

static unsigned digit_at(uint64_t key, int shift)
{
    return (unsigned)(key >> shift) & (N_DIGITS - 1);
}

/* The digit of the n-th largest of the keys; *n becomes its rank among the keys of that digit. */
static unsigned find_digit(const uint64_t *keys, int n_keys, int shift, int *n)
{
    int counts[N_DIGITS] = {0};
    for (int i = 0; i < n_keys; i++)
        counts[digit_at(keys[i], shift)]++;
    unsigned digit = N_DIGITS - 1;
    while (*n > counts[digit]) {
        *n -= counts[digit];
        ASSERT(digit > 0);
        digit--;
    }
    return digit;
}

uint64_t order_keys_nth(const uint64_t *keys, int n_keys, int n, uint64_t *work)
{
    ASSERT(n >= 1 && n <= n_keys);
    const uint64_t *from = keys;
    int n_from = n_keys;
    for (int shift = 64 - DIGIT_BITS; n_from > 1; shift -= DIGIT_BITS) {
        if (shift < 0)
            shift = 0; /* the last digit overlaps the one before: harmless */
        unsigned digit = find_digit(from, n_from, shift, &n);
        int n_left = 0;
        for (int i = 0; i < n_from; i++)
            if (digit_at(from[i], shift) == digit)
                work[n_left++] = from[i]; /* n_left <= i: in place from the second round on */
        from = work;
        n_from = n_left;
        ASSERT(shift > 0 || n_from == 1); /* keys differ */
    }
    return from[0];
}

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

int order_keys_best(const uint64_t *keys, int n_keys, int n, uint64_t *best)
{
    uint64_t least = order_keys_nth(keys, n_keys, n, best);
    int n_best = 0;
    for (int i = 0; i < n_keys; i++)
        if (keys[i] >= least)
            best[n_best++] = keys[i];
    ASSERT(n_best == n);
    qsort(best, (size_t)n, sizeof(best[0]), descending);
    return n;
}
