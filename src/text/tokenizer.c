/* Tokenizers: the part that is the same wherever the vocabulary came from.
 *
 * Encoding happens in the Rust library. Decoding happens here, on its table of pieces: every token
 * adds fixed bytes to the text, so that decoding one id at a time needs no more than a table and
 * the bytes of an unfinished character (detokenizer.c). */
#include "text/text_impl.h"

#include "base/panic.h"

#include <stdlib.h>
#include <string.h>

enum err text_ffi_error(const struct shoal_text_error *ffi, struct error *e)
{
    static const enum err codes[] = {
        [SHOAL_TEXT_OK] = ERR_INTERNAL,         [SHOAL_TEXT_FORMAT] = ERR_FORMAT,
        [SHOAL_TEXT_UNSUPPORTED] = ERR_UNSUPPORTED, [SHOAL_TEXT_LIMIT] = ERR_LIMIT,
        [SHOAL_TEXT_PANIC] = ERR_INTERNAL,
    };
    bool known = ffi->code >= 0 && ffi->code <= SHOAL_TEXT_PANIC;
    return error_set(e, known ? codes[ffi->code] : ERR_INTERNAL, "%s", ffi->text);
}

enum err tokenizer_adopt(struct shoal_tokenizer *ffi, struct tokenizer **out, struct error *e)
{
    struct tokenizer *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        shoal_tokenizer_free(ffi);
        return error_set(e, ERR_MEMORY, "tokenizer: out of memory");
    }
    t->ffi = ffi;
    t->bos = t->eos = t->eot = TOKEN_NONE;
    shoal_tokenizer_pieces(ffi, &t->pieces);
    *out = t;
    return OK;
}

void tokenizer_add_end(struct tokenizer *t, uint32_t id)
{
    if (id == TOKEN_NONE || tokenizer_is_end(t, id) || t->n_ends == TOKENIZER_MAX_ENDS)
        return;
    t->ends[t->n_ends++] = id;
}

enum err tokenizer_open(const struct modelfile *m, struct tokenizer **out, struct error *e)
{
    *out = NULL;
    enum err err = modelfile_format(m) == MODEL_GGUF ? tokenizer_open_gguf(m, out, e)
                                                     : tokenizer_open_hf(m, out, e);
    if (err != OK)
        return error_prefix(e, "%s", modelfile_path(m)), err;
    return OK;
}

void tokenizer_close(struct tokenizer *t)
{
    if (t == NULL)
        return;
    ffi_begin();
    shoal_tokenizer_free(t->ffi);
    ffi_end();
    free(t);
}

/* The token that the post-processor puts first, and last, if they are special ones. */
static void find_surroundings(struct tokenizer *t)
{
    struct token_list ids = {0};
    if (tokenizer_encode(t, "", 0, TOKENIZER_ADD_SPECIAL, &ids, NULL) == OK && ids.n > 0) {
        if (tokenizer_is_special(t, ids.ids[0]))
            t->bos = ids.ids[0];
        if (ids.n > 1 && tokenizer_is_special(t, ids.ids[ids.n - 1]))
            t->eos = ids.ids[ids.n - 1];
    }
    token_list_release(&ids);
    tokenizer_add_end(t, t->eos);
}

enum err tokenizer_new_json(const void *json, size_t bytes, struct tokenizer **out,
                            struct error *e)
{
    struct shoal_text_error ffi_error;
    struct shoal_tokenizer *ffi = NULL;
    *out = NULL;
    ffi_begin();
    int32_t code = shoal_tokenizer_from_json(json, bytes, &ffi, &ffi_error);
    ffi_end();
    if (code != SHOAL_TEXT_OK)
        return text_ffi_error(&ffi_error, e);
    enum err err = tokenizer_adopt(ffi, out, e);
    if (err == OK)
        find_surroundings(*out);
    return err;
}

