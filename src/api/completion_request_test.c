/* Bodies of completion requests: every field, its default, its limits, and how it is refused. */
#include "api/completion_request_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 1000 };

static struct completion_request request;
static struct api_error error;

static bool parse(enum request_route route, const char *body)
{
    error = (struct api_error){0};
    return completion_request_parse(&request, route, body, strlen(body), VOCAB, &error);
}

static void assert_good(enum request_route route, const char *body)
{
    if (!parse(route, body))
        fail_msg("%s: %s", body, error.reason.text);
}

/* A body with the one field, well-formed otherwise. */
static const char *with(enum request_route route, const char *field)
{
    static char body[4096];
    const char *base = route == ROUTE_CHAT
                           ? "\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]"
                           : "\"prompt\": \"hi\"";
    snprintf(body, sizeof body, "{%s, %s}", base, field);
    return body;
}

static void take(enum request_route route, const char *field)
{
    assert_good(route, with(route, field));
}

static void release(void)
{
    completion_request_release(&request);
}

static void assert_refused_body(enum request_route route, const char *body, enum api_fault fault,
                                const char *param, const char *part)
{
    if (parse(route, body))
        fail_msg("%s was accepted", body);
    if (strstr(error.reason.text, part) == NULL)
        fail_msg("%s: refused with \"%s\", expected \"%s\"", body, error.reason.text, part);
    assert_int_equal(error.fault, fault);
    assert_string_equal(error.param, param);
    release();
}

static void assert_refused(enum request_route route, const char *field, const char *param,
                           const char *part)
{
    assert_refused_body(route, with(route, field), FAULT_INVALID, param, part);
}

static void assert_unsupported(enum request_route route, const char *field, const char *param)
{
    char part[128];
    snprintf(part, sizeof part, "\"%s\" is not supported yet", param);
    assert_refused_body(route, with(route, field), FAULT_UNSUPPORTED, param, part);
}

static void defaults(void **state)
{
    (void)state;
    assert_good(ROUTE_COMPLETIONS, "{\"prompt\": \"hi\"}");
    assert_null(request.model);
    assert_int_equal(request.n_prompts, 1);
    assert_string_equal(request.prompts[0].text, "hi");
    assert_int_equal(request.prompts[0].bytes, 2);
    assert_int_equal(request.max_tokens, MAX_TOKENS_ABSENT);
    assert_true(request.sampling.temperature == 1);
    assert_true(request.sampling.top_p == 1);
    assert_int_equal(request.sampling.top_k, 0);
    assert_true(request.sampling.min_p == 0);
    assert_true(request.sampling.repetition_penalty == 1);
    assert_int_equal(request.sampling.penalty_last_n, -1);
    assert_false(request.has_seed || request.ignore_eos || request.stream);
    assert_int_equal(request.n_stop, 0);
    assert_string_equal(request.ignored.data, "");
    release();
}

static void all_settings_arrive(void **state)
{
    (void)state;
    take(ROUTE_CHAT, "\"model\": \"m\", \"max_completion_tokens\": 7, \"temperature\": 0.5, "
                     "\"top_p\": 0.25, \"top_k\": 40, \"min_p\": 0.125, \"repeat_penalty\": 1.5, "
                     "\"presence_penalty\": -2, \"frequency_penalty\": 2, \"repeat_last_n\": 64, "
                     "\"seed\": -3, \"ignore_eos\": true, \"stream\": true, "
                     "\"stream_options\": {\"include_usage\": true}");
    const struct sampling *s = &request.sampling;
    assert_string_equal(request.model, "m");
    assert_int_equal(request.max_tokens, 7);
    assert_true(s->temperature == 0.5f && s->top_p == 0.25f && s->min_p == 0.125f);
    assert_true(s->repetition_penalty == 1.5f && s->presence_penalty == -2);
    assert_true(s->frequency_penalty == 2);
    assert_int_equal(s->top_k, 40);
    assert_int_equal(s->penalty_last_n, 64);
    assert_true(request.has_seed && s->seed == (uint64_t)-3);
    assert_true(request.ignore_eos && request.stream && request.include_usage);
    release();
}

