/* How names are found. A file brings up to a million of them, chosen by whoever wrote it, so the
 * hash is seeded afresh for each index: nobody can prepare names that all fall into one slot. */
#include "modelfile/modelfile_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

static const char *name_of(const struct name_index *x, int element_i)
{
    return *(const char *const *)(x->base + (size_t)element_i * x->stride);
}

/* The slot that holds `name`, or the empty one where it belongs. */
static uint32_t slot_of(const struct name_index *x, const char *name)
{
    uint32_t slot = (uint32_t)XXH3_64bits_withSeed(name, strlen(name), x->seed) & x->mask;
    while (x->slots[slot] >= 0 && strcmp(name_of(x, x->slots[slot]), name) != 0)
        slot = (slot + 1) & x->mask;
    return slot;
}

enum err name_index_build(struct name_index *x, const void *base, size_t stride, int n,
                          int *duplicate_i)
{
    uint32_t n_slots = 8;
    while (n_slots < 2 * (uint32_t)n)
        n_slots *= 2;
    *x = (struct name_index){.mask = n_slots - 1, .base = base, .stride = stride};
    x->slots = malloc(n_slots * sizeof(*x->slots));
    if (x->slots == NULL)
        return ERR_MEMORY;
    memset(x->slots, 0xff, n_slots * sizeof(*x->slots));
    if (getrandom(&x->seed, sizeof(x->seed), GRND_NONBLOCK) != (ssize_t)sizeof(x->seed))
        x->seed = (uint64_t)(uintptr_t)x->slots; /* early in boot: the address must do */
    for (int i = 0; i < n; i++) {
        uint32_t slot = slot_of(x, name_of(x, i));
        if (x->slots[slot] >= 0) {
            *duplicate_i = i;
            return ERR_FORMAT;
        }
        x->slots[slot] = i;
    }
    return OK;
}

int name_index_find(const struct name_index *x, const char *name)
{
    return x->slots == NULL ? -1 : x->slots[slot_of(x, name)];
}

void name_index_release(struct name_index *x)
{
    free(x->slots);
    *x = (struct name_index){0};
}
