/* A table from a hash of three tokens to where they stood last. Older places are overwritten, also
 * by others with the same hash: what is found is compared, and a guess not made costs nothing. */
#include "engine/draft.h"

#include "base/panic.h"

#include <stdbool.h>
#include <stdlib.h>

enum { GRAM = 3, MIN_TABLE = 64, MAX_TABLE = 1 << 16 };

struct draft {
    int32_t *table; /* where the gram with this hash ended last, + 1; 0: nowhere */
    uint32_t mask;
    int n_noted;
    int match; /* where the last three of these ended before, -1: nowhere */
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
    *d = (struct draft){.table = table, .mask = size - 1, .match = -1};
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

/* Where in the table the gram that ends with tokens[end] belongs. */
static int32_t *place_of(const struct draft *d, const int32_t *tokens, int end)
{
    uint64_t hash = 0;
    for (int i = 0; i < GRAM; i++) {
        hash = (hash ^ (uint32_t)tokens[end - i]) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
    }
    return &d->table[hash & d->mask];
}

/* Where the gram at the end of the n_tokens was noted before; -1: nowhere. */
static int find_match(const struct draft *d, const int32_t *tokens, int n_tokens)
{
    int end = n_tokens - 1;
    if (end < GRAM - 1)
        return -1;
    int before = *place_of(d, tokens, end) - 1;
    return before >= 0 && is_same_gram(tokens, end, before) ? before : -1;
}

void draft_note(struct draft *d, const int32_t *tokens, int n_tokens)
{
    for (; d->n_noted < n_tokens; d->n_noted++) {
        d->match = find_match(d, tokens, d->n_noted + 1);
        if (d->n_noted >= GRAM - 1)
            *place_of(d, tokens, d->n_noted) = d->n_noted + 1;
    }
}

int draft_extend(const struct draft *d, int32_t *tokens, int n_tokens, int n)
{
    ASSERT(n_tokens >= d->n_noted);
    int match = n_tokens == d->n_noted ? d->match : find_match(d, tokens, n_tokens);
    if (match < 0 || n < 1)
        return 0;
    for (int i = 0; i < n; i++) /* what followed may reach into what is guessed: it repeats */
        tokens[n_tokens + i] = tokens[match + 1 + i];
    return n;
}
