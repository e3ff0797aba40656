/* The body of POST /v1/completions and /v1/chat/completions, checked, as a struct.
 *
 * One table (completion_request.c) holds every field: those we follow, with their ranges; those of
 * OpenAI that we do not, with the value at which they change nothing (any other is refused by
 * name); those that are only notes of the client's. What is in no table is ignored and listed in
 * `ignored`. null means absent, as OpenAI has it. Pure; any thread. */
#ifndef SHOAL_API_COMPLETION_REQUEST_IMPL_H
#define SHOAL_API_COMPLETION_REQUEST_IMPL_H

#include "api/api_error_impl.h"
#include "base/arena.h"
#include "base/bounds.h"
#include "base/strbuf.h"
#include "sampler/sampler.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum request_route { ROUTE_COMPLETIONS = 1, ROUTE_CHAT = 2 };
enum { MAX_TOKENS_ABSENT = -2 };

/* One prompt: text, or ids where text is NULL. */
struct prompt {
    const char *text;
    size_t bytes;
    const int32_t *ids;
    int n_ids;
};

/* Everything points into `body` and `memory`. */
struct completion_request {
    enum request_route route;
    const char *model;      /* NULL: not named */
    struct prompt *prompts; /* completions: n_prompts >= 1, each a choice of the answer */
    int n_prompts;
    json_t *variables; /* chat: what the template is rendered with */
    bool truncate;     /* drop the prompt's beginning so that it fits */
    int truncate_to;   /* … so that so many tokens are left; 0: not asked for */
    int max_tokens;    /* -1: up to the context; MAX_TOKENS_ABSENT */
    int n;             /* choices for each prompt */
    int priority;      /* as the API has it: lower first */
    int deadline_ms;   /* 0: none */
    struct sampling sampling;
    bool logprobs; /* sampling.n_logprobs says how many beside */
    bool has_top_logprobs;
    bool has_seed;
    bool ignore_eos;
    bool stream;
    bool has_stream_options;
    bool include_usage;
    const char *stop[REQUEST_MAX_STOP];
    int n_stop;
    const char *breakers[REQUEST_MAX_BREAKERS]; /* dry_sequence_breakers */
    int n_breakers;
    bool has_breakers;     /* an empty list, too */
    struct strbuf ignored; /* "name, name": fit for a header line */

    int vocab; /* ids from 0 to vocab - 1 exist */
    json_t *body;
    struct arena memory;
    uint64_t given; /* which fields of the table have come, by index */
};

/* Read the body; `vocab` bounds token ids. False with *e filled if it is refused. The request is to
 * be released in both cases. */
bool completion_request_parse(struct completion_request *r, enum request_route route,
                              const char *body, size_t bytes, int vocab, struct api_error *e);
void completion_request_release(struct completion_request *r);

/* For the readers of single fields: */

/* What a value is, for messages: "a string", "an array", "2.5", "true". */
const char *json_kind(const json_t *value, char room[static 32]);
/* List a field among the ignored; `prefix` may be "". */
void request_ignore(struct completion_request *r, const char *prefix, const char *name);
/* "messages" of a chat request -> r->variables (chat_messages.c). */
bool chat_messages_read(struct completion_request *r, const json_t *messages, struct api_error *e);
/* "prompt" of a completion request -> r->prompts (prompt_field.c). */
bool prompt_field_read(struct completion_request *r, const json_t *prompt, struct api_error *e);

#endif
