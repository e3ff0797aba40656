/* The server over real sockets, in front of an engine that does what each test wants. */
#include "api/api_server_impl.h"
#include "api/fake_engine_impl.h"
#include "api/http_client_impl.h"

#include "base/bounds.h"
#include "base/clock.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { VOCAB = 200, CONTEXT = 32, MAX_BODY = 100000 };

static struct {
    struct engine *engine;
    struct tokenizer *tokenizer;
    struct chat_template *chat_template;
    struct api_server *server;
    struct api_model model;
    int port;
} at;

/* ---- a model of letters: <s> is 0, '!' is 1, and so on ---- */

static struct tokenizer *letters_tokenizer(void)
{
    json_t *vocab = json_pack("{s:i, s:i}", "<s>", 0, "\xc4\xa0", 95);
    for (int c = '!'; c <= '~'; c++) {
        char name[2] = {(char)c, 0};
        json_object_set_new(vocab, name, json_integer(c - '!' + 1));
    }
    json_t *level = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "trim_offsets", 1, "use_regex", 1);
    json_t *added =
        json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", 0, "content", "<s>", "single_word",
                  0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
    json_t *bos = json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", "<s>", "type_id", 0);
    json_t *text = json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0);
    json_t *post = json_pack("{s:s, s:[O,O], s:[o,o], s:{s:{s:s, s:[i], s:[s]}}}", "type",
                             "TemplateProcessing", "single", bos, text, "pair", bos, text,
                             "special_tokens", "<s>", "id", "<s>", "ids", 0, "tokens", "<s>");
    json_t *all =
        json_pack("{s:s, s:[o], s:n, s:O, s:o, s:o, s:{s:s, s:o, s:[]}}", "version", "1.0",
                  "added_tokens", added, "normalizer", "pre_tokenizer", level, "post_processor",
                  post, "decoder", level, "model", "type", "BPE", "vocab", vocab, "merges");
    char *json = json_dumps(all, JSON_COMPACT);
    assert_non_null(json);
    struct error e;
    struct tokenizer *t;
    if (tokenizer_new_json(json, strlen(json), &t, &e) != OK)
        fail_msg("%s", e.text);
    free(json);
    json_decref(all);
    return t;
}

static void start(void)
{
    struct error e;
    struct api_options o = {.max_body_bytes = MAX_BODY, .n_threads = 2};
    at.engine = fake_engine_new();
    if (api_server_start(&o, &at.server, &e) != OK)
        fail_msg("%s", e.text);
    at.port = api_server_port(at.server);
    at.model = (struct api_model){.engine = at.engine,
                                  .tokenizer = at.tokenizer,
                                  .chat_template = at.chat_template,
                                  .id = "tiny/letters",
                                  .created = 1700000000,
                                  .max_context = CONTEXT,
                                  .vocab = VOCAB};
}

static int start_ready(void **state)
{
    (void)state;
    start();
    api_server_set_model(at.server, &at.model);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    api_server_stop(at.server);
    fake_engine_free(at.engine);
    return 0;
}

static int make_text(void **state)
{
    (void)state;
    static const char source[] =
        "{% for m in messages %}{% if m.content == 'fail' %}{{ raise_exception('no way') }}"
        "{% endif %}<s>{{ m.role[0] }}:{{ m.content }}{% endfor %}";
    struct error e;
    at.tokenizer = letters_tokenizer();
    if (chat_template_new(source, strlen(source), &at.chat_template, &e) != OK)
        fail_msg("%s", e.text);
    return 0;
}

static int free_text(void **state)
{
    (void)state;
    chat_template_free(at.chat_template);
    tokenizer_close(at.tokenizer);
    return 0;
}

/* ---- asking ---- */

static const char completions[] = "/v1/completions", chat[] = "/v1/chat/completions";

static void post(const char *path, const char *body, struct http_answer *a)
{
    http_ask(at.port, "POST", path, "Content-Type: application/json\r\n", body, a);
}

static void assert_has(const struct http_answer *a, const char *part)
{
    if (strstr(a->body.data, part) == NULL)
        fail_msg("expected %s in status %d: %s", part, a->status, a->body.data);
}