static void wrong_types_and_ranges(void **state)
{
    (void)state;
    static const struct {
        const char *field, *param, *part;
    } cases[] = {
        {"\"temperature\": \"hot\"", "temperature", "must be a number, found a string"},
        {"\"temperature\": -0.1", "temperature", "at least 0 and at most 1000, found -0.1"},
        {"\"temperature\": 1001", "temperature", "found 1001"},
        {"\"temperature\": true", "temperature", "found true"},
        {"\"top_p\": 0", "top_p", "above 0 and at most 1, found 0"},
        {"\"top_p\": 1e-60", "top_p", "above 0"},
        {"\"top_p\": 1.5", "top_p", "found 1.5"},
        {"\"min_p\": 2", "min_p", "at most 1"},
        {"\"top_k\": 1.5", "top_k", "must be an integer, found 1.5"},
        {"\"top_k\": -2", "top_k", "at least -1"},
        {"\"top_k\": 4294967296", "top_k", "found 4294967296"},
        {"\"max_tokens\": -2", "max_tokens", "at least -1"},
        {"\"max_tokens\": {}", "max_tokens", "found an object"},
        {"\"repetition_penalty\": 0", "repetition_penalty", "at least 0.001"},
        {"\"presence_penalty\": 2.1", "presence_penalty", "at most 2"},
        {"\"frequency_penalty\": -3", "frequency_penalty", "at least -2"},
        {"\"seed\": 1.5", "seed", "must be an integer"},
        {"\"seed\": \"1\"", "seed", "found a string"},
        {"\"stream\": 1", "stream", "must be true or false, found 1"},
        {"\"ignore_eos\": []", "ignore_eos", "found an array"},
        {"\"stream_options\": {}", "stream_options", "needs \"stream\": true"},
        {"\"stream\": true, \"stream_options\": 1", "stream_options", "must be an object"},
        {"\"stream\": true, \"stream_options\": {\"include_usage\": 1}", "stream_options",
         "stream_options.include_usage"},
        {"\"model\": 1", "model", "must be a string"},
        {"\"user\": 1", "user", "must be a string"},
        {"\"max_tokens\": 1, \"max_completion_tokens\": 1", "max_completion_tokens",
         "\"max_tokens\" and \"max_completion_tokens\" are one setting"},
        {"\"repeat_penalty\": 1, \"repetition_penalty\": 1", "repetition_penalty", "one setting"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_refused(ROUTE_COMPLETIONS, cases[i].field, cases[i].param, cases[i].part);
        assert_refused(ROUTE_CHAT, cases[i].field, cases[i].param, cases[i].part);
    }
}

static void edges_of_ranges_are_inside(void **state)
{
    (void)state;
    take(ROUTE_COMPLETIONS, "\"temperature\": 1000, \"top_k\": -1, \"repetition_penalty\": 0.001, "
                            "\"min_p\": 1, \"max_tokens\": 0, \"penalty_last_n\": -1");
    assert_int_equal(request.sampling.top_k, 0); /* -1: off */
    assert_int_equal(request.max_tokens, 0);
    struct error e;
    if (sampling_check(&request.sampling, VOCAB, &e) != OK)
        fail_msg("the sampler disagrees: %s", e.text);
    release();
    take(ROUTE_COMPLETIONS, "\"max_tokens\": -1, \"repetition_penalty\": 1000, \"top_p\": 1");
    assert_int_equal(request.max_tokens, -1);
    assert_int_equal(sampling_check(&request.sampling, VOCAB, &e), OK);
    release();
}

static void null_is_absent(void **state)
{
    (void)state;
    take(ROUTE_COMPLETIONS, "\"temperature\": null, \"stop\": null, \"n\": null, \"seed\": null, "
                            "\"logit_bias\": null, \"stream_options\": null, \"suffix\": null, "
                            "\"logprobs\": null, \"max_tokens\": null, \"model\": null");
    assert_true(request.sampling.temperature == 1);
    assert_false(request.has_seed);
    release();
    assert_refused_body(ROUTE_COMPLETIONS, "{\"prompt\": null}", FAULT_INVALID, "prompt",
                        "is missing");
}

static void stop_strings(void **state)
{
    (void)state;
    take(ROUTE_CHAT, "\"stop\": \"END\"");
    assert_int_equal(request.n_stop, 1);
    assert_string_equal(request.stop[0], "END");
    release();
    take(ROUTE_CHAT, "\"stop\": [\"a\", \"\\n\\n\"]");
    assert_int_equal(request.n_stop, 2);
    assert_string_equal(request.stop[1], "\n\n");
    release();
    take(ROUTE_CHAT, "\"stop\": []");
    assert_int_equal(request.n_stop, 0);
    release();
    assert_refused(ROUTE_CHAT, "\"stop\": \"\"", "stop", "1 to 1024 bytes, found 0");
    assert_refused(ROUTE_CHAT, "\"stop\": [\"a\", 1]", "stop", "array of strings, found 1");
    char many[512] = "\"stop\": [\"x\"";
    for (int i = 0; i < REQUEST_MAX_STOP; i++)
        strcat(many, ", \"x\"");
    strcat(many, "]");
    assert_refused(ROUTE_CHAT, many, "stop", "at most 16 strings, found 17");
    char big[1200] = "\"stop\": \"";
    memset(big + strlen(big), 'x', REQUEST_MAX_STOP_BYTES + 1);
    strcat(big, "\"");
    assert_refused(ROUTE_CHAT, big, "stop", "found 1025");
}

static void every_sampler_setting(void **state)
{
    (void)state;
    take(ROUTE_CHAT, "\"typical_p\": 0.9, \"xtc_probability\": 0.5, \"xtc_threshold\": 0.2, "
                     "\"dry_multiplier\": 0.8, \"dry_base\": 2, \"dry_allowed_length\": 3, "
                     "\"dry_penalty_last_n\": 512, \"dry_sequence_breakers\": [\"\\n\", \"ab\"], "
                     "\"mirostat\": 2, \"mirostat_tau\": 4, \"mirostat_eta\": 0.3");
    const struct sampling *s = &request.sampling;
    assert_true(s->typical_p == 0.9f && s->xtc_probability == 0.5f && s->xtc_threshold == 0.2f);
    assert_true(s->dry_multiplier == 0.8f && s->dry_base == 2);
    assert_int_equal(s->dry_allowed_length, 3);
    assert_int_equal(s->dry_penalty_last_n, 512);
    assert_true(request.has_breakers);
    assert_int_equal(request.n_breakers, 2);
    assert_string_equal(request.breakers[0], "\n");
    assert_string_equal(request.breakers[1], "ab");
    assert_int_equal(s->mirostat, 2);
    assert_true(s->mirostat_tau == 4 && s->mirostat_eta == 0.3f);
    assert_int_equal(sampling_check(s, VOCAB, NULL), OK);
    release();
    take(ROUTE_CHAT, "\"dry_sequence_breakers\": []");
    assert_true(request.has_breakers && request.n_breakers == 0);
    release();
    take(ROUTE_CHAT, "\"dry_sequence_breakers\": null");
    assert_false(request.has_breakers);
    release();
    static const struct {
        const char *field, *param, *part;
    } cases[] = {
        {"\"typical_p\": 0", "typical_p", "above 0"},
        {"\"xtc_probability\": 2", "xtc_probability", "at most 1"},
        {"\"xtc_threshold\": -1", "xtc_threshold", "at least 0"},
        {"\"dry_multiplier\": -1", "dry_multiplier", "at least 0"},
        {"\"dry_base\": 0.5", "dry_base", "at least 1"},
        {"\"dry_allowed_length\": 0", "dry_allowed_length", "at least 1"},
        {"\"dry_penalty_last_n\": -2", "dry_penalty_last_n", "at least -1"},
        {"\"dry_sequence_breakers\": \"a\"", "dry_sequence_breakers", "an array of strings"},
        {"\"dry_sequence_breakers\": [1]", "dry_sequence_breakers", "an array of strings"},
        {"\"dry_sequence_breakers\": [\"\"]", "dry_sequence_breakers", "1 to 64 bytes, found 0"},
        {"\"mirostat\": 1", "mirostat", "0 (off) or 2 (version 2), found 1"},
        {"\"mirostat\": 3", "mirostat", "at most 2"},
        {"\"mirostat_tau\": 101", "mirostat_tau", "at most 100"},
        {"\"mirostat_eta\": 1.5", "mirostat_eta", "at most 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(ROUTE_CHAT, cases[i].field, cases[i].param, cases[i].part);
}

static void logit_bias(void **state)
{
    (void)state;
    take(ROUTE_CHAT, "\"logit_bias\": {\"5\": -100, \"999\": 1.5}");
    assert_int_equal(request.sampling.n_logit_bias, 2);
    assert_int_equal(request.sampling.logit_bias[1].token, 999);
    assert_true(request.sampling.logit_bias[1].bias == 1.5f);
    assert_true(request.sampling.logit_bias[0].bias == -100);
    release();
    take(ROUTE_CHAT, "\"logit_bias\": {}");
    assert_int_equal(request.sampling.n_logit_bias, 0);
    release();
    static const char *const keys[] = {"1000", "-1", "x", "", "1x", " 1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char field[64];
        snprintf(field, sizeof field, "\"logit_bias\": {\"%s\": 1}", keys[i]);
        assert_refused(ROUTE_CHAT, field, "logit_bias", "must be a token id from 0 to 999");
    }
    assert_refused(ROUTE_CHAT, "\"logit_bias\": {\"1\": 101}", "logit_bias", "from -100 to 100");
    assert_refused(ROUTE_CHAT, "\"logit_bias\": {\"1\": \"a\"}", "logit_bias", "of token 1");
    assert_refused(ROUTE_CHAT, "\"logit_bias\": [1]", "logit_bias", "must be an object");
}

static void prompts(void **state)
{
    (void)state;
    assert_good(ROUTE_COMPLETIONS, "{\"prompt\": [\"a\", \"bc\"]}");
    assert_int_equal(request.n_prompts, 2);
    assert_string_equal(request.prompts[1].text, "bc");
    release();
    assert_good(ROUTE_COMPLETIONS, "{\"prompt\": [1, 999]}");
    assert_int_equal(request.n_prompts, 1);
    assert_null(request.prompts[0].text);
    assert_int_equal(request.prompts[0].n_ids, 2);
    assert_int_equal(request.prompts[0].ids[1], 999);
    release();
    assert_good(ROUTE_COMPLETIONS, "{\"prompt\": [[1], [2, 3]]}");
    assert_int_equal(request.n_prompts, 2);
    assert_int_equal(request.prompts[1].ids[1], 3);
    release();
    assert_good(ROUTE_COMPLETIONS, "{\"prompt\": \"\"}");
    assert_int_equal(request.prompts[0].bytes, 0);
    assert_non_null(request.prompts[0].text);
    release();
}

static void bad_prompts(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{}", "\"prompt\" is missing"},
        {"{\"prompt\": 5}", "found 5"},
        {"{\"prompt\": {}}", "found an object"},
        {"{\"prompt\": [{}]}", "found an array of an object"},
        {"{\"prompt\": []}", "\"prompt\" has no token ids"},
        {"{\"prompt\": [[]]}", "\"prompt[0]\" has no token ids"},
        {"{\"prompt\": [1, \"a\"]}",
         "\"prompt[1]\" must be a token id from 0 to 999, found a string"},
        {"{\"prompt\": [1, 1000]}", "found 1000"},
        {"{\"prompt\": [-1]}", "found -1"},
        {"{\"prompt\": [1.5]}", "found 1.5"},
        {"{\"prompt\": [\"a\", [1]]}", "same kind as \"prompt[0]\", found an array"},
        {"{\"prompt\": [[1], [2, 1000]]}", "\"prompt[1][1]\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused_body(ROUTE_COMPLETIONS, cases[i][0], FAULT_INVALID, "prompt", cases[i][1]);
    char many[1024] = "{\"prompt\": [\"x\"";
    for (int i = 0; i < REQUEST_MAX_PROMPTS; i++)
        strcat(many, ", \"x\"");
    strcat(many, "]}");
    assert_refused_body(ROUTE_COMPLETIONS, many, FAULT_INVALID, "prompt", "at most 64");
}

static void logprobs_are_a_number_or_a_switch(void **state)
{
    (void)state;
    static const struct {
        enum request_route route;
        const char *fields;
        bool wanted;
        int n;
    } cases[] = {
        {ROUTE_COMPLETIONS, "\"logprobs\": null", false, 0},
        {ROUTE_COMPLETIONS, "\"logprobs\": false", false, 0},
        {ROUTE_COMPLETIONS, "\"logprobs\": 0", true, 0},
        {ROUTE_COMPLETIONS, "\"logprobs\": 20", true, 20},
        {ROUTE_CHAT, "\"logprobs\": true", true, 0},
        {ROUTE_CHAT, "\"logprobs\": true, \"top_logprobs\": 20", true, 20},
        {ROUTE_CHAT, "\"top_logprobs\": 3, \"logprobs\": true", true, 3},
        {ROUTE_CHAT, "\"logprobs\": false, \"top_logprobs\": 0", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        take(cases[i].route, cases[i].fields);
        assert_int_equal(request.logprobs, cases[i].wanted);
        assert_int_equal(request.sampling.n_logprobs, cases[i].n);
        assert_string_equal(request.ignored.data, "");
        release();
    }
    assert_refused(ROUTE_COMPLETIONS, "\"logprobs\": 21", "logprobs",
                   "at least 0 and at most 20, found 21");
    assert_refused(ROUTE_COMPLETIONS, "\"logprobs\": -1", "logprobs", "found -1");
    assert_refused(ROUTE_COMPLETIONS, "\"logprobs\": true", "logprobs",
                   "must be an integer, found true");
    assert_refused(ROUTE_CHAT, "\"logprobs\": 1", "logprobs", "must be true or false, found 1");
    assert_refused(ROUTE_CHAT, "\"logprobs\": true, \"top_logprobs\": 21", "top_logprobs",
                   "at least 0 and at most 20, found 21");
    assert_refused(ROUTE_CHAT, "\"logprobs\": true, \"top_logprobs\": true", "top_logprobs",
                   "must be an integer, found true");
    assert_refused(ROUTE_CHAT, "\"top_logprobs\": 2", "top_logprobs", "needs \"logprobs\": true");
    assert_refused(ROUTE_CHAT, "\"top_logprobs\": 2, \"logprobs\": false", "top_logprobs",
                   "needs \"logprobs\": true");
}

static void prompts_may_be_truncated(void **state)
{
    (void)state;
    take(ROUTE_CHAT, "\"truncate\": true");
    assert_true(request.truncate && request.truncate_to == 0);
    release();
    take(ROUTE_COMPLETIONS, "\"truncate_prompt_tokens\": 7");
    assert_true(!request.truncate && request.truncate_to == 7);
    release();
    take(ROUTE_COMPLETIONS, "\"truncate_prompt_tokens\": -1, \"truncate\": false");
    assert_true(request.truncate && request.truncate_to == 0);
    release();
    take(ROUTE_COMPLETIONS, "\"truncate\": true, \"truncate_prompt_tokens\": 7");
    assert_true(request.truncate && request.truncate_to == 7);
    release();
    assert_refused(ROUTE_CHAT, "\"truncate\": 1", "truncate", "must be true or false, found 1");
    assert_refused(ROUTE_CHAT, "\"truncate_prompt_tokens\": 0", "truncate_prompt_tokens",
                   "at least 1, or -1 for what fits, found 0");
    assert_refused(ROUTE_CHAT, "\"truncate_prompt_tokens\": -2", "truncate_prompt_tokens",
                   "found -2");
    assert_refused(ROUTE_CHAT, "\"truncate_prompt_tokens\": true", "truncate_prompt_tokens",
                   "must be an integer, found true");
}

static void fields_not_yet_supported(void **state)
{
    (void)state;
    static const struct {
        enum request_route routes;
        const char *name, *harmless, *refused;
    } cases[] = {
        {ROUTE_COMPLETIONS, "best_of", "1", "3"},
        {ROUTE_COMPLETIONS, "echo", "false", "true"},
        {ROUTE_COMPLETIONS, "suffix", "\"\"", "\"x\""},
        {ROUTE_CHAT, "tools", "[]", "[{\"type\": \"function\"}]"},
        {ROUTE_CHAT, "tool_choice", "\"none\"", "\"required\""},
        {ROUTE_CHAT, "tool_choice", "\"auto\"", "{\"type\": \"function\"}"},
        {ROUTE_CHAT, "parallel_tool_calls", "true", "false"},
        {ROUTE_CHAT, "functions", "[]", "[{}]"},
        {ROUTE_CHAT, "function_call", "\"none\"", "{\"name\": \"f\"}"},
        {ROUTE_CHAT, "response_format", "{\"type\": \"text\"}", "{\"type\": \"json_object\"}"},
        {ROUTE_CHAT, "modalities", "[\"text\"]", "[\"text\", \"audio\"]"},
        {ROUTE_CHAT, "audio", "null", "{}"},
        {ROUTE_CHAT, "prediction", "null", "{}"},
        {ROUTE_CHAT, "reasoning_effort", "\"none\"", "\"high\""},
        {ROUTE_CHAT, "service_tier", "\"auto\"", "\"flex\""},
        {ROUTE_CHAT, "store", "false", "true"},
        {ROUTE_CHAT, "verbosity", "\"medium\"", "\"low\""},
        {ROUTE_CHAT, "web_search_options", "null", "{}"},
        {ROUTE_CHAT, "prompt_cache_retention", "null", "\"24h\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned route = ROUTE_COMPLETIONS; route <= ROUTE_CHAT; route <<= 1) {
            if ((cases[i].routes & route) == 0)
                continue;
            char field[128];
            snprintf(field, sizeof field, "\"%s\": %s", cases[i].name, cases[i].harmless);
            take(route, field);
            assert_string_equal(request.ignored.data, "");
            release();
            snprintf(field, sizeof field, "\"%s\": %s", cases[i].name, cases[i].refused);
            assert_unsupported(route, field, cases[i].name);
        }
    }
}

static void unknown_fields_are_listed(void **state)
{
    (void)state;
    take(ROUTE_COMPLETIONS,
         "\"top_n_sigma\": 2, \"a b\\r\\nSet-Cookie: x\": 1, \"tools\": [1], "
         "\"stream\": true, \"stream_options\": {\"speed\": 1}, \"user\": \"u\"");
    assert_string_equal(request.ignored.data,
                        "top_n_sigma, a?b??Set-Cookie??x, tools, stream_options.speed");
    release();
    take(ROUTE_CHAT, "\"metadata\": {\"a\": \"b\"}, \"prompt_cache_key\": \"k\", \"x\": null");
    assert_string_equal(request.ignored.data, "x");
    release();
}

static void assert_messages(const char *messages, const char *expected)
{
    char body[1024];
    snprintf(body, sizeof body, "{\"messages\": %s}", messages);
    assert_good(ROUTE_CHAT, body);
    char *found = json_dumps(request.variables, JSON_COMPACT);
    assert_string_equal(found, expected);
    free(found);
    release();
}

static void messages_become_template_variables(void **state)
{
    (void)state;
    assert_messages("[{\"role\": \"developer\", \"content\": \"s\"}, "
                    "{\"content\": \"q\", \"role\": \"user\", \"name\": \"Ann\"}, "
                    "{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [], "
                    "\"refusal\": null}]",
                    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},"
                    "{\"role\":\"user\",\"name\":\"Ann\",\"content\":\"q\"},"
                    "{\"role\":\"assistant\",\"content\":\"\"}],\"add_generation_prompt\":true}");
    assert_messages("[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, "
                    "{\"type\": \"text\", \"text\": \"b\"}]}]",
                    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\nb\"}],"
                    "\"add_generation_prompt\":true}");
    take(ROUTE_CHAT, "\"top_k\": 1");
    release();
    assert_good(ROUTE_CHAT,
                "{\"messages\": [{\"role\": \"user\", \"content\": \"x\", \"mood\": 1}]}");
    assert_string_equal(request.ignored.data, "messages[0].mood");
    release();
}

static void bad_messages(void **state)
{
    (void)state;
    static const struct {
        const char *messages, *param, *part;
        enum api_fault fault;
    } cases[] = {
        {"[]", "messages", "at least one message, found none", FAULT_INVALID},
        {"\"hi\"", "messages", "found a string", FAULT_INVALID},
        {"[1]", "messages", "\"messages[0]\" must be an object, found 1", FAULT_INVALID},
        {"[{\"content\": \"x\"}]", "messages[0].role", "\"assistant\", found nothing",
         FAULT_INVALID},
        {"[{\"role\": \"wizard\", \"content\": \"x\"}]", "messages", "found \"wizard\"",
         FAULT_INVALID},
        {"[{\"role\": \"tool\", \"content\": \"x\"}]", "messages", "tools are not",
         FAULT_UNSUPPORTED},
        {"[{\"role\": \"user\"}]", "messages[0].content", "found nothing", FAULT_INVALID},
        {"[{\"role\": \"user\", \"content\": null}]", "messages[0].content", "found null",
         FAULT_INVALID},
        {"[{\"role\": \"user\", \"content\": []}]", "messages[0].content", "found an array",
         FAULT_INVALID},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]", "messages",
         "\"image_url\" is not supported", FAULT_UNSUPPORTED},
        {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]", "messages[0].content.text",
         "found nothing", FAULT_INVALID},
        {"[{\"role\": \"user\", \"content\": [\"a\"]}]", "messages[0].content", "found a string",
         FAULT_INVALID},
        {"[{\"role\": \"user\", \"content\": \"a\", \"name\": 3}]", "messages[0].name", "found 3",
         FAULT_INVALID},
        {"[{\"role\": \"assistant\", \"content\": \"a\", \"tool_calls\": [{}]}]", "messages",
         "\"messages[0].tool_calls\" is not supported yet", FAULT_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"messages\": %s}", cases[i].messages);
        assert_refused_body(ROUTE_CHAT, body, cases[i].fault, cases[i].param, cases[i].part);
    }
    assert_refused_body(ROUTE_CHAT, "{\"prompt\": \"x\"}", FAULT_INVALID, "messages", "is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(all_settings_arrive),
        cmocka_unit_test(wrong_types_and_ranges),
        cmocka_unit_test(edges_of_ranges_are_inside),
        cmocka_unit_test(null_is_absent),
        cmocka_unit_test(stop_strings),
        cmocka_unit_test(every_sampler_setting),
        cmocka_unit_test(logit_bias),
        cmocka_unit_test(prompts),
        cmocka_unit_test(bad_prompts),
        cmocka_unit_test(logprobs_are_a_number_or_a_switch),
        cmocka_unit_test(prompts_may_be_truncated),
        cmocka_unit_test(fields_not_yet_supported),
        cmocka_unit_test(unknown_fields_are_listed),
        cmocka_unit_test(messages_become_template_variables),
        cmocka_unit_test(bad_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
