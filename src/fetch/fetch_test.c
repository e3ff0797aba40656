/* Against a server of the test's own: one thread, a socket, and the answer that a test wants. */
#include "fetch/fetch.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    int fd, port;
    const char *answer; /* NULL: silence */
    char request[4096];
} server;

static void *serve_one(void *unused)
{
    (void)unused;
    int fd = accept(server.fd, NULL, NULL);
    if (fd < 0)
        return NULL;
    ssize_t n = recv(fd, server.request, sizeof server.request - 1, 0);
    server.request[n > 0 ? n : 0] = 0;
    if (server.answer != NULL)
        (void)!send(fd, server.answer, strlen(server.answer), MSG_NOSIGNAL);
    else
        (void)!recv(fd, (char[16]){0}, 16, 0); /* until the client gives up */
    close(fd);
    return NULL;
}

static enum err get(const char *answer, time_us timeout_us, struct strbuf *out, struct error *e)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t bytes = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.answer = answer;
    server.fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(server.fd, (struct sockaddr *)&at, bytes), 0);
    assert_int_equal(listen(server.fd, 1), 0);
    assert_int_equal(getsockname(server.fd, (struct sockaddr *)&at, &bytes), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, serve_one, NULL), 0);
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/metrics", ntohs(at.sin_port));
    struct fetcher *f;
    enum err err = fetcher_open(url, timeout_us, &f, e);
    assert_int_equal(err, OK);
    err = fetcher_get(f, out, e);
    fetcher_close(f);
    pthread_join(thread, NULL);
    close(server.fd);
    return err;
}

static void bodies_and_failures(void **state)
{
    (void)state;
    struct strbuf out;
    struct error e;
    strbuf_init(&out, 100);
    assert_int_equal(get("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 10000000, &out, &e),
                     OK);
    assert_string_equal(out.data, "hello");
    assert_int_equal(strncmp(server.request, "GET /metrics HTTP/1.1\r\n", 23), 0);
    strbuf_clear(&out);
    assert_int_equal(get("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", 10000000, &out, &e),
                     ERR_IO);
    assert_non_null(strstr(e.text, "expected status 200, found 503"));
    strbuf_clear(&out);
    assert_int_equal(get("HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\n"
                         "Content-Length: 0\r\n\r\n",
                         10000000, &out, &e),
                     ERR_IO);
    assert_non_null(strstr(e.text, "found 302"));
    strbuf_clear(&out);
    assert_int_equal(get("nonsense", 10000000, &out, &e), ERR_UNREACHABLE);
    strbuf_clear(&out);
    assert_int_equal(get(NULL, 200000, &out, &e), ERR_TIMEOUT);
    assert_non_null(strstr(e.text, "no answer within 0.2 s"));
    strbuf_release(&out);
    strbuf_init(&out, 4);
    assert_int_equal(get("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 10000000, &out, &e),
                     ERR_LIMIT);
    assert_non_null(strstr(e.text, "longer than 4 bytes"));
    strbuf_release(&out);
}

static void nobody_there(void **state)
{
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t bytes = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0); /* bound, but nobody listens */
    assert_int_equal(bind(fd, (struct sockaddr *)&at, bytes), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &bytes), 0);
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", ntohs(at.sin_port));
    struct fetcher *f;
    struct strbuf out;
    struct error e;
    strbuf_init(&out, 100);
    assert_int_equal(fetcher_open(url, 5000000, &f, &e), OK);
    assert_int_equal(fetcher_get(f, &out, &e), ERR_UNREACHABLE);
    assert_non_null(strstr(e.text, url));
    fetcher_close(f);
    strbuf_release(&out);
    close(fd);
}

static void urls_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"",        "127.0.0.1:8100",   "file:///etc/passwd",
                                      "http://", "ftp://127.0.0.1/", "http://a b/"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fetcher *f;
        struct error e;
        if (fetcher_open(bad[i], 1000, &f, &e) != ERR_INVALID)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_null(f);
        assert_non_null(strstr(e.text, "expected a URL such as http://HOST:PORT"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_and_failures),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(urls_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