/* An error object with these parts; the answer is released. */
static void assert_error(struct http_answer *a, int status, const char *code, const char *part)
{
    json_t *body = json_loads(a->body.data, 0, NULL);
    const char *found_code = "", *message = "", *type = NULL;
    json_unpack(body, "{s:{s:s, s:s, s:s}}", "error", "message", &message, "type", &type, "code",
                &found_code);
    if (a->status != status || type == NULL || strcmp(found_code, code) != 0 ||
        strstr(message, part) == NULL)
        fail_msg("expected %d %s \"%s\", found %d: %s", status, code, part, a->status,
                 a->body.data);
    json_decref(body);
    http_answer_release(a);
}

static void post_error(const char *path, const char *body, int status, const char *code,
                       const char *part)
{
    struct http_answer a;
    post(path, body, &a);
    assert_error(&a, status, code, part);
}

/* ---- life ---- */

static void loads_then_serves(void **state)
{
    (void)state;
    struct http_answer a;
    start();
    static const char *const paths[] = {"/health", "/ready", "/v1/models"};
    for (int i = 0; i < 3; i++) {
        http_ask(at.port, "GET", paths[i], NULL, NULL, &a);
        assert_string_equal(http_header(&a, "Retry-After"), "1");
        assert_error(&a, 503, "model_loading", "Loading model");
    }
    post_error(completions, "{\"prompt\": \"a\"}", 503, "model_loading", "Loading model");
    api_server_set_model(at.server, &at.model);
    http_ask(at.port, "GET", "/health", NULL, NULL, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body.data, "{\"status\":\"ok\"}\n");
    http_answer_release(&a);
    http_ask(at.port, "GET", "/ready", NULL, NULL, &a);
    assert_int_equal(a.status, 200);
    http_answer_release(&a);
    stop(NULL);
}

static void failed_load_says_why(void **state)
{
    (void)state;
    struct http_answer a;
    struct error reason;
    start();
    error_set(&reason, ERR_FORMAT, "m.gguf: tensor x is cut");
    api_server_fail(at.server, &reason);
    http_ask(at.port, "GET", "/health", NULL, NULL, &a);
    assert_error(&a, 503, "engine_failed", "m.gguf: tensor x is cut");
    stop(NULL);
}

static void dead_engine_is_told(void **state)
{
    (void)state;
    struct http_answer a;
    fake_engine_set(at.engine, at.engine->failed = true);
    http_ask(at.port, "GET", "/health", NULL, NULL, &a);
    assert_error(&a, 503, "engine_failed", "node 2 is gone");
    post_error(completions, "{\"prompt\": \"a\"}", 503, "engine_failed", "node 2 is gone");
}

static void busy_port_is_named(void **state)
{
    (void)state;
    struct api_server *second;
    struct error e;
    struct api_options o = {.port = at.port};
    assert_int_equal(api_server_start(&o, &second, &e), ERR_IO);
    assert_non_null(strstr(e.text, api_server_address(at.server)));
    assert_non_null(strstr(e.text, "Address already in use"));
    o = (struct api_options){.host = "no.such.host.invalid"};
    assert_int_equal(api_server_start(&o, &second, &e), ERR_INVALID);
    o = (struct api_options){.port = 65536};
    assert_int_equal(api_server_start(&o, &second, &e), ERR_INVALID);
}

static void stop_ends_running_streams(void **state)
{
    (void)state;
    start();
    api_server_set_model(at.server, &at.model);
    fake_engine_set(at.engine, at.engine->allowed = 1);
    int stream = http_open(at.port), plain = http_open(at.port);
    http_send(stream, "POST", completions, NULL, "{\"prompt\": \"a\", \"stream\": true}");
    struct strbuf raw;
    strbuf_init(&raw, 1 << 20);
    assert_true(http_read_until(stream, &raw, "2.0 "));
    http_send(plain, "POST", completions, NULL, "{\"prompt\": \"a\"}");
    for (int n = 0; n < 2;)
        fake_engine_set(at.engine, n = at.engine->n_submitted);
    time_us before = clock_now_us();
    api_server_stop(at.server);
    assert_true(clock_now_us() - before < 1500 * 1000); /* told, not timed out */
    assert_true(http_read_until(stream, &raw, "data: [DONE]"));
    assert_non_null(strstr(raw.data, "\"code\":\"server_stopping\""));
    struct http_answer a;
    http_read(plain, &a);
    assert_error(&a, 503, "server_stopping", "stopping");
    close(stream);
    close(plain);
    strbuf_release(&raw);
    fake_engine_free(at.engine);
}

