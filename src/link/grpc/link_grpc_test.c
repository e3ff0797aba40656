/* Frames over real gRPC streams on loopback: order, large ones, both directions, what a peer may
 * not do, and a peer that is killed. */
#include "link/grpc/link_grpc.h"

#include "base/panic.h"

#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECOND = 1000000, CREDITS = 8 };

extern char **environ;

/* A node that accepts one link; frames arrive in `inbox`. */
struct node {
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct inbox *inbox;
    struct link_grpc *link;
    uint64_t epoch;
    enum link_role role;
};

static enum err accept_link(void *context, struct rpc_stream *s,
                            const struct rpc_metadata *metadata, int n_metadata, struct error *e)
{
    struct node *n = context;
    enum err err = link_grpc_metadata(metadata, n_metadata, &n->epoch, &n->role, e);
    if (err != OK)
        return err;
    if (n->epoch != 42)
        return error_set(e, ERR_NOT_FOUND, "expected epoch 42, found %d", (int)n->epoch);
    struct link_grpc_options o = {
        .peer = "lead", .inbox = n->inbox, .receives = true, .max_queued = CREDITS};
    return link_grpc_accept(s, &o, &n->link, e);
}

static const struct rpc_method methods[] = {{.path = LINK_GRPC_METHOD, .accept = accept_link},
                                            {.path = NULL}};

static void node_start(struct node *n)
{
    *n = (struct node){.inbox = inbox_new(CREDITS)};
    ASSERT(rpc_loop_start(&n->loop, NULL) == OK);
    struct rpc_server_options o = {.listen = "127.0.0.1:0", .methods = methods, .context = n};
    ASSERT(rpc_server_start(n->loop, &o, &n->server, NULL) == OK);
}

/* The lead's side of the test. */
struct fixture {
    struct node node;
    struct rpc_loop *loop;
    struct rpc_channel *channel;
    struct inbox *inbox;
    struct link_grpc *link;
};

static struct link_grpc *open_link(struct fixture *f, uint64_t epoch)
{
    struct link_grpc_options o = {
        .peer = "stage 0", .inbox = f->inbox, .receives = true, .max_queued = CREDITS};
    struct link_grpc *l;
    assert_int_equal(link_grpc_open(f->loop, f->channel, epoch, LINK_ROLE_STAGE, &o, &l, NULL), OK);
    return l;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    node_start(&f->node);
    assert_int_equal(rpc_loop_start(&f->loop, NULL), OK);
    assert_int_equal(rpc_channel_open(rpc_server_address(f->node.server), &f->channel, NULL), OK);
    f->inbox = inbox_new(CREDITS);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    link_grpc_close(f->link, NULL);
    link_grpc_close(f->node.link, NULL);
    rpc_channel_close(f->channel);
    rpc_server_stop(f->node.server);
    rpc_loop_stop(f->node.loop);
    rpc_loop_stop(f->loop);
    inbox_free(f->node.inbox);
    inbox_free(f->inbox);
    free(f);
    return 0;
}

static struct frame *make_frame(size_t bytes, uint32_t number)
{
    struct frame *f = frame_new(bytes);
    for (size_t i = 0; i < bytes; i++)
        f->data[i] = (uint8_t)(i * 7 + number);
    return f;
}

static void check_frame(const struct frame *f, size_t bytes, uint32_t number)
{
    assert_int_equal(f->bytes, bytes);
    assert_int_equal((uintptr_t)f->data % 16, 0);
    for (size_t i = 0; i < bytes; i++)
        if (f->data[i] != (uint8_t)(i * 7 + number))
            fail_msg("byte %zu of frame %u differs", i, number);
}

static struct frame *take(struct inbox *b)
{
    struct inbox_event event;
    assert_int_equal(inbox_take(b, &event, 20 * SECOND), OK);
    assert_int_equal(event.kind, INBOX_FRAME);
    return event.frame;
}

static size_t size_of(uint32_t number)
{
    /* Around every length at which the prefix grows, and ordinary ones. */
    static const size_t sizes[] = {1, 127, 128, 16383, 16384, 2097151, 2097152, 64, 333, 70000};
    return sizes[number % 10];
}

