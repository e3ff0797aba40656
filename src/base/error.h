/* Errors of the world: files, peers, users, memory limits.
 *
 * A function that can fail because of something outside the program returns
 * `enum err`; OK is 0. Where a person must read the reason, its last parameter is a
 * `struct error *` (NULL allowed): the lowest layer that knows fills it with one line that
 * names the thing (file, tensor, peer), what was expected and what was found; the layers
 * between may put a prefix in front; only the top prints it. Bugs of our own are not errors
 * but ASSERT (base/panic.h). No function here allocates; all may be called from any thread. */
#ifndef SHOAL_BASE_ERROR_H
#define SHOAL_BASE_ERROR_H

#include <stdarg.h>

#define ERR_LIST(X) \
    X(OK, "ok") \
    X(ERR_USAGE, "wrong usage") \
    X(ERR_INVALID, "invalid value") \
    X(ERR_FORMAT, "malformed data") \
    X(ERR_UNSUPPORTED, "not supported") \
    X(ERR_NOT_FOUND, "not found") \
    X(ERR_IO, "input/output error") \
    X(ERR_MEMORY, "out of memory") \
    X(ERR_LIMIT, "limit exceeded") \
    X(ERR_FULL, "full") \
    X(ERR_CLOSED, "closed") \
    X(ERR_TIMEOUT, "timed out") \
    X(ERR_UNREACHABLE, "unreachable") \
    X(ERR_VERSION, "version differs") \
    X(ERR_MISMATCH, "does not match") \
    X(ERR_CANCELLED, "cancelled") \
    X(ERR_INTERNAL, "internal error")

enum err {
#define ERR_ENUM(name, text) name,
    ERR_LIST(ERR_ENUM) N_ERRS
#undef ERR_ENUM
};

/* The reason of a failure for a person: one line, no trailing newline, cut at 255 bytes. */
struct error {
    enum err code;
    char text[256];
};

/* The short text of a code ("malformed data"); a static string for any value. */
const char *err_text(enum err code);

/* Fill *e (if not NULL) and return `code`, so that `return error_set(e, ERR_IO, ...)` reads well.
 * Control characters and invalid UTF-8 in the result become '?', so that a hostile name in a
 * file or a frame cannot break a log line or a terminal. */
enum err error_set(struct error *e, enum err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
enum err error_vset(struct error *e, enum err code, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

/* Put "prefix: " in front of the text of a filled *e and return its code; with e NULL there is no
 * code to return and the answer is ERR_INTERNAL: return the code you have instead. */
enum err error_prefix(struct error *e, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* As error_set, with ": " and the text of errno `code_errno` after the message. */
enum err error_errno(struct error *e, enum err code, int code_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
