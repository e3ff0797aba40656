/* Log-probabilities stay with the text of their tokens, whatever is held back or cut, and look as
 * OpenAI's clients expect them. */
#include "api/token_logprobs_impl.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* 0 to 255 are bytes, then these. */
enum { ID_END = 256, ID_CAT, ID_A, N_IDS };

static struct tokenizer *tokenizer;
static struct strbuf held, taken, json;

static int open_tokenizer(void **state)
{
    (void)state;
    static float scores[N_IDS];
    static uint8_t types[N_IDS];
    static const char *const rest[] = {"</s>", "\u2581cat", "A"};
    struct tokenizer_vocab v = {.kind = VOCAB_SPM,
                                .space = VOCAB_SPACE_EVERY,
                                .scores = scores,
                                .types = types,
                                .bos = TOKEN_NONE,
                                .eos = ID_END,
                                .eot = TOKEN_NONE,
                                .unknown = TOKEN_NONE};
    for (int i = 0; i < N_IDS; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i & 0xff);
        const char *text = i < 256 ? name : rest[i - 256];
        assert_int_equal(string_table_append(&v.tokens, text, strlen(text), NULL), OK);
        types[i] = i < 256 ? VOCAB_BYTE : i == ID_END ? VOCAB_CONTROL : VOCAB_NORMAL;
    }
    struct error e = {.text = ""};
    if (tokenizer_new_vocab(&v, &tokenizer, &e) != OK)
        fail_msg("%s", e.text);
    string_table_release(&v.tokens);
    strbuf_init(&held, 1 << 16);
    strbuf_init(&taken, 1 << 16);
    strbuf_init(&json, 1 << 16);
    return 0;
}

static int close_tokenizer(void **state)
{
    (void)state;
    strbuf_release(&held);
    strbuf_release(&taken);
    strbuf_release(&json);
    tokenizer_close(tokenizer);
    return 0;
}

static struct request_event event_of(int32_t token, size_t begin, size_t end, size_t characters,
                                     const struct sampler_logprobs *l)
{
    return (struct request_event){.token = token, .span = {begin, end, characters}, .logprobs = l};
}

static void add(int32_t token, size_t begin, size_t end, size_t characters)
{
    struct sampler_logprobs l = {.chosen = -0.5f};
    struct request_event event = event_of(token, begin, end, characters, &l);
    token_logprobs_add(&held, &event);
}

/* The tokens of `records`, by their offsets in characters: "0 3 3". */
static const char *offsets(const struct strbuf *records)
{
    static char text[256];
    strbuf_clear(&json);
    token_logprobs_append_text(&json, tokenizer, records);
    json_t *whole = json_loads(json.data, 0, NULL);
    assert_non_null(whole);
    const json_t *list = json_object_get(whole, "text_offset");
    text[0] = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        sprintf(text + strlen(text), i > 0 ? " %d" : "%d",
                (int)json_integer_value(json_array_get(list, i)));
    json_decref(whole);
    return text;
}

static void take(size_t text_bytes, size_t given, size_t expected_end, const char *expected)
{
    strbuf_clear(&taken);
    assert_int_equal(token_logprobs_take(&held, text_bytes, given, &taken), expected_end);
    assert_string_equal(offsets(&taken), expected);
}

static void leave_with_their_text(void **state)
{
    (void)state;
    add(ID_CAT, 0, 4, 0);
    take(3, 0, 0, ""); /* a stop string holds its end back: all of it waits */
    take(4, 0, 4, "0");
    add(0xf0, 4, 5, 4); /* a character in four tokens: they go together */
    add(0x9f, 4, 5, 4);
    add(0x98, 4, 5, 4);
    take(4, 4, 4, "");
    add(0x80, 4, 8, 4);
    add(ID_A, 8, 9, 5);
    take(8, 4, 8, "4 4 4 4");
    take(9, 8, 9, "5");
    take(9, 9, 9, "");
    assert_int_equal(held.bytes, 0);
    struct request_event silent = event_of(ID_A, 9, 10, 6, NULL);
    token_logprobs_add(&held, &silent);
    assert_int_equal(held.bytes, 0);
}

