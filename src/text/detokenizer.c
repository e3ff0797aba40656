/* Ids to text, one at a time, never ending inside a character.
 *
 * Tokens are runs of bytes, and a character's bytes may be spread over several tokens. Bytes go
 * through a small automaton: those of a character begun wait in `pending`; once it is whole it is
 * given out. Where the bytes cannot be UTF-8 (RFC 3629: no overlong form, no surrogate, nothing
 * above U+10FFFF), the longest beginning of a character becomes one U+FFFD and decoding goes on
 * with the byte that did not fit, as the Unicode standard advises. The same automaton serves
 * whole-text decoding, so both agree by construction. */
#include "text/text_impl.h"

#include "base/panic.h"

#include <string.h>

static const char REPLACEMENT[] = "\xef\xbf\xbd"; /* U+FFFD */

void detokenizer_init(struct detokenizer *d, const struct tokenizer *t, unsigned flags)
{
    *d = (struct detokenizer){.tokenizer = t, .flags = flags, .at_start = true};
}

/* Bytes of the character that begins with `lead`; 0 if none can. */
static unsigned character_bytes(uint8_t lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xc2 && lead <= 0xdf)
        return 2;
    if (lead >= 0xe0 && lead <= 0xef)
        return 3;
    if (lead >= 0xf0 && lead <= 0xf4)
        return 4;
    return 0;
}

/* Whether `b` may follow the bytes pending (at least one). Only the second byte has a range that
 * depends on the first. */
static bool may_follow(const struct detokenizer *d, uint8_t b)
{
    uint8_t low = 0x80, high = 0xbf;
    if (d->n_pending == 1) {
        switch (d->pending[0]) {
        case 0xe0: low = 0xa0; break;
        case 0xed: high = 0x9f; break;
        case 0xf0: low = 0x90; break;
        case 0xf4: high = 0x8f; break;
        default: break;
        }
    }
    return b >= low && b <= high;
}

/* One byte in, at most two characters out (at most 7 bytes, at *out); returns how many bytes. */
static size_t take_byte(struct detokenizer *d, uint8_t b, char *out)
{
    size_t n = 0;
    if (d->n_pending > 0 && !may_follow(d, b)) {
        memcpy(out, REPLACEMENT, 3);
        n = 3;
        d->n_pending = 0;
    }
    if (d->n_pending == 0 && character_bytes(b) == 0) {
        memcpy(out + n, REPLACEMENT, 3);
        return n + 3;
    }
    size_t at = d->n_pending++;
    ASSERT(at < sizeof d->pending);
    d->pending[at] = b;
    if (d->n_pending == character_bytes(d->pending[0])) {
        memcpy(out + n, d->pending, d->n_pending);
        n += d->n_pending;
        d->n_pending = 0;
    }
    return n;
}

/* The bytes that a token adds to the text at this point. */
static enum err next_bytes(struct detokenizer *d, uint32_t id, const char **bytes, size_t *n,
                           struct error *e)
{
    const struct tokenizer *t = d->tokenizer;
    *bytes = tokenizer_piece(t, id, n);
    if (*bytes == NULL)
        return *n = 0, error_set(e, ERR_INVALID, "token id %u of a vocabulary of %u", id,
                                 tokenizer_n_tokens(t));
    if ((d->flags & TOKENIZER_SKIP_SPECIAL) && tokenizer_is_special(t, id))
        *n = 0;
    if (*n == 0)
        return OK;
    if (d->at_start && t->pieces.strip_leading && (*bytes)[0] == ' ') {
        ++*bytes;
        --*n;
    }
    d->at_start = false;
    return OK;
}

static enum err check_room(const struct strbuf *out, struct error *e)
{
    return out->failed ? error_set(e, ERR_LIMIT, "no room for more than %zu bytes of text",
                                   out->bytes)
                       : OK;
}

enum err detokenizer_push(struct detokenizer *d, uint32_t id, struct strbuf *out,
                          struct error *e)
{
    size_t n;
    const char *bytes;
    enum err err = next_bytes(d, id, &bytes, &n, e);
    for (size_t i = 0; i < n && err == OK; i++) {
        char characters[8];
        size_t n_out = take_byte(d, (uint8_t)bytes[i], characters);
        strbuf_append(out, characters, n_out);
    }
    return err != OK ? err : check_room(out, e);
}

enum err detokenizer_prime(struct detokenizer *d, const uint32_t *ids, size_t n, struct error *e)
{
    for (size_t i = 0; i < n; i++) {
        const char *bytes;
        size_t n_bytes;
        enum err err = next_bytes(d, ids[i], &bytes, &n_bytes, e);
        if (err != OK)
            return err;
        for (size_t k = 0; k < n_bytes; k++) {
            char unused[8];
            take_byte(d, (uint8_t)bytes[k], unused);
        }
    }
    return OK;
}

enum err detokenizer_finish(struct detokenizer *d, struct strbuf *out, struct error *e)
{
    if (d->n_pending > 0)
        strbuf_append(out, REPLACEMENT, 3);
    d->n_pending = 0;
    d->at_start = false;
    return check_room(out, e);
}