static void frames_keep_their_order(void **state)
{
    struct fixture *f = *state;
    f->link = open_link(f, 42);
    uint32_t sent = 0, got = 0;
    while (got < 100) {
        /* No more on their way than credits, as the pipeline does it. */
        while (sent < 100 && sent - got < CREDITS) {
            assert_int_equal(link_send(link_grpc_link(f->link), make_frame(size_of(sent), sent)),
                             OK);
            sent++;
        }
        struct frame *frame = take(f->node.inbox);
        check_frame(frame, size_of(got), got);
        frame_free(frame);
        got++;
    }
    assert_int_equal(f->node.role, LINK_ROLE_STAGE);
    struct link_grpc_counts here, there;
    link_grpc_counts(f->link, &here);
    link_grpc_counts(f->node.link, &there);
    assert_int_equal(here.frames_sent, 100);
    assert_int_equal(there.frames_received, 100);
    assert_int_equal(here.bytes_sent, there.bytes_received);
}

/* While frames are on their way out, and no longer. */
static void it_tells_how_long_it_sends(void **state)
{
    struct fixture *f = *state;
    f->link = open_link(f, 42);
    struct link *l = link_grpc_link(f->link);
    assert_int_equal(link_sending_us(l), 0);
    int64_t start = clock_now_us();
    assert_int_equal(link_send(l, make_frame(64 << 20, 1)), OK);
    frame_free(take(f->node.inbox));
    int64_t sent = link_sending_us(l), passed = clock_now_us() - start;
    assert_true(sent > 0 && sent <= passed);
    clock_sleep_us(50000); /* the end of the sending may be noticed after that of the receiving */
    sent = link_sending_us(l);
    clock_sleep_us(50000);
    assert_int_equal(link_sending_us(l), sent);
}

static void the_accepting_end_sends_too(void **state)
{
    struct fixture *f = *state;
    f->link = open_link(f, 42);
    assert_int_equal(link_send(link_grpc_link(f->link), make_frame(10, 1)), OK);
    frame_free(take(f->node.inbox));
    for (uint32_t i = 0; i < CREDITS; i++)
        assert_int_equal(link_send(link_grpc_link(f->node.link), make_frame(100 + i, i)), OK);
    for (uint32_t i = 0; i < CREDITS; i++) {
        struct frame *frame = take(f->inbox);
        check_frame(frame, 100 + i, i);
        frame_free(frame);
    }
}

static void a_large_frame_arrives(void **state)
{
    struct fixture *f = *state;
    f->link = open_link(f, 42);
    assert_int_equal(link_send(link_grpc_link(f->link), make_frame(64 << 20, 5)), OK);
    struct frame *frame = take(f->node.inbox);
    check_frame(frame, 64 << 20, 5);
    frame_free(frame);
}

static struct error take_down(struct inbox *b, time_us within_us)
{
    struct inbox_event event = {0};
    while (inbox_take(b, &event, within_us) == OK && event.kind == INBOX_FRAME)
        frame_free(event.frame);
    assert_int_equal(event.kind, INBOX_DOWN);
    return event.reason;
}

static void more_frames_than_credits(void **state)
{
    struct fixture *f = *state;
    f->link = open_link(f, 42);
    for (uint32_t i = 0; i <= CREDITS; i++)
        assert_int_equal(link_send(link_grpc_link(f->link), make_frame(100, i)), OK);
    struct error why = take_down(f->inbox, 5 * SECOND);
    assert_int_equal(why.code, ERR_MEMORY); /* ERR_FULL travels as RESOURCE_EXHAUSTED */
    assert_non_null(strstr(why.text, "more frames on their way than the ring has credits"));
    assert_ptr_equal(strstr(why.text, "stage 0 127.0.0.1:"), why.text);
}

static void another_epoch_is_refused(void **state)
{
    struct fixture *f = *state;
    f->link = open_link(f, 41);
    struct error why = take_down(f->inbox, 5 * SECOND);
    assert_int_equal(why.code, ERR_NOT_FOUND);
    assert_non_null(strstr(why.text, "expected epoch 42, found 41"));
    assert_int_equal(link_send(link_grpc_link(f->link), make_frame(10, 0)), ERR_CLOSED);
    assert_false(link_grpc_is_accepted(f->link));
}

