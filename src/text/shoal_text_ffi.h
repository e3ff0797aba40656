/* The C ABI of the Rust text library (rust/, crate shoal-text), used only by src/text.
 *
 * This header and rust/src/ffi.rs describe the same functions by hand; a change is made in both.
 * Rules that every function keeps:
 *  - A failure returns a code other than SHOAL_TEXT_OK and fills *error (never NULL); out
 *    parameters are then untouched. No panic ever crosses into C: it becomes SHOAL_TEXT_PANIC.
 *  - Inputs are borrowed for the call only. Text need not end in 0 and need not be valid UTF-8.
 *  - A handle is immutable after it was made: any number of threads may use it at once.
 *  - Memory handed out (struct shoal_text_ids, struct shoal_text_bytes) is given back with the
 *    function named there; both live in the library's heap.
 * Each part of the library is one Rust file and one section here; constrained output (grammars)
 * will be a third section. */
#ifndef SHOAL_TEXT_FFI_H
#define SHOAL_TEXT_FFI_H

#include <stddef.h>
#include <stdint.h>

enum shoal_text_code {
    SHOAL_TEXT_OK = 0,
    SHOAL_TEXT_FORMAT = 1,      /* malformed input */
    SHOAL_TEXT_UNSUPPORTED = 2, /* well-formed, but something this library does not do */
    SHOAL_TEXT_LIMIT = 3,       /* fuel, output or size limit exceeded */
    SHOAL_TEXT_PANIC = 4,       /* a bug in the library, caught */
};

struct shoal_text_error {
    int32_t code;
    char text[252]; /* one line, 0-terminated, cut at a character boundary */
};

struct shoal_text_ids {
    uint32_t *ids;
    size_t n;
};

struct shoal_text_bytes {
    uint8_t *bytes;
    size_t n;
};

void shoal_text_ids_free(struct shoal_text_ids ids);
void shoal_text_bytes_free(struct shoal_text_bytes bytes);

/* ---- tokenizers: rust/src/tokenizer.rs ---- */

struct shoal_tokenizer;

enum shoal_vocab_kind {
    SHOAL_VOCAB_SPM = 0, /* SentencePiece BPE: pieces with scores, byte pieces "<0x41>" */
    SHOAL_VOCAB_BPE = 1, /* byte-level BPE: pieces in the GPT-2 byte alphabet, ranked merges */
};

/* What each token is; the values that GGUF and SentencePiece use. */
enum shoal_token_type {
    SHOAL_TOKEN_NORMAL = 1,
    SHOAL_TOKEN_UNKNOWN = 2,
    SHOAL_TOKEN_CONTROL = 3,
    SHOAL_TOKEN_USER_DEFINED = 4,
    SHOAL_TOKEN_UNUSED = 5,
    SHOAL_TOKEN_BYTE = 6,
};

enum shoal_space_prefix {
    SHOAL_SPACE_NONE = 0,
    SHOAL_SPACE_EVERY = 1, /* a space before each run of plain text (SentencePiece, llama.cpp) */
    SHOAL_SPACE_FIRST = 2, /* only at the very start, and not if there is a space already */
};

enum {
    SHOAL_STRIP_LEFT = 1,  /* the token swallows white space before it */
    SHOAL_STRIP_RIGHT = 2, /* … after it */
};

#define SHOAL_NO_TOKEN UINT32_MAX

/* A vocabulary as tables: token i is blob[offsets[i] .. offsets[i+1]). */
struct shoal_vocab {
    uint32_t kind;         /* enum shoal_vocab_kind */
    uint32_t space_prefix; /* enum shoal_space_prefix; SPM only */
    uint32_t unknown;      /* token id or SHOAL_NO_TOKEN */
    uint32_t prepend;      /* put in front when specials are added, or SHOAL_NO_TOKEN */
    uint32_t prepend_if_usual; /* … if `prepend` is none and it is usual for `kind` and `pre` */
    uint32_t append;       /* put behind, or SHOAL_NO_TOKEN */
    uint32_t n_tokens;
    const uint8_t *token_blob;
    const uint64_t *token_offsets; /* n_tokens + 1 */
    const float *scores;           /* n_tokens; SPM only */
    const uint8_t *types;          /* n_tokens, enum shoal_token_type */
    const uint8_t *strips;         /* n_tokens, SHOAL_STRIP_*; NULL: none strips */
    uint32_t n_merges;             /* BPE only: "left right" each, best first */
    const uint8_t *merge_blob;
    const uint64_t *merge_offsets; /* n_merges + 1 */
    const char *pre;               /* BPE only: pre-tokenizer kind, 0-terminated */
};

int32_t shoal_tokenizer_from_vocab(const struct shoal_vocab *vocab, struct shoal_tokenizer **out,
                                   struct shoal_text_error *error);
int32_t shoal_tokenizer_from_json(const uint8_t *json, size_t bytes, struct shoal_tokenizer **out,
                                  struct shoal_text_error *error);
void shoal_tokenizer_free(struct shoal_tokenizer *t); /* NULL allowed */

enum {
    SHOAL_ENCODE_ADD_SPECIAL = 1,
    SHOAL_ENCODE_PARSE_SPECIAL = 2,
};

int32_t shoal_tokenizer_encode(const struct shoal_tokenizer *t, const uint8_t *text, size_t bytes,
                               uint32_t flags, struct shoal_text_ids *out,
                               struct shoal_text_error *error);

enum {
    SHOAL_PIECE_SPECIAL = 1, /* control or unknown token: no part of the text proper */
    SHOAL_PIECE_ADDED = 2,   /* matched as a whole before the text is split */
};

/* The text of every token, borrowed until shoal_tokenizer_free: what it adds to decoded text. */
struct shoal_pieces {
    uint32_t n;
    uint32_t strip_leading; /* 1: one space at the very start of decoded text is dropped */
    const uint8_t *blob;
    const uint64_t *offsets; /* n + 1 */
    const uint8_t *flags;    /* n, SHOAL_PIECE_* */
};
void shoal_tokenizer_pieces(const struct shoal_tokenizer *t, struct shoal_pieces *out);

/* The id of an added or ordinary token by the text it stands for in the vocabulary, or
 * SHOAL_NO_TOKEN. */
uint32_t shoal_tokenizer_find(const struct shoal_tokenizer *t, const uint8_t *text, size_t bytes);

/* ---- chat templates: rust/src/template.rs ---- */

struct shoal_template;

struct shoal_template_limits {
    uint64_t fuel;         /* instructions of the template machine */
    uint64_t memory_bytes; /* of one value that the template builds */
    uint64_t output_bytes;
};

int32_t shoal_template_new(const uint8_t *source, size_t bytes, struct shoal_template **out,
                           struct shoal_text_error *error);
void shoal_template_free(struct shoal_template *t); /* NULL allowed */

/* Render with the members of the JSON objects `defaults` and `variables` (which wins). The
 * variable "now" ("2025-01-15T12:00:00") is what strftime_now sees. */
int32_t shoal_template_render(const struct shoal_template *t, const uint8_t *defaults,
                              size_t default_bytes, const uint8_t *variables,
                              size_t variable_bytes, const struct shoal_template_limits *limits,
                              struct shoal_text_bytes *out, struct shoal_text_error *error);

#endif
