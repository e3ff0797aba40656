/* Fields of a completion request. The table at the end of this file is the API's definition:
 * docs/api.md lists the same rows. */
#include "api/completion_request_impl.h"

#include "api/json_text_impl.h"
#include "base/panic.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One row of the table. `read` is given a value that is not null. */
struct field {
    const char *name;
    unsigned routes; /* enum request_route, or'ed */
    bool (*read)(struct completion_request *r, const struct field *f, const json_t *value,
                 struct api_error *e);
    size_t offset; /* where read_number, read_integer and read_flag put it */
    double min, max;
    bool above_min;                          /* min itself is outside */
    bool (*is_default)(const json_t *value); /* read_unsupported: changes nothing */
    const char *expected;                    /* what is_default accepts, in words */
};

const char *json_kind(const json_t *value, char room[static 32])
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
        snprintf(room, 32, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL: snprintf(room, 32, "%.15g", json_real_value(value)); break;
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return room;
}

void request_ignore(struct completion_request *r, const char *prefix, const char *name)
{
    if (r->ignored.bytes > 0)
        strbuf_puts(&r->ignored, ", ");
    strbuf_puts(&r->ignored, prefix);
    for (const char *c = name; *c != 0; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || *c == '_' || *c == '-' || *c == '.';
        strbuf_append(&r->ignored, plain ? c : "?",
                      1); /* the name is the client's: no CR LF here */
    }
}

/* ---- readers ---- */

static bool wrong_type(const struct field *f, const char *expected, const json_t *value,
                       struct api_error *e)
{
    char room[32];
    return api_refuse(e, FAULT_INVALID, f->name, "\"%s\" must be %s, found %s", f->name, expected,
                      json_kind(value, room));
}

static bool out_of_range(const struct field *f, const json_t *value, struct api_error *e)
{
    char room[32];
    return api_refuse(e, FAULT_INVALID, f->name,
                      "\"%s\" must be %s %.15g and at most %.15g, found %s", f->name,
                      f->above_min ? "above" : "at least", f->min, f->max, json_kind(value, room));
}

static bool in_range(const struct field *f, double value)
{
    return (f->above_min ? value > f->min : value >= f->min) && value <= f->max;
}

static bool read_number(struct completion_request *r, const struct field *f, const json_t *value,
                        struct api_error *e)
{
    if (!json_is_number(value))
        return wrong_type(f, "a number", value, e);
    float narrow = (float)json_number_value(value); /* a tiny top_p may become 0 here */
    if (!in_range(f, narrow))
        return out_of_range(f, value, e);
    memcpy((char *)r + f->offset, &narrow, sizeof narrow);
    return true;
}

static bool read_integer(struct completion_request *r, const struct field *f, const json_t *value,
                         struct api_error *e)
{
    if (!json_is_integer(value))
        return wrong_type(f, "an integer", value, e);
    if (!in_range(f, (double)json_integer_value(value)))
        return out_of_range(f, value, e);
    int number = (int)json_integer_value(value);
    memcpy((char *)r + f->offset, &number, sizeof number);
    return true;
}

/* "truncate_prompt_tokens": the last so many tokens; -1, as vLLM has it: as many as fit. */
static bool read_truncate_to(struct completion_request *r, const struct field *f,
                             const json_t *value, struct api_error *e)
{
    if (!read_integer(r, f, value, e))
        return false;
    if (r->truncate_to == 0)
        return api_refuse(e, FAULT_INVALID, f->name,
                          "\"%s\" must be at least 1, or -1 for what fits, found 0", f->name);
    if (r->truncate_to == -1) {
        r->truncate = true;
        r->truncate_to = 0;
    }
    return true;
}

/* -1 turns top_k off too, as some clients say it. */
static bool read_top_k(struct completion_request *r, const struct field *f, const json_t *value,
                       struct api_error *e)
{
    if (!read_integer(r, f, value, e))
        return false;
    if (r->sampling.top_k < 0)
        r->sampling.top_k = 0;
    return true;
}

