/* The form of answers and of stream events, to the byte. */
#include "api/answer_json_impl.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct answer text_answer = {
    .id = "cmpl-1", .model = "m", .created = 7, .include_usage = false};
static const struct answer chat_answer = {
    .chat = true, .id = "chatcmpl-1", .model = "m\xff", .created = 7, .include_usage = true};

#define HEAD(id, object, model) \
    "{\"id\":\"" id "\",\"object\":\"" object "\",\"created\":7,\"model\":\"" model \
    "\",\"system_fingerprint\":\"shoal-" SHOAL_VERSION "\",\"choices\":["
#define TEXT_HEAD HEAD("cmpl-1", "text_completion", "m")
#define CHUNK_HEAD "data: " HEAD("chatcmpl-1", "chat.completion.chunk", "m\xef\xbf\xbd")

static struct answer_totals two_choices(void)
{
    struct answer_totals t = {0};
    struct request_timings a = {.queued_us = 1000,
                                .prefill_us = 2000,
                                .decode_us = 500000,
                                .stalled_us = 250,
                                .n_prompt = 4,
                                .n_output = 6,
                                .n_cached = 3,
                                .n_truncated = 9,
                                .n_guessed = {[GUESS_LOOKUP] = 5, [GUESS_MODEL] = 3},
                                .n_right = {[GUESS_LOOKUP] = 2, [GUESS_MODEL] = 1}};
    struct request_timings b = {
        .queued_us = 500, .prefill_us = 4000, .decode_us = 100000, .n_prompt = 2, .n_output = 1};
    answer_totals_add(&t, &a, false);
    answer_totals_add(&t, &b, false);
    return t;
}

static void whole_answers(void **state)
{
    (void)state;
    struct answer_totals t = two_choices();
    struct answer_choice choices[] = {{"a\"b", 3, FINISH_STOP, NULL}, {"", 0, FINISH_LENGTH, NULL}};
    struct strbuf out;
    strbuf_init(&out, 4096);
    answer_append(&out, &text_answer, choices, 2, &t);
    assert_false(out.failed);
    assert_string_equal(
        out.data,
        TEXT_HEAD "{\"index\":0,\"text\":\"a\\\"b\",\"logprobs\":null,\"finish_reason\":\"stop\"},"
                  "{\"index\":1,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"length\"}],"
                  "\"usage\":{\"prompt_tokens\":6,\"completion_tokens\":7,\"total_tokens\":13,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":3,\"truncated_tokens\":9}},"
                  "\"timings\":{\"queued_ms\":1.0,\"prefill_ms\":4.0,\"decode_ms\":500.0,"
                  "\"stalled_ms\":0.25,\"prefill_tok_s\":1500.0,\"decode_tok_s\":10.0,"
                  "\"cached_tokens\":3,\"truncated_tokens\":9,\"preempted\":0,\"draft_tokens\":8,"
                  "\"draft_accepted_tokens\":3,\"draft_model_tokens\":3,"
                  "\"draft_model_accepted_tokens\":1}}");
    strbuf_clear(&out);
    answer_append(&out, &chat_answer, choices, 1, &t);
    assert_non_null(strstr(out.data, "\"object\":\"chat.completion\""));
    assert_non_null(strstr(out.data, "\"choices\":[{\"index\":0,\"message\":{\"role\":"
                                     "\"assistant\",\"content\":\"a\\\"b\",\"refusal\":null},"
                                     "\"logprobs\":null,\"finish_reason\":\"stop\"}]"));
    strbuf_release(&out);
}

/* n > 1: the prompt of further choices was read and counted once. */
static void a_prompt_counts_once(void **state)
{
    (void)state;
    struct answer_totals t = {0};
    struct request_timings one = {.n_prompt = 5, .n_output = 2, .n_cached = 4, .n_truncated = 7};
    answer_totals_add(&t, &one, false);
    answer_totals_add(&t, &one, true);
    assert_int_equal(t.n_prompt, 5);
    assert_int_equal(t.n_cached, 4);
    assert_int_equal(t.n_truncated, 7);
    assert_int_equal(t.n_output, 4);
}

static void no_time_is_no_speed(void **state)
{
    (void)state;
    struct answer_totals t = {.n_prompt = 5};
    struct strbuf out;
    strbuf_init(&out, 4096);
    answer_append(&out, &text_answer, NULL, 0, &t);
    assert_non_null(strstr(out.data, "\"prefill_tok_s\":0.0,\"decode_tok_s\":0.0"));
    strbuf_release(&out);
}

static void chat_chunks(void **state)
{
    (void)state;
    struct strbuf out;
    strbuf_init(&out, 4096);
    answer_append_role(&out, &chat_answer, 0);
    assert_string_equal(out.data, CHUNK_HEAD
                        "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                        "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n");
    strbuf_clear(&out);
    struct answer_choice last = {"\xc3\xa9\n", 3, FINISH_STOP, NULL};
    struct answer_totals t = two_choices();
    answer_append_delta(&out, &chat_answer, 0, &last, &t);
    const char *expected =
        CHUNK_HEAD "{\"index\":0,\"delta\":{\"content\":\"\xc3\xa9\\n\"},\"logprobs\":null,"
                   "\"finish_reason\":null}],\"usage\":null}\n\n" CHUNK_HEAD
                   "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
                   "\"usage\":null,\"timings\":{";
    assert_memory_equal(out.data, expected, strlen(expected));
    strbuf_clear(&out);
    answer_append_usage(&out, &chat_answer, &t);
    assert_string_equal(out.data, CHUNK_HEAD "],\"usage\":{\"prompt_tokens\":6,"
                                             "\"completion_tokens\":7,\"total_tokens\":13,"
                                             "\"prompt_tokens_details\":{"
                                             "\"cached_tokens\":3,\"truncated_tokens\":9}}}\n\n");
    strbuf_release(&out);
}

static void text_chunks(void **state)
{
    (void)state;
    struct strbuf out;
    strbuf_init(&out, 4096);
    struct answer_choice delta = {"x", 1, FINISH_NONE, NULL};
    answer_append_delta(&out, &text_answer, 3, &delta, NULL);
    assert_string_equal(out.data,
                        "data: " TEXT_HEAD "{\"index\":3,\"text\":\"x\",\"logprobs\":null,"
                        "\"finish_reason\":null}]}\n\n");
    strbuf_clear(&out);
    answer_append_done(&out);
    assert_string_equal(out.data, "data: [DONE]\n\n");
    strbuf_clear(&out);
    struct api_error e;
    api_refuse(&e, FAULT_INTERNAL, NULL, "gone");
    answer_append_failure(&out, &e);
    assert_string_equal(out.data,
                        "data: {\"error\":{\"message\":\"gone\",\"type\":\"server_error\","
                        "\"param\":null,\"code\":\"internal_error\"}}\n\n");
    strbuf_release(&out);
}

static void only_answers_have_a_finish(void **state)
{
    (void)state;
    assert_string_equal(finish_name(FINISH_STOP), "stop");
    assert_string_equal(finish_name(FINISH_LENGTH), "length");
    assert_null(finish_name(FINISH_NONE));
    assert_null(finish_name(FINISH_CANCELLED));
    assert_null(finish_name(FINISH_ERROR));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_answers),       cmocka_unit_test(a_prompt_counts_once),
        cmocka_unit_test(no_time_is_no_speed), cmocka_unit_test(chat_chunks),
        cmocka_unit_test(text_chunks),         cmocka_unit_test(only_answers_have_a_finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
