/* A table from a hash of three tokens to where they stood last. Older places are overwritten, also
 * by others with the same hash: what is found is compared, and a guess not made costs nothing. */
#include "engine/draft.h"

#include "base/panic.h"

#include <stdlib.h>

enum { GRAM = 3, MIN_TABLE = 64, MAX_TABLE = 1 << 16, FIRST_LENGTH = 4 };

struct draft {
    int32_t *table; /* where the gram with this hash ended last, + 1; 0: nowhere */
    uint32_t mask;
    int n_noted;
    int match;  /* where the last three tokens ended before, -1: nowhere */
    int length; /* guesses of the next try */
    float rate; /* of right ones, lately */
};

struct draft *draft_new(int limit)
{
    struct draft *d = malloc(sizeof(*d));
    uint32_t size = MIN_TABLE;
    while (size < (uint32_t)limit && size < MAX_TABLE)
        size *= 2;
    int32_t *table = calloc(size, sizeof(table[0]));
    if (d == NULL || table == NULL) {
        free(d);
        free(table);
        return NULL;
    }
    *d = (struct draft){
        .table = table, .mask = size - 1, .match = -1, .length = FIRST_LENGTH, .rate = 0.5f};
    return d;
}

void draft_free(struct draft *d)
{
    if (d == NULL)
        return;
    free(d->table);
    free(d);
}

static bool is_same_gram(const int32_t *tokens, int a, int b)
{
    for (int i = 0; i < GRAM; i++)
        if (tokens[a - i] != tokens[b - i])
            return false;
    return true;
}

void draft_note(struct draft *d, const int32_t *tokens, int n_tokens)
{
    for (; d->n_noted < n_tokens; d->n_noted++) {
        int end = d->n_noted;
        d->match = -1;
        if (end < GRAM - 1)
            continue;
        uint64_t hash = 0;
        for (int i = 0; i < GRAM; i++) {
            hash = (hash ^ (uint32_t)tokens[end - i]) * 0xD6E8FEB86659FD93u;
            hash ^= hash >> 32;
        }
        int32_t *place = &d->table[hash & d->mask];
        if (*place > 0 && is_same_gram(tokens, end, *place - 1))
            d->match = *place - 1;
        *place = end + 1;
    }
}

int draft_guess(struct draft *d, const int32_t *tokens, int most, float least_rate,
                int32_t *guesses)
{
    ASSERT(most <= DRAFT_MAX);
    if (d->match < 0 || most < 1)
        return 0;
    if (d->rate < least_rate) { /* it did not pay; things change, so once in a while … */
        d->rate += 0.01f;
        return 0;
    }
    int n = d->length < most ? d->length : most;
    int period = d->n_noted - 1 - d->match; /* tokens known to have followed; then they repeat */
    for (int i = 0; i < n; i++)
        guesses[i] = i < period ? tokens[d->match + 1 + i] : guesses[i - period];
    return n;
}

void draft_answer(struct draft *d, int n_guesses, int n_right)
{
    ASSERT(n_right >= 0 && n_right <= n_guesses && n_guesses >= 1);
    d->rate += 0.3f * ((float)n_right / (float)n_guesses - d->rate);
    d->length = n_right == n_guesses ? 2 * d->length : n_right + 1;
    d->length = d->length < DRAFT_MAX ? d->length : DRAFT_MAX;
}
