/* Tokenizers of real models against reference ids, from the shared data:
 * llama.cpp's test strings for eight vocabularies (GGUF files, and vocab + merges files), edge
 * cases and paragraphs from Hugging Face (encoding and decoding), a corpus of 721 lines for
 * Mistral's SentencePiece model; and wherever two files hold one vocabulary in two formats, both
 * must give the same ids. Each tokenizer also decodes its ids one by one as it does all at once. */
#include "text/test_data_impl.h"

#include <ctype.h>

static struct tokenizer *open_path(const char *name)
{
    struct modelfile *m = NULL;
    struct tokenizer *t = NULL;
    ASSERT_OK(modelfile_open(shared_path(name), &m, e));
    ASSERT_OK(tokenizer_open(m, &t, e));
    modelfile_close(m); /* nothing of the file is needed any more */
    return t;
}

/* A Hugging Face folder's tokenizer.json alone. */
static struct tokenizer *open_json(const char *name)
{
    size_t bytes;
    char *json = read_whole_file(shared_path(name), &bytes);
    struct tokenizer *t = NULL;
    ASSERT_OK(tokenizer_new_json(json, bytes, &t, e));
    free(json);
    return t;
}

static void show_ids(const char *label, const uint32_t *ids, size_t n)
{
    printf("  %s:", label);
    for (size_t i = 0; i < n; i++)
        printf(" %u", ids[i]);
    printf("\n");
}

static bool same_ids(const char *what, const struct token_list *found, const uint32_t *ids,
                     size_t n)
{
    if (found->n == n && (n == 0 || memcmp(found->ids, ids, n * sizeof(*ids)) == 0))
        return true;
    printf("%s:\n", what);
    show_ids("expected", ids, n);
    show_ids("found   ", found->ids, found->n);
    return false;
}

/* ---- llama.cpp's strings ---- */

enum { MAX_CASE_IDS = 4096 };

/* The next string of an .inp file: up to a line with only the separator, or to the end (where the
 * last one is empty). NULL after that. */
static const char *next_string(char **rest, size_t *bytes)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char *start = *rest, *end = start != NULL ? strstr(start, separator) : NULL;
    if (start == NULL)
        return NULL;
    *bytes = end != NULL ? (size_t)(end - start) : strlen(start);
    *rest = end != NULL ? end + strlen(separator) : NULL;
    return start;
}

static size_t next_ids(char **rest, uint32_t *ids)
{
    size_t n = 0;
    char *p = *rest;
    while (*p != '\n' && *p != '\0') {
        if (isdigit((unsigned char)*p))
            ids[n++] = (uint32_t)strtoul(p, &p, 10);
        else
            p++;
        assert_true(n < MAX_CASE_IDS);
    }
    *rest = *p == '\n' ? p + 1 : p;
    return n;
}

/* Encode the strings of NAME.inp, compare with the lines of NAME.out; 47 cases each. */
static void check_strings(const struct tokenizer *t, const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "tokenizers/ggml-vocab/%s.gguf.inp", name);
    char *inputs = read_whole_file(shared_path(path), NULL), *in = inputs;
    snprintf(path, sizeof(path), "tokenizers/ggml-vocab/%s.gguf.out", name);
    char *outputs = read_whole_file(shared_path(path), NULL), *out = outputs;
    int n_cases = 0, n_equal = 0;
    const char *text;
    size_t bytes;
    while ((text = next_string(&in, &bytes)) != NULL) {
        uint32_t ids[MAX_CASE_IDS];
        size_t n = next_ids(&out, ids);
        struct token_list found = encoded(t, text, bytes, 0);
        char what[64];
        snprintf(what, sizeof(what), "%s, string %d", name, n_cases);
        n_equal += same_ids(what, &found, ids, n);
        check_incremental(t, found.ids, found.n);
        token_list_release(&found);
        n_cases++;
    }
    printf("%s: %d of %d strings\n", name, n_equal, n_cases);
    assert_int_equal(n_cases, 47);
    assert_int_equal(n_equal, n_cases);
    free(inputs);
    free(outputs);
}

