/* What the files of this module share: struct tokenizer, and the translation of FFI errors. */
#ifndef SHOAL_TEXT_TEXT_IMPL_H
#define SHOAL_TEXT_TEXT_IMPL_H

#include "text/shoal_text_ffi.h"
#include "text/text.h"

enum { TOKENIZER_MAX_ENDS = 64 };

struct tokenizer {
    struct shoal_tokenizer *ffi;
    struct shoal_pieces pieces; /* borrowed from ffi */
    uint32_t bos, eos, eot;
    uint32_t ends[TOKENIZER_MAX_ENDS];
    int n_ends;
};

/* ERR_* of a failed FFI call, with its text in *e. */
enum err text_ffi_error(const struct shoal_text_error *ffi, struct error *e);

/* Take `ffi` over (also on failure): a tokenizer with no bos, eos or ends yet. */
enum err tokenizer_adopt(struct shoal_tokenizer *ffi, struct tokenizer **out, struct error *e);
/* Add to the set of ends; TOKEN_NONE and duplicates are ignored, a full set too. */
void tokenizer_add_end(struct tokenizer *t, uint32_t id);

/* gguf_vocab.c, hf_tokens.c: the two sources of tokenizer_open. */
enum err tokenizer_open_gguf(const struct modelfile *m, struct tokenizer **out, struct error *e);
enum err tokenizer_open_hf(const struct modelfile *m, struct tokenizer **out, struct error *e);

#endif