enum err tokenizer_new_vocab(const struct tokenizer_vocab *v, struct tokenizer **out,
                             struct error *e)
{
    *out = NULL;
    if (v->tokens.n == 0 || v->tokens.n > SHAPE_MAX_VOCAB || v->merges.n > UINT32_MAX)
        return error_set(e, ERR_LIMIT, "vocabulary of %zu tokens, expected 1 to %d", v->tokens.n,
                         SHAPE_MAX_VOCAB);
    struct shoal_vocab tables = {
        .kind = v->kind == VOCAB_SPM ? SHOAL_VOCAB_SPM : SHOAL_VOCAB_BPE,
        .space_prefix = (uint32_t)v->space,
        .unknown = v->unknown,
        .prepend = v->add_bos == 1 ? v->bos : SHOAL_NO_TOKEN,
        .prepend_if_usual = v->add_bos < 0 ? v->bos : SHOAL_NO_TOKEN,
        .append = v->add_eos ? v->eos : SHOAL_NO_TOKEN,
        .n_tokens = (uint32_t)v->tokens.n,
        .token_blob = (const uint8_t *)v->tokens.blob,
        .token_offsets = v->tokens.offsets,
        .scores = v->scores,
        .types = v->types,
        .strips = v->strips,
        .n_merges = (uint32_t)v->merges.n,
        .merge_blob = (const uint8_t *)v->merges.blob,
        .merge_offsets = v->merges.offsets,
        .pre = v->pre,
    };
    struct shoal_text_error ffi_error;
    struct shoal_tokenizer *ffi = NULL;
    ffi_begin();
    int32_t code = shoal_tokenizer_from_vocab(&tables, &ffi, &ffi_error);
    ffi_end();
    if (code != SHOAL_TEXT_OK)
        return text_ffi_error(&ffi_error, e);
    enum err err = tokenizer_adopt(ffi, out, e);
    if (err != OK)
        return err;
    struct tokenizer *t = *out;
    t->bos = v->bos < v->tokens.n ? v->bos : TOKEN_NONE;
    t->eos = v->eos < v->tokens.n ? v->eos : TOKEN_NONE;
    t->eot = v->eot < v->tokens.n ? v->eot : TOKEN_NONE;
    tokenizer_add_end(t, t->eos);
    tokenizer_add_end(t, t->eot);
    return OK;
}

enum err tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes,
                          unsigned flags, struct token_list *out, struct error *e)
{
    if (bytes > TEXT_MAX_BYTES)
        return error_set(e, ERR_LIMIT, "text of %zu bytes is longer than %d", bytes,
                         TEXT_MAX_BYTES);
    uint32_t ffi_flags = 0;
    if (flags & TOKENIZER_ADD_SPECIAL)
        ffi_flags |= SHOAL_ENCODE_ADD_SPECIAL;
    if (flags & TOKENIZER_PARSE_SPECIAL)
        ffi_flags |= SHOAL_ENCODE_PARSE_SPECIAL;
    struct shoal_text_error ffi_error;
    struct shoal_text_ids ids;
    ffi_begin();
    int32_t code = shoal_tokenizer_encode(t->ffi, (const uint8_t *)text, bytes, ffi_flags, &ids,
                                          &ffi_error);
    ffi_end();
    if (code != SHOAL_TEXT_OK)
        return text_ffi_error(&ffi_error, e);
    enum err err = token_list_append(out, ids.ids, ids.n, e);
    ffi_begin();
    shoal_text_ids_free(ids);
    ffi_end();
    return err;
}

enum err tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t n,
                          unsigned flags, struct strbuf *out, struct error *e)
{
    struct detokenizer d;
    detokenizer_init(&d, t, flags);
    enum err err = OK;
    for (size_t i = 0; i < n && err == OK; i++)
        err = detokenizer_push(&d, ids[i], out, e);
    if (err == OK)
        err = detokenizer_finish(&d, out, e);
    return err;
}

uint32_t tokenizer_n_tokens(const struct tokenizer *t)
{
    return t->pieces.n;
}

const char *tokenizer_piece(const struct tokenizer *t, uint32_t id, size_t *bytes)
{
    if (id >= t->pieces.n)
        return NULL;
    *bytes = (size_t)(t->pieces.offsets[id + 1] - t->pieces.offsets[id]);
    return (const char *)t->pieces.blob + t->pieces.offsets[id];
}

uint32_t tokenizer_find(const struct tokenizer *t, const char *text)
{
    return shoal_tokenizer_find(t->ffi, (const uint8_t *)text, strlen(text));
}

bool tokenizer_is_special(const struct tokenizer *t, uint32_t id)
{
    return id < t->pieces.n && (t->pieces.flags[id] & SHOAL_PIECE_SPECIAL) != 0;
}

uint32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

uint32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

uint32_t tokenizer_eot(const struct tokenizer *t)
{
    return t->eot;
}

const uint32_t *tokenizer_ends(const struct tokenizer *t, int *n)
{
    *n = t->n_ends;
    return t->ends;
}

bool tokenizer_is_end(const struct tokenizer *t, uint32_t id)
{
    for (int i = 0; i < t->n_ends; i++)
        if (t->ends[i] == id)
            return true;
    return false;
}
