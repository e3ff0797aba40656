/* Client and server of src/rpc against each other over loopback: calls, streams in both directions,
 * and what goes wrong: nobody there, port taken, deadlines, errors of a handler, peers that end. */
#include "rpc/rpc.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

enum { SECOND = 1000000 };

/* ---- the server under test ---- */

static enum err echo(void *context, struct rpc_call *call, const void *request, size_t bytes,
                     struct rpc_buffer *answer, struct error *e)
{
    (void)context;
    (void)e;
    assert_string_equal(rpc_call_peer_host(call), "127.0.0.1");
    answer->data = malloc(bytes + 1);
    answer->bytes = bytes;
    memcpy(answer->data, request, bytes);
    return OK;
}

static enum err fail_as_told(void *context, struct rpc_call *call, const void *request,
                             size_t bytes, struct rpc_buffer *answer, struct error *e)
{
    (void)context;
    (void)call;
    (void)answer;
    /* The request is the code to fail with. */
    int code = bytes == sizeof(int) ? *(const int *)request : ERR_INTERNAL;
    return error_set(e, code, "as wished: %d", code);
}

static enum err slow(void *context, struct rpc_call *call, const void *request, size_t bytes,
                     struct rpc_buffer *answer, struct error *e)
{
    (void)context;
    (void)request;
    (void)bytes;
    (void)answer;
    for (int i = 0; i < 500; i++) {
        if (rpc_call_is_cancelled(call))
            return error_set(e, ERR_CANCELLED, "the caller has gone");
        clock_sleep_us(10000);
    }
    return error_set(e, ERR_TIMEOUT, "nobody gave up");
}

/* 100 messages of 100 000 bytes, each filled with its number; then as the request says. */
static enum err count(void *context, struct rpc_call *call, const void *request, size_t bytes,
                      struct error *e)
{
    int *n_sent = context;
    static uint8_t body[100000];
    for (int i = 0; i < 100; i++) {
        memset(body, i, sizeof(body));
        if (rpc_call_send(call, &(struct rpc_outgoing){.head = body, .head_bytes = sizeof(body)}) !=
            OK)
            return error_set(e, ERR_CANCELLED, "the caller has gone");
        ++*n_sent;
    }
    return bytes > 0 ? error_set(e, ERR_NOT_FOUND, "%.*s", (int)bytes, (const char *)request) : OK;
}

/* The accepted end of the last stream: sends back what arrives. */
static struct {
    pthread_mutex_t lock;
    struct rpc_stream *stream;
    char value[RPC_MAX_VALUE];
    bool down;
    struct error reason;
} accepted = {.lock = PTHREAD_MUTEX_INITIALIZER};

static enum err bounce(void *context, struct rpc_message *m, struct error *e)
{
    (void)context;
    size_t bytes = rpc_message_left(m);
    char *copy = malloc(bytes + 1);
    assert_true(rpc_message_read(m, copy, bytes));
    assert_false(rpc_message_read(m, copy, 1));
    if (bytes == 3 && memcmp(copy, "bad", 3) == 0) {
        free(copy);
        return error_set(e, ERR_FORMAT, "a bad message");
    }
    enum err err = rpc_stream_send(accepted.stream, &(struct rpc_outgoing){.body = copy,
                                                                           .body_bytes = bytes,
                                                                           .release = free,
                                                                           .body_context = copy});
    return err == OK ? OK : error_set(e, err, "cannot bounce");
}

static void note_down(void *context, const struct error *reason)
{
    (void)context;
    pthread_mutex_lock(&accepted.lock);
    accepted.down = true;
    accepted.reason = *reason;
    pthread_mutex_unlock(&accepted.lock);
}

