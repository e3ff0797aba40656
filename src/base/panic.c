#include "base/panic.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void panic_at(const char *file, int line, const char *function, const char *format, ...)
{
    fprintf(stderr, "shoal: %s:%d: %s: ", file, line, function);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

void *xmalloc(size_t bytes)
{
    void *p = malloc(bytes > 0 ? bytes : 1);
    if (p == NULL)
        PANIC("out of memory allocating %zu bytes", bytes);
    return p;
}

void *xcalloc(size_t n, size_t bytes)
{
    void *p = calloc(n > 0 ? n : 1, bytes > 0 ? bytes : 1);
    if (p == NULL)
        PANIC("out of memory allocating %zu x %zu bytes", n, bytes);
    return p;
}

void *xrealloc(void *p, size_t bytes)
{
    void *q = realloc(p, bytes > 0 ? bytes : 1);
    if (q == NULL)
        PANIC("out of memory allocating %zu bytes", bytes);
    return q;
}

char *xstrdup(const char *s)
{
    size_t bytes = strlen(s) + 1;
    return memcpy(xmalloc(bytes), s, bytes);
}
