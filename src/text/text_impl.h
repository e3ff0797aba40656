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

/* Around every call into the Rust library: ThreadSanitizer sees its memory accesses only in part
 * (malloc, memcpy) and its locks not at all, and would report what those guard. */
#if defined(__SANITIZE_THREAD__)
#define TEXT_IGNORE_THREADS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEXT_IGNORE_THREADS 1
#endif
#endif
#ifdef TEXT_IGNORE_THREADS
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
static inline void ffi_begin(void)
{
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
static inline void ffi_end(void)
{
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#else
static inline void ffi_begin(void)
{
}
static inline void ffi_end(void)
{
}
#endif

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
