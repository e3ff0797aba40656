/* Text in and out of a model: tokenizers, incremental detokenising, chat templates.
 *
 *   struct tokenizer      text -> ids and back, from a model's own vocabulary
 *   struct detokenizer    ids one by one -> text that never ends inside a character
 *   struct chat_template  a conversation (JSON) -> the prompt that the model was trained on
 *
 * A GGUF file states its vocabulary in metadata ("tokenizer.ggml.*"): model "llama" is
 * SentencePiece BPE, "gpt2" byte-level BPE with a named pre-tokenizer. A Hugging Face folder has
 * tokenizer.json. What this module does not know (another tokenizer model, pre-tokenizer, decoder)
 * is refused by name with ERR_UNSUPPORTED: a wrong guess would give plausible but wrong ids.
 *
 * The work is done by a Rust library (rust/, shoal_text_ffi.h); how vocabularies are converted and
 * where results differ from other programs: docs/text.md.
 *
 * Ownership: *_open and *_new give handles for the matching *_close / *_free. struct tokenizer and
 * struct chat_template are immutable and may be used by any number of threads at once. Lists are
 * the caller's, grow as needed and are reused; a zeroed one is empty.
 * Model files, templates and requests are hostile here: each failure is an error, never a crash. */
#ifndef SHOAL_TEXT_TEXT_H
#define SHOAL_TEXT_TEXT_H

#include "base/error.h"
#include "base/strbuf.h"
#include "modelfile/modelfile.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKEN_NONE UINT32_MAX /* no such token */

enum {
    TEXT_MAX_BYTES = 64 << 20,            /* of text in one tokenizer_encode */
    TEMPLATE_MAX_FUEL = 10 * 1000 * 1000, /* instructions of one rendering */
    TEMPLATE_MAX_BUILT_BYTES = 512 << 20, /* text that a rendering builds in all, temporary or not */
};

/* ---- lists of ids ---- */

struct token_list {
    uint32_t *ids;
    size_t n, capacity;
};

/* Append; ERR_MEMORY leaves the list as it was. */
enum err token_list_append(struct token_list *list, const uint32_t *ids, size_t n, struct error *e);
void token_list_release(struct token_list *list);

/* ---- tokenizer ---- */

struct tokenizer;

/* The tokenizer of a model (also a vocabulary-only GGUF, or a folder with just tokenizer.json). */
enum err tokenizer_open(const struct modelfile *m, struct tokenizer **out, struct error *e);
void tokenizer_close(struct tokenizer *t); /* NULL allowed */

/* From the bytes of a tokenizer.json. Beginning and end tokens are what its post-processor adds. */
enum err tokenizer_new_json(const void *json, size_t bytes, struct tokenizer **out,
                            struct error *e);

enum {
    TOKENIZER_ADD_SPECIAL = 1,   /* the tokens that the model wants around a text: usually BOS */
    TOKENIZER_PARSE_SPECIAL = 2, /* "<|eot|>" in the text is that token: only for trusted text */
};

/* Append the ids of `text` to *out. Bytes that are not UTF-8 are read as U+FFFD.
 * ERR_LIMIT for more than TEXT_MAX_BYTES; *out is unchanged on failure. */
enum err tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes,
                          unsigned flags, struct token_list *out, struct error *e);

enum {
    TOKENIZER_SKIP_SPECIAL = 1, /* control tokens give no text */
};

/* Append the text of `ids` to *out, always valid UTF-8: what is not becomes U+FFFD. The space that
 * SentencePiece puts in front of a text is dropped if `ids` begin with it.
 * ERR_INVALID for an id outside the vocabulary, ERR_LIMIT if the buffer is full (or was). What
 * was appended before a failure stays. */
enum err tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t n,
                          unsigned flags, struct strbuf *out, struct error *e);

uint32_t tokenizer_n_tokens(const struct tokenizer *t);
/* The bytes that a token stands for, perhaps part of a character; of a control token its name.
 * NULL if there is no such token. Valid until tokenizer_close. */
const char *tokenizer_piece(const struct tokenizer *t, uint32_t id, size_t *bytes);
/* The id of the token whose text in the vocabulary is `text`, or TOKEN_NONE. */
uint32_t tokenizer_find(const struct tokenizer *t, const char *text);
bool tokenizer_is_special(const struct tokenizer *t, uint32_t id); /* control or unknown */

uint32_t tokenizer_bos(const struct tokenizer *t); /* beginning of text, or TOKEN_NONE */
uint32_t tokenizer_eos(const struct tokenizer *t); /* end of text, or TOKEN_NONE */
uint32_t tokenizer_eot(const struct tokenizer *t); /* end of a turn, or TOKEN_NONE */
/* Every token that ends generation: eos, eot and what else the model's files name. */
const uint32_t *tokenizer_ends(const struct tokenizer *t, int *n);
bool tokenizer_is_end(const struct tokenizer *t, uint32_t id);

