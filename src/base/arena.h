/* Memory by lifetime. Everything with one lifetime (a model, an engine, a step, a request) comes
 * from one arena and goes with it: arena_clear makes it empty and reusable, arena_release gives
 * it back. Blocks are never freed one by one.
 *
 * An arena grows in chunks up to `max_bytes`; past that, or when the system has none,
 * arena_alloc returns NULL (ERR_MEMORY for the caller to report). Pieces are aligned to 64 bytes
 * and not zeroed (arena_zalloc zeroes). One thread at a time. */
#ifndef SHOAL_BASE_ARENA_H
#define SHOAL_BASE_ARENA_H

#include <stddef.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks; /* newest first */
    size_t used_bytes;          /* handed out since init or clear, rounding included */
    size_t held_bytes;          /* of all chunks */
    size_t max_bytes;
};

void arena_init(struct arena *a, size_t max_bytes);
void arena_release(struct arena *a);
void arena_clear(struct arena *a); /* keeps one chunk, the largest */

void *arena_alloc(struct arena *a, size_t bytes);
void *arena_zalloc(struct arena *a, size_t n, size_t bytes);       /* n * bytes, checked, zeroed */
char *arena_strndup(struct arena *a, const char *s, size_t bytes); /* 0-terminated copy */

#endif
