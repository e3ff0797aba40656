/* Messages for the operator, on stderr: "12:34:56.789 warn  text". One line each, whatever the text
 * holds (control characters become '?', it is cut at a thousand bytes), any thread.
 * The level comes from SHOAL_LOG (error, warn, info, debug; default warn) or log_set_level. */
#ifndef SHOAL_BASE_LOG_H
#define SHOAL_BASE_LOG_H

#include "base/error.h"

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Read SHOAL_LOG; ERR_INVALID names a value that is no level. Called once by main. */
enum err log_init(struct error *e);
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
void log_at(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

#endif
