#include "api/token_logprobs_impl.h"

#include "api/json_text_impl.h"
#include "base/panic.h"

#include <string.h>

enum { NAME_MAX_BYTES = 1 << 20 }; /* of a token as text, escapes included */

/* ---- records: a head, and its n_top tokens behind it ---- */

struct record {
    struct text_span span;
    struct token_logprob chosen;
    int n_top;
};

/* The record at *at, if there is one; *at moves on to the next. `top` may be NULL. */
static bool next_record(const struct strbuf *records, size_t *at, struct record *r,
                        struct token_logprob *top)
{
    if (*at == records->bytes)
        return false;
    ASSERT(records->bytes - *at >= sizeof *r);
    memcpy(r, records->data + *at, sizeof *r);
    *at += sizeof *r;
    size_t top_bytes = (size_t)r->n_top * sizeof top[0];
    ASSERT(records->bytes - *at >= top_bytes);
    if (top != NULL && top_bytes > 0)
        memcpy(top, records->data + *at, top_bytes);
    *at += top_bytes;
    return true;
}

void token_logprobs_add(struct strbuf *records, const struct request_event *event)
{
    const struct sampler_logprobs *l = event->logprobs;
    if (l == NULL)
        return;
    char bytes[sizeof(struct record) + sizeof l->top];
    struct record r = {.span = event->span, .chosen = {event->token, l->chosen}, .n_top = l->n};
    size_t top_bytes = (size_t)l->n * sizeof l->top[0];
    memcpy(bytes, &r, sizeof r);
    memcpy(bytes + sizeof r, l->top, top_bytes);
    strbuf_append(records, bytes, sizeof r + top_bytes); /* all of it or nothing */
}

/* Does this token belong to a text of so many bytes that has ended? */
static bool is_part(const struct record *r, const struct request_event *last, size_t text_bytes,
                    bool is_last)
{
    if (last->stop != NULL)
        return r->span.begin < text_bytes;
    bool is_end_token = is_last && last->finish == FINISH_STOP && last->logprobs != NULL;
    return !is_end_token;
}

void token_logprobs_end(struct strbuf *records, const struct request_event *last, size_t text_bytes)
{
    struct record r;
    size_t at = 0, begin = 0;
    while (next_record(records, &at, &r, NULL) &&
           is_part(&r, last, text_bytes, at == records->bytes)) {
        if (r.span.end > text_bytes) {
            r.span.end = text_bytes;
            memcpy(records->data + begin, &r, sizeof r);
        }
        begin = at;
    }
    /* Records come in the order of the text: behind the first that is no part, none is. */
    if (begin < records->bytes)
        records->data[records->bytes = begin] = 0;
}

size_t token_logprobs_take(struct strbuf *records, size_t text_bytes, size_t given,
                           struct strbuf *out)
{
    struct record r;
    size_t at = 0, n = 0;
    while (next_record(records, &at, &r, NULL) && r.span.end <= text_bytes) {
        n = at;
        given = r.span.end;
    }
    strbuf_append(out, records->data, n);
    strbuf_drop(records, n);
    out->failed |= records->failed;
    return given;
}

/* ---- JSON ---- */

/* The bytes of a token that are no text are written \xf0\x9f; `is_text` false says that there were
 * some. Answers whether the token stands for bytes at all: control tokens and those that only the
 * model knows (padded vocabularies) do not. */
static bool name_token(const struct tokenizer *t, int32_t token, struct strbuf *name, bool *is_text)
{
    size_t bytes;
    const char *piece = tokenizer_piece(t, (uint32_t)token, &bytes);
    strbuf_clear(name);
    *is_text = true;
    if (piece == NULL) {
        strbuf_printf(name, "token_id:%d", token);
        return false;
    }
    for (size_t i = 0, n; i < bytes; i += n) {
        n = utf8_character((const unsigned char *)piece + i, bytes - i);
        if (n > 0) {
            strbuf_append(name, piece + i, n);
            continue;
        }
        n = 1;
        strbuf_printf(name, "\\x%02x", (unsigned char)piece[i]);
        *is_text = false;
    }
    return !tokenizer_is_special(t, (uint32_t)token);
}

static void append_number(struct strbuf *out, float logprob)
{
    strbuf_printf(out, "%.9g", (double)logprob); /* finite: of tokens that the model allows */
}

static void append_bytes(struct strbuf *out, const struct tokenizer *t, int32_t token)
{
    size_t bytes;
    const unsigned char *piece = (const void *)tokenizer_piece(t, (uint32_t)token, &bytes);
    strbuf_puts(out, "[");
    for (size_t i = 0; i < bytes; i++)
        strbuf_printf(out, i > 0 ? ",%d" : "%d", piece[i]);
    strbuf_puts(out, "]");
}

