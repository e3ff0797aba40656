#include "api/exchange_impl.h"

#include "api/json_text_impl.h"
#include "base/bounds.h"
#include "base/panic.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    DRAIN_FACTOR = 4, /* a body of so many times the limit is read to its end and refused */
    STREAM_BLOCK_BYTES = 16 << 10,
    OUT_MAX_BYTES = 8 * REQUEST_MAX_TEXT_BYTES, /* text as JSON, where "\u0001" is the worst */
};

static const char *header(const struct exchange *x, const char *name)
{
    const char *value = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
    return value != NULL ? value : "";
}

void exchange_refuse(struct exchange *x, enum api_fault fault, const char *format, ...)
{
    if (x->refused)
        return;
    struct error text;
    va_list args;
    va_start(args, format);
    error_vset(&text, ERR_INVALID, format, args);
    va_end(args);
    x->refused = true;
    api_refuse(&x->refusal, fault, NULL, "%s", text.text);
}

static void find_route(struct exchange *x, const char *url, const char *method)
{
    const struct route *other = NULL;
    const char *tail = "";
    x->route = route_find(url, method, &other, &tail);
    if (x->route != NULL) {
        x->tail = strdup(tail);
        if (x->tail == NULL)
            exchange_refuse(x, FAULT_INTERNAL, "out of memory");
    } else if (other != NULL) {
        x->allow = strcmp(other->method, "GET") == 0 ? "GET, HEAD" : other->method;
        exchange_refuse(x, FAULT_METHOD, "%s does not take %.16s: expected %s", other->path, method,
                        x->allow);
    } else {
        exchange_refuse(x, FAULT_NO_ROUTE, "there is no %.120s here", url);
    }
}

static bool is_json_type(const char *type)
{
    static const char *const types[] = {"", "application/json",
                                        "application/x-www-form-urlencoded"};
    size_t n = strcspn(type, "; ");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strlen(types[i]) == n && strncasecmp(type, types[i], n) == 0)
            return true;
    return false;
}

/* What the header alone tells. */
static void check_header(struct exchange *x)
{
    size_t limit = x->server->max_body_bytes;
    unsigned long long announced = strtoull(header(x, MHD_HTTP_HEADER_CONTENT_LENGTH), NULL, 10);
    if (x->route != NULL && strcmp(x->route->method, "POST") == 0 &&
        !is_json_type(header(x, MHD_HTTP_HEADER_CONTENT_TYPE)))
        exchange_refuse(x, FAULT_MEDIA_TYPE, "Content-Type must be application/json, found %.80s",
                        header(x, MHD_HTTP_HEADER_CONTENT_TYPE));
    if (announced <= limit)
        return;
    exchange_refuse(x, FAULT_TOO_LARGE, "the body may have at most %zu bytes, found %llu", limit,
                    announced);
    x->answer_now = announced > DRAIN_FACTOR * limit ||
                    strcasecmp(header(x, MHD_HTTP_HEADER_EXPECT), "100-continue") == 0;
}

struct exchange *exchange_new(struct api_server *s, struct MHD_Connection *connection,
                              const char *url, const char *method)
{
    struct exchange *x = calloc(1, sizeof *x);
    if (x == NULL)
        return NULL;
    x->server = s;
    x->connection = connection;
    strbuf_init(&x->body, s->max_body_bytes);
    strbuf_init(&x->out, OUT_MAX_BYTES);
    x->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    find_route(x, url, method);
    check_header(x);
    return x;
}

void exchange_drop_body(struct exchange *x)
{
    atomic_fetch_sub(&x->server->bodies_bytes, x->body.bytes);
    strbuf_release(&x->body);
}

void exchange_free(struct exchange *x)
{
    if (x == NULL)
        return;
    api_server_leave(x->server, x);
    if (x->generation != NULL)
        generation_detach(x->generation);
    exchange_drop_body(x);
    strbuf_release(&x->out);
    free(x->ignored);
    free(x->tail);
    free(x);
}

