/* The tokenizer that a GGUF file states in its metadata, keys "tokenizer.ggml.*".
 *
 * Gathers tokens, scores, types and merges into tables for tokenizer_new_vocab, checking every
 * type and length. Which text keys exist and what is meant by default follows the files that
 * llama.cpp's converters write; docs/formats/gguf.md and docs/text.md. */
#include "text/text_impl.h"

#include "base/panic.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define KEY(name) "tokenizer.ggml." name

/* Names of control tokens that end a turn or a text in well-known models, for files that name
 * only one end in their keys. */
static const char *const END_TEXTS[] = {
    "<|eot_id|>", "<|im_end|>",    "<|end|>",         "<end_of_turn>", "<|endoftext|>",
    "<|eom_id|>", "<|end_of_text|>", "<|return|>",    "<|call|>",      "<turn|>",
    "<EOT>",      "_<EOT>",        "<｜end▁of▁sentence｜>",
};

/* Everything allocated while a vocabulary is gathered. */
struct gathered {
    struct tokenizer_vocab vocab;
    float *scores;
    uint8_t *types, *strips;
    char *pre;
};

static void gathered_release(struct gathered *g)
{
    string_table_release(&g->vocab.tokens);
    string_table_release(&g->vocab.merges);
    free(g->scores);
    free(g->types);
    free(g->strips);
    free(g->pre);
}

/* Whether the string value of `key` is `text`. */
static bool meta_is(const struct modelfile *m, const char *key, const char *text)
{
    struct meta_value v;
    return modelfile_meta(m, key, &v) && v.type == META_STRING && v.bytes == strlen(text) &&
           memcmp(v.string, text, v.bytes) == 0;
}

/* Whether the string value of `key` has `text` in it, in either case. */
static bool meta_contains(const struct modelfile *m, const char *key, const char *text)
{
    struct meta_value v;
    size_t n = strlen(text);
    if (!modelfile_meta(m, key, &v) || v.type != META_STRING)
        return false;
    for (uint64_t i = 0; i + n <= v.bytes; i++)
        if (strncasecmp(v.string + i, text, n) == 0)
            return true;
    return false;
}

static enum err read_strings(const struct modelfile *m, const char *key,
                             struct string_table *table, struct error *e)
{
    struct meta_value array;
    if (!modelfile_meta(m, key, &array))
        return error_set(e, ERR_NOT_FOUND, "no key %s", key);
    if (array.type != META_ARRAY || array.elem != META_STRING)
        return error_set(e, ERR_FORMAT, "%s is not an array of strings", key);
    const void *cursor = NULL;
    for (uint64_t i = 0; i < array.n_elems; i++) {
        const char *string;
        uint64_t bytes;
        if (!modelfile_array_string(&array, i, &cursor, &string, &bytes))
            return error_set(e, ERR_FORMAT, "%s: element %llu is damaged", key,
                             (unsigned long long)i);
        enum err err = string_table_append(table, string, (size_t)bytes, e);
        if (err != OK)
            return err;
    }
    return OK;
}

/* An array of n numbers, whatever their type; absent is not an error (*found is false). */
static enum err read_numbers(const struct modelfile *m, const char *key, size_t n,
                             enum meta_type elem, struct meta_value *array, bool *found,
                             struct error *e)
{
    *found = modelfile_meta(m, key, array);
    if (!*found)
        return OK;
    bool integers = array->elem == META_INT || array->elem == META_UINT;
    bool fits = elem == META_FLOAT ? array->elem == META_FLOAT && array->elem_bytes == 4
                                   : integers && array->elem_bytes == 4;
    if (array->type != META_ARRAY || !fits)
        return error_set(e, ERR_FORMAT, "%s is not an array of 32-bit %s", key,
                         elem == META_FLOAT ? "floats" : "integers");
    if (array->n_elems != n)
        return error_set(e, ERR_FORMAT, "%s has %llu elements, expected %zu (one per token)", key,
                         (unsigned long long)array->n_elems, n);
    return OK;
}

