/* POST /v1/completions and /v1/chat/completions: from a checked request to running choices. */
#include "api/exchange_impl.h"

#include "base/clock.h"
#include "base/panic.h"
#include "base/random.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_COMPLETION_TOKENS = 16 /* OpenAI's, for /v1/completions */ };

/* For names and seeds; a system that has no random numbers cannot serve. */
static void fill_random(void *out, size_t bytes)
{
    struct error e;
    if (random_bytes(out, bytes, &e) != OK)
        PANIC("%s", e.text);
}

/* A failure below, as a client is told of it. */
static bool refuse_error(struct api_error *e, enum api_fault fault, const char *param,
                         const struct error *reason)
{
    switch (reason->code) {
    case ERR_FULL: fault = FAULT_QUEUE_FULL; break;
    case ERR_CLOSED: fault = FAULT_ENGINE; break;
    case ERR_MEMORY:
    case ERR_INTERNAL: fault = FAULT_INTERNAL; break;
    default: break;
    }
    return api_refuse(e, fault, fault == FAULT_INVALID || fault == FAULT_CONTEXT ? param : NULL,
                      "%s", reason->text);
}

/* ---- prompts to token ids ---- */

static bool check_ids(const struct api_model *m, const struct completion_request *r,
                      const struct token_list *ids, struct api_error *e)
{
    const char *param = r->route == ROUTE_CHAT ? "messages" : "prompt";
    size_t n =
        r->truncate_to > 0 && ids->n > (size_t)r->truncate_to ? (size_t)r->truncate_to : ids->n;
    for (size_t i = 0; i < ids->n; i++)
        if (ids->ids[i] >= (uint32_t)m->vocab)
            return api_refuse(e, FAULT_INTERNAL, NULL,
                              "the tokenizer gave token %u, the model "
                              "has %d",
                              ids->ids[i], m->vocab);
    if (!r->truncate && n > (size_t)m->max_context)
        return api_refuse(e, FAULT_CONTEXT, param,
                          "this model's maximum context length is %d "
                          "tokens, the prompt has %zu",
                          m->max_context, n);
    if (ids->n == 0)
        return api_refuse(e, FAULT_INVALID, param, "the prompt has no tokens");
    return true;
}

static bool encode_text(const struct api_model *m, const char *text, size_t bytes, unsigned flags,
                        struct token_list *ids, struct api_error *e)
{
    struct error reason;
    uint32_t bos = tokenizer_bos(m->tokenizer);
    if (tokenizer_encode(m->tokenizer, text, bytes, flags, ids, &reason) != OK)
        return refuse_error(e, FAULT_INVALID, "prompt", &reason);
    /* An empty prompt starts from BOS alone, also where a text gets none. */
    if (ids->n == 0 && bos != TOKEN_NONE && token_list_append(ids, &bos, 1, &reason) != OK)
        return refuse_error(e, FAULT_INTERNAL, NULL, &reason);
    return true;
}

static bool encode_prompt(const struct api_model *m, const struct prompt *p, struct token_list *ids,
                          struct api_error *e)
{
    struct error reason;
    if (p->text != NULL)
        return encode_text(m, p->text, p->bytes, TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL,
                           ids, e);
    return token_list_append(ids, (const uint32_t *)p->ids, (size_t)p->n_ids, &reason) == OK ||
           refuse_error(e, FAULT_INTERNAL, NULL, &reason);
}

/* The template writes the special tokens itself, BOS included. */
static bool encode_chat(const struct api_model *m, json_t *variables, struct token_list *ids,
                        struct api_error *e)
{
    if (m->chat_template == NULL)
        return api_refuse(e, FAULT_UNSUPPORTED, "messages",
                          "the model \"%.80s\" has no chat "
                          "template: use /v1/completions",
                          m->id);
    struct error reason;
    char *json = json_dumps(variables, JSON_COMPACT), *text;
    size_t bytes;
    if (json == NULL)
        return api_refuse(e, FAULT_INTERNAL, NULL, "out of memory");
    enum err err =
        chat_template_render(m->chat_template, json, strlen(json), &text, &bytes, &reason);
    free(json);
    if (err != OK)
        return refuse_error(e, FAULT_INVALID, "messages", &reason);
    bool good = encode_text(m, text, bytes, TOKENIZER_PARSE_SPECIAL, ids, e);
    free(text);
    return good;
}

/* ---- to the engine ---- */

