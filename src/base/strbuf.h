/* A growing string with a limit: text of unknown length is put together here (HTTP answers, JSON
 * lines, generated text). Past `max_bytes`, or without memory, it stops growing and remembers it:
 * append as often as needed, look at `failed` once. Always 0-terminated. max_bytes is below
 * SIZE_MAX / 2. One thread at a time. */
#ifndef SHOAL_BASE_STRBUF_H
#define SHOAL_BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

struct strbuf {
    char *data; /* never NULL: "" while nothing was appended */
    size_t bytes;
    size_t capacity; /* 0: data is not ours to free */
    size_t max_bytes;
    bool failed;
};

void strbuf_init(struct strbuf *s, size_t max_bytes);
void strbuf_release(struct strbuf *s);
void strbuf_clear(struct strbuf *s); /* empty, failure forgotten, memory kept */
void strbuf_append(struct strbuf *s, const void *data, size_t bytes);
void strbuf_puts(struct strbuf *s, const char *text);
void strbuf_printf(struct strbuf *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void strbuf_drop(struct strbuf *s, size_t bytes); /* remove that many from the front */
char *strbuf_detach(struct strbuf *s); /* the text, malloc'ed, the caller's; s is empty again */

#endif