/* ---- vocabulary tables, for formats without tokenizer.json ---- */

enum vocab_kind { VOCAB_SPM, VOCAB_BPE };
enum vocab_space { VOCAB_SPACE_NONE, VOCAB_SPACE_EVERY, VOCAB_SPACE_FIRST };
enum vocab_type {
    VOCAB_NORMAL = 1,
    VOCAB_UNKNOWN,
    VOCAB_CONTROL,
    VOCAB_USER_DEFINED,
    VOCAB_UNUSED,
    VOCAB_BYTE,
};
enum { VOCAB_STRIP_LEFT = 1, VOCAB_STRIP_RIGHT = 2 };

/* Strings one behind the other: string i is blob[offsets[i] .. offsets[i+1]). Zeroed is empty. */
struct string_table {
    char *blob;
    uint64_t *offsets;
    size_t n, capacity, blob_capacity;
};

/* What tokenizer_new_vocab reads; all memory is the caller's. Set the tokens to TOKEN_NONE where
 * there are none: a zeroed struct names token 0. */
struct tokenizer_vocab {
    enum vocab_kind kind;
    enum vocab_space space; /* SPM: where a space goes in front */
    struct string_table tokens;
    const float *scores;   /* SPM */
    const uint8_t *types;  /* enum vocab_type */
    const uint8_t *strips; /* white space that a token swallows, or NULL */
    struct string_table merges; /* BPE: "left right", best first */
    const char *pre;            /* BPE: pre-tokenizer kind ("llama-bpe") */
    uint32_t bos, eos, eot, unknown;
    int add_bos; /* 1, 0, or -1: as is usual for the pre-tokenizer kind */
    bool add_eos;
};

enum err tokenizer_new_vocab(const struct tokenizer_vocab *v, struct tokenizer **out,
                             struct error *e);
enum err string_table_append(struct string_table *table, const char *string, size_t bytes,
                             struct error *e);
void string_table_release(struct string_table *table);

/* ---- detokenizer ---- */

/* The ids of one sequence as they come. What it has handed out, put together and finished, is
 * what tokenizer_decode makes of the same ids. Held by value; nothing to release. */
struct detokenizer {
    const struct tokenizer *tokenizer;
    unsigned flags; /* TOKENIZER_SKIP_SPECIAL */
    bool at_start;  /* no text yet: a leading space may be dropped */
    uint8_t pending[4]; /* a character begun */
    unsigned n_pending;
};

void detokenizer_init(struct detokenizer *d, const struct tokenizer *t, unsigned flags);
/* Take note of ids whose text is elsewhere (the prompt): what follows continues them, so that the
 * first generated word keeps its space. A character begun in them is given out when it ends. */
enum err detokenizer_prime(struct detokenizer *d, const uint32_t *ids, size_t n, struct error *e);
/* Append to *out the text that is certain now: whole characters only, perhaps nothing. */
enum err detokenizer_push(struct detokenizer *d, uint32_t id, struct strbuf *out,
                          struct error *e);
/* Append U+FFFD if a character was begun and never ended; then as after _init, but at no start. */
enum err detokenizer_finish(struct detokenizer *d, struct strbuf *out, struct error *e);

/* ---- chat templates ---- */

struct chat_template;

/* The template of a model: GGUF "tokenizer.chat_template", or chat_template.jinja or
 * tokenizer_config.json of a folder. Where there are several by name, "tool_use" is taken for
 * conversations with tools and "default" otherwise. ERR_NOT_FOUND if the model has none.
 * bos_token, eos_token and the like are known to it from the model's files (`t` may be NULL). */
enum err chat_template_open(const struct modelfile *m, const struct tokenizer *t,
                            struct chat_template **out, struct error *e);
/* From Jinja2 source; bos_token and eos_token come with the variables. */
enum err chat_template_new(const char *source, size_t bytes, struct chat_template **out,
                           struct error *e);
void chat_template_free(struct chat_template *c); /* NULL allowed */

/* Render with a JSON object of variables: messages, tools, documents, add_generation_prompt, and
 * whatever else a template asks for; "now" (ISO time) is what strftime_now sees, the local time
 * if absent. *out is 0-terminated and freed by the caller with free().
 * ERR_FORMAT: bad JSON, or the template refuses or fails, with its message and line.
 * ERR_LIMIT: more than TEMPLATE_MAX_FUEL, TEMPLATE_MAX_BUILT_BYTES, TEMPLATE_MAX_OUTPUT_BYTES, or
 * five seconds. */
enum err chat_template_render(const struct chat_template *c, const char *json_variables,
                              size_t bytes, char **out, size_t *out_bytes, struct error *e);

#endif
