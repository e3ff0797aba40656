#include "engine/breakers.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Bytes, then a control token with a colon in its name, and words. */
enum { CONTROL = 256, NEWLINES, SAID, WORD, QUOTED, N_TOKENS, VOCAB = N_TOKENS + 70 };

static struct tokenizer *open_vocabulary(void)
{
    static float scores[N_TOKENS];
    static uint8_t types[N_TOKENS];
    struct tokenizer_vocab v = {.kind = VOCAB_SPM,
                                .space = VOCAB_SPACE_EVERY,
                                .scores = scores,
                                .types = types,
                                .bos = TOKEN_NONE,
                                .eos = CONTROL,
                                .eot = TOKEN_NONE,
                                .unknown = TOKEN_NONE};
    struct error e = {.text = ""};
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        int n = snprintf(name, sizeof name, "<0x%02X>", b);
        assert_int_equal(string_table_append(&v.tokens, name, (size_t)n, &e), OK);
        types[b] = VOCAB_BYTE;
    }
    static const char *const rest[] = {"</s>", "\n\n", "said:\"", "word", "x*y"};
    for (int i = 0; i < N_TOKENS - 256; i++) {
        assert_int_equal(string_table_append(&v.tokens, rest[i], strlen(rest[i]), &e), OK);
        types[256 + i] = i == 0 ? VOCAB_CONTROL : VOCAB_NORMAL;
    }
    struct tokenizer *t;
    if (tokenizer_new_vocab(&v, &t, &e) != OK)
        fail_msg("%s", e.text);
    string_table_release(&v.tokens);
    return t;
}

static bool marked(const uint64_t *bits, int token)
{
    return (bits[token / 64] >> (token % 64) & 1) != 0;
}

static int n_marked(const uint64_t *bits)
{
    int n = 0;
    for (int t = 0; t < VOCAB; t++)
        n += marked(bits, t);
    return n;
}

static void tokens_that_contain_a_string(void **state)
{
    (void)state;
    struct tokenizer *t = open_vocabulary();
    uint64_t bits[VOCAB / 64 + 1];
    memset(bits, 0xff, sizeof bits);
    assert_int_equal(breakers_mark(t, NULL, 0, VOCAB, bits, NULL), OK);
    assert_true(marked(bits, '\n') && marked(bits, ':') && marked(bits, '"') && marked(bits, '*'));
    assert_true(marked(bits, NEWLINES) && marked(bits, SAID) && marked(bits, QUOTED));
    assert_true(marked(bits, CONTROL));
    assert_int_equal(n_marked(bits), 8);
    const char *const own[] = {"ord", "d:"};
    assert_int_equal(breakers_mark(t, own, 2, VOCAB, bits, NULL), OK);
    assert_true(marked(bits, WORD) && marked(bits, SAID) && marked(bits, CONTROL));
    assert_int_equal(n_marked(bits), 3);
    assert_int_equal(breakers_mark(t, own, 0, VOCAB, bits, NULL), OK); /* an empty list */
    assert_int_equal(n_marked(bits), 1);
    tokenizer_close(t);
}

/* A model may know fewer tokens than its tokenizer: nothing is written behind them. */
static void a_smaller_vocabulary(void **state)
{
    (void)state;
    struct tokenizer *t = open_vocabulary();
    uint64_t bits[2] = {0, 7};
    const char *const own[] = {"*"};
    assert_int_equal(breakers_mark(t, own, 1, 64, bits, NULL), OK);
    assert_true(bits[0] == (uint64_t)1 << '*' && bits[1] == 7);
    tokenizer_close(t);
}

static void what_cannot_break_is_refused(void **state)
{
    (void)state;
    struct tokenizer *t = open_vocabulary();
    uint64_t bits[VOCAB / 64 + 1];
    struct error e;
    const char *const nowhere[] = {"*", "word x"}, *const empty[] = {"*", ""};
    assert_int_equal(breakers_mark(t, nowhere, 2, VOCAB, bits, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "dry_sequence_breakers"));
    assert_non_null(strstr(e.text, "\"word x\""));
    assert_int_equal(breakers_mark(t, empty, 2, VOCAB, bits, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "1 byte"));
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_that_contain_a_string),
        cmocka_unit_test(a_smaller_vocabulary),
        cmocka_unit_test(what_cannot_break_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