/* Version 1 of mirostat is not there, under any number. */
static bool read_mirostat(struct completion_request *r, const struct field *f, const json_t *value,
                          struct api_error *e)
{
    char room[32];
    if (!read_integer(r, f, value, e))
        return false;
    return r->sampling.mirostat != 1 ||
           api_refuse(e, FAULT_INVALID, f->name,
                      "\"mirostat\" must be 0 (off) or 2 (version 2), found %s",
                      json_kind(value, room));
}

static bool read_flag(struct completion_request *r, const struct field *f, const json_t *value,
                      struct api_error *e)
{
    if (!json_is_boolean(value))
        return wrong_type(f, "true or false", value, e);
    bool flag = json_is_true(value);
    memcpy((char *)r + f->offset, &flag, sizeof flag);
    return true;
}

/* Beside "truncate_prompt_tokens": -1, which says the same. */
static bool read_truncate(struct completion_request *r, const struct field *f, const json_t *value,
                          struct api_error *e)
{
    if (!json_is_boolean(value))
        return wrong_type(f, "true or false", value, e);
    r->truncate |= json_is_true(value);
    return true;
}

static bool read_model(struct completion_request *r, const struct field *f, const json_t *value,
                       struct api_error *e)
{
    if (!json_is_string(value))
        return wrong_type(f, "a string", value, e);
    r->model = json_string_value(value);
    return true;
}

static bool read_prompt(struct completion_request *r, const struct field *f, const json_t *value,
                        struct api_error *e)
{
    (void)f;
    return prompt_field_read(r, value, e);
}

static bool read_messages(struct completion_request *r, const struct field *f, const json_t *value,
                          struct api_error *e)
{
    (void)f;
    return chat_messages_read(r, value, e);
}

/* /v1/completions: a number, how many beside the chosen token; false: none at all. */
static bool read_logprobs_count(struct completion_request *r, const struct field *f,
                                const json_t *value, struct api_error *e)
{
    if (json_is_false(value))
        return true;
    r->logprobs = true;
    return read_integer(r, f, value, e);
}

static bool read_top_logprobs(struct completion_request *r, const struct field *f,
                              const json_t *value, struct api_error *e)
{
    if (!read_integer(r, f, value, e))
        return false;
    r->has_top_logprobs = r->sampling.n_logprobs > 0;
    return true;
}

static bool read_seed(struct completion_request *r, const struct field *f, const json_t *value,
                      struct api_error *e)
{
    if (!json_is_integer(value))
        return wrong_type(f, "an integer", value, e);
    r->sampling.seed = (uint64_t)json_integer_value(value);
    r->has_seed = true;
    return true;
}

static bool add_stop(struct completion_request *r, const struct field *f, const json_t *value,
                     struct api_error *e)
{
    if (!json_is_string(value))
        return wrong_type(f, "a string or an array of strings", value, e);
    size_t bytes = json_string_length(value);
    if (bytes == 0 || bytes > REQUEST_MAX_STOP_BYTES)
        return api_refuse(e, FAULT_INVALID, f->name,
                          "a string of \"stop\" must have 1 to %d bytes, found %zu",
                          REQUEST_MAX_STOP_BYTES, bytes);
    r->stop[r->n_stop++] = json_string_value(value);
    return true;
}

static bool read_stop(struct completion_request *r, const struct field *f, const json_t *value,
                      struct api_error *e)
{
    if (!json_is_array(value))
        return add_stop(r, f, value, e);
    if (json_array_size(value) > REQUEST_MAX_STOP)
        return api_refuse(e, FAULT_INVALID, f->name,
                          "\"stop\" may have at most %d strings, found %zu", REQUEST_MAX_STOP,
                          json_array_size(value));
    size_t i;
    const json_t *string;
    json_array_foreach(value, i, string)
    {
        if (!add_stop(r, f, string, e))
            return false;
    }
    return true;
}

