#include "engine/breakers.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <stdbool.h>
#include <string.h>

static const char *const usual[] = {"\n", ":", "\"", "*"};
enum { N_USUAL = sizeof usual / sizeof usual[0] };

struct strings {
    const char *const *text;
    int n;
    size_t bytes[REQUEST_MAX_BREAKERS];
    bool found[REQUEST_MAX_BREAKERS];
    bool begins[256]; /* one of them begins with this byte: most bytes need no closer look */
};

static bool contains(struct strings *s, const char *piece, size_t bytes)
{
    bool any = false;
    for (size_t at = 0; at < bytes; at++) {
        if (!s->begins[(unsigned char)piece[at]])
            continue;
        for (int i = 0; i < s->n; i++) {
            if (s->bytes[i] > bytes - at || memcmp(piece + at, s->text[i], s->bytes[i]) != 0)
                continue;
            s->found[i] = any = true;
        }
    }
    return any;
}

static enum err begin(struct strings *s, const char *const *text, int n, struct error *e)
{
    ASSERT(n >= 0 && n <= REQUEST_MAX_BREAKERS);
    *s = (struct strings){.text = text, .n = n};
    for (int i = 0; i < n; i++) {
        s->bytes[i] = strlen(text[i]);
        if (s->bytes[i] == 0)
            return error_set(
                e, ERR_INVALID,
                "dry_sequence_breakers: expected strings of at least 1 byte, found \"\"");
        s->begins[(unsigned char)text[i][0]] = true;
    }
    return OK;
}

enum err breakers_mark(const struct tokenizer *t, const char *const *strings, int n, int vocab,
                       uint64_t *bits, struct error *e)
{
    struct strings s;
    enum err err = begin(&s, strings != NULL ? strings : usual, strings != NULL ? n : N_USUAL, e);
    if (err != OK)
        return err;
    memset(bits, 0, ((size_t)vocab + 63) / 64 * sizeof bits[0]);
    uint32_t n_tokens = tokenizer_n_tokens(t);
    for (uint32_t id = 0; id < n_tokens && id < (uint32_t)vocab; id++) {
        size_t bytes;
        const char *piece = tokenizer_piece(t, id, &bytes);
        if (piece != NULL && (tokenizer_is_special(t, id) || contains(&s, piece, bytes)))
            bits[id / 64] |= (uint64_t)1 << (id % 64);
    }
    for (int i = 0; strings != NULL && i < n; i++)
        if (!s.found[i])
            return error_set(e, ERR_INVALID,
                             "dry_sequence_breakers: expected strings that stand inside one token, "
                             "but no token contains \"%s\"",
                             strings[i]);
    return OK;
}
