/* Connections that gRPC gives up by mistake (tests/support/false_alarms.h): calls and streams that
 * are tried again, in time and without loss, and what is not tried again. */
#include "rpc/rpc.h"

#include "false_alarms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { SECOND = 1000000, N_TRIES = 4, N_MESSAGES = 20 };

/* ---- the server: answers with what it got ---- */

static enum err echo(void *context, struct rpc_call *call, const void *request, size_t bytes,
                     struct rpc_buffer *answer, struct error *e)
{
    (void)context, (void)call, (void)e;
    answer->data = malloc(bytes + 1);
    answer->bytes = bytes;
    memcpy(answer->data, request, bytes);
    return OK;
}

static enum err produce(void *context, struct rpc_call *call, const void *request, size_t bytes,
                        struct error *e)
{
    (void)context, (void)e;
    struct rpc_outgoing answer = {.head = request, .head_bytes = bytes};
    for (int i = 0; i < N_MESSAGES; i++)
        if (rpc_call_send(call, &answer) != OK)
            return error_set(e, ERR_CANCELLED, "the caller has gone");
    return OK;
}

static struct rpc_stream *accepted; /* the server's end of the last stream */
static atomic_int n_accepted;

static enum err bounce(void *context, struct rpc_message *m, struct error *e)
{
    uint32_t number;
    (void)context, (void)e;
    assert_true(rpc_message_read(m, &number, sizeof(number)));
    return rpc_stream_send(accepted,
                           &(struct rpc_outgoing){.head = &number, .head_bytes = sizeof(number)});
}

static enum err accept_stream(void *context, struct rpc_stream *s,
                              const struct rpc_metadata *metadata, int n_metadata, struct error *e)
{
    (void)context;
    if (n_metadata != 2 || strcmp(metadata[1].value, "second") != 0)
        return error_set(e, ERR_INVALID, "expected 2 pairs of metadata, found %d", n_metadata);
    accepted = s;
    n_accepted++;
    return rpc_stream_accept(s, &(struct rpc_stream_handler){.on_message = bounce}, N_MESSAGES, e);
}

static const struct rpc_method methods[] = {{.path = "/test.T/Echo", .unary = echo},
                                            {.path = "/test.T/Produce", .produce = produce},
                                            {.path = "/test.T/Bounce", .accept = accept_stream},
                                            {.path = NULL}};

/* ---- the client ---- */