/* ---- routes and refusals ---- */

static void models(void **state)
{
    (void)state;
    struct http_answer a;
    http_ask(at.port, "GET", "/v1/models", NULL, NULL, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body.data,
                        "{\"object\":\"list\",\"data\":[{\"id\":\"tiny/letters\",\"object\":"
                        "\"model\",\"created\":1700000000,\"owned_by\":\"shoal\"}]}\n");
    assert_string_equal(http_header(&a, "Content-Type"), "application/json");
    http_answer_release(&a);
    http_ask(at.port, "GET", "/v1/models/tiny%2Fletters", NULL, NULL, &a);
    assert_int_equal(a.status, 200);
    http_answer_release(&a);
    http_ask(at.port, "HEAD", "/v1/models/tiny/letters", NULL, NULL, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body.data, "");
    http_answer_release(&a);
    http_ask(at.port, "GET", "/v1/models/gpt%ff", NULL, NULL, &a);
    assert_error(&a, 404, "model_not_found", "tiny/letters");
    post_error(completions, "{\"prompt\": \"a\", \"model\": \"gpt-4\"}", 404, "model_not_found",
               "\"gpt-4\" is not here: this server has \"tiny/letters\"");
}

static void unknown_routes_and_methods(void **state)
{
    (void)state;
    struct http_answer a;
    http_ask(at.port, "GET", "/nothing", NULL, NULL, &a);
    assert_error(&a, 404, "not_found", "/nothing");
    http_ask(at.port, "GET", "/v1/completionsX", NULL, NULL, &a);
    assert_error(&a, 404, "not_found", "/v1/completionsX");
    http_ask(at.port, "GET", completions, NULL, NULL, &a);
    assert_string_equal(http_header(&a, "Allow"), "POST");
    assert_error(&a, 405, "method_not_allowed", "expected POST");
    http_ask(at.port, "DELETE", "/v1/models", NULL, NULL, &a);
    assert_string_equal(http_header(&a, "Allow"), "GET, HEAD");
    assert_error(&a, 405, "method_not_allowed", "DELETE");
}

static void bad_bodies(void **state)
{
    (void)state;
    struct http_answer a;
    post_error(completions, "", 400, "invalid_json", "empty");
    post_error(completions, "{\"prompt\": ", 400, "invalid_json", "line 1 column");
    post_error(chat, "{\"messages\": [], \"n\": 1}", 400, "invalid_value", "at least one message");
    post_error(completions, "{\"prompt\": \"a\", \"best_of\": 2}", 400, "unsupported_parameter",
               "\"best_of\"");
    post_error(completions, "{\"prompt\": \"a\", \"top_p\": 3}", 400, "invalid_value", "found 3");
    http_ask(at.port, "POST", completions, "Content-Type: text/plain\r\n", "{}", &a);
    assert_error(&a, 415, "unsupported_media_type", "text/plain");
    http_ask(at.port, "POST", completions, "Content-Type: Application/JSON; charset=utf-8\r\n",
             "{\"prompt\": \"a\"}", &a);
    assert_int_equal(a.status, 200);
    http_answer_release(&a);
}

static char *big_body(size_t bytes)
{
    char *body = malloc(bytes + 1);
    assert_non_null(body);
    memset(body, 'x', bytes);
    body[bytes] = 0;
    return body;
}