static void test_gguf_vocabularies(void **state)
{
    (void)state;
    static const char *const names[] = {
        "ggml-vocab-deepseek-llm", "ggml-vocab-gpt-2",  "ggml-vocab-llama-spm",
        "ggml-vocab-phi-3",        "ggml-vocab-refact", "ggml-vocab-starcoder",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[256];
        snprintf(path, sizeof(path), "tokenizers/ggml-vocab/%s.gguf", names[i]);
        struct tokenizer *t = open_path(path);
        check_strings(t, names[i]);
        tokenizer_close(t);
    }
}

/* vocab.json ({"token": id}) and merges.txt as tables. */
static struct tokenizer *open_vocab_and_merges(const char *vocab_path, const char *merges_path,
                                               const char *pre)
{
    json_t *vocab = read_json_file(shared_path(vocab_path));
    size_t n = json_object_size(vocab);
    const char **texts = calloc(n, sizeof(*texts));
    const char *text;
    json_t *id;
    json_object_foreach(vocab, text, id) {
        assert_in_range(json_integer_value(id), 0, n - 1);
        texts[json_integer_value(id)] = text;
    }
    struct tokenizer_vocab v = {.kind = VOCAB_BPE, .pre = pre, .add_bos = 0, .bos = TOKEN_NONE,
                                .eos = TOKEN_NONE, .eot = TOKEN_NONE, .unknown = TOKEN_NONE};
    uint8_t *types = malloc(n);
    memset(types, VOCAB_NORMAL, n);
    v.types = types;
    for (size_t i = 0; i < n; i++)
        ASSERT_OK(string_table_append(&v.tokens, texts[i], strlen(texts[i]), e));
    char *merges = read_whole_file(shared_path(merges_path), NULL), *rest = merges, *line;
    while ((line = strsep(&rest, "\n")) != NULL)
        if (*line != '\0' && strncmp(line, "#version", 8) != 0)
            ASSERT_OK(string_table_append(&v.merges, line, strlen(line), e));
    struct tokenizer *t = NULL;
    ASSERT_OK(tokenizer_new_vocab(&v, &t, e));
    string_table_release(&v.tokens);
    string_table_release(&v.merges);
    free(types);
    free(merges);
    free(texts);
    json_decref(vocab);
    return t;
}

static void test_vocab_and_merges(void **state)
{
    (void)state;
    struct tokenizer *t = open_vocab_and_merges("tokenizers/llama3/encoder.json",
                                                "tokenizers/llama3/vocab.bpe", "llama-bpe");
    check_strings(t, "ggml-vocab-llama-bpe");
    tokenizer_close(t);
    t = open_vocab_and_merges("tokenizers/qwen2.5/vocab.json", "tokenizers/qwen2.5/merges.txt",
                              "qwen2");
    check_strings(t, "ggml-vocab-qwen2");
    tokenizer_close(t);
    t = open_vocab_and_merges("tokenizers/gpt2/vocab.json", "tokenizers/gpt2/merges.txt", "gpt-2");
    check_strings(t, "ggml-vocab-gpt-2");
    tokenizer_close(t);
}

