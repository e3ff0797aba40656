/* Tokenizers from GGUF metadata: small files written here, good ones and damaged ones. */
#include "text/test_data_impl.h"

#include <sys/stat.h>

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_BOOL = 7, GGUF_STRING = 8, GGUF_ARRAY = 9 };

/* A GGUF file in memory: header, then metadata pairs; no tensors. */
struct gguf {
    struct strbuf data;
    uint64_t n_pairs;
};

static void put(struct gguf *g, const void *p, size_t n)
{
    strbuf_append(&g->data, p, n);
}

static void put_u32(struct gguf *g, uint32_t v)
{
    put(g, &v, sizeof(v));
}

static void put_u64(struct gguf *g, uint64_t v)
{
    put(g, &v, sizeof(v));
}

static void put_string(struct gguf *g, const char *s)
{
    put_u64(g, strlen(s));
    put(g, s, strlen(s));
}

static void key(struct gguf *g, const char *name, uint32_t type)
{
    char full[128];
    snprintf(full, sizeof(full), "tokenizer.ggml.%s", name);
    put_string(g, name[0] == '!' ? name + 1 : full); /* '!': the name as it is */
    put_u32(g, type);
    g->n_pairs++;
}

static void pair_string(struct gguf *g, const char *name, const char *value)
{
    key(g, name, GGUF_STRING);
    put_string(g, value);
}

static void pair_u32(struct gguf *g, const char *name, uint32_t value)
{
    key(g, name, GGUF_U32);
    put_u32(g, value);
}

static void pair_bool(struct gguf *g, const char *name, uint8_t value)
{
    key(g, name, GGUF_BOOL);
    put(g, &value, 1);
}

static void pair_strings(struct gguf *g, const char *name, const char *const *values, size_t n)
{
    key(g, name, GGUF_ARRAY);
    put_u32(g, GGUF_STRING);
    put_u64(g, n);
    for (size_t i = 0; i < n; i++)
        put_string(g, values[i]);
}

static void pair_numbers(struct gguf *g, const char *name, uint32_t type, const void *values,
                         size_t n)
{
    key(g, name, GGUF_ARRAY);
    put_u32(g, type);
    put_u64(g, n);
    put(g, values, n * 4);
}

static void start(struct gguf *g)
{
    strbuf_init(&g->data, 1 << 24);
    g->n_pairs = 0;
    put(g, "GGUF", 4);
    put_u32(g, 3);
    put_u64(g, 0);
    put_u64(g, 0); /* pairs, set by open_written */
    pair_string(g, "!general.architecture", "llama");
}

/* Write the file, open it and its tokenizer; releases the memory. */
static enum err open_written(struct gguf *g, struct tokenizer **t, struct error *e)
{
    char path[] = "/tmp/shoal-vocab-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    memcpy(g->data.data + 16, &g->n_pairs, sizeof(g->n_pairs));
    assert_int_equal(write(fd, g->data.data, g->data.bytes), (ssize_t)g->data.bytes);
    close(fd);
    struct modelfile *m = NULL;
    *t = NULL;
    enum err err = modelfile_open(path, &m, e);
    if (err == OK)
        err = tokenizer_open(m, t, e);
    modelfile_close(m);
    unlink(path);
    strbuf_release(&g->data);
    return err;
}

/* ---- a SentencePiece vocabulary ---- */

static const char *const SPM_TOKENS[] = {"<unk>", "<s>", "</s>", "<|end|>", "▁", "a",
                                         "b",     "▁a",  "ab",   "▁ab",     "##"};
enum { N_SPM = sizeof(SPM_TOKENS) / sizeof(SPM_TOKENS[0]) };
static const float SPM_SCORES[N_SPM] = {0, 0, 0, 0, -9, -8, -7, -2, -1, -3, 0};
static const int32_t SPM_TYPES[N_SPM] = {2, 3, 3, 3, 1, 1, 1, 1, 1, 1, 4};

static void spm_pairs(struct gguf *g)
{
    start(g);
    pair_string(g, "model", "llama");
    pair_strings(g, "tokens", SPM_TOKENS, N_SPM);
    pair_numbers(g, "scores", GGUF_F32, SPM_SCORES, N_SPM);
    pair_numbers(g, "token_type", GGUF_I32, SPM_TYPES, N_SPM);
    pair_u32(g, "bos_token_id", 1);
    pair_u32(g, "eos_token_id", 2);
    pair_u32(g, "unknown_token_id", 0);
}