static enum err read_types(const struct modelfile *m, struct gathered *g, struct error *e)
{
    size_t n = g->vocab.tokens.n;
    struct meta_value array;
    bool found;
    enum err err = read_numbers(m, KEY("token_type"), n, META_INT, &array, &found, e);
    if (err != OK)
        return err;
    g->types = malloc(n);
    if (g->types == NULL)
        return error_set(e, ERR_MEMORY, "out of memory for %zu token types", n);
    memset(g->types, VOCAB_NORMAL, n);
    for (size_t i = 0; found && i < n; i++) {
        int32_t type;
        memcpy(&type, (const char *)array.elems + i * sizeof(type), sizeof(type));
        if (type < VOCAB_NORMAL || type > VOCAB_BYTE)
            return error_set(e, ERR_FORMAT, "token %zu is of unknown type %d", i, (int)type);
        g->types[i] = (uint8_t)type;
    }
    g->vocab.types = g->types;
    return OK;
}

static enum err read_scores(const struct modelfile *m, struct gathered *g, struct error *e)
{
    size_t n = g->vocab.tokens.n;
    struct meta_value array;
    bool found;
    enum err err = read_numbers(m, KEY("scores"), n, META_FLOAT, &array, &found, e);
    if (err != OK)
        return err;
    if (!found)
        return error_set(e, ERR_NOT_FOUND, "no key %s", KEY("scores"));
    g->scores = malloc(n * sizeof(*g->scores));
    if (g->scores == NULL)
        return error_set(e, ERR_MEMORY, "out of memory for %zu token scores", n);
    memcpy(g->scores, array.elems, n * sizeof(*g->scores));
    g->vocab.scores = g->scores;
    return OK;
}

/* A token id under `key`; absent or out of range (writers put -1 for none) is TOKEN_NONE. */
static uint32_t read_id(const struct modelfile *m, const char *key, size_t n_tokens)
{
    struct meta_value v;
    if (!modelfile_meta(m, key, &v) || (v.type != META_UINT && v.type != META_INT))
        return TOKEN_NONE;
    uint64_t id = v.type == META_UINT ? v.u : (uint64_t)v.i;
    return id < n_tokens ? (uint32_t)id : TOKEN_NONE;
}

/* 1, 0, or `otherwise` where the key is absent. */
static int read_bool(const struct modelfile *m, const char *key, int otherwise)
{
    struct meta_value v;
    if (!modelfile_meta(m, key, &v) || v.type != META_BOOL)
        return otherwise;
    return v.u != 0;
}

static bool token_is(const struct tokenizer_vocab *v, size_t i, const char *text)
{
    size_t bytes = (size_t)(v->tokens.offsets[i + 1] - v->tokens.offsets[i]);
    return bytes == strlen(text) && memcmp(v->tokens.blob + v->tokens.offsets[i], text, bytes) == 0;
}

/* Phi-3's special tokens swallow the white space after them; GGUF has no key that says so. Those
 * of its ancestor do not. */
static enum err mark_phi3_strips(const struct modelfile *m, struct gathered *g, struct error *e)
{
    size_t n = g->vocab.tokens.n;
    if (!meta_contains(m, "general.name", "phi-3") && !meta_contains(m, "general.name", "phi3") &&
        !meta_is(m, "general.architecture", "phi3"))
        return OK;
    g->strips = calloc(n, 1);
    if (g->strips == NULL)
        return error_set(e, ERR_MEMORY, "out of memory for %zu token flags", n);
    for (size_t i = 0; i < n; i++) {
        bool listed = g->types[i] == VOCAB_CONTROL || g->types[i] == VOCAB_USER_DEFINED ||
                      g->types[i] == VOCAB_UNKNOWN;
        bool plain = token_is(&g->vocab, i, "<unk>") || token_is(&g->vocab, i, "<s>") ||
                     token_is(&g->vocab, i, "<|endoftext|>");
        if (listed && !plain)
            g->strips[i] = VOCAB_STRIP_RIGHT;
    }
    g->vocab.strips = g->strips;
    return OK;
}