/* The same strings through tokenizer.json, where it holds the same vocabulary. */
static void test_strings_by_tokenizer_json(void **state)
{
    (void)state;
    static const struct {
        const char *json, *name;
    } cases[] = {
        {"tokenizers/gpt2/tokenizer.json", "ggml-vocab-gpt-2"},
        {"tokenizers/llama2/tokenizer.json", "ggml-vocab-llama-spm"},
        {"tokenizers/tinyllama/tokenizer.json", "ggml-vocab-llama-spm"},
        {"tokenizers/phi-3/tokenizer.json", "ggml-vocab-phi-3"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tokenizer *t = open_json(cases[i].json);
        check_strings(t, cases[i].name);
        tokenizer_close(t);
    }
}

/* ---- Hugging Face's cases ---- */

static struct token_list ids_of_json(const json_t *array)
{
    struct token_list ids = {0};
    for (size_t i = 0; i < json_array_size(array); i++) {
        uint32_t id = (uint32_t)json_integer_value(json_array_get(array, i));
        ASSERT_OK(token_list_append(&ids, &id, 1, e));
    }
    return ids;
}

/* `transformers` removes a space before some punctuation when it decodes for GPT-2
 * (clean_up_tokenization_spaces); Shoal gives the text of the tokens as it is. So one of the
 * expected texts, decoded from "A\n'll !!to?…", differs by that space. */
static bool same_text(const char *found, const char *expected, const char *input)
{
    return strcmp(found, expected) == 0 ||
           (strstr(input, "'ll !!to?") != NULL && strcmp(found, input) == 0);
}

static void check_edge_cases(const struct tokenizer *t, const char *path, bool decoding)
{
    json_t *cases = read_json_file(shared_path(path));
    assert_int_equal(json_array_size(cases), 18);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const char *input = json_string_value(json_object_get(c, "input"));
        struct token_list ids =
            ids_of_json(json_object_get(json_object_get(c, "encoded"), "input_ids"));
        struct token_list found = encoded(t, input, strlen(input), TOKENIZER_ADD_SPECIAL);
        assert_true(same_ids(input, &found, ids.ids, ids.n));
        if (decoding) {
            char *text = decoded(t, ids.ids, ids.n, 0);
            assert_true(same_text(
                text, json_string_value(json_object_get(c, "decoded_with_special")), input));
            free(text);
        }
        char *text = decoded(t, ids.ids, ids.n, TOKENIZER_SKIP_SPECIAL);
        assert_true(same_text(
            text, json_string_value(json_object_get(c, "decoded_without_special")), input));
        free(text);
        check_incremental(t, ids.ids, ids.n);
        token_list_release(&ids);
        token_list_release(&found);
    }
    json_decref(cases);
}

static void check_paragraph(const struct tokenizer *t, const char *path)
{
    json_t *c = read_json_file(shared_path(path));
    const char *text = json_string_value(json_object_get(c, "text"));
    struct token_list ids = ids_of_json(json_object_get(c, "token_ids"));
    struct token_list found = encoded(t, text, strlen(text), TOKENIZER_ADD_SPECIAL);
    assert_true(same_ids(path, &found, ids.ids, ids.n));
    char *back = decoded(t, ids.ids, ids.n, 0);
    assert_string_equal(back, json_string_value(json_object_get(c, "decoded_text")));
    free(back);
    token_list_release(&ids);
    token_list_release(&found);
    json_decref(c);
}

static void test_edge_cases_and_paragraphs(void **state)
{
    (void)state;
    struct tokenizer *t = open_json("tokenizers/gpt2/tokenizer.json");
    check_edge_cases(t, "tokenizers/vectors/edge_cases_gpt2.json", true);
    check_paragraph(t, "tokenizers/vectors/gpt2_encoded_tokens.json");
    tokenizer_close(t);
    t = open_json("tokenizers/llama2/tokenizer.json");
    check_edge_cases(t, "tokenizers/vectors/edge_cases_llama2.json", true);
    check_paragraph(t, "tokenizers/vectors/llama_encoded.json");
    tokenizer_close(t);
    t = open_path("tokenizers/ggml-vocab/ggml-vocab-gpt-2.gguf");
    check_edge_cases(t, "tokenizers/vectors/edge_cases_gpt2.json", true);
    check_paragraph(t, "tokenizers/vectors/gpt2_encoded_tokens.json");
    tokenizer_close(t);
    t = open_path("tokenizers/ggml-vocab/ggml-vocab-llama-spm.gguf");
    check_edge_cases(t, "tokenizers/vectors/edge_cases_llama2.json", true);
    check_paragraph(t, "tokenizers/vectors/llama_encoded.json");
    tokenizer_close(t);
}

/* ---- SentencePiece models ---- */

/* Just enough protocol buffers: fields of ModelProto, and of SentencePiece in its field 1. */
struct wire {
    const uint8_t *p, *end;
};

static uint64_t wire_varint(struct wire *w)
{
    uint64_t v = 0;
    for (int shift = 0; w->p < w->end && shift < 64; shift += 7) {
        uint8_t b = *w->p++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            break;
    }
    return v;
}

/* The number of the next field and its content (a varint's value in *value). */
static uint64_t wire_field(struct wire *w, struct wire *content, uint64_t *value)
{
    uint64_t key = wire_varint(w);
    size_t n = 0;
    *value = 0;
    if ((key & 7) == 0)
        *value = wire_varint(w);
    else if ((key & 7) == 1)
        n = 8;
    else if ((key & 7) == 5)
        n = 4;
    else
        n = (size_t)wire_varint(w);
    assert_true(n <= (size_t)(w->end - w->p));
    *content = (struct wire){w->p, w->p + n};
    w->p += n;
    return key >> 3;
}

