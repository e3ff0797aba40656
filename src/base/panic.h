/* ASSERT: a bug in our own code stops the process with a message, in release builds too.
 * What the world did wrong (file, peer, user) is an `enum err` instead: base/error.h. */
#ifndef SHOAL_BASE_PANIC_H
#define SHOAL_BASE_PANIC_H

#include <stddef.h>

/* Print "file:line: function: text" to stderr and abort. */
_Noreturn void panic_at(const char *file, int line, const char *function, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define ASSERT(condition) \
    ((condition) ? (void)0 \
                 : panic_at(__FILE__, __LINE__, __func__, "assertion failed: %s", #condition))
#define PANIC(...) panic_at(__FILE__, __LINE__, __func__, __VA_ARGS__)

/* Memory for the program itself (small, startup-sized): stops the process when there is none.
 * Anything whose size comes from outside uses malloc and answers ERR_MEMORY. */
void *xmalloc(size_t bytes);
void *xcalloc(size_t n, size_t bytes);
void *xrealloc(void *p, size_t bytes);
char *xstrdup(const char *s);

#endif