static bool submit_choice(struct exchange *x, const struct completion_request *r, int choice_i,
                          struct api_error *e)
{
    const struct api_model *m = &x->server->model;
    struct token_list ids = {0};
    struct error reason;
    bool good = r->route == ROUTE_CHAT ? encode_chat(m, r->variables, &ids, e)
                                       : encode_prompt(m, &r->prompts[choice_i / r->n], &ids, e);
    good = good && check_ids(m, r, &ids, e);
    if (good) {
        struct request_options o = {
            .prompt = (const int32_t *)ids.ids,
            .n_prompt = (int)ids.n,
            .truncate = r->truncate,
            .truncate_to = r->truncate_to,
            .max_tokens = r->max_tokens,
            .sampling = r->sampling,
            .breakers = r->has_breakers ? r->breakers : NULL,
            .n_breakers = r->n_breakers,
            .logprobs = r->logprobs,
            .choice = (uint32_t)(choice_i % r->n),
            .priority = -r->priority,
            .deadline_us = (time_us)r->deadline_ms * 1000,
            .ignore_eos = r->ignore_eos,
            .stop = r->stop,
            .n_stop = r->n_stop,
        };
        enum err err = generation_submit(x->generation, choice_i, &o, &reason);
        good = err == OK || refuse_error(e, err == ERR_LIMIT ? FAULT_CONTEXT : FAULT_INVALID,
                                         r->route == ROUTE_CHAT ? "messages" : "prompt", &reason);
    }
    token_list_release(&ids);
    return good;
}

static void sleep_connection(void *connection)
{
    MHD_suspend_connection(connection);
}

static void wake_connection(void *connection)
{
    MHD_resume_connection(connection);
}

/* What the answer will need when the request is gone. */
static void begin_answer(struct exchange *x, const struct completion_request *r)
{
    uint64_t name[2];
    bool chat = r->route == ROUTE_CHAT;
    fill_random(name, sizeof name);
    snprintf(x->id, sizeof x->id, "%s-%016llx%016llx", chat ? "chatcmpl" : "cmpl",
             (unsigned long long)name[0], (unsigned long long)name[1]);
    x->answer = (struct answer){.chat = chat,
                                .include_usage = r->include_usage,
                                .id = x->id,
                                .model = x->server->model.id,
                                .created = clock_unix_s(),
                                .tokenizer = r->logprobs ? x->server->model.tokenizer : NULL};
    x->stream = r->stream;
    x->n_each = r->n;
    x->n_choices = (chat ? 1 : r->n_prompts) * r->n;
}

static bool check_model(const struct exchange *x, const struct completion_request *r,
                        struct api_error *e)
{
    const char *here = x->server->model.id;
    return r->model == NULL || strcmp(r->model, here) == 0 ||
           api_refuse(e, FAULT_NO_MODEL, "model",
                      "the model \"%.80s\" is not here: this server "
                      "has \"%.80s\"",
                      r->model, here);
}

static bool start_choices(struct exchange *x, struct completion_request *r, struct api_error *e)
{
    struct sleeper sleeper = {sleep_connection, wake_connection, x->connection};
    if (!check_model(x, r, e))
        return false;
    if (!r->has_seed)
        fill_random(&r->sampling.seed, sizeof r->sampling.seed);
    if (r->max_tokens == MAX_TOKENS_ABSENT)
        r->max_tokens = r->route == ROUTE_CHAT ? -1 : DEFAULT_COMPLETION_TOKENS;
    begin_answer(x, r);
    x->generation = generation_new(x->server->model.engine, x->n_choices, &sleeper);
    if (x->generation == NULL)
        return api_refuse(e, FAULT_INTERNAL, NULL, "out of memory");
    if (!api_server_enter(x->server, x, e))
        return false;
    for (int i = 0; i < x->n_choices; i++)
        if (!submit_choice(x, r, i, e))
            return false; /* those before it are cancelled when the exchange ends */
    return true;
}

static bool begin(struct exchange *x, enum request_route route, struct api_error *e)
{
    struct completion_request r;
    bool good =
        completion_request_parse(&r, route, x->body.data, x->body.bytes, x->server->model.vocab, e);
    exchange_drop_body(x); /* parsed: what is needed of it was copied */
    if (r.ignored.bytes > 0)
        x->ignored = strbuf_detach(&r.ignored);
    good = good && start_choices(x, &r, e);
    completion_request_release(&r);
    return good;
}

static enum MHD_Result handle(struct exchange *x, enum request_route route)
{
    struct api_error e;
    if (x->generation == NULL) {
        if (!begin(x, route, &e))
            return reply_error(x, &e);
        if (x->stream)
            return reply_stream(x);
    }
    return reply_whole(x);
}

enum MHD_Result handle_completions(struct exchange *x)
{
    return handle(x, ROUTE_COMPLETIONS);
}

enum MHD_Result handle_chat(struct exchange *x)
{
    return handle(x, ROUTE_CHAT);
}
