#include "base/error.h"

#include <stdbool.h>
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

/* Bytes of the well-formed UTF-8 character at s, 0 if there is none. */
static int utf8_char_bytes(const unsigned char *s)
{
    int n = s[0] < 0x80                    ? 1
            : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
            : (s[0] & 0xf0) == 0xe0        ? 3
            : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                           : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

static void make_printable(char *text)
{
    unsigned char *s = (unsigned char *)text;
    while (*s != 0) {
        int n = utf8_char_bytes(s);
        bool control = n == 1 && (*s < 0x20 || *s == 0x7f);
        if (n == 0 || control) {
            *s = '?';
            n = 1;
        }
        s += n;
    }
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
    return code;
}