static bool add_breaker(struct completion_request *r, const struct field *f, const json_t *value,
                        struct api_error *e)
{
    if (!json_is_string(value))
        return wrong_type(f, "an array of strings", value, e);
    size_t bytes = json_string_length(value);
    if (bytes == 0 || bytes > REQUEST_MAX_BREAKER_BYTES)
        return api_refuse(e, FAULT_INVALID, f->name,
                          "a string of \"%s\" must have 1 to %d bytes, found %zu", f->name,
                          REQUEST_MAX_BREAKER_BYTES, bytes);
    r->breakers[r->n_breakers++] = json_string_value(value);
    return true;
}

static bool read_breakers(struct completion_request *r, const struct field *f, const json_t *value,
                          struct api_error *e)
{
    if (!json_is_array(value))
        return wrong_type(f, "an array of strings", value, e);
    if (json_array_size(value) > REQUEST_MAX_BREAKERS)
        return api_refuse(e, FAULT_INVALID, f->name,
                          "\"%s\" may have at most %d strings, found %zu", f->name,
                          REQUEST_MAX_BREAKERS, json_array_size(value));
    r->has_breakers = true;
    size_t i;
    const json_t *string;
    json_array_foreach(value, i, string)
    {
        if (!add_breaker(r, f, string, e))
            return false;
    }
    return true;
}

/* A key of logit_bias: the decimal id of a token. */
static bool read_token_key(const char *key, int vocab, int32_t *token)
{
    char *end;
    if (*key < '0' || *key > '9')
        return false;
    long id = strtol(key, &end, 10);
    *token = (int32_t)id;
    return *end == 0 && id < vocab;
}

static bool read_logit_bias(struct completion_request *r, const struct field *f,
                            const json_t *value, struct api_error *e)
{
    if (!json_is_object(value))
        return wrong_type(f, "an object of token id to bias", value, e);
    size_t n = json_object_size(value);
    if (n > REQUEST_MAX_LOGIT_BIAS)
        return api_refuse(e, FAULT_INVALID, f->name,
                          "\"logit_bias\" may name at most %d tokens, "
                          "found %zu",
                          REQUEST_MAX_LOGIT_BIAS, n);
    struct logit_bias *biases = arena_zalloc(&r->memory, n + 1, sizeof *biases);
    if (biases == NULL)
        return api_refuse(e, FAULT_INTERNAL, NULL, "out of memory");
    const char *key;
    json_t *bias;
    json_object_foreach((json_t *)value, key, bias)
    {
        struct logit_bias *b = &biases[r->sampling.n_logit_bias++];
        if (!read_token_key(key, r->vocab, &b->token))
            return api_refuse(e, FAULT_INVALID, f->name,
                              "a key of \"logit_bias\" must be a token "
                              "id from 0 to %d, found \"%s\"",
                              r->vocab - 1, key);
        if (!json_is_number(bias) || !in_range(f, json_number_value(bias)))
            return api_refuse(e, FAULT_INVALID, f->name,
                              "\"logit_bias\" of token %d must be a "
                              "number from %g to %g",
                              b->token, f->min, f->max);
        b->bias = (float)json_number_value(bias);
    }
    r->sampling.logit_bias = biases;
    return true;
}

static bool read_stream_options(struct completion_request *r, const struct field *f,
                                const json_t *value, struct api_error *e)
{
    if (!json_is_object(value))
        return wrong_type(f, "an object", value, e);
    r->has_stream_options = true;
    const char *key;
    json_t *option;
    json_object_foreach((json_t *)value, key, option)
    {
        bool usage = strcmp(key, "include_usage") == 0;
        if (!usage && strcmp(key, "include_obfuscation") != 0)
            request_ignore(r, "stream_options.", key);
        else if (!json_is_boolean(option) && !json_is_null(option))
            return api_refuse(e, FAULT_INVALID, f->name,
                              "\"stream_options.%s\" must be true or "
                              "false",
                              key);
        else if (usage)
            r->include_usage = json_is_true(option);
    }
    return true;
}

/* A note of the client's to the service (who asks, a cache hint): it changes no answer. */
static bool read_note(struct completion_request *r, const struct field *f, const json_t *value,
                      struct api_error *e)
{
    (void)r;
    return json_is_string(value) || wrong_type(f, "a string", value, e);
}