/* {"token":…,"logprob":…,"bytes":[…] and no brace behind it. */
static void open_chat_token(struct strbuf *out, const struct tokenizer *t, struct token_logprob l,
                            struct strbuf *name)
{
    bool is_text, has_bytes = name_token(t, l.token, name, &is_text);
    strbuf_puts(out, "{\"token\":");
    json_append_text(out, name->data, name->bytes);
    strbuf_puts(out, ",\"logprob\":");
    append_number(out, l.logprob);
    strbuf_puts(out, ",\"bytes\":");
    if (has_bytes)
        append_bytes(out, t, l.token);
    else
        strbuf_puts(out, "null");
}

void token_logprobs_append_chat(struct strbuf *out, const struct tokenizer *t,
                                const struct strbuf *records)
{
    struct record r;
    struct token_logprob top[SAMPLING_MAX_LOGPROBS];
    struct strbuf name;
    strbuf_init(&name, NAME_MAX_BYTES);
    strbuf_puts(out, "{\"content\":[");
    for (size_t at = 0, begin = 0; next_record(records, &at, &r, top); begin = at) {
        strbuf_puts(out, begin > 0 ? "," : "");
        open_chat_token(out, t, r.chosen, &name);
        strbuf_puts(out, ",\"top_logprobs\":[");
        for (int i = 0; i < r.n_top; i++) {
            strbuf_puts(out, i > 0 ? "," : "");
            open_chat_token(out, t, top[i], &name);
            strbuf_puts(out, "}");
        }
        strbuf_puts(out, "]}");
    }
    strbuf_puts(out, "],\"refusal\":null}");
    out->failed |= name.failed;
    strbuf_release(&name);
}

/* A token as a string that names no other: /v1/completions has no bytes beside it. */
static void append_text_token(struct strbuf *out, const struct tokenizer *t, int32_t token,
                              struct strbuf *name)
{
    static const char prefix[] = "bytes:";
    bool is_text;
    name_token(t, token, name, &is_text);
    if (is_text) {
        json_append_text(out, name->data, name->bytes);
        return;
    }
    struct strbuf whole;
    strbuf_init(&whole, NAME_MAX_BYTES);
    strbuf_puts(&whole, prefix);
    strbuf_append(&whole, name->data, name->bytes);
    json_append_text(out, whole.data, whole.bytes);
    out->failed |= whole.failed;
    strbuf_release(&whole);
}

/* The tokens' strings are keys here. Of two tokens with the same string the first counts. */
static bool is_named_before(const struct tokenizer *t, const struct token_logprob *list, int i)
{
    size_t bytes, other_bytes;
    const char *piece = tokenizer_piece(t, (uint32_t)list[i].token, &bytes);
    for (int k = 0; k < i; k++) {
        const char *other = tokenizer_piece(t, (uint32_t)list[k].token, &other_bytes);
        if (list[k].token == list[i].token ||
            (piece != NULL && other != NULL && bytes == other_bytes &&
             memcmp(piece, other, bytes) == 0))
            return true;
    }
    return false;
}

/* {"the":-1.5,…}: the chosen token, and the best ones. */
static void append_text_top(struct strbuf *out, const struct tokenizer *t, const struct record *r,
                            const struct token_logprob *top, struct strbuf *name)
{
    struct token_logprob all[1 + SAMPLING_MAX_LOGPROBS];
    all[0] = r->chosen;
    if (r->n_top > 0)
        memcpy(all + 1, top, (size_t)r->n_top * sizeof top[0]);
    for (int i = 0; i <= r->n_top; i++) {
        if (is_named_before(t, all, i))
            continue;
        strbuf_puts(out, i > 0 ? "," : "{");
        append_text_token(out, t, all[i].token, name);
        strbuf_puts(out, ":");
        append_number(out, all[i].logprob);
    }
    strbuf_puts(out, "}");
}

void token_logprobs_append_text(struct strbuf *out, const struct tokenizer *t,
                                const struct strbuf *records)
{
    static const char *const members[] = {"{\"tokens\":[", "],\"token_logprobs\":[",
                                          "],\"top_logprobs\":[", "],\"text_offset\":["};
    struct record r;
    struct token_logprob top[SAMPLING_MAX_LOGPROBS];
    struct strbuf name;
    strbuf_init(&name, NAME_MAX_BYTES);
    for (int member = 0; member < 4; member++) {
        strbuf_puts(out, members[member]);
        for (size_t at = 0, begin = 0; next_record(records, &at, &r, top); begin = at) {
            strbuf_puts(out, begin > 0 ? "," : "");
            switch (member) {
            case 0: append_text_token(out, t, r.chosen.token, &name); break;
            case 1: append_number(out, r.chosen.logprob); break;
            case 2: append_text_top(out, t, &r, top, &name); break;
            case 3: strbuf_printf(out, "%zu", r.span.characters); break;
            }
        }
    }
    strbuf_puts(out, "]}");
    out->failed |= name.failed;
    strbuf_release(&name);
}
