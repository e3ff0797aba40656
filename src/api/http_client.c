#include "api/http_client_impl.h"

#include "base/panic.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int http_open(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = {.tv_sec = 30};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ASSERT(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

static void send_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the server closed: what it said is still to be read */
        data += n;
        bytes -= (size_t)n;
    }
}

void http_send(int fd, const char *method, const char *path, const char *extra_header,
               const char *body)
{
    struct strbuf head;
    strbuf_init(&head, 1 << 20);
    strbuf_printf(&head, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s", method, path,
                  extra_header != NULL ? extra_header : "");
    if (body != NULL)
        strbuf_printf(&head, "Content-Length: %zu\r\n", strlen(body));
    strbuf_puts(&head, "\r\n");
    send_all(fd, head.data, head.bytes);
    if (body != NULL)
        send_all(fd, body, strlen(body));
    strbuf_release(&head);
}

bool http_read_until(int fd, struct strbuf *raw, const char *text)
{
    char piece[4096];
    while (text == NULL || strstr(raw->data, text) == NULL) {
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n <= 0)
            return false;
        strbuf_append(raw, piece, (size_t)n);
    }
    return true;
}

/* Chunks to bytes. A chunked body without its end is left as "TRUNCATED". */
static void unchunk(const char *data, struct strbuf *out)
{
    for (;;) {
        char *end;
        size_t n = strtoul(data, &end, 16);
        if (end == data || strncmp(end, "\r\n", 2) != 0 || strlen(end) < n + 4) {
            strbuf_puts(out, "TRUNCATED");
            return;
        }
        if (n == 0)
            return;
        strbuf_append(out, end + 2, n);
        data = end + 2 + n + 2;
    }
}

void http_read(int fd, struct http_answer *a)
{
    struct strbuf raw;
    strbuf_init(&raw, 64 << 20);
    strbuf_init(&a->header, 1 << 20);
    strbuf_init(&a->body, 64 << 20);
    http_read_until(fd, &raw, NULL);
    a->status = strncmp(raw.data, "HTTP/1.1 ", 9) == 0 ? atoi(raw.data + 9) : 0;
    const char *end = strstr(raw.data, "\r\n\r\n");
    if (end != NULL) {
        strbuf_append(&a->header, raw.data, (size_t)(end - raw.data) + 2);
        if (strcmp(http_header(a, "Transfer-Encoding"), "chunked") == 0)
            unchunk(end + 4, &a->body);
        else
            strbuf_puts(&a->body, end + 4);
    }
    strbuf_release(&raw);
}

void http_answer_release(struct http_answer *a)
{
    strbuf_release(&a->header);
    strbuf_release(&a->body);
}

void http_ask(int port, const char *method, const char *path, const char *extra_header,
              const char *body, struct http_answer *a)
{
    int fd = http_open(port);
    http_send(fd, method, path, extra_header, body);
    http_read(fd, a);
    close(fd);
}

const char *http_header(const struct http_answer *a, const char *name)
{
    static char value[1024];
    size_t n = strlen(name);
    value[0] = 0;
    for (const char *line = a->header.data; line != NULL && *line != 0;) {
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            size_t bytes = strcspn(line + n + 1, "\r\n");
            ASSERT(bytes < sizeof value);
            memcpy(value, line + n + 1, bytes);
            value[bytes] = 0;
            return value + strspn(value, " ");
        }
        line = strstr(line, "\r\n");
        line = line != NULL ? line + 2 : NULL;
    }
    return value;
}