static void oversized_bodies(void **state)
{
    (void)state;
    struct http_answer a;
    char *body = big_body(3 * MAX_BODY);
    post_error(completions, body, 413, "request_too_large", "at most 100000 bytes, found 300000");
    /* The length is not announced: the limit still holds. */
    struct strbuf chunked;
    strbuf_init(&chunked, 1 << 20);
    strbuf_printf(&chunked, "%x\r\n%s\r\n0\r\n\r\n", 3 * MAX_BODY, body);
    int fd = http_open(at.port);
    http_send(fd, "POST", completions, "Transfer-Encoding: chunked\r\n", NULL);
    assert_int_equal(write(fd, chunked.data, chunked.bytes), chunked.bytes);
    http_read(fd, &a);
    close(fd);
    assert_error(&a, 413, "request_too_large", "at most 100000");
    /* A client that asks first does not have to send it. */
    http_ask(at.port, "POST", completions,
             "Expect: 100-continue\r\nContent-Length: 999999999999\r\n", NULL, &a);
    assert_error(&a, 413, "request_too_large", "found 999999999999");
    strbuf_release(&chunked);
    free(body);
    post(completions, "{\"prompt\": \"still here\"}", &a);
    assert_int_equal(a.status, 200);
    http_answer_release(&a);
}