static bool read_metadata(struct completion_request *r, const struct field *f, const json_t *value,
                          struct api_error *e)
{
    (void)r;
    return json_is_object(value) || wrong_type(f, "an object", value, e);
}

static bool read_unsupported(struct completion_request *r, const struct field *f,
                             const json_t *value, struct api_error *e)
{
    (void)r;
    char room[32];
    return (f->is_default != NULL && f->is_default(value)) ||
           api_refuse(e, FAULT_UNSUPPORTED, f->name,
                      "\"%s\" is not supported yet: leave it out%s%s, found %s", f->name,
                      f->expected != NULL ? " or set it to " : "",
                      f->expected != NULL ? f->expected : "", json_kind(value, room));
}

/* ---- the values at which a field that is not supported changes nothing ---- */

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

static bool is_false(const json_t *value)
{
    return json_is_false(value);
}

static bool is_true(const json_t *value)
{
    return json_is_true(value);
}

static bool is_one(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) == 1;
}

static bool is_empty_text(const json_t *value)
{
    return is_text(value, "");
}

static bool is_empty_array(const json_t *value)
{
    return json_is_array(value) && json_array_size(value) == 0;
}

static bool is_no_choice(const json_t *value) /* of tools, of which there are none */
{
    return is_text(value, "none") || is_text(value, "auto");
}

static bool is_none_text(const json_t *value)
{
    return is_text(value, "none");
}

static bool is_medium(const json_t *value)
{
    return is_text(value, "medium");
}

static bool is_usual_tier(const json_t *value)
{
    return is_text(value, "auto") || is_text(value, "default");
}

static bool is_text_format(const json_t *value)
{
    return json_is_object(value) && json_object_size(value) == 1 &&
           is_text(json_object_get(value, "type"), "text");
}

static bool is_text_modality(const json_t *value)
{
    return json_array_size(value) == 1 && is_text(json_array_get(value, 0), "text");
}

/* ---- the table ---- */

#define BOTH (ROUTE_COMPLETIONS | ROUTE_CHAT)
#define AT(member) .offset = offsetof(struct completion_request, member)
#define NUMBER(field, member, low, high) \
    { \
        field, BOTH, .read = read_number, AT(member), .min = low, .max = high \
    }
#define INTEGER(field, member, low, high) \
    { \
        field, BOTH, .read = read_integer, AT(member), .min = low, .max = high \
    }
#define NOT_YET(field, routes, test, words) \
    { \
        field, routes, .read = read_unsupported, .is_default = test, .expected = words \
    }