static enum err read_spm(const struct modelfile *m, struct gathered *g, struct error *e)
{
    g->vocab.kind = VOCAB_SPM;
    g->vocab.space = read_bool(m, KEY("add_space_prefix"), 1) ? VOCAB_SPACE_EVERY
                                                               : VOCAB_SPACE_NONE;
    g->vocab.add_bos = read_bool(m, KEY("add_bos_token"), 1);
    enum err err = read_scores(m, g, e);
    return err != OK ? err : mark_phi3_strips(m, g, e);
}

static enum err read_bpe(const struct modelfile *m, struct gathered *g, struct error *e)
{
    struct meta_value pre;
    bool stated = modelfile_meta(m, KEY("pre"), &pre);
    if (stated && (pre.type != META_STRING || pre.bytes > 255))
        return error_set(e, ERR_FORMAT, "%s is not a short string", KEY("pre"));
    /* Files from before the key existed are of GPT-2's kind. */
    g->pre = stated ? strndup(pre.string, (size_t)pre.bytes) : strdup("default");
    if (g->pre == NULL)
        return error_set(e, ERR_MEMORY, "out of memory");
    g->vocab.kind = VOCAB_BPE;
    g->vocab.pre = g->pre;
    g->vocab.add_bos = read_bool(m, KEY("add_bos_token"), -1);
    return read_strings(m, KEY("merges"), &g->vocab.merges, e);
}

static enum err gather(const struct modelfile *m, struct gathered *g, struct error *e)
{
    struct meta_value model;
    if (!modelfile_meta(m, KEY("model"), &model) || model.type != META_STRING)
        return error_set(e, ERR_NOT_FOUND, "no key %s: the file has no tokenizer", KEY("model"));
    bool spm = meta_is(m, KEY("model"), "llama");
    if (!spm && !meta_is(m, KEY("model"), "gpt2"))
        return error_set(e, ERR_UNSUPPORTED, "tokenizer model '%.*s', expected 'llama' or 'gpt2'",
                         model.bytes < 64 ? (int)model.bytes : 64, model.string);
    enum err err = read_strings(m, KEY("tokens"), &g->vocab.tokens, e);
    if (err != OK)
        return err;
    size_t n = g->vocab.tokens.n;
    if (n == 0 || n > SHAPE_MAX_VOCAB)
        return error_set(e, ERR_LIMIT, "%zu tokens, expected 1 to %d", n, SHAPE_MAX_VOCAB);
    err = read_types(m, g, e);
    if (err == OK)
        err = spm ? read_spm(m, g, e) : read_bpe(m, g, e);
    g->vocab.bos = read_id(m, KEY("bos_token_id"), n);
    g->vocab.eos = read_id(m, KEY("eos_token_id"), n);
    g->vocab.eot = read_id(m, KEY("eot_token_id"), n);
    g->vocab.unknown = read_id(m, KEY("unknown_token_id"), n);
    g->vocab.add_eos = read_bool(m, KEY("add_eos_token"), 0) == 1;
    return err;
}

static void add_ends(const struct modelfile *m, struct tokenizer *t)
{
    tokenizer_add_end(t, read_id(m, KEY("eom_token_id"), tokenizer_n_tokens(t)));
    for (size_t i = 0; i < sizeof(END_TEXTS) / sizeof(END_TEXTS[0]); i++) {
        uint32_t id = tokenizer_find(t, END_TEXTS[i]);
        if (id != TOKEN_NONE && tokenizer_is_special(t, id))
            tokenizer_add_end(t, id);
    }
}

enum err tokenizer_open_gguf(const struct modelfile *m, struct tokenizer **out, struct error *e)
{
    struct gathered g = {0};
    enum err err = gather(m, &g, e);
    if (err == OK)
        err = tokenizer_new_vocab(&g.vocab, out, e);
    if (err == OK)
        add_ends(m, *out);
    gathered_release(&g);
    return err;
}