static void check_ids(const struct tokenizer *t, const char *text, unsigned flags,
                      const char *expected)
{
    char found[256] = "";
    struct token_list ids = encoded(t, text, strlen(text), flags);
    for (size_t i = 0; i < ids.n; i++)
        snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s%u", i > 0 ? " " : "",
                 ids.ids[i]);
    assert_string_equal(found, expected);
    token_list_release(&ids);
}

static void test_spm(void **state)
{
    (void)state;
    struct gguf g;
    struct tokenizer *t = NULL;
    spm_pairs(&g);
    ASSERT_OK(open_written(&g, &t, e));
    check_ids(t, "ab", 0, "9");       /* ▁ab by way of a+b: the better score */
    check_ids(t, "aa", 0, "7 5");
    check_ids(t, "", 0, "");
    check_ids(t, "", TOKENIZER_ADD_SPECIAL, "1");
    check_ids(t, "ab", TOKENIZER_ADD_SPECIAL, "1 9");
    check_ids(t, "axyb", 0, "7 0 6");  /* no byte tokens: one unknown for both */
    check_ids(t, "a##a", 0, "7 10 7"); /* user-defined: always matched, then a new space */
    check_ids(t, "<s>a", TOKENIZER_PARSE_SPECIAL, "1 7");
    check_ids(t, "<s>a", 0, "4 0 5"); /* text stays text */
    assert_int_equal(tokenizer_n_tokens(t), N_SPM);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_int_equal(tokenizer_eot(t), TOKEN_NONE);
    assert_true(tokenizer_is_end(t, 2));
    assert_true(tokenizer_is_end(t, 3)); /* by its name */
    assert_false(tokenizer_is_end(t, 1));
    assert_true(tokenizer_is_special(t, 1));
    assert_false(tokenizer_is_special(t, 10));
    tokenizer_close(t);
}

static void test_spm_settings(void **state)
{
    (void)state;
    struct gguf g;
    struct tokenizer *t = NULL;
    spm_pairs(&g);
    pair_bool(&g, "add_space_prefix", 0);
    pair_bool(&g, "add_bos_token", 0);
    pair_bool(&g, "add_eos_token", 1);
    pair_u32(&g, "eot_token_id", 3);
    ASSERT_OK(open_written(&g, &t, e));
    check_ids(t, "ab", TOKENIZER_ADD_SPECIAL, "8 2");
    assert_int_equal(tokenizer_eot(t), 3);
    tokenizer_close(t);
    spm_pairs(&g);
    pair_string(&g, "!general.name", "Phi-3 mini");
    ASSERT_OK(open_written(&g, &t, e));
    check_ids(t, "<|end|>  a", TOKENIZER_PARSE_SPECIAL, "3 7"); /* swallows the spaces */
    tokenizer_close(t);
}

/* ---- a byte-level vocabulary ---- */

static const char *const BPE_TOKENS[] = {"h", "e", "l", "o", "Ġ", "he", "ll", "hell", "hello",
                                         "1", "2", "Ã", "©", "é", "<eot>"};
enum { N_BPE = sizeof(BPE_TOKENS) / sizeof(BPE_TOKENS[0]) };
static const int32_t BPE_TYPES[N_BPE] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4, 3};
static const char *const BPE_MERGES[] = {"h e", "l l", "he ll"};

static void bpe_pairs(struct gguf *g, const char *pre)
{
    start(g);
    pair_string(g, "model", "gpt2");
    if (pre != NULL)
        pair_string(g, "pre", pre);
    pair_strings(g, "tokens", BPE_TOKENS, N_BPE);
    pair_numbers(g, "token_type", GGUF_I32, BPE_TYPES, N_BPE);
    pair_strings(g, "merges", BPE_MERGES, 3);
    pair_u32(g, "bos_token_id", 14);
    pair_u32(g, "eos_token_id", UINT32_MAX); /* as some writers say "none" */
}

static void test_bpe(void **state)
{
    (void)state;
    struct gguf g;
    struct tokenizer *t = NULL;
    bpe_pairs(&g, NULL);
    ASSERT_OK(open_written(&g, &t, e));
    check_ids(t, "hello", TOKENIZER_ADD_SPECIAL, "7 3"); /* no merge makes hello; no BOS */
    check_ids(t, " 12", 0, "4 9 10");
    check_ids(t, "é<eot>", TOKENIZER_PARSE_SPECIAL, "13 14"); /* é is user-defined */
    assert_int_equal(tokenizer_eos(t), TOKEN_NONE);
    size_t bytes;
    assert_memory_equal(tokenizer_piece(t, 4, &bytes), " ", 1);
    assert_memory_equal(tokenizer_piece(t, 11, &bytes), "\xc3", 1);
    assert_memory_equal(tokenizer_piece(t, 13, &bytes), "é", 2);
    assert_null(tokenizer_piece(t, N_BPE, &bytes));
    tokenizer_close(t);
    bpe_pairs(&g, "llama-bpe");
    ASSERT_OK(open_written(&g, &t, e));
    check_ids(t, "hello", TOKENIZER_ADD_SPECIAL, "14 8"); /* whole tokens first, BOS is usual */
    tokenizer_close(t);
}

