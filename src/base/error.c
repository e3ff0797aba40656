#include "base/error.h"

#include "base/printable.h"

#include <stdio.h>
#include <string.h>

const char *err_text(enum err code)
{
    static const char *const texts[] = {
#define ERR_TEXT(name, text) [name] = text,
        ERR_LIST(ERR_TEXT)
#undef ERR_TEXT
    };
    return (unsigned)code < N_ERRS ? texts[code] : "unknown error";
}

enum err error_vset(struct error *e, enum err code, const char *format, va_list args)
{
    if (e == NULL)
        return code;
    e->code = code;
    vsnprintf(e->text, sizeof e->text, format, args);
    make_printable(e->text);
    return code;
}

enum err error_set(struct error *e, enum err code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error_vset(e, code, format, args);
    va_end(args);
    return code;
}

enum err error_prefix(struct error *e, const char *format, ...)
{
    if (e == NULL)
        return ERR_INTERNAL;
    char prefix[sizeof e->text], old[sizeof e->text];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    memcpy(old, e->text, sizeof old);
    size_t n = strnlen(prefix, sizeof prefix);
    size_t room = sizeof e->text - 1;
    n = n > room ? room : n;
    memcpy(e->text, prefix, n);
    snprintf(e->text + n, sizeof e->text - n, ": %s", old);
    make_printable(e->text);
    return e->code;
}

enum err error_errno(struct error *e, enum err code, int code_errno, const char *format, ...)
{
    if (e == NULL)
        return code;
    va_list args;
    va_start(args, format);
    error_vset(e, code, format, args);
    va_end(args);
    size_t n = strlen(e->text);
    char reason[128];
    const char *text = strerror_r(code_errno, reason, sizeof reason);
    snprintf(e->text + n, sizeof e->text - n, ": %s", text);
    make_printable(e->text); /* a translated text may have been cut inside a character */
    return code;
}
