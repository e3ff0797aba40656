/* Tokenizers from small tokenizer.json files of our own (tests/corpora/tokenizer_json, also the
 * seeds of the fuzzer): encoding, decoding, special tokens; and files that must be refused. */
#include "text/test_data_impl.h"

#include <pthread.h>

static char *corpus_file(const char *name, size_t *bytes)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/tests/corpora/tokenizer_json/%s", SHOAL_SOURCE_DIR, name);
    return read_whole_file(path, bytes);
}

static struct tokenizer *open_corpus(const char *name)
{
    size_t bytes;
    char *json = corpus_file(name, &bytes);
    struct tokenizer *t = NULL;
    ASSERT_OK(tokenizer_new_json(json, bytes, &t, e));
    free(json);
    return t;
}

/* Ids written as the texts of their pieces between bars; unprintable as they are. */
static void check_pieces(const struct tokenizer *t, const char *text, unsigned flags,
                         const char *expected)
{
    struct token_list ids = encoded(t, text, strlen(text), flags);
    struct strbuf found;
    strbuf_init(&found, 4096);
    for (size_t i = 0; i < ids.n; i++) {
        size_t bytes;
        const char *piece = tokenizer_piece(t, ids.ids[i], &bytes);
        strbuf_append(&found, piece, bytes);
        strbuf_append(&found, "|", 1);
    }
    assert_string_equal(found.data, expected);
    strbuf_release(&found);
    token_list_release(&ids);
}

static void check_round_trip(const struct tokenizer *t, const char *text)
{
    struct token_list ids = encoded(t, text, strlen(text), TOKENIZER_ADD_SPECIAL);
    char *back = decoded(t, ids.ids, ids.n, TOKENIZER_SKIP_SPECIAL);
    assert_string_equal(back, text);
    check_incremental(t, ids.ids, ids.n);
    free(back);
    token_list_release(&ids);
}

static void test_byte_level(void **state)
{
    (void)state;
    struct tokenizer *t = open_corpus("byte_level.json");
    check_pieces(t, "hello world", 0, "hello| wor|l|d|");
    check_pieces(t, "é12", TOKENIZER_ADD_SPECIAL, "<s>|é|1|2|");
    check_pieces(t, "e\xcc\x81", 0, "é|"); /* NFC */
    check_pieces(t, "a<|eot|>  b##", TOKENIZER_PARSE_SPECIAL, "a|<|eot|>|b|##|");
    check_pieces(t, "<s>##", 0, "<|s|>|##|");
    check_pieces(t, "", TOKENIZER_ADD_SPECIAL, "<s>|");
    check_pieces(t, "\xff", 0, "\xef|\xbf|\xbd|"); /* not UTF-8: U+FFFD */
    check_round_trip(t, " Hello  world\n\t日本 😀 ");
    assert_int_equal(tokenizer_bos(t), tokenizer_find(t, "<s>"));
    assert_int_equal(tokenizer_find(t, "no such"), TOKEN_NONE);
    assert_true(tokenizer_is_special(t, tokenizer_find(t, "<|eot|>")));
    assert_false(tokenizer_is_special(t, tokenizer_find(t, "##")));
    tokenizer_close(t);
}

static void test_sentencepiece_like(void **state)
{
    (void)state;
    struct tokenizer *t = open_corpus("sentencepiece.json");
    check_pieces(t, "hello world", TOKENIZER_ADD_SPECIAL, "<s>| hello| w|o|r|l|d|");
    check_pieces(t, "</s>", TOKENIZER_PARSE_SPECIAL, "</s>|");
    check_pieces(t, "é", 0, " |\xc3|\xa9|"); /* bytes */
    check_round_trip(t, "hello  world é😀\n");
    tokenizer_close(t);
    t = open_corpus("metaspace.json");
    check_pieces(t, "hello hello", 0, " hello| hello|");
    check_pieces(t, " hello", 0, " hello|"); /* a space is there already */
    tokenizer_close(t);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        enum err code;
        const char *text;
    } cases[] = {
        {"wordpiece.json", ERR_UNSUPPORTED, "\"WordPiece\", expected \"BPE\""},
        {"deep_sequence.json", ERR_LIMIT, "normalizer is nested"},
        {"wrong_added_id.json", ERR_FORMAT, "\"<s>\" says id 7"},
        {"huge_id.json", ERR_LIMIT, "token id 4294967295"},
        {"unknown_merge.json", ERR_FORMAT, "q"},
        {"text_twice.json", ERR_UNSUPPORTED, "2 texts"},
        {"dropout.json", ERR_UNSUPPORTED, "dropout"},
        {"truncated.json", ERR_FORMAT, "EOF"},
        {"empty.json", ERR_FORMAT, "EOF"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t bytes;
        char *json = corpus_file(cases[i].file, &bytes);
        struct tokenizer *t = NULL;
        struct error e = {0};
        enum err err = tokenizer_new_json(json, bytes, &t, &e);
        if (err != cases[i].code || strstr(e.text, cases[i].text) == NULL)
            fail_msg("%s: found %s: %s", cases[i].file, err_text(err), e.text);
        assert_null(t);
        free(json);
    }
}

/* A normalizer that doubles forty times opens, but no text of more than a few bytes fits. */
static void test_growing_normalizer(void **state)
{
    (void)state;
    struct tokenizer *t = open_corpus("growing_normalizer.json");
    struct token_list ids = {0};
    struct error e;
    assert_int_equal(tokenizer_encode(t, "a b", 3, 0, &ids, &e), ERR_LIMIT);
    assert_int_equal(ids.n, 0);
    tokenizer_close(t);
}

/* Every cut and many flipped bits of a good file: a tokenizer or an error. */
static void test_damage(void **state)
{
    (void)state;
    size_t bytes;
    char *json = corpus_file("sentencepiece.json", &bytes);
    for (size_t i = 0; i < bytes; i += 7) {
        struct tokenizer *t = NULL;
        struct error e;
        assert_int_not_equal(tokenizer_new_json(json, i, &t, &e), OK);
        char saved = json[i];
        json[i] = (char)(saved ^ (1 << (i % 8)));
        if (tokenizer_new_json(json, bytes, &t, &e) == OK) {
            struct token_list ids = {0};
            (void)tokenizer_encode(t, "hello world", 11, 3, &ids, NULL);
            token_list_release(&ids);
        }
        tokenizer_close(t);
        json[i] = saved;
    }
    free(json);
}

static void *encode_often(void *arg)
{
    const struct tokenizer *t = arg;
    for (int i = 0; i < 500; i++) {
        char text[64];
        int n = snprintf(text, sizeof(text), "hello world %d", i % 50);
        struct token_list ids = {0};
        if (tokenizer_encode(t, text, (size_t)n, TOKENIZER_ADD_SPECIAL, &ids, NULL) != OK ||
            ids.n < 6)
            return arg;
        token_list_release(&ids);
    }
    return NULL;
}

static void test_threads_share_a_tokenizer(void **state)
{
    (void)state;
    struct tokenizer *t = open_corpus("byte_level.json");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, t), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_level),
        cmocka_unit_test(test_sentencepiece_like),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_growing_normalizer),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
