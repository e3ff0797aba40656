#include "base/arena.h"

#include "base/panic.h"
#include "base/size.h"

#include <stdlib.h>
#include <string.h>

enum { ARENA_ALIGN = 64, ARENA_CHUNK_BYTES = 64 << 10 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t bytes; /* usable, from data */
    size_t used;
    char *data; /* ARENA_ALIGN aligned, in the same allocation */
};

void arena_init(struct arena *a, size_t max_bytes)
{
    *a = (struct arena){.max_bytes = max_bytes};
}

void arena_release(struct arena *a)
{
    for (struct arena_chunk *c = a->chunks, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    arena_init(a, a->max_bytes);
}

void arena_clear(struct arena *a)
{
    struct arena_chunk *keep = a->chunks;
    for (struct arena_chunk *c = a->chunks; c != NULL; c = c->next)
        if (c->bytes > keep->bytes)
            keep = c;
    for (struct arena_chunk *c = a->chunks, *next; c != NULL; c = next) {
        next = c->next;
        if (c != keep)
            free(c);
    }
    a->chunks = keep;
    a->used_bytes = 0;
    a->held_bytes = 0;
    if (keep != NULL) {
        keep->next = NULL;
        keep->used = 0;
        a->held_bytes = keep->bytes;
    }
}

static struct arena_chunk *chunk_new(struct arena *a, size_t bytes)
{
    size_t want = bytes > ARENA_CHUNK_BYTES ? bytes : ARENA_CHUNK_BYTES;
    if (want > a->max_bytes - a->held_bytes)
        want = bytes; /* near the limit: exactly what is asked for */
    uint64_t total;
    if (bytes > a->max_bytes - a->held_bytes ||
        !size_add(want, sizeof(struct arena_chunk) + ARENA_ALIGN, &total))
        return NULL;
    struct arena_chunk *c = malloc(total);
    if (c == NULL)
        return NULL;
    uintptr_t start = (uintptr_t)(c + 1);
    start = (start + ARENA_ALIGN - 1) & ~(uintptr_t)(ARENA_ALIGN - 1);
    *c = (struct arena_chunk){.next = a->chunks, .bytes = want, .data = (char *)start};
    a->chunks = c;
    a->held_bytes += want;
    return c;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    uint64_t rounded;
    if (!size_align(bytes > 0 ? bytes : 1, ARENA_ALIGN, &rounded))
        return NULL;
    struct arena_chunk *c = a->chunks;
    if (c == NULL || rounded > c->bytes - c->used) {
        c = chunk_new(a, rounded);
        if (c == NULL)
            return NULL;
    }
    void *p = c->data + c->used;
    c->used += rounded;
    a->used_bytes += rounded;
    ASSERT(((uintptr_t)p & (ARENA_ALIGN - 1)) == 0);
    return p;
}

void *arena_zalloc(struct arena *a, size_t n, size_t bytes)
{
    uint64_t total;
    if (!size_mul(n, bytes, &total))
        return NULL;
    void *p = arena_alloc(a, total);
    return p != NULL ? memset(p, 0, total) : NULL;
}

char *arena_strndup(struct arena *a, const char *s, size_t bytes)
{
    if (bytes == SIZE_MAX)
        return NULL;
    char *copy = arena_alloc(a, bytes + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, s, bytes);
    copy[bytes] = 0;
    return copy;
}
