#include "cli/flags.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *dashes(const struct flag *f)
{
    return f->name[1] == 0 ? "-" : "--";
}

void flags_help(const struct verb_usage *u, FILE *to)
{
    fprintf(to, "usage: shoal %s %s\n\n%s\n\n", u->verb, u->synopsis, u->what);
    for (const struct flag *f = u->flags; f->name != NULL; f++) {
        char left[64];
        snprintf(left, sizeof left, "%s%s %s", dashes(f), f->name,
                 f->operand != NULL ? f->operand : "");
        fprintf(to, "  %-24s %s\n", left, f->help);
    }
}

static const struct flag *find(const struct verb_usage *u, const char *name, size_t bytes)
{
    for (const struct flag *f = u->flags; f->name != NULL; f++)
        if (strlen(f->name) == bytes && memcmp(f->name, name, bytes) == 0)
            return f;
    return NULL;
}

/* A whole finite decimal number within the flag's range. */
static enum err read_number(const struct flag *f, const char *text, double *out, struct error *e)
{
    char *end;
    double x = strtod(text, &end); /* which would also take blanks in front and 0x1p3 */
    bool whole = f->kind != FLAG_INT || x == floor(x);
    if (end == text || *end != 0 || !isfinite(x) || !whole || x < f->min || x > f->max ||
        strpbrk(text, "xX \t\n\v\f\r") != NULL)
        return error_set(e, ERR_USAGE, "%s%s: expected a %snumber from %.9g to %.9g, found \"%s\"",
                         dashes(f), f->name, f->kind == FLAG_INT ? "whole " : "", f->min, f->max,
                         text);
    *out = x;
    return OK;
}

static enum err read_u64(const struct flag *f, const char *text, uint64_t *out, struct error *e)
{
    char *end;
    errno = 0;
    unsigned long long x = strtoull(text, &end, 10);
    if (end == text || *end != 0 || errno != 0 || text[0] < '0' || text[0] > '9')
        return error_set(e, ERR_USAGE, "%s%s: expected a number from 0 to 2^64-1, found \"%s\"",
                         dashes(f), f->name, text);
    *out = x;
    return OK;
}

static enum err read_choice(const struct flag *f, const char *text, int *out, struct error *e)
{
    char expected[128] = "";
    for (int i = 0; f->choices[i] != NULL; i++) {
        if (strcmp(text, f->choices[i]) == 0) {
            *out = i;
            return OK;
        }
        size_t n = strlen(expected);
        snprintf(expected + n, sizeof expected - n, "%s%s", i > 0 ? " or " : "", f->choices[i]);
    }
    return error_set(e, ERR_USAGE, "%s%s: expected %s, found \"%s\"", dashes(f), f->name, expected,
                     text);
}

static enum err read_value(const struct flag *f, const char *text, struct error *e)
{
    double number;
    enum err err = OK;
    switch (f->kind) {
    case FLAG_BOOL: *(bool *)f->value = true; return OK;
    case FLAG_STRING: *(const char **)f->value = text; return OK;
    case FLAG_U64: return read_u64(f, text, f->value, e);
    case FLAG_CHOICE: return read_choice(f, text, f->value, e);
    case FLAG_INT:
        err = read_number(f, text, &number, e);
        if (err == OK)
            *(int *)f->value = (int)number;
        return err;
    case FLAG_FLOAT:
        err = read_number(f, text, &number, e);
        if (err == OK)
            *(float *)f->value = (float)number;
        return err;
    }
    return err;
}

/* One flag at argv[*at]; *at moves over the value it takes from the next argument. */
static enum err read_flag(const struct verb_usage *u, int argc, char **argv, int *at,
                          struct error *e)
{
    const char *arg = argv[*at];
    const char *name = arg + (arg[1] == '-' ? 2 : 1);
    const char *equals = strchr(name, '=');
    size_t bytes = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const struct flag *f = find(u, name, bytes);
    if (f == NULL || (name - arg == 2) != (f->name[1] != 0))
        return error_set(e, ERR_USAGE, "unknown flag %.*s (shoal %s --help lists them)",
                         (int)(name - arg + (long)bytes), arg, u->verb);
    if (f->given != NULL)
        *f->given = true;
    if (f->kind == FLAG_BOOL) {
        if (equals != NULL)
            return error_set(e, ERR_USAGE, "%s%s: takes no value, found \"%s\"", dashes(f), f->name,
                             equals + 1);
        return read_value(f, NULL, e);
    }
    if (equals != NULL)
        return read_value(f, equals + 1, e);
    if (*at + 1 >= argc)
        return error_set(e, ERR_USAGE, "%s%s: expected a value (%s)", dashes(f), f->name,
                         f->operand);
    return read_value(f, argv[++*at], e);
}

enum err flags_parse(const struct verb_usage *u, int argc, char **argv, const char **args,
                     int *n_args, struct error *e)
{
    bool only_args = false;
    *n_args = 0;
    for (int i = 0; i < argc; i++) {
        if (!only_args && strcmp(argv[i], "--") == 0) {
            only_args = true;
        } else if (!only_args && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            flags_help(u, stdout);
            return ERR_CANCELLED;
        } else if (!only_args && argv[i][0] == '-' && argv[i][1] != 0) {
            enum err err = read_flag(u, argc, argv, &i, e);
            if (err != OK)
                return err;
        } else if (*n_args == u->max_args) {
            return error_set(e, ERR_USAGE, "unexpected argument \"%s\" (usage: shoal %s %s)",
                             argv[i], u->verb, u->synopsis);
        } else {
            args[(*n_args)++] = argv[i];
        }
    }
    if (*n_args < u->min_args)
        return error_set(e, ERR_USAGE, "too few arguments (usage: shoal %s %s)", u->verb,
                         u->synopsis);
    return OK;
}