static void the_end_decides_who_belongs(void **state)
{
    (void)state;
    struct sampler_logprobs l = {.chosen = -1};
    struct request_event end = event_of(ID_END, 5, 5, 5, &l);
    end.finish = FINISH_STOP;
    add(ID_CAT, 0, 4, 0);
    add(ID_A, 4, 5, 4);
    token_logprobs_add(&held, &end);
    token_logprobs_end(&held, &end, 5); /* the end token is no part */
    take(5, 0, 5, "0 4");

    end.finish = FINISH_LENGTH; /* here it is an ordinary one */
    token_logprobs_add(&held, &end);
    token_logprobs_end(&held, &end, 5);
    take(5, 5, 5, "5");

    struct request_event stopped = event_of(ID_A, 9, 10, 9, &l);
    stopped.finish = FINISH_STOP;
    stopped.stop = "t cat";
    add(ID_CAT, 0, 4, 0); /* " ca|t", " cat": cut through the first, and the second is gone */
    add(ID_CAT, 4, 8, 4);
    token_logprobs_end(&held, &stopped, 3);
    take(3, 0, 3, "0");
    assert_int_equal(held.bytes, 0);

    add(0xf0, 0, 1, 0); /* ended by length inside a character: three bytes of U+FFFD */
    struct request_event cut = event_of(0x9f, 0, 1, 0, &l);
    cut.finish = FINISH_LENGTH;
    token_logprobs_add(&held, &cut);
    token_logprobs_end(&held, &cut, 3);
    take(3, 0, 1, "0 0");

    struct request_event cancelled = event_of(-1, 4, 4, 4, NULL);
    cancelled.finish = FINISH_CANCELLED;
    add(ID_CAT, 0, 4, 0);
    token_logprobs_end(&held, &cancelled, 4);
    take(4, 0, 4, "0");
}

static void add_with_top(int32_t token, size_t begin, size_t end)
{
    struct sampler_logprobs l = {
        .chosen = -2, .n = 4, .top = {{ID_A, -0.25f}, {'A', -0.5f}, {0xf0, -1}, {token, -2}}};
    struct request_event event = event_of(token, begin, end, begin, &l);
    token_logprobs_add(&held, &event);
}

static void looks_as_openai_says(void **state)
{
    (void)state;
    add_with_top(ID_CAT, 0, 4);
    add(0x9f, 4, 5, 4);
    add(ID_END, 5, 5, 5);
    add(N_IDS + 7, 5, 5, 5); /* of the model's vocabulary, but not of the tokenizer's */
    strbuf_clear(&json);
    token_logprobs_append_text(&json, tokenizer, &held);
    /* Two tokens are "A": as keys of an object they are one, the likelier. */
    assert_string_equal(json.data,
                        "{\"tokens\":[\" cat\",\"bytes:\\\\x9f\",\"</s>\",\"token_id:266\"],"
                        "\"token_logprobs\":[-2,-0.5,-0.5,-0.5],"
                        "\"top_logprobs\":[{\" cat\":-2,\"A\":-0.25,\"bytes:\\\\xf0\":-1},"
                        "{\"bytes:\\\\x9f\":-0.5},{\"</s>\":-0.5},{\"token_id:266\":-0.5}],"
                        "\"text_offset\":[0,4,5,5]}");
    strbuf_clear(&json);
    token_logprobs_append_chat(&json, tokenizer, &held);
    assert_string_equal(
        json.data,
        "{\"content\":[{\"token\":\" cat\",\"logprob\":-2,\"bytes\":[32,99,97,116],"
        "\"top_logprobs\":["
        "{\"token\":\"A\",\"logprob\":-0.25,\"bytes\":[65]},"
        "{\"token\":\"A\",\"logprob\":-0.5,\"bytes\":[65]},"
        "{\"token\":\"\\\\xf0\",\"logprob\":-1,\"bytes\":[240]},"
        "{\"token\":\" cat\",\"logprob\":-2,\"bytes\":[32,99,97,116]}]},"
        "{\"token\":\"\\\\x9f\",\"logprob\":-0.5,\"bytes\":[159],\"top_logprobs\":[]},"
        "{\"token\":\"</s>\",\"logprob\":-0.5,\"bytes\":null,\"top_logprobs\":[]},"
        "{\"token\":\"token_id:266\",\"logprob\":-0.5,\"bytes\":null,\"top_logprobs\":[]}],"
        "\"refusal\":null}");
    strbuf_clear(&held);
    strbuf_clear(&json);
    token_logprobs_append_text(&json, tokenizer, &held);
    token_logprobs_append_chat(&json, tokenizer, &held);
    assert_string_equal(json.data, "{\"tokens\":[],\"token_logprobs\":[],\"top_logprobs\":[],"
                                   "\"text_offset\":[]}{\"content\":[],\"refusal\":null}");
}

static void a_full_list_says_so(void **state)
{
    (void)state;
    struct strbuf small;
    strbuf_init(&small, 300);
    struct sampler_logprobs l = {.chosen = -1, .n = SAMPLING_MAX_LOGPROBS};
    struct request_event event = event_of(ID_A, 0, 1, 0, &l);
    token_logprobs_add(&small, &event);
    assert_false(small.failed);
    token_logprobs_add(&small, &event);
    assert_true(small.failed);
    strbuf_clear(&taken);
    token_logprobs_take(&small, 1, 0, &taken);
    assert_true(taken.failed);
    strbuf_release(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leave_with_their_text),
        cmocka_unit_test(the_end_decides_who_belongs),
        cmocka_unit_test(looks_as_openai_says),
        cmocka_unit_test(a_full_list_says_so),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
