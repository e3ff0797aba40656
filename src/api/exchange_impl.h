/* One HTTP request and its answer, from the header's arrival to the last byte sent.
 *
 * libmicrohttpd calls on_request three times or more: at the header (exchange_new), per piece of
 * body (exchange_receive), at its end and again after every sleep (the route's handler). Bodies are
 * read to their end even when the answer is known to be a refusal: a client that is still sending
 * when its connection closes would see a reset instead of the reason. */
#ifndef SHOAL_API_EXCHANGE_IMPL_H
#define SHOAL_API_EXCHANGE_IMPL_H

#include "api/answer_json_impl.h"
#include "api/api_error_impl.h"
#include "api/api_server_impl.h"
#include "api/completion_request_impl.h"
#include "api/generation_impl.h"

#include <microhttpd.h>

struct exchange;

struct route {
    const char *path;
    bool has_tail;      /* what follows `path` in the URL is a parameter */
    const char *method; /* "GET" (HEAD too) or "POST" */
    bool needs_model;   /* 503 while there is none */
    enum MHD_Result (*handle)(struct exchange *x);
};

struct exchange {
    struct api_server *server;
    struct MHD_Connection *connection;
    const struct route *route; /* NULL: refused */
    char *tail;                /* of the URL, after the route's path */
    bool refused;
    struct api_error refusal;
    const char *allow; /* with 405 */
    bool answer_now;   /* before the body: it would be too long to wait for */

    struct strbuf body;
    size_t received;

    /* Completions only. */
    struct generation *generation;
    struct exchange *previous, *next; /* in the server's list of running ones */
    uint64_t serial;                  /* != 0: is in it */
    int fd;
    bool stream;
    char *ignored; /* for X-Shoal-Ignored, or NULL */
    char id[48];
    struct answer answer;
    struct answer_totals totals;
    int n_choices, n_ended;
    int n_each; /* choices of each prompt: the first n_each are of the first prompt, … */
    bool ended[REQUEST_MAX_CHOICES];
    struct strbuf out; /* of a stream: bytes before `sent` are gone */
    size_t sent;
    bool finished;
};

struct exchange *exchange_new(struct api_server *s, struct MHD_Connection *connection,
                              const char *url, const char *method);
void exchange_free(struct exchange *x);

/* False: far too much, close the connection. */
bool exchange_receive(struct exchange *x, const char *data, size_t bytes);

void exchange_drop_body(struct exchange *x);

/* The body is complete, or the handler was asleep: answer, or sleep (again). */
enum MHD_Result exchange_answer(struct exchange *x);

/* Remember a refusal; the first one counts. */
void exchange_refuse(struct exchange *x, enum api_fault fault, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- answers; each ends the handler ---- */

enum MHD_Result reply_json(struct exchange *x, unsigned status, json_t *value); /* taken */
enum MHD_Result reply_text(struct exchange *x, unsigned status, const char *type,
                           struct strbuf *text); /* emptied */
enum MHD_Result reply_error(struct exchange *x, const struct api_error *e);
/* Of a generation: what it says as it comes, or all of it. */
enum MHD_Result reply_stream(struct exchange *x);
enum MHD_Result reply_whole(struct exchange *x);

/* ---- routes ---- */

/* The route of a URL; NULL with *other set if only the method is wrong. *tail points into url. */
const struct route *route_find(const char *url, const char *method, const struct route **other,
                               const char **tail);
enum MHD_Result handle_completions(struct exchange *x); /* completion_routes.c */
enum MHD_Result handle_chat(struct exchange *x);

#endif