static enum err accept_stream(void *context, struct rpc_stream *s,
                              const struct rpc_metadata *metadata, int n_metadata, struct error *e)
{
    (void)context;
    if (n_metadata != 1 || strcmp(metadata[0].key, "shoal-test") != 0)
        return error_set(e, ERR_INVALID, "expected 1 pair of metadata, found %d", n_metadata);
    memcpy(accepted.value, metadata[0].value, sizeof(accepted.value));
    accepted.down = false;
    accepted.stream = s;
    return rpc_stream_accept(
        s, &(struct rpc_stream_handler){.on_message = bounce, .on_down = note_down}, 64, e);
}

static const struct rpc_method methods[] = {
    {.path = "/test.LongEnoughNotToBeInlined/Echo", .unary = echo},
    {.path = "/test.T/Fail", .unary = fail_as_told},
    {.path = "/test.T/Slow", .unary = slow},
    {.path = "/test.T/Count", .produce = count},
    {.path = "/test.LongEnoughNotToBeInlined/Bounce", .accept = accept_stream},
    {.path = NULL}};

struct fixture {
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct rpc_channel *channel;
    int n_sent;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error e = {.code = OK};
    assert_int_equal(rpc_loop_start(&f->loop, &e), OK);
    struct rpc_server_options o = {
        .listen = "127.0.0.1:0", .methods = methods, .context = &f->n_sent};
    assert_int_equal(rpc_server_start(f->loop, &o, &f->server, &e), OK);
    assert_int_equal(rpc_channel_open(rpc_server_address(f->server), &f->channel, &e), OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    rpc_channel_close(f->channel);
    rpc_server_stop(f->server);
    rpc_loop_stop(f->loop);
    free(f);
    return 0;
}

/* ---- calls ---- */

static void echoes(void **state)
{
    struct fixture *f = *state;
    size_t sizes[] = {0, 1, 1000, 5 << 20};
    for (size_t i = 0; i < 4; i++) {
        uint8_t *data = malloc(sizes[i] + 1);
        for (size_t j = 0; j < sizes[i]; j++)
            data[j] = (uint8_t)(j * 31 + i);
        struct rpc_buffer answer;
        struct error e = {.code = OK};
        enum err err = rpc_unary(f->channel, "/test.LongEnoughNotToBeInlined/Echo", data, sizes[i],
                                 5 * SECOND, &answer, &e);
        assert_string_equal(e.text, "");
        assert_int_equal(err, OK);
        assert_int_equal(answer.bytes, sizes[i]);
        assert_memory_equal(answer.data, data, sizes[i]);
        rpc_buffer_release(&answer);
        free(data);
    }
}

static void errors_travel(void **state)
{
    struct fixture *f = *state;
    static const enum err codes[] = {ERR_FORMAT,  ERR_INVALID,  ERR_UNSUPPORTED, ERR_NOT_FOUND,
                                     ERR_IO,      ERR_MEMORY,   ERR_LIMIT,       ERR_CLOSED,
                                     ERR_VERSION, ERR_MISMATCH, ERR_CANCELLED,   ERR_INTERNAL};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        int code = codes[i];
        struct rpc_buffer answer;
        struct error e;
        assert_int_equal(
            rpc_unary(f->channel, "/test.T/Fail", &code, sizeof(code), 5 * SECOND, &answer, &e),
            code);
        char expected[300];
        snprintf(expected, sizeof(expected), "%s: as wished: %d", rpc_server_address(f->server),
                 code);
        assert_string_equal(e.text, expected);
        assert_null(answer.data);
    }
}

static void unknown_method(void **state)
{
    struct fixture *f = *state;
    struct rpc_buffer answer;
    struct error e;
    assert_int_equal(rpc_unary(f->channel, "/test.T/None", "", 0, 5 * SECOND, &answer, &e),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "no such method"));
}

static void deadline_passes(void **state)
{
    struct fixture *f = *state;
    struct rpc_buffer answer;
    struct error e;
    time_us start = clock_now_us();
    assert_int_equal(rpc_unary(f->channel, "/test.T/Slow", "", 0, SECOND / 5, &answer, &e),
                     ERR_TIMEOUT);
    assert_true(clock_now_us() - start < 2 * SECOND);
    assert_non_null(strstr(e.text, rpc_server_address(f->server)));
}