/* What some other program may send: bytes that are no message Frame. */
static void no_frames(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {{"", 0},
               {"\x0a", 1},
               {"\x0a\x05xxxx", 6},
               {"\x0a\x03xxxx", 6},
               {"\x12\x01x", 3},
               {"\x0a\xff\xff\xff\xff\xff\x01", 7},
               {"\x08\x01", 2}};
    static const struct rpc_metadata metadata[] = {{"shoal-epoch", "42"}, {"shoal-role", "lead"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rpc_stream *s;
        struct rpc_stream_handler none = {0};
        assert_int_equal(
            rpc_stream_open(f->loop, f->channel, LINK_GRPC_METHOD, metadata, 2, &none, 4, &s, NULL),
            OK);
        rpc_stream_send(s, &(struct rpc_outgoing){.head = bad[i].bytes, .head_bytes = bad[i].n});
        struct error why = take_down(f->node.inbox, 5 * SECOND);
        assert_int_equal(why.code, ERR_FORMAT);
        assert_non_null(strstr(why.text, "no Frame"));
        rpc_stream_close(s, NULL);
        link_grpc_close(f->node.link, NULL);
        f->node.link = NULL;
    }
}

static void metadata_is_checked(void **state)
{
    (void)state;
    uint64_t epoch;
    enum link_role role;
    struct error e;
    struct rpc_metadata m[2] = {{"shoal-epoch", "7"}, {"shoal-role", "lead"}};
    assert_int_equal(link_grpc_metadata(m, 2, &epoch, &role, &e), OK);
    assert_int_equal(epoch, 7);
    assert_int_equal(role, LINK_ROLE_LEAD);
    assert_int_equal(link_grpc_metadata(m, 1, &epoch, &role, &e), ERR_INVALID);
    assert_int_equal(link_grpc_metadata(m + 1, 1, &epoch, &role, &e), ERR_INVALID);
    static const char *const bad[] = {"", "-1", "0x7", "7 ", "18446744073709551616"};
    for (size_t i = 0; i < 5; i++) {
        strcpy(m[0].value, bad[i]);
        assert_int_equal(link_grpc_metadata(m, 2, &epoch, &role, &e), ERR_INVALID);
    }
    strcpy(m[0].value, "7");
    strcpy(m[1].value, "leader");
    assert_int_equal(link_grpc_metadata(m, 2, &epoch, &role, &e), ERR_INVALID);
}

/* ---- a peer that dies ---- */

_Noreturn static void serve_until_killed(void)
{
    struct node n;
    node_start(&n);
    printf("%s\n", rpc_server_address(n.server));
    fflush(stdout);
    for (;;)
        pause();
}

static pid_t start_child(char address[ADDRESS_MAX])
{
    int ends[2];
    pid_t pid;
    char *args[] = {"link_grpc_test", "--serve", NULL};
    assert_int_equal(pipe(ends), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, args, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    FILE *out = fdopen(ends[0], "r");
    assert_non_null(fgets(address, ADDRESS_MAX, out));
    address[strcspn(address, "\n")] = 0;
    fclose(out);
    return pid;
}

static void check_death(struct fixture *f, int signal, time_us within_us)
{
    char address[ADDRESS_MAX];
    pid_t pid = start_child(address);
    struct rpc_channel *channel, *mine = f->channel;
    assert_int_equal(rpc_channel_open(address, &channel, NULL), OK);
    f->channel = channel;
    struct link_grpc *l = open_link(f, 42);
    f->channel = mine;
    for (int i = 0; i < 1000 && !link_grpc_is_accepted(l); i++)
        clock_sleep_us(10000);
    assert_true(link_grpc_is_accepted(l));
    time_us start = clock_now_us();
    kill(pid, signal);
    struct error why = take_down(f->inbox, 10 * SECOND);
    assert_true(clock_now_us() - start < within_us);
    assert_int_equal(why.code, ERR_UNREACHABLE);
    assert_non_null(strstr(why.text, address));
    assert_non_null(strstr(why.text, "connection lost"));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    link_grpc_close(l, NULL);
    rpc_channel_close(channel);
}

static void a_killed_peer_is_noticed(void **state)
{
    check_death(*state, SIGKILL, SECOND);
}

/* Stopped, it answers no ping, like a machine whose power is gone. */
static void a_silent_peer_is_noticed(void **state)
{
    check_death(*state, SIGSTOP, (RPC_KEEPALIVE_MS + RPC_KEEPALIVE_TIMEOUT_MS + 1000) * 1000);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--serve") == 0)
        serve_until_killed();
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {T(frames_keep_their_order),
                                       T(it_tells_how_long_it_sends),
                                       T(the_accepting_end_sends_too),
                                       T(a_large_frame_arrives),
                                       T(more_frames_than_credits),
                                       T(another_epoch_is_refused),
                                       T(no_frames),
                                       T(metadata_is_checked),
                                       T(a_killed_peer_is_noticed),
                                       T(a_silent_peer_is_noticed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
