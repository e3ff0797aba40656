/* The smallest HTTP client for tests: one request on one connection, in pieces where a test wants
 * to misbehave. Chunked answers are put together. */
#ifndef SHOAL_API_HTTP_CLIENT_IMPL_H
#define SHOAL_API_HTTP_CLIENT_IMPL_H

#include "base/strbuf.h"

#include <stdbool.h>

struct http_answer {
    int status; /* 0: the connection was closed without one */
    struct strbuf header, body;
};

int http_open(int port); /* a connected socket */
void http_send(int fd, const char *method, const char *path, const char *extra_header,
               const char *body); /* body may be NULL */
/* Read until `text` has come or the peer closed; is it there? */
bool http_read_until(int fd, struct strbuf *raw, const char *text);
/* Read to the end of the connection. */
void http_read(int fd, struct http_answer *a);
void http_answer_release(struct http_answer *a);

/* All of it: connect, send, read, close. */
void http_ask(int port, const char *method, const char *path, const char *extra_header,
              const char *body, struct http_answer *a);
/* The value of a header line, "" if absent; valid until the next call. */
const char *http_header(const struct http_answer *a, const char *name);

#endif