static void nobody_there(void **state)
{
    (void)state;
    struct rpc_channel *channel;
    struct rpc_buffer answer;
    struct error e;
    assert_int_equal(rpc_channel_open("127.0.0.1:1", &channel, &e), OK);
    time_us start = clock_now_us();
    assert_int_equal(
        rpc_unary(channel, "/test.LongEnoughNotToBeInlined/Echo", "", 0, 4 * SECOND, &answer, &e),
        ERR_UNREACHABLE);
    assert_true(clock_now_us() - start < 4 * SECOND);
    assert_string_equal(e.text, "cannot reach 127.0.0.1:1: Connection refused");
    rpc_channel_close(channel);
    assert_int_equal(rpc_channel_open("127.0.0.1", &channel, &e), ERR_INVALID);
    assert_null(channel);
}

static void port_in_use(void **state)
{
    struct fixture *f = *state;
    struct rpc_server *second;
    struct error e;
    struct rpc_server_options o = {.listen = rpc_server_address(f->server), .methods = methods};
    assert_int_equal(rpc_server_start(f->loop, &o, &second, &e), ERR_IO);
    char expected[300];
    snprintf(expected, sizeof(expected), "cannot listen on %s: Address already in use",
             rpc_server_address(f->server));
    assert_string_equal(e.text, expected);
    o.listen = "192.0.2.1:0"; /* a documentation address: never ours */
    assert_int_equal(rpc_server_start(f->loop, &o, &second, &e), ERR_IO);
    assert_non_null(strstr(e.text, "cannot listen on 192.0.2.1:0: "));
}

/* ---- server streams ---- */

static void reads_a_server_stream(void **state)
{
    struct fixture *f = *state;
    struct rpc_reader *reader;
    struct rpc_buffer message;
    struct error e = {.code = OK};
    assert_int_equal(rpc_reader_open(f->channel, "/test.T/Count", "", 0, &reader, &e), OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(rpc_reader_next(reader, 5 * SECOND, &message, &e), OK);
        assert_int_equal(message.bytes, 100000);
        assert_int_equal(message.data[99999], i);
        rpc_buffer_release(&message);
    }
    assert_int_equal(rpc_reader_next(reader, 5 * SECOND, &message, &e), ERR_CLOSED);
    rpc_reader_close(reader);

    assert_int_equal(rpc_reader_open(f->channel, "/test.T/Count", "blk.9", 5, &reader, &e), OK);
    enum err err;
    while ((err = rpc_reader_next(reader, 5 * SECOND, &message, &e)) == OK)
        rpc_buffer_release(&message);
    assert_int_equal(err, ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, ": blk.9"));
    rpc_reader_close(reader);
}

static void an_early_leaver_stops_the_server(void **state)
{
    struct fixture *f = *state;
    struct rpc_reader *reader;
    struct rpc_buffer message;
    struct error e;
    f->n_sent = 0;
    assert_int_equal(rpc_reader_open(f->channel, "/test.T/Count", "", 0, &reader, &e), OK);
    assert_int_equal(rpc_reader_next(reader, 5 * SECOND, &message, &e), OK);
    rpc_buffer_release(&message);
    rpc_reader_close(reader);
    /* The handler ends by itself: teardown would hang otherwise. */
}

static void silence_times_out(void **state)
{
    struct fixture *f = *state;
    struct rpc_reader *reader;
    struct rpc_buffer message;
    struct error e;
    assert_int_equal(rpc_reader_open(f->channel, "/test.T/Slow", "", 0, &reader, &e), OK);
    assert_int_equal(rpc_reader_next(reader, SECOND / 5, &message, &e), ERR_TIMEOUT);
    rpc_reader_close(reader);
}