struct fixture {
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct rpc_channel *channel;
    struct rpc_stream *stream;
    atomic_uint n_heard;
    atomic_int n_downs;
    struct error reason; /* set before n_downs */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct rpc_server_options o = {.listen = "127.0.0.1:0", .methods = methods};
    accepted = NULL;
    n_accepted = 0;
    assert_int_equal(rpc_loop_start(&f->loop, NULL), OK);
    assert_int_equal(rpc_server_start(f->loop, &o, &f->server, NULL), OK);
    assert_int_equal(rpc_channel_open(rpc_server_address(f->server), &f->channel, NULL), OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    false_alarms_plan(0, 0);
    rpc_stream_close(f->stream, NULL);
    rpc_stream_close(accepted, NULL);
    rpc_channel_close(f->channel);
    rpc_server_stop(f->server);
    rpc_loop_stop(f->loop);
    free(f);
    return 0;
}

/* A channel that has not connected yet. */
static void renew_channel(struct fixture *f, const char *address)
{
    rpc_channel_close(f->channel);
    assert_int_equal(rpc_channel_open(address, &f->channel, NULL), OK);
}

static enum err call(struct fixture *f, struct error *e)
{
    struct rpc_buffer answer;
    *e = (struct error){.code = OK};
    enum err err = rpc_unary(f->channel, "/test.T/Echo", "abc", 3, 5 * SECOND, &answer, e);
    if (err == OK)
        assert_memory_equal(answer.data, "abc", 3);
    rpc_buffer_release(&answer);
    return err;
}

static enum err hear(void *context, struct rpc_message *m, struct error *e)
{
    struct fixture *f = context;
    uint32_t number;
    (void)e;
    assert_true(rpc_message_read(m, &number, sizeof(number)));
    assert_int_equal(number, f->n_heard);
    f->n_heard++;
    return OK;
}

static void hear_down(void *context, const struct error *reason)
{
    struct fixture *f = context;
    f->reason = *reason;
    f->n_downs++;
}

static void open_stream(struct fixture *f)
{
    static const struct rpc_metadata pairs[] = {{"shoal-a", "first"}, {"shoal-b", "second"}};
    struct rpc_stream_handler handler = {.on_message = hear, .on_down = hear_down, .context = f};
    f->n_heard = 0;
    f->n_downs = 0;
    assert_int_equal(rpc_stream_open(f->loop, f->channel, "/test.T/Bounce", pairs, 2, &handler,
                                     N_MESSAGES, &f->stream, NULL),
                     OK);
}

static void close_stream(struct fixture *f)
{
    rpc_stream_close(f->stream, NULL);
    rpc_stream_close(accepted, NULL);
    f->stream = accepted = NULL;
}

static enum err send_number(struct fixture *f, uint32_t number)
{
    return rpc_stream_send(f->stream,
                           &(struct rpc_outgoing){.head = &number, .head_bytes = sizeof(number)});
}

static void wait_for(struct fixture *f, unsigned n_heard, int n_downs)
{
    time_us until = clock_now_us() + 10 * SECOND;
    while ((f->n_heard < n_heard || f->n_downs < n_downs) && clock_now_us() < until)
        clock_sleep_us(1000);
    assert_int_equal(f->n_heard, n_heard);
    assert_int_equal(f->n_downs, n_downs);
}

/* ---- tests ---- */

/* Does the gRPC at hand make the mistake at all? Otherwise nothing here fails. */
static bool has_the_mistake(struct fixture *f)
{
    struct error e;
    false_alarms_plan(0, 1000);
    bool has = call(f, &e) != OK;
    false_alarms_plan(0, 0);
    renew_channel(f, rpc_server_address(f->server));
    return has;
}

static void a_call_connects_again(void **state)
{
    struct fixture *f = *state;
    for (int n = 0; n < N_TRIES; n++) {
        struct error e;
        false_alarms_plan(0, n);
        call(f, &e);
        assert_string_equal(e.text, "");
        assert_int_equal(false_alarms_left(), 0);
        renew_channel(f, rpc_server_address(f->server));
    }
}

static void a_reader_connects_again(void **state)
{
    struct fixture *f = *state;
    for (int n = 0; n < N_TRIES; n++) {
        struct rpc_reader *reader;
        struct rpc_buffer message;
        struct error e = {.code = OK};
        false_alarms_plan(0, n);
        assert_int_equal(rpc_reader_open(f->channel, "/test.T/Produce", "abc", 3, &reader, &e), OK);
        for (int i = 0; i < N_MESSAGES; i++) {
            rpc_reader_next(reader, 5 * SECOND, &message, &e);
            assert_string_equal(e.text, "");
            assert_memory_equal(message.data, "abc", 3);
            rpc_buffer_release(&message);
        }
        assert_int_equal(rpc_reader_next(reader, 5 * SECOND, &message, &e), ERR_CLOSED);
        assert_int_equal(false_alarms_left(), 0);
        rpc_reader_close(reader);
        renew_channel(f, rpc_server_address(f->server));
    }
}

static void a_call_gives_up(void **state)
{
    struct fixture *f = *state;
    struct error e;
    if (!has_the_mistake(f))
        skip();
    false_alarms_plan(0, N_TRIES);
    assert_int_equal(call(f, &e), ERR_UNREACHABLE);
    assert_int_equal(false_alarms_left(), 0);
    assert_non_null(strstr(e.text, "cannot reach 127.0.0.1:"));
    assert_non_null(strstr(e.text, "No such file or directory"));
    assert_int_equal(call(f, &e), OK); /* the next finds its way */
}

static void a_stream_connects_again(void **state)
{
    struct fixture *f = *state;
    for (int n = 0; n < N_TRIES; n++) {
        false_alarms_plan(0, n);
        open_stream(f);
        /* Before, while and after it connects; in order, none lost, none twice. */
        for (uint32_t i = 0; i < N_MESSAGES; i++) {
            assert_int_equal(send_number(f, i), OK);
            if (i >= N_MESSAGES / 2)
                clock_sleep_us(3000);
        }
        wait_for(f, N_MESSAGES, 0);
        assert_int_equal(false_alarms_left(), 0);
        assert_true(rpc_stream_is_accepted(f->stream));
        assert_int_equal(n_accepted, n + 1);
        close_stream(f);
        assert_int_equal(f->n_downs, 0);
        renew_channel(f, rpc_server_address(f->server));
    }
}

static void a_stream_gives_up(void **state)
{
    struct fixture *f = *state;
    if (!has_the_mistake(f))
        skip();
    false_alarms_plan(0, N_TRIES);
    time_us start = clock_now_us();
    open_stream(f);
    assert_int_equal(send_number(f, 0), OK);
    wait_for(f, 0, 1);
    assert_true(clock_now_us() - start < SECOND);
    assert_int_equal(false_alarms_left(), 0);
    assert_int_equal(f->reason.code, ERR_UNREACHABLE);
    assert_non_null(strstr(f->reason.text, "cannot reach 127.0.0.1:"));
    assert_non_null(strstr(f->reason.text, "No such file or directory"));
    assert_int_equal(send_number(f, 1), ERR_CLOSED);
    assert_int_equal(n_accepted, 0);
}

static void a_refusal_is_no_false_alarm(void **state)
{
    struct fixture *f = *state;
    renew_channel(f, "127.0.0.1:1");
    /* Whether at first or when connecting again: what is counted is that no other try follows. */
    for (int n = 0; n < 2; n++) {
        false_alarms_plan(1 - n, 1);
        open_stream(f);
        wait_for(f, 0, 1);
        assert_string_equal(f->reason.text, "cannot reach 127.0.0.1:1: Connection refused");
        assert_int_equal(false_alarms_left(), 1 - n);
        close_stream(f);
        renew_channel(f, "127.0.0.1:1");
    }
}

/* Whatever it is doing at that moment: no callback follows, nothing hangs, nothing is left. */
static void closing_while_it_connects(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 30; i++) {
        false_alarms_plan(0, 1000);
        open_stream(f);
        if (i % 2 == 0)
            send_number(f, 0);
        clock_sleep_us(i * 1000);
        time_us start = clock_now_us();
        close_stream(f);
        assert_true(clock_now_us() - start < SECOND / 2);
        assert_int_equal(f->n_downs, 0);
        renew_channel(f, rpc_server_address(f->server));
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(a_call_connects_again),    T(a_reader_connects_again),
                                       T(a_call_gives_up),          T(a_stream_connects_again),
                                       T(a_stream_gives_up),        T(a_refusal_is_no_false_alarm),
                                       T(closing_while_it_connects)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