static void bodies_share_a_budget(void **state)
{
    (void)state;
    struct http_answer a;
    atomic_size_t *held = &at.server->bodies_bytes;
    atomic_store(held, HTTP_MAX_BODIES_BYTES - 5); /* as if others were sending */
    post_error(completions, "{\"prompt\": \"a\"}", 429, "queue_full", "try again");
    assert_int_equal(atomic_load(held), HTTP_MAX_BODIES_BYTES - 5);
    atomic_store(held, 0);
    post(completions, "{\"prompt\": \"a\"}", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(atomic_load(held), 0);
    http_answer_release(&a);
}

static void too_long_prompts(void **state)
{
    (void)state;
    post_error(completions, "{\"prompt\": \"0123456789012345678901234567890123456789\"}", 400,
               "context_length_exceeded", "maximum context length is 32 tokens, the prompt has 41");
    fake_engine_set(at.engine, at.engine->refusal = ERR_LIMIT);
    post_error(completions, "{\"prompt\": \"a\"}", 400, "context_length_exceeded", "as told");
}

static void engine_refusals(void **state)
{
    (void)state;
    static const struct {
        enum err err;
        int status;
        const char *code;
    } cases[] = {{ERR_FULL, 429, "queue_full"},
                 {ERR_CLOSED, 503, "engine_failed"},
                 {ERR_INVALID, 400, "invalid_value"},
                 {ERR_MEMORY, 500, "internal_error"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_engine_set(at.engine, at.engine->refusal = cases[i].err);
        post_error(completions, "{\"prompt\": \"a\"}", cases[i].status, cases[i].code, "as told");
    }
}

static void full_queue_takes_back_what_was_submitted(void **state)
{
    (void)state;
    fake_engine_set(at.engine, (at.engine->max_jobs = 2, at.engine->allowed = 0));
    struct http_answer a;
    post(completions, "{\"prompt\": [\"a\", \"b\", \"c\"]}", &a);
    assert_string_equal(http_header(&a, "Retry-After"), "1");
    assert_error(&a, 429, "queue_full", "2 requests are waiting");
    assert_true(fake_engine_await_cancelled(at.engine, 2));
}

/* ---- answers ---- */

static void plain_completion(void **state)
{
    (void)state;
    struct http_answer a;
    post(completions,
         "{\"prompt\": \"ab\", \"max_tokens\": 2, \"top_k\": 5, \"colour\": 1, "
         "\"stop\": \"x\", \"seed\": 9, \"ignore_eos\": true}",
         &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(http_header(&a, "X-Shoal-Ignored"), "colour");
    assert_has(&a, "\"object\":\"text_completion\"");
    assert_has(&a, "\"model\":\"tiny/letters\"");
    assert_has(&a, "\"text\":\"3.0 3.1 \"");
    assert_has(&a, "\"finish_reason\":\"length\"");
    assert_has(&a, "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5,");
    assert_has(&a, "\"timings\":{");
    http_answer_release(&a);
    const struct request_options *o = &at.engine->last;
    assert_int_equal(o->sampling.top_k, 5);
    assert_int_equal(o->sampling.seed, 9);
    assert_int_equal(o->n_stop, 1);
    assert_true(o->ignore_eos);
    static const int32_t ids[] = {0, 'a' - '!' + 1, 'b' - '!' + 1};
    assert_memory_equal(at.engine->last_prompt, ids, sizeof ids);
}

static void defaults_reach_the_engine(void **state)
{
    (void)state;
    struct http_answer a;
    post(completions, "{\"prompt\": [7, 8]}", &a);
    assert_int_equal(a.status, 200);
    http_answer_release(&a);
    assert_int_equal(at.engine->last.max_tokens, 16);
    assert_int_equal(at.engine->last_prompt[1], 8); /* ids go as they are, without BOS */
    assert_int_equal(at.engine->last.n_prompt, 2);
    uint64_t seed = at.engine->last.sampling.seed;
    post(completions, "{\"prompt\": \"\"}", &a);
    assert_int_equal(a.status, 200);
    http_answer_release(&a);
    assert_int_equal(at.engine->last.n_prompt, 1); /* BOS alone */
    assert_true(at.engine->last.sampling.seed != seed);
    post(chat, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", &a);
    http_answer_release(&a);
    assert_int_equal(at.engine->last.max_tokens, -1);
}

static void several_prompts(void **state)
{
    (void)state;
    struct http_answer a;
    post(completions, "{\"prompt\": [\"a\", \"abc\"], \"max_tokens\": 1}", &a);
    assert_int_equal(a.status, 200);
    assert_has(&a, "{\"index\":0,\"text\":\"2.0 \"");
    assert_has(&a, "{\"index\":1,\"text\":\"4.0 \"");
    assert_has(&a, "\"usage\":{\"prompt_tokens\":6,\"completion_tokens\":2,\"total_tokens\":8,");
    http_answer_release(&a);
}

static void several_choices(void **state)
{
    (void)state;
    struct http_answer a;
    post(completions,
         "{\"prompt\": [\"a\", \"abc\"], \"max_tokens\": 1, \"n\": 2, \"priority\": -3, "
         "\"deadline_ms\": 60000}",
         &a);
    assert_int_equal(a.status, 200);
    assert_has(&a, "{\"index\":1,\"text\":\"2.0 \"");
    assert_has(&a, "{\"index\":2,\"text\":\"4.0 \"");
    assert_has(&a, "{\"index\":3,\"text\":\"4.0 \"");
    assert_has(&a, "\"usage\":{\"prompt_tokens\":6,\"completion_tokens\":4,");
    http_answer_release(&a);
    assert_int_equal(at.engine->last.choice, 1); /* of the last prompt */
    assert_int_equal(at.engine->last.priority, 3);
    assert_int_equal(at.engine->last.deadline_us, 60000000);
    post(chat, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"n\": 3}", &a);
    assert_has(&a, "{\"index\":2,\"message\"");
    http_answer_release(&a);
    post(completions, "{\"prompt\": [\"a\", \"b\"], \"n\": 100}", &a);
    assert_int_equal(a.status, 400);
    assert_has(&a, "at most 128");
    http_answer_release(&a);
}

static int one_stage(void *context, struct api_stage *out, int most)
{
    (void)context;
    assert_true(most >= 1);
    out[0] = (struct api_stage){.node = "lead", .layers = "0-3", .known = true, .steps = 77};
    return 1;
}

static void metrics(void **state)
{
    (void)state;
    struct http_answer a;
    start();
    http_ask(at.port, "GET", "/metrics", NULL, NULL, &a);
    assert_int_equal(a.status, 200);
    assert_has(&a, "shoal_ready 0\n");
    http_answer_release(&a);
    at.model.stages = one_stage;
    api_server_set_model(at.server, &at.model);
    post(completions, "{\"prompt\": \"a\", \"max_tokens\": 1}", &a);
    http_answer_release(&a);
    http_ask(at.port, "GET", "/metrics", NULL, NULL, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(http_header(&a, "Content-Type"),
                        "text/plain; version=0.0.4; charset=utf-8");
    assert_has(&a, "shoal_ready 1\n");
    assert_has(&a, "shoal_requests_total 1\n");
    assert_has(&a, "shoal_stage_steps_total{stage=\"0\",node=\"lead\",layers=\"0-3\"} 77\n");
    http_answer_release(&a);
    stop(NULL);
}

static void plain_chat(void **state)
{
    (void)state;
    struct http_answer a;
    fake_engine_set(at.engine, at.engine->finish = FINISH_STOP);
    post(chat, "{\"messages\": [{\"role\": \"user\", \"content\": \"hey\"}]}", &a);
    assert_int_equal(a.status, 200);
    assert_has(&a, "\"object\":\"chat.completion\"");
    assert_has(&a, "\"message\":{\"role\":\"assistant\",\"content\":\"6.0 6.1 6.2 \"");
    assert_has(&a, "\"finish_reason\":\"stop\"");
    http_answer_release(&a);
    assert_int_equal(at.engine->last_prompt[0], 0); /* the template's own <s>, once */
    assert_int_equal(at.engine->last_prompt[1], 'u' - '!' + 1);
    post_error(chat, "{\"messages\": [{\"role\": \"user\", \"content\": \"fail\"}]}", 400,
               "invalid_value", "no way");
}

static void chat_needs_a_template(void **state)
{
    (void)state;
    start();
    at.model.chat_template = NULL;
    api_server_set_model(at.server, &at.model);
    post_error(chat, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", 400,
               "unsupported_parameter", "\"tiny/letters\" has no chat template");
    stop(NULL);
}

static void streamed_chat(void **state)
{
    (void)state;
    struct http_answer a;
    post(chat,
         "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"stream\": true, "
         "\"stream_options\": {\"include_usage\": true}, \"max_tokens\": 3, \"zap\": 0}",
         &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(http_header(&a, "X-Shoal-Ignored"), "zap");
    assert_string_equal(http_header(&a, "Content-Type"), "text/event-stream; charset=utf-8");
    assert_has(&a, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    assert_has(&a, "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}],\"usage\":null,"
                   "\"timings\":{");
    assert_has(&a, "\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":3,");
    assert_string_equal(a.body.data + a.body.bytes - 16, "\n\ndata: [DONE]\n\n");
    http_answer_release(&a);
}

/* Text arrives while the engine is still at work, piece by piece, each in its own event. */
static void streams_as_it_comes(void **state)
{
    (void)state;
    fake_engine_set(at.engine, at.engine->allowed = 1);
    int fd = http_open(at.port);
    struct strbuf raw;
    strbuf_init(&raw, 1 << 20);
    http_send(fd, "POST", completions, NULL,
              "{\"prompt\": \"a\", \"stream\": true, \"max_tokens\": 4}");
    for (int i = 0; i < 4; i++) {
        char text[32];
        snprintf(text, sizeof text, "\"text\":\"2.%d \"", i);
        assert_true(http_read_until(fd, &raw, text));
        snprintf(text, sizeof text, "2.%d", i + 1);
        assert_null(strstr(raw.data, text));
        fake_engine_set(at.engine, at.engine->allowed = i + 2);
    }
    assert_true(http_read_until(fd, &raw, "data: [DONE]\n\n"));
    close(fd);
    strbuf_release(&raw);
}

static void several_streams_in_one(void **state)
{
    (void)state;
    struct http_answer a;
    post(completions, "{\"prompt\": [\"a\", \"abc\"], \"max_tokens\": 1, \"stream\": true}", &a);
    assert_has(&a, "{\"index\":0,\"text\":\"2.0 \"");
    assert_has(&a, "{\"index\":1,\"text\":\"4.0 \"");
    const char *done = strstr(a.body.data, "[DONE]");
    assert_non_null(done);
    assert_null(strstr(done + 1, "[DONE]"));
    http_answer_release(&a);
}

static void failures_while_generating(void **state)
{
    (void)state;
    struct http_answer a;
    fake_engine_set(at.engine, at.engine->finish = FINISH_ERROR);
    post_error(completions, "{\"prompt\": \"a\"}", 500, "internal_error", "node 2 is gone");
    post(completions, "{\"prompt\": \"a\", \"stream\": true, \"max_tokens\": 1}", &a);
    assert_int_equal(a.status, 200); /* the header had gone */
    assert_has(&a, "data: {\"error\":{\"message\":\"node 2 is gone\"");
    assert_has(&a, "data: [DONE]\n\n");
    http_answer_release(&a);
}

static void broken_text_leaves_as_utf8(void **state)
{
    (void)state;
    struct http_answer a;
    fake_engine_set(at.engine, at.engine->text = "\xff\xe2\x82");
    post(completions, "{\"prompt\": \"a\", \"max_tokens\": 1}", &a);
    assert_has(&a, "\"text\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    http_answer_release(&a);
}

/* A client that goes is noticed while nothing is sent to it: its requests leave the engine. */
static void hangup_cancels(void **state)
{
    (void)state;
    fake_engine_set(at.engine, at.engine->allowed = 1);
    static const char *const bodies[] = {
        "{\"prompt\": \"a\", \"stream\": true}",
        "{\"prompt\": \"a\"}",
        "{\"prompt\": [\"a\", \"b\"], \"stream\": true}",
    };
    static const int n_cancelled[] = {1, 2, 4};
    for (int i = 0; i < 3; i++) {
        int fd = http_open(at.port);
        http_send(fd, "POST", completions, NULL, bodies[i]);
        for (int n = 0; n < n_cancelled[i];)
            fake_engine_set(at.engine, n = at.engine->n_submitted);
        close(fd);
        assert_true(fake_engine_await_cancelled(at.engine, n_cancelled[i]));
    }
    struct http_answer a;
    fake_engine_set(at.engine, at.engine->allowed = 100);
    post(completions, "{\"prompt\": \"a\", \"max_tokens\": 1}", &a);
    assert_int_equal(a.status, 200);
    http_answer_release(&a);
}

/* More waiting requests than threads: sleeping connections hold none. */
static void many_at_once(void **state)
{
    (void)state;
    enum { N = 40 };
    int fds[N];
    fake_engine_set(at.engine, at.engine->allowed = 0);
    for (int i = 0; i < N; i++) {
        fds[i] = http_open(at.port);
        http_send(fds[i], "POST", completions, NULL,
                  i % 2 != 0 ? "{\"prompt\": \"a\", \"stream\": true, \"max_tokens\": 3}"
                             : "{\"prompt\": \"a\", \"max_tokens\": 3}");
    }
    for (int n = 0; n < N;)
        fake_engine_set(at.engine, n = at.engine->n_submitted);
    struct http_answer a;
    http_ask(at.port, "GET", "/health", NULL, NULL, &a);
    assert_int_equal(a.status, 200);
    http_answer_release(&a);
    fake_engine_set(at.engine, at.engine->allowed = 100);
    for (int i = 0; i < N; i++) {
        http_read(fds[i], &a);
        assert_int_equal(a.status, 200);
        assert_has(&a, "\"finish_reason\":\"length\"");
        assert_has(&a, "2.2 ");
        http_answer_release(&a);
        close(fds[i]);
    }
}

#define READY(test) cmocka_unit_test_setup_teardown(test, start_ready, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_then_serves),
        cmocka_unit_test(failed_load_says_why),
        cmocka_unit_test(stop_ends_running_streams),
        cmocka_unit_test(chat_needs_a_template),
        READY(dead_engine_is_told),
        READY(busy_port_is_named),
        READY(models),
        READY(unknown_routes_and_methods),
        READY(bad_bodies),
        READY(oversized_bodies),
        READY(bodies_share_a_budget),
        READY(too_long_prompts),
        READY(engine_refusals),
        READY(full_queue_takes_back_what_was_submitted),
        READY(plain_completion),
        READY(defaults_reach_the_engine),
        READY(several_prompts),
        READY(several_choices),
        cmocka_unit_test(metrics),
        READY(plain_chat),
        READY(streamed_chat),
        READY(streams_as_it_comes),
        READY(several_streams_in_one),
        READY(failures_while_generating),
        READY(broken_text_leaves_as_utf8),
        READY(hangup_cancels),
        READY(many_at_once),
    };
    return cmocka_run_group_tests(tests, make_text, free_text);
}