static const struct field fields[] = {
    {"model", BOTH, .read = read_model},
    {"prompt", ROUTE_COMPLETIONS, .read = read_prompt},
    {"messages", ROUTE_CHAT, .read = read_messages},
    INTEGER("max_tokens", max_tokens, -1, SHAPE_MAX_CONTEXT),
    INTEGER("max_completion_tokens", max_tokens, -1, SHAPE_MAX_CONTEXT),
    {"truncate", BOTH, .read = read_truncate},
    {"truncate_prompt_tokens", BOTH, .read = read_truncate_to, AT(truncate_to), .min = -1,
     .max = SHAPE_MAX_CONTEXT},
    NUMBER("temperature", sampling.temperature, 0, SAMPLING_MAX_TEMPERATURE),
    {"top_p", BOTH, .read = read_number, AT(sampling.top_p), .min = 0, .max = 1, .above_min = true},
    {"top_k", BOTH, .read = read_top_k, AT(sampling.top_k), .min = -1, .max = INT_MAX},
    NUMBER("min_p", sampling.min_p, 0, 1),
    {"typical_p", BOTH, .read = read_number, AT(sampling.typical_p), .max = 1, .above_min = true},
    NUMBER("xtc_probability", sampling.xtc_probability, 0, 1),
    NUMBER("xtc_threshold", sampling.xtc_threshold, 0, 1),
    NUMBER("dry_multiplier", sampling.dry_multiplier, 0, 100),
    NUMBER("dry_base", sampling.dry_base, 1, 100),
    INTEGER("dry_allowed_length", sampling.dry_allowed_length, 1, INT_MAX),
    INTEGER("dry_penalty_last_n", sampling.dry_penalty_last_n, -1, INT_MAX),
    {"dry_sequence_breakers", BOTH, .read = read_breakers},
    {"mirostat", BOTH, .read = read_mirostat, AT(sampling.mirostat), .min = 0, .max = 2},
    NUMBER("mirostat_tau", sampling.mirostat_tau, 0, 100),
    NUMBER("mirostat_eta", sampling.mirostat_eta, 0, 1),
    NUMBER("repetition_penalty", sampling.repetition_penalty, 0.001f, 1000),
    NUMBER("repeat_penalty", sampling.repetition_penalty, 0.001f, 1000),
    NUMBER("presence_penalty", sampling.presence_penalty, -2, 2),
    NUMBER("frequency_penalty", sampling.frequency_penalty, -2, 2),
    INTEGER("penalty_last_n", sampling.penalty_last_n, -1, INT_MAX),
    INTEGER("repeat_last_n", sampling.penalty_last_n, -1, INT_MAX),
    INTEGER("n", n, 1, REQUEST_MAX_CHOICES),
    INTEGER("priority", priority, -1000000, 1000000),
    INTEGER("deadline_ms", deadline_ms, 1, 1000000000),
    {"logit_bias", BOTH, .read = read_logit_bias, .min = -100, .max = 100},
    {"logprobs", ROUTE_COMPLETIONS, .read = read_logprobs_count, AT(sampling.n_logprobs),
     .max = SAMPLING_MAX_LOGPROBS},
    {"logprobs", ROUTE_CHAT, .read = read_flag, AT(logprobs)},
    {"top_logprobs", ROUTE_CHAT, .read = read_top_logprobs, AT(sampling.n_logprobs),
     .max = SAMPLING_MAX_LOGPROBS},
    {"seed", BOTH, .read = read_seed},
    {"stop", BOTH, .read = read_stop},
    {"ignore_eos", BOTH, .read = read_flag, AT(ignore_eos)},
    {"stream", BOTH, .read = read_flag, AT(stream)},
    {"stream_options", BOTH, .read = read_stream_options},
    {"user", BOTH, .read = read_note},
    {"safety_identifier", ROUTE_CHAT, .read = read_note},
    {"prompt_cache_key", ROUTE_CHAT, .read = read_note},
    {"metadata", ROUTE_CHAT, .read = read_metadata},
    NOT_YET("best_of", ROUTE_COMPLETIONS, is_one, "1"),
    NOT_YET("echo", ROUTE_COMPLETIONS, is_false, "false"),
    NOT_YET("suffix", ROUTE_COMPLETIONS, is_empty_text, "\"\""),
    NOT_YET("tools", ROUTE_CHAT, is_empty_array, "[]"),
    NOT_YET("tool_choice", ROUTE_CHAT, is_no_choice, "\"none\""),
    NOT_YET("parallel_tool_calls", ROUTE_CHAT, is_true, "true"),
    NOT_YET("functions", ROUTE_CHAT, is_empty_array, "[]"),
    NOT_YET("function_call", ROUTE_CHAT, is_no_choice, "\"none\""),
    NOT_YET("response_format", ROUTE_CHAT, is_text_format, "{\"type\": \"text\"}"),
    NOT_YET("modalities", ROUTE_CHAT, is_text_modality, "[\"text\"]"),
    NOT_YET("audio", ROUTE_CHAT, NULL, NULL),
    NOT_YET("moderation", ROUTE_CHAT, NULL, NULL),
    NOT_YET("prediction", ROUTE_CHAT, NULL, NULL),
    NOT_YET("prompt_cache_retention", ROUTE_CHAT, NULL, NULL),
    NOT_YET("reasoning_effort", ROUTE_CHAT, is_none_text, "\"none\""),
    NOT_YET("service_tier", ROUTE_CHAT, is_usual_tier, "\"auto\""),
    NOT_YET("store", ROUTE_CHAT, is_false, "false"),
    NOT_YET("verbosity", ROUTE_CHAT, is_medium, "\"medium\""),
    NOT_YET("web_search_options", ROUTE_CHAT, NULL, NULL),
};