bool exchange_receive(struct exchange *x, const char *data, size_t bytes)
{
    struct api_server *s = x->server;
    x->received += bytes;
    if (x->received > DRAIN_FACTOR * s->max_body_bytes)
        return false;
    if (x->received > s->max_body_bytes)
        exchange_refuse(x, FAULT_TOO_LARGE, "the body may have at most %zu bytes, found more",
                        s->max_body_bytes);
    if (!x->refused) {
        size_t before = atomic_fetch_add(&s->bodies_bytes, bytes);
        if (before + bytes > HTTP_MAX_BODIES_BYTES)
            exchange_refuse(x, FAULT_QUEUE_FULL,
                            "all requests together may hold %d bytes of "
                            "bodies: try again",
                            HTTP_MAX_BODIES_BYTES);
        strbuf_append(&x->body, data, bytes);
        if (x->body.failed) {
            atomic_fetch_sub(&s->bodies_bytes, bytes); /* not appended */
            exchange_refuse(x, FAULT_INTERNAL, "out of memory");
        }
    }
    if (x->refused)
        exchange_drop_body(x);
    return true;
}

enum MHD_Result exchange_answer(struct exchange *x)
{
    struct api_error e;
    if (x->refused)
        return reply_error(x, &x->refusal);
    if (x->route->needs_model && x->generation == NULL && !api_server_ready(x->server, &e))
        return reply_error(x, &e);
    return x->route->handle(x);
}

/* ---- answers of known length ---- */