/* ---- bidirectional streams ---- */

struct listener {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_messages;
    uint32_t next; /* the number that the next message must carry */
    bool down;
    struct error reason;
};

static enum err hear(void *context, struct rpc_message *m, struct error *e)
{
    struct listener *l = context;
    uint32_t number;
    (void)e;
    assert_true(rpc_message_read(m, &number, sizeof(number)));
    pthread_mutex_lock(&l->lock);
    assert_int_equal(number, l->next);
    l->next++;
    l->n_messages++;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return OK;
}

static void hear_down(void *context, const struct error *reason)
{
    struct listener *l = context;
    pthread_mutex_lock(&l->lock);
    assert_false(l->down);
    l->down = true;
    l->reason = *reason;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static bool wait_for(struct listener *l, int n_messages, bool down)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&l->lock);
    int err = 0;
    while (err == 0 && (l->n_messages < n_messages || l->down != down))
        err = pthread_cond_timedwait(&l->changed, &l->lock, &until);
    pthread_mutex_unlock(&l->lock);
    return err == 0;
}

static const struct rpc_metadata hello = {.key = "shoal-test", .value = "epoch 7"};

static struct rpc_stream *open_stream(struct fixture *f, struct listener *l)
{
    struct rpc_stream *s;
    struct error e;
    *l = (struct listener){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct rpc_stream_handler handler = {.on_message = hear, .on_down = hear_down, .context = l};
    assert_int_equal(rpc_stream_open(f->loop, f->channel, "/test.LongEnoughNotToBeInlined/Bounce",
                                     &hello, 1, &handler, 64, &s, &e),
                     OK);
    return s;
}

static enum err send_number(struct rpc_stream *s, uint32_t number, size_t body_bytes)
{
    void *body = calloc(1, body_bytes + 1);
    return rpc_stream_send(s, &(struct rpc_outgoing){.head = &number,
                                                     .head_bytes = sizeof(number),
                                                     .body = body,
                                                     .body_bytes = body_bytes,
                                                     .release = free,
                                                     .body_context = body});
}

static void messages_keep_their_order(void **state)
{
    struct fixture *f = *state;
    struct listener l;
    struct rpc_stream *s = open_stream(f, &l);
    for (uint32_t i = 0; i < 50; i++)
        assert_int_equal(send_number(s, i, i * 10007 % 300000), OK);
    assert_true(wait_for(&l, 50, false));
    assert_true(rpc_stream_is_accepted(s));
    assert_string_equal(accepted.value, "epoch 7");
    rpc_stream_close(s, NULL);
    rpc_stream_close(accepted.stream, NULL);
}

static void a_full_queue_is_told(void **state)
{
    struct fixture *f = *state;
    struct rpc_channel *dead;
    struct error e;
    struct listener l;
    /* A socket that listens but never answers: nothing is ever sent. */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(a);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, size), 0);
    assert_int_equal(listen(fd, 1), 0);
    getsockname(fd, (struct sockaddr *)&a, &size);
    char address[ADDRESS_MAX];
    snprintf(address, sizeof(address), "127.0.0.1:%d", ntohs(a.sin_port));
    assert_int_equal(rpc_channel_open(address, &dead, &e), OK);
    struct rpc_channel *real = f->channel;
    f->channel = dead;
    struct rpc_stream *s = open_stream(f, &l);
    f->channel = real;
    enum err err = OK;
    int n = 0;
    for (; n < 100 && err == OK; n++)
        err = send_number(s, (uint32_t)n, 100);
    assert_int_equal(err, ERR_FULL);
    assert_int_equal(n, 66); /* one under way, 64 queued, the refused one */
    rpc_stream_close(s, NULL);
    rpc_channel_close(dead);
    close(fd);
}