static void add_piece(struct wire piece, struct tokenizer_vocab *v, float *scores, uint8_t *types)
{
    struct wire content, text = {0};
    uint64_t value;
    size_t i = v->tokens.n;
    types[i] = VOCAB_NORMAL;
    scores[i] = 0;
    while (piece.p < piece.end) {
        switch (wire_field(&piece, &content, &value)) {
        case 1: text = content; break;
        case 2: memcpy(&scores[i], content.p, sizeof(float)); break;
        case 3: types[i] = (uint8_t)value; break;
        default: break;
        }
    }
    size_t bytes = (size_t)(text.end - text.p);
    if (types[i] == VOCAB_UNKNOWN)
        v->unknown = (uint32_t)i;
    ASSERT_OK(string_table_append(&v->tokens, (const char *)text.p, bytes, e));
}

static struct tokenizer *open_sentencepiece(const char *path, enum vocab_space space)
{
    enum { MAX_PIECES = 1 << 17 };
    size_t bytes;
    char *data = read_whole_file(shared_path(path), &bytes);
    struct wire w = {(const uint8_t *)data, (const uint8_t *)data + bytes};
    float *scores = calloc(MAX_PIECES, sizeof(*scores));
    uint8_t *types = calloc(MAX_PIECES, 1);
    struct tokenizer_vocab v = {.kind = VOCAB_SPM, .space = space, .scores = scores,
                                .types = types, .unknown = TOKEN_NONE, .bos = 1, .eos = 2,
                                .eot = TOKEN_NONE, .add_bos = 1};
    while (w.p < w.end) {
        struct wire content;
        uint64_t value;
        if (wire_field(&w, &content, &value) == 1 && v.tokens.n < MAX_PIECES)
            add_piece(content, &v, scores, types);
    }
    struct tokenizer *t = NULL;
    ASSERT_OK(tokenizer_new_vocab(&v, &t, e));
    string_table_release(&v.tokens);
    free(scores);
    free(types);
    free(data);
    return t;
}