enum { N_FIELDS = sizeof fields / sizeof fields[0] };
_Static_assert(N_FIELDS <= 64, "completion_request.given has a bit for each");

/* ---- the whole body ---- */

static const struct field *find_field(enum request_route route, const char *name)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if ((fields[i].routes & route) != 0 && strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

/* Another name of the same setting that was given before, or NULL. */
static const char *given_alias(const struct completion_request *r, const struct field *f)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if (f->offset != 0 && fields[i].offset == f->offset && (r->given >> i & 1) != 0)
            return fields[i].name;
    return NULL;
}

static bool read_field(struct completion_request *r, const char *name, const json_t *value,
                       struct api_error *e)
{
    const struct field *f = find_field(r->route, name);
    if (f == NULL) {
        request_ignore(r, "", name);
        return true;
    }
    if (json_is_null(value))
        return true;
    const char *alias = given_alias(r, f);
    if (alias != NULL)
        return api_refuse(e, FAULT_INVALID, f->name,
                          "\"%s\" and \"%s\" are one setting: give one of them", alias, f->name);
    r->given |= (uint64_t)1 << (f - fields);
    return f->read(r, f, value, e);
}

static bool check_whole(const struct completion_request *r, struct api_error *e)
{
    if (r->route == ROUTE_COMPLETIONS && r->n_prompts == 0)
        return api_refuse(e, FAULT_INVALID, "prompt",
                          "\"prompt\" is missing: expected a string, "
                          "an array of strings, token ids, or an array of these");
    if (r->route == ROUTE_CHAT && r->variables == NULL)
        return api_refuse(e, FAULT_INVALID, "messages",
                          "\"messages\" is missing: expected an array of messages");
    if (r->n_prompts > 0 && r->n > REQUEST_MAX_CHOICES / r->n_prompts)
        return api_refuse(
            e, FAULT_INVALID, "n",
            "\"n\" times the number of prompts must be at most %d, found %d for each of "
            "%d prompts",
            REQUEST_MAX_CHOICES, r->n, r->n_prompts);
    if (r->has_top_logprobs && !r->logprobs)
        return api_refuse(e, FAULT_INVALID, "top_logprobs",
                          "\"top_logprobs\" needs \"logprobs\": true");
    if (r->has_stream_options && !r->stream)
        return api_refuse(e, FAULT_INVALID, "stream_options",
                          "\"stream_options\" needs \"stream\": true");
    return true;
}

static bool read_fields(struct completion_request *r, struct api_error *e)
{
    const char *name;
    json_t *value;
    json_object_foreach(r->body, name, value)
    {
        if (!read_field(r, name, value, e))
            return false;
    }
    return check_whole(r, e);
}

bool completion_request_parse(struct completion_request *r, enum request_route route,
                              const char *body, size_t bytes, int vocab, struct api_error *e)
{
    enum { MAX_IGNORED_BYTES = 1024, MAX_MEMORY = 64 << 20 };
    *r = (struct completion_request){
        .route = route, .vocab = vocab, .max_tokens = MAX_TOKENS_ABSENT, .n = 1};
    r->sampling = SAMPLING_GREEDY;
    r->sampling.temperature = 1; /* OpenAI's default */
    strbuf_init(&r->ignored, MAX_IGNORED_BYTES);
    arena_init(&r->memory, MAX_MEMORY);
    r->body = json_parse_request(body, bytes, e);
    return r->body != NULL && read_fields(r, e);
}

void completion_request_release(struct completion_request *r)
{
    json_decref(r->variables);
    json_decref(r->body);
    strbuf_release(&r->ignored);
    arena_release(&r->memory);
}
