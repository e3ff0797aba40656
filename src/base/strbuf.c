#include "base/strbuf.h"

#include "base/panic.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char empty[1]; /* what data points to before the first byte; never written */

void strbuf_init(struct strbuf *s, size_t max_bytes)
{
    ASSERT(max_bytes < SIZE_MAX / 2); /* sizes below cannot wrap */
    *s = (struct strbuf){.data = empty, .max_bytes = max_bytes};
}

void strbuf_release(struct strbuf *s)
{
    if (s->capacity > 0)
        free(s->data);
    strbuf_init(s, s->max_bytes);
}

void strbuf_clear(struct strbuf *s)
{
    s->bytes = 0;
    s->failed = false;
    if (s->capacity > 0)
        s->data[0] = 0;
}

/* Make room for `more` bytes and the 0; false (and failed set) if that may not or cannot be. */
static bool reserve(struct strbuf *s, size_t more)
{
    if (s->failed || more > s->max_bytes - s->bytes) {
        s->failed = true;
        return false;
    }
    size_t need = s->bytes + more + 1;
    if (need <= s->capacity)
        return true;
    size_t capacity = need < 64 ? 64 : need + need / 2;
    char *data = realloc(s->capacity > 0 ? s->data : NULL, capacity);
    if (data == NULL) {
        s->failed = true;
        return false;
    }
    s->data = data;
    s->capacity = capacity;
    return true;
}

void strbuf_append(struct strbuf *s, const void *data, size_t bytes)
{
    if (bytes == 0 || !reserve(s, bytes))
        return;
    memcpy(s->data + s->bytes, data, bytes);
    s->bytes += bytes;
    s->data[s->bytes] = 0;
}

void strbuf_puts(struct strbuf *s, const char *text)
{
    strbuf_append(s, text, strlen(text));
}

void strbuf_printf(struct strbuf *s, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ASSERT(n >= 0);
    if (reserve(s, (size_t)n)) {
        vsnprintf(s->data + s->bytes, (size_t)n + 1, format, again);
        s->bytes += (size_t)n;
    }
    va_end(again);
}

void strbuf_drop(struct strbuf *s, size_t bytes)
{
    ASSERT(bytes <= s->bytes);
    if (bytes == 0)
        return;
    memmove(s->data, s->data + bytes, s->bytes - bytes + 1);
    s->bytes -= bytes;
}

char *strbuf_detach(struct strbuf *s)
{
    char *text = s->capacity > 0 ? s->data : xstrdup("");
    strbuf_init(s, s->max_bytes);
    return text;
}