static void test_mistral_corpus(void **state)
{
    (void)state;
    struct tokenizer *t = open_sentencepiece(
        "tokenizers/mistral/mistral_instruct_tokenizer_240323.model.v3", VOCAB_SPACE_FIRST);
    json_t *root =
        read_json_file(shared_path("tokenizers/vectors/mistral-7b-instruct-v0.3.json"));
    const json_t *all = json_object_get(root, "ids");
    char *corpus = read_whole_file(shared_path("tokenizers/vectors/tokenizer-corpus.txt"), NULL);
    char *rest = corpus, *line;
    int n_lines = 0, n_equal = 0;
    while ((line = strsep(&rest, "\n")) != NULL && *line != '\0') {
        json_t *text = json_loads(line, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_true(json_is_string(text));
        struct token_list ids = ids_of_json(json_array_get(all, (size_t)n_lines));
        struct token_list found = encoded(t, json_string_value(text), json_string_length(text),
                                          TOKENIZER_PARSE_SPECIAL);
        n_equal += same_ids(line, &found, ids.ids, ids.n);
        check_incremental(t, found.ids, found.n);
        token_list_release(&ids);
        token_list_release(&found);
        json_decref(text);
        n_lines++;
    }
    printf("mistral v0.3: %d of %d lines\n", n_equal, n_lines);
    assert_int_equal(n_lines, 721);
    assert_int_equal(n_equal, n_lines);
    free(corpus);
    json_decref(root);
    tokenizer_close(t);
}

static void test_llama2_sentencepiece(void **state)
{
    (void)state;
    struct tokenizer *t =
        open_sentencepiece("tokenizers/llama2/tokenizer.model", VOCAB_SPACE_EVERY);
    check_strings(t, "ggml-vocab-llama-spm");
    tokenizer_close(t);
}

/* ---- one vocabulary in two formats ---- */

/* Every line of the corpus must give the same ids with both. */
static void check_agree(const struct tokenizer *a, const struct tokenizer *b, unsigned flags)
{
    char *corpus = read_whole_file(shared_path("tokenizers/vectors/tokenizer-corpus.txt"), NULL);
    char *rest = corpus, *line;
    int n_differ = 0;
    while ((line = strsep(&rest, "\n")) != NULL && *line != '\0') {
        json_t *text = json_loads(line, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        size_t bytes = json_string_length(text);
        struct token_list x = encoded(a, json_string_value(text), bytes, flags);
        struct token_list y = encoded(b, json_string_value(text), bytes, flags);
        n_differ += !same_ids(line, &y, x.ids, x.n);
        token_list_release(&x);
        token_list_release(&y);
        json_decref(text);
    }
    assert_int_equal(n_differ, 0);
    free(corpus);
}

static void test_formats_agree(void **state)
{
    (void)state;
    static const struct {
        const char *gguf, *json;
    } pairs[] = {
        {"tokenizers/ggml-vocab/ggml-vocab-gpt-2.gguf", "tokenizers/gpt2/tokenizer.json"},
        {"tokenizers/ggml-vocab/ggml-vocab-llama-spm.gguf", "tokenizers/llama2/tokenizer.json"},
        {"tokenizers/ggml-vocab/ggml-vocab-phi-3.gguf", "tokenizers/phi-3/tokenizer.json"},
        {"tokenizers/ggml-vocab/ggml-vocab-gpt-neox.gguf", "tokenizers/pythia/tokenizer.json"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        struct tokenizer *gguf = open_path(pairs[i].gguf), *json = open_json(pairs[i].json);
        check_agree(json, gguf, 0);
        check_agree(json, gguf, TOKENIZER_PARSE_SPECIAL);
        tokenizer_close(gguf);
        tokenizer_close(json);
    }
}

/* ---- whole models ---- */

static void check_greedy_prompts(const char *model, const char *greedy)
{
    struct tokenizer *t = open_path(model);
    json_t *root = read_json_file(shared_path(greedy));
    json_t *cases = json_is_array(root) ? root : json_object_get(root, "cases");
    assert_true(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const char *prompt = json_string_value(json_object_get(c, "prompt"));
        struct token_list ids = ids_of_json(json_object_get(c, "prompt_ids"));
        assert_non_null(prompt);
        struct token_list found = encoded(t, prompt, strlen(prompt), TOKENIZER_ADD_SPECIAL);
        assert_true(same_ids(prompt, &found, ids.ids, ids.n));
        token_list_release(&ids);
        token_list_release(&found);
    }
    assert_int_equal(tokenizer_bos(t), 1);
    assert_true(tokenizer_is_end(t, 2));
    json_decref(root);
    tokenizer_close(t);
}

static void test_models(void **state)
{
    (void)state;
    check_greedy_prompts("models/stories260K/stories260K.gguf", "models/stories260K/greedy.json");
    check_greedy_prompts("models/story-656k-hf", "models/story-656k-hf/greedy.json");
}

static void test_other_vocabularies_open(void **state)
{
    (void)state;
    struct tokenizer *t = open_path("tokenizers/ggml-vocab/ggml-vocab-baichuan.gguf");
    struct token_list ids = encoded(t, "Hello, 世界", strlen("Hello, 世界"), 0);
    char *text = decoded(t, ids.ids, ids.n, 0);
    assert_string_equal(text, "Hello, 世界");
    free(text);
    token_list_release(&ids);
    tokenizer_close(t);
    t = open_path("tokenizers/minimind"); /* a folder with just a tokenizer */
    assert_int_equal(tokenizer_n_tokens(t), 6400);
    assert_true(tokenizer_is_end(t, tokenizer_find(t, "<|im_end|>")));
    tokenizer_close(t);
}

int main(void)
{
    skip_without_shared_data();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf_vocabularies),
        cmocka_unit_test(test_vocab_and_merges),
        cmocka_unit_test(test_strings_by_tokenizer_json),
        cmocka_unit_test(test_edge_cases_and_paragraphs),
        cmocka_unit_test(test_mistral_corpus),
        cmocka_unit_test(test_llama2_sentencepiece),
        cmocka_unit_test(test_formats_agree),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_other_vocabularies_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
