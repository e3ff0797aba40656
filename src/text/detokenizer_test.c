/* The detokenizer on a small vocabulary with a token for every byte: characters in pieces,
 * bytes that are no UTF-8, the leading space, priming, ids out of range. */
#include "text/test_data_impl.h"

enum { ID_CONTROL = 256, ID_HELLO, ID_WORLD, N_IDS };

/* Tokens 0 to 255 are the bytes, then </s>, "▁hello", "▁world". */
static struct tokenizer *byte_tokenizer(void)
{
    static float scores[N_IDS];
    static uint8_t types[N_IDS];
    struct tokenizer_vocab v = {
        .kind = VOCAB_SPM, .space = VOCAB_SPACE_EVERY, .scores = scores, .types = types,
        .bos = TOKEN_NONE, .eos = ID_CONTROL, .eot = TOKEN_NONE, .unknown = TOKEN_NONE,
    };
    for (int b = 0; b < 256; b++) {
        char name[8];
        int n = snprintf(name, sizeof(name), "<0x%02X>", (unsigned)b & 0xffu);
        ASSERT_OK(string_table_append(&v.tokens, name, (size_t)n, e));
        types[b] = VOCAB_BYTE;
    }
    static const char *const rest[] = {"</s>", "▁hello", "▁world"};
    for (int i = 0; i < 3; i++) {
        ASSERT_OK(string_table_append(&v.tokens, rest[i], strlen(rest[i]), e));
        types[256 + i] = i == 0 ? VOCAB_CONTROL : VOCAB_NORMAL;
    }
    struct tokenizer *t = NULL;
    ASSERT_OK(tokenizer_new_vocab(&v, &t, e));
    string_table_release(&v.tokens);
    return t;
}

/* Push bytes one by one; compare what came out in all, and that only `n_held` bytes are held. */
static void check_bytes(const struct tokenizer *t, const char *bytes, const char *expected)
{
    struct detokenizer d;
    struct strbuf text;
    strbuf_init(&text, 4096);
    detokenizer_init(&d, t, 0);
    for (const char *p = bytes; *p != '\0'; p++)
        ASSERT_OK(detokenizer_push(&d, (uint8_t)*p, &text, e));
    ASSERT_OK(detokenizer_finish(&d, &text, e));
    assert_string_equal(text.data, expected);
    strbuf_release(&text);
}

static void test_bytes_to_characters(void **state)
{
    struct tokenizer *t = *state;
    check_bytes(t, "plain", "plain");
    check_bytes(t, "é日😀", "é日😀");
    check_bytes(t, "\xc3\xa9\xc3", "é\xef\xbf\xbd");              /* ends inside a character */
    check_bytes(t, "\x80" "a", "\xef\xbf\xbd" "a");                  /* starts inside one */
    check_bytes(t, "\xf0\x9f\x98" "a", "\xef\xbf\xbd" "a");           /* one mark for what fitted */
    check_bytes(t, "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd");          /* overlong */
    check_bytes(t, "\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    check_bytes(t, "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* surrogate */
    check_bytes(t, "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    check_bytes(t, "\xf5z", "\xef\xbf\xbdz");
    check_bytes(t, "\xe6\xe6\x97\xa5", "\xef\xbf\xbd日");            /* a lead after a lead */
    check_bytes(t, "\xc3\xff", "\xef\xbf\xbd\xef\xbf\xbd");
}

static void test_nothing_before_character_is_whole(void **state)
{
    struct detokenizer d;
    struct strbuf text;
    strbuf_init(&text, 64);
    detokenizer_init(&d, *state, 0);
    static const uint8_t face[] = {0xf0, 0x9f, 0x98, 0x80};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(text.bytes, 0);
        ASSERT_OK(detokenizer_push(&d, face[i], &text, e));
    }
    assert_string_equal(text.data, "😀");
    strbuf_release(&text);
}

static void test_leading_space(void **state)
{
    struct tokenizer *t = *state;
    const uint32_t ids[] = {ID_CONTROL, ID_HELLO, ID_WORLD};
    char *text = decoded(t, ids, 3, TOKENIZER_SKIP_SPECIAL);
    assert_string_equal(text, "hello world"); /* a skipped token is no text */
    free(text);
    text = decoded(t, ids, 3, 0);
    assert_string_equal(text, "</s> hello world");
    free(text);
    text = decoded(t, ids + 1, 2, 0);
    assert_string_equal(text, "hello world");
    free(text);
}

static void test_priming_continues_the_prompt(void **state)
{
    struct detokenizer d;
    struct strbuf text;
    strbuf_init(&text, 64);
    const uint32_t prompt[] = {ID_HELLO, 0xc3};
    detokenizer_init(&d, *state, TOKENIZER_SKIP_SPECIAL);
    ASSERT_OK(detokenizer_prime(&d, prompt, 1, e));
    ASSERT_OK(detokenizer_push(&d, ID_WORLD, &text, e));
    assert_string_equal(text.data, " world");
    strbuf_clear(&text);
    detokenizer_init(&d, *state, 0);
    ASSERT_OK(detokenizer_prime(&d, prompt, 2, e)); /* the prompt ends inside a character */
    ASSERT_OK(detokenizer_push(&d, 0xa9, &text, e));
    assert_string_equal(text.data, "é");
    strbuf_release(&text);
}

static void test_errors(void **state)
{
    struct detokenizer d;
    struct error e;
    struct strbuf text;
    strbuf_init(&text, 6);
    detokenizer_init(&d, *state, 0);
    assert_int_equal(detokenizer_push(&d, N_IDS, &text, &e), ERR_INVALID);
    assert_string_equal(e.text, "token id 259 of a vocabulary of 259");
    assert_int_equal(detokenizer_push(&d, UINT32_MAX, &text, &e), ERR_INVALID);
    assert_int_equal(detokenizer_push(&d, ID_HELLO, &text, &e), OK);
    assert_int_equal(detokenizer_push(&d, ID_WORLD, &text, &e), ERR_LIMIT);
    strbuf_release(&text);
}

static int open_tokenizer(void **state)
{
    *state = byte_tokenizer();
    return 0;
}

static int close_tokenizer(void **state)
{
    tokenizer_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_to_characters),
        cmocka_unit_test(test_nothing_before_character_is_whole),
        cmocka_unit_test(test_leading_space),
        cmocka_unit_test(test_priming_continues_the_prompt),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