static void the_server_ends_a_stream(void **state)
{
    struct fixture *f = *state;
    struct listener l;
    struct rpc_stream *s = open_stream(f, &l);
    assert_int_equal(send_number(s, 0, 10), OK);
    assert_true(wait_for(&l, 1, false));
    struct error why;
    error_set(&why, ERR_FORMAT, "stage 1: step 9 expected, found 11");
    rpc_stream_close(accepted.stream, &why);
    assert_true(wait_for(&l, 1, true));
    assert_int_equal(l.reason.code, ERR_FORMAT);
    assert_non_null(strstr(l.reason.text, "stage 1: step 9 expected, found 11"));
    assert_int_equal(send_number(s, 1, 10), ERR_CLOSED);
    rpc_stream_close(s, NULL);
}

static void a_bad_message_ends_a_stream(void **state)
{
    struct fixture *f = *state;
    struct listener l;
    struct rpc_stream *s = open_stream(f, &l);
    assert_int_equal(rpc_stream_send(s, &(struct rpc_outgoing){.head = "bad", .head_bytes = 3}),
                     OK);
    assert_true(wait_for(&l, 0, true));
    assert_int_equal(l.reason.code, ERR_FORMAT);
    assert_non_null(strstr(l.reason.text, "a bad message"));
    rpc_stream_close(s, NULL);
    assert_true(accepted.down);
    rpc_stream_close(accepted.stream, NULL);
}

static void a_refused_stream_says_why(void **state)
{
    struct fixture *f = *state;
    struct listener l = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct rpc_stream_handler handler = {.on_message = hear, .on_down = hear_down, .context = &l};
    struct rpc_stream *s;
    struct error e;
    assert_int_equal(rpc_stream_open(f->loop, f->channel, "/test.LongEnoughNotToBeInlined/Bounce",
                                     NULL, 0, &handler, 8, &s, &e),
                     OK);
    assert_true(wait_for(&l, 0, true));
    assert_int_equal(l.reason.code, ERR_INVALID);
    assert_non_null(strstr(l.reason.text, "expected 1 pair of metadata, found 0"));
    assert_false(rpc_stream_is_accepted(s));
    rpc_stream_close(s, NULL);
}

static void the_client_closes(void **state)
{
    struct fixture *f = *state;
    struct listener l;
    struct rpc_stream *s = open_stream(f, &l);
    assert_int_equal(send_number(s, 0, 10), OK);
    assert_true(wait_for(&l, 1, false));
    time_us start = clock_now_us();
    rpc_stream_close(s, NULL);
    assert_true(clock_now_us() - start < SECOND / 2);
    pthread_mutex_lock(&accepted.lock);
    assert_true(accepted.down);
    assert_int_equal(accepted.reason.code, ERR_CLOSED);
    pthread_mutex_unlock(&accepted.lock);
    rpc_stream_close(accepted.stream, NULL);
}

static void a_stopping_server_ends_streams(void **state)
{
    struct fixture *f = *state;
    struct listener l;
    struct rpc_stream *s = open_stream(f, &l);
    assert_int_equal(send_number(s, 0, 10), OK);
    assert_true(wait_for(&l, 1, false));
    rpc_server_stop(f->server);
    f->server = NULL;
    assert_true(wait_for(&l, 1, true));
    assert_int_not_equal(l.reason.code, OK);
    rpc_stream_close(accepted.stream, NULL);
    rpc_stream_close(s, NULL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(echoes),
                                       T(errors_travel),
                                       T(unknown_method),
                                       T(deadline_passes),
                                       T(nobody_there),
                                       T(port_in_use),
                                       T(reads_a_server_stream),
                                       T(an_early_leaver_stops_the_server),
                                       T(silence_times_out),
                                       T(messages_keep_their_order),
                                       T(a_full_queue_is_told),
                                       T(the_server_ends_a_stream),
                                       T(a_bad_message_ends_a_stream),
                                       T(a_refused_stream_says_why),
                                       T(the_client_closes),
                                       T(a_stopping_server_ends_streams)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
