#include "base/log.h"

#include "base/printable.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static atomic_int threshold = LOG_WARN;

enum err log_init(struct error *e)
{
    const char *wanted = getenv("SHOAL_LOG");
    if (wanted == NULL || *wanted == 0)
        return OK;
    for (int i = LOG_ERROR; i <= LOG_DEBUG; i++) {
        if (strcmp(wanted, level_names[i]) == 0) {
            log_set_level((enum log_level)i);
            return OK;
        }
    }
    return error_set(e, ERR_INVALID, "SHOAL_LOG: expected error, warn, info or debug, found \"%s\"",
                     wanted);
}

void log_set_level(enum log_level level)
{
    /* Relaxed: a hint, which orders nothing. */
    atomic_store_explicit(&threshold, (int)level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&threshold, memory_order_relaxed);
}

void log_at(enum log_level level, const char *format, ...)
{
    if (!log_enabled(level))
        return;
    /* One buffer and one write, so that lines of several threads do not mix. */
    char line[1024];
    struct timespec now;
    struct tm local;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    size_t n = strftime(line, sizeof line, "%H:%M:%S", &local);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ld %-5s ", now.tv_nsec / 1000000,
                          level_names[level]);
    va_list args;
    va_start(args, format);
    if (vsnprintf(line + n, sizeof line - n - 1, format, args) < 0)
        line[n] = 0;
    va_end(args);
    make_printable(line);
    n = strlen(line);
    line[n++] = '\n';
    fwrite(line, 1, n, stderr);
}