static enum MHD_Result reply(struct exchange *x, unsigned status, const char *type,
                             struct MHD_Response *response)
{
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (x->ignored != NULL)
        MHD_add_response_header(response, "X-Shoal-Ignored", x->ignored);
    if (x->allow != NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, x->allow);
    if (status == MHD_HTTP_TOO_MANY_REQUESTS || status == MHD_HTTP_SERVICE_UNAVAILABLE)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    enum MHD_Result result = MHD_queue_response(x->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result reply_text(struct exchange *x, unsigned status, const char *type,
                           struct strbuf *text)
{
    if (text->failed) {
        strbuf_release(text);
        return MHD_NO; /* there is no memory even for saying so */
    }
    size_t bytes = text->bytes;
    char *data = strbuf_detach(text);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(bytes, data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL)
        free(data);
    return reply(x, status, type, response);
}

enum MHD_Result reply_json(struct exchange *x, unsigned status, json_t *value)
{
    struct strbuf text;
    strbuf_init(&text, OUT_MAX_BYTES);
    json_append(&text, value);
    strbuf_puts(&text, "\n");
    return reply_text(x, status, "application/json", &text);
}

enum MHD_Result reply_error(struct exchange *x, const struct api_error *e)
{
    return reply_json(x, api_error_status(e), api_error_json(e));
}

/* ---- answers of a generation ---- */

/* Why a choice that did not end well ended. */
static void failure_of(const struct exchange *x, const struct choice_state *c, struct api_error *e)
{
    struct error reason;
    if (c->text.failed || c->logprobs.failed)
        api_refuse(e, FAULT_INTERNAL, NULL,
                   "more text or log-probabilities than %d bytes waited for the client",
                   REQUEST_MAX_TEXT_BYTES);
    else if (c->finish == FINISH_CANCELLED)
        api_refuse(e, FAULT_STOPPING, NULL, "the server is stopping");
    else if (engine_failure(x->server->model.engine, &reason))
        api_refuse(e, FAULT_ENGINE, NULL, "%s", c->error.text);
    else if (c->error.code == ERR_TIMEOUT)
        api_refuse(e, FAULT_DEADLINE, NULL, "%s", c->error.text);
    else
        api_refuse(e, FAULT_INTERNAL, NULL, "%s", c->error.text);
}

static bool is_good_end(const struct choice_state *c)
{
    return finish_name(c->finish) != NULL && !c->text.failed && !c->logprobs.failed;
}

static struct answer_choice answer_choice_of(const struct exchange *x, const struct choice_state *c)
{
    return (struct answer_choice){.text = c->text.data,
                                  .bytes = c->text.bytes,
                                  .finish = c->finish,
                                  .logprobs = x->answer.tokenizer != NULL ? &c->logprobs : NULL};
}

static enum MHD_Result reply_choices(struct exchange *x)
{
    struct choice_state states[REQUEST_MAX_CHOICES];
    struct answer_choice choices[REQUEST_MAX_CHOICES];
    const struct choice_state *bad = NULL;
    for (int i = 0; i < x->n_choices; i++) {
        generation_read(x->generation, i, &states[i]);
        choices[i] = answer_choice_of(x, &states[i]);
        answer_totals_add(&x->totals, &states[i].timings, i % x->n_each > 0);
        if (bad == NULL && !is_good_end(&states[i]))
            bad = &states[i];
    }
    struct api_error e;
    if (bad != NULL)
        failure_of(x, bad, &e);
    else
        answer_append(&x->out, &x->answer, choices, x->n_choices, &x->totals);
    for (int i = 0; i < x->n_choices; i++)
        choice_state_release(&states[i]);
    strbuf_puts(&x->out, "\n");
    if (bad == NULL && x->out.failed && x->answer.tokenizer != NULL) {
        strbuf_release(&x->out);
        api_refuse(
            &e, FAULT_INTERNAL, NULL,
            "the answer is longer than %d bytes: ask for fewer \"top_logprobs\" or tokens, or "
            "for a stream",
            OUT_MAX_BYTES);
        return reply_error(x, &e);
    }
    return bad != NULL ? reply_error(x, &e)
                       : reply_text(x, MHD_HTTP_OK, "application/json", &x->out);
}

enum MHD_Result reply_whole(struct exchange *x)
{
    switch (generation_take(x->generation, true)) {
    case TAKE_SLEEPING: return MHD_YES;
    case TAKE_GONE: return MHD_NO;
    case TAKE_NEWS: break;
    }
    return reply_choices(x);
}

/* Write what one choice has new; false if it did not end well, which ends the stream. */
static bool write_choice(struct exchange *x, int i, const struct choice_state *c)
{
    if (c->text.failed || c->logprobs.failed || (c->finish != FINISH_NONE && !is_good_end(c))) {
        struct api_error e;
        failure_of(x, c, &e);
        answer_append_failure(&x->out, &e);
        return false;
    }
    struct answer_choice delta = answer_choice_of(x, c);
    if (c->finish != FINISH_NONE) {
        answer_totals_add(&x->totals, &c->timings, i % x->n_each > 0);
        x->ended[i] = true;
        x->n_ended++;
    }
    if (delta.bytes > 0 || delta.finish != FINISH_NONE || c->logprobs.bytes > 0)
        answer_append_delta(&x->out, &x->answer, i, &delta,
                            x->n_ended == x->n_choices ? &x->totals : NULL);
    return true;
}

static void write_news(struct exchange *x)
{
    bool good = true;
    for (int i = 0; i < x->n_choices && good; i++) {
        if (x->ended[i])
            continue;
        struct choice_state state;
        generation_read(x->generation, i, &state);
        good = write_choice(x, i, &state);
        choice_state_release(&state);
    }
    if (good && x->n_ended < x->n_choices)
        return;
    if (good && x->answer.include_usage)
        answer_append_usage(&x->out, &x->answer, &x->totals);
    answer_append_done(&x->out);
    x->finished = true;
    if (!good)
        generation_cancel(x->generation, false);
}

/* libmicrohttpd wants up to `room` bytes of a stream. */
static ssize_t read_stream(void *context, uint64_t position, char *out, size_t room)
{
    (void)position;
    struct exchange *x = context;
    while (x->out.bytes == x->sent) {
        if (x->finished)
            return MHD_CONTENT_READER_END_OF_STREAM;
        strbuf_clear(&x->out);
        x->sent = 0;
        switch (generation_take(x->generation, false)) {
        case TAKE_SLEEPING: return 0;
        case TAKE_GONE: return MHD_CONTENT_READER_END_WITH_ERROR;
        case TAKE_NEWS: write_news(x); break;
        }
        if (x->out.failed)
            return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    size_t left = x->out.bytes - x->sent;
    size_t n = left < room ? left : room;
    memcpy(out, x->out.data + x->sent, n);
    x->sent += n;
    return (ssize_t)n;
}

enum MHD_Result reply_stream(struct exchange *x)
{
    for (int i = 0; i < x->n_choices && x->answer.chat; i++)
        answer_append_role(&x->out, &x->answer, i);
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, x, NULL);
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    return reply(x, MHD_HTTP_OK, "text/event-stream; charset=utf-8", response);
}