/* ---- damaged files ---- */

static void check_refused(struct gguf *g, enum err code, const char *text)
{
    struct error e = {0};
    struct tokenizer *t = NULL;
    enum err err = open_written(g, &t, &e);
    if (err != code || strstr(e.text, text) == NULL)
        fail_msg("expected %s with '%s', found %s: %s", err_text(code), text, err_text(err),
                 e.text);
    assert_null(t);
}

static void test_missing_and_unknown(void **state)
{
    (void)state;
    struct gguf g;
    start(&g);
    check_refused(&g, ERR_NOT_FOUND, "no key tokenizer.ggml.model");
    start(&g);
    pair_string(&g, "model", "bert");
    check_refused(&g, ERR_UNSUPPORTED, "'bert', expected 'llama' or 'gpt2'");
    start(&g);
    pair_string(&g, "model", "llama");
    check_refused(&g, ERR_NOT_FOUND, "tokenizer.ggml.tokens");
    start(&g);
    pair_string(&g, "model", "llama");
    pair_strings(&g, "tokens", SPM_TOKENS, N_SPM);
    check_refused(&g, ERR_NOT_FOUND, "tokenizer.ggml.scores");
    bpe_pairs(&g, "no-such-kind");
    check_refused(&g, ERR_UNSUPPORTED, "\"no-such-kind\"");
    start(&g);
    pair_string(&g, "model", "gpt2");
    pair_strings(&g, "tokens", BPE_TOKENS, N_BPE);
    check_refused(&g, ERR_NOT_FOUND, "tokenizer.ggml.merges");
}

static void test_wrong_values(void **state)
{
    (void)state;
    struct gguf g;
    static const int32_t bad_types[N_SPM] = {9};
    static const float bad_scores[N_SPM] = {0, 0, 0, 0, -1.0f / 0.0f};
    static const char *const bad_merge[] = {"h e", "hq"};
    static const char *const unknown_merge[] = {"h zz"};
    static const char *const not_utf8[] = {"a", "\xff"};
    start(&g);
    pair_string(&g, "model", "llama");
    pair_strings(&g, "tokens", SPM_TOKENS, N_SPM);
    pair_numbers(&g, "scores", GGUF_F32, SPM_SCORES, N_SPM - 1);
    check_refused(&g, ERR_FORMAT, "scores has 10 elements, expected 11");
    start(&g);
    pair_string(&g, "model", "llama");
    pair_strings(&g, "tokens", SPM_TOKENS, N_SPM);
    pair_numbers(&g, "token_type", GGUF_I32, bad_types, N_SPM);
    check_refused(&g, ERR_FORMAT, "token 0 is of unknown type 9");
    start(&g);
    pair_string(&g, "model", "llama");
    pair_strings(&g, "tokens", SPM_TOKENS, N_SPM);
    pair_numbers(&g, "scores", GGUF_F32, bad_scores, N_SPM);
    check_refused(&g, ERR_FORMAT, "score of token 4 is -inf");
    start(&g);
    pair_string(&g, "model", "gpt2");
    pair_strings(&g, "tokens", BPE_TOKENS, N_BPE);
    pair_strings(&g, "merges", bad_merge, 2);
    check_refused(&g, ERR_FORMAT, "merge 1 is not two tokens");
    start(&g);
    pair_string(&g, "model", "gpt2");
    pair_strings(&g, "tokens", BPE_TOKENS, N_BPE);
    pair_strings(&g, "merges", unknown_merge, 1);
    check_refused(&g, ERR_FORMAT, "merges");
    start(&g);
    pair_string(&g, "model", "gpt2");
    pair_strings(&g, "tokens", not_utf8, 2);
    pair_strings(&g, "merges", bad_merge, 0);
    check_refused(&g, ERR_FORMAT, "token 1 is not valid UTF-8");
    start(&g);
    pair_string(&g, "model", "gpt2");
    pair_u32(&g, "tokens", 7);
    check_refused(&g, ERR_FORMAT, "tokens is not an array of strings");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spm),
        cmocka_unit_test(test_spm_settings),
        cmocka_unit_test(test_bpe),
        cmocka_unit_test(test_missing_and_unknown),
        cmocka_unit_test(test_wrong_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
