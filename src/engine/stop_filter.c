#include "engine/stop_filter.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* One stop string and how much of it the text at this moment ends with. */
struct matcher {
    char *string;
    int n_bytes;
    int n_matched;
    int *fallback; /* [i]: longest proper prefix of string that string[0 … i] ends with */
};

struct stop_filter {
    struct matcher *matchers;
    int n_matchers;
    char *held; /* the last n_held bytes of text: the longest n_matched */
    int n_held;
};

static enum err check_string(const char *string, size_t bytes, struct error *e)
{
    if (bytes == 0)
        return error_set(e, ERR_INVALID, "stop: expected a string of at least 1 byte, found \"\"");
    if (bytes > REQUEST_MAX_STOP_BYTES)
        return error_set(e, ERR_LIMIT, "stop: expected strings of at most %d bytes, found %zu",
                         REQUEST_MAX_STOP_BYTES, bytes);
    if (((unsigned char)string[0] & 0xC0) == 0x80)
        return error_set(e, ERR_INVALID,
                         "stop: expected UTF-8, found a string that begins inside a character");
    return OK;
}

static void matcher_init(struct matcher *m, const char *string)
{
    m->string = xstrdup(string);
    m->n_bytes = (int)strlen(string);
    m->fallback = xcalloc((size_t)m->n_bytes, sizeof(m->fallback[0]));
    for (int i = 1, n = 0; i < m->n_bytes; i++) {
        while (n > 0 && string[n] != string[i])
            n = m->fallback[n - 1];
        n += string[n] == string[i];
        m->fallback[i] = n;
    }
}

/* Take one byte; true when the string is complete. */
static bool matcher_step(struct matcher *m, char byte)
{
    while (m->n_matched > 0 && m->string[m->n_matched] != byte)
        m->n_matched = m->fallback[m->n_matched - 1];
    m->n_matched += m->string[m->n_matched] == byte;
    return m->n_matched == m->n_bytes;
}

enum err stop_filter_new(const char *const *strings, int n, struct stop_filter **out,
                         struct error *e)
{
    *out = NULL;
    if (n > REQUEST_MAX_STOP)
        return error_set(e, ERR_LIMIT, "stop: expected at most %d strings, found %d",
                         REQUEST_MAX_STOP, n);
    size_t longest = 0;
    for (int i = 0; i < n; i++) {
        size_t bytes = strlen(strings[i]);
        enum err err = check_string(strings[i], bytes, e);
        if (err != OK)
            return err;
        longest = bytes > longest ? bytes : longest;
    }
    struct stop_filter *f = xcalloc(1, sizeof(*f));
    f->matchers = xcalloc((size_t)n, sizeof(f->matchers[0]));
    f->held = xmalloc(longest + 1);
    for (int i = 0; i < n; i++)
        matcher_init(&f->matchers[f->n_matchers++], strings[i]);
    *out = f;
    return OK;
}

void stop_filter_free(struct stop_filter *f)
{
    if (f == NULL)
        return;
    for (int i = 0; i < f->n_matchers; i++) {
        free(f->matchers[i].string);
        free(f->matchers[i].fallback);
    }
    free(f->matchers);
    free(f->held);
    free(f);
}

/* Give out the first n of the held bytes and keep n_kept behind them; the rest is dropped. */
static void give_out(struct stop_filter *f, int n, int n_kept, struct strbuf *out)
{
    strbuf_append(out, f->held, (size_t)n);
    memmove(f->held, f->held + n, (size_t)n_kept);
    f->n_held = n_kept;
}

/* The longest string that this byte completes, or NULL; *n_partial: the longest one begun. */
static const struct matcher *step_all(struct stop_filter *f, char byte, int *n_partial)
{
    const struct matcher *met = NULL;
    *n_partial = 0;
    for (int i = 0; i < f->n_matchers; i++) {
        struct matcher *m = &f->matchers[i];
        if (matcher_step(m, byte) && (met == NULL || m->n_bytes > met->n_bytes))
            met = m;
        if (m->n_matched > *n_partial)
            *n_partial = m->n_matched;
    }
    return met;
}

const char *stop_filter_push(struct stop_filter *f, const char *text, size_t bytes,
                             struct strbuf *out)
{
    if (f->n_matchers == 0) {
        strbuf_append(out, text, bytes);
        return NULL;
    }
    for (size_t i = 0; i < bytes; i++) {
        int n_partial;
        const struct matcher *met = step_all(f, text[i], &n_partial);
        f->held[f->n_held++] = text[i]; /* longest + 1 bytes have room */
        if (met != NULL) {
            give_out(f, f->n_held - met->n_bytes, 0, out);
            return met->string;
        }
        give_out(f, f->n_held - n_partial, n_partial, out);
    }
    return NULL;
}

void stop_filter_finish(struct stop_filter *f, struct strbuf *out)
{
    give_out(f, f->n_held, 0, out);
}
