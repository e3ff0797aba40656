/* Whole rings on loopback: workers in this process (and one lead in another, to be killed), a tiny
 * model, real gRPC. The logits of every ring are the bits of one process alone; what goes wrong is
 * told with the node's name and leaves the workers ready for the next lead. */
#include "node/cluster.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "node/client.h"
#include "node/messages.h"
#include "node/tensor_fetch.h"
#include "node/tiny_gguf_impl.h"
#include "node/worker.h"
#include "pipeline/pipeline.h"

#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

extern char **environ;

enum {
    SECOND = 1000000,
    N_WORKERS = 3,
    N_TOKENS = 40, /* three KV blocks */
    N_BLOCKS = 8,
    CREDITS = 5,
};

/* ---- one model, three workers, used by all tests ---- */

static struct tiny_gguf bytes;
static char model_path[] = "/tmp/shoal_cluster_test_XXXXXX";
static struct modelfile *on_disk,
    *in_memory; /* the same model; no worker finds the second's path */
static struct worker *workers[N_WORKERS];
static struct pool *pool;
static struct backend *backend;
static float alone[N_TOKENS * TINY_VOCAB];

static enum err start_worker(int i)
{
    struct worker_options o = {.listen = "127.0.0.1:0", .threads = 1};
    return worker_start(&o, &workers[i], NULL);
}

/* The addresses of the first n workers as a list. */
static const char *addresses(int n)
{
    static char list[N_WORKERS * ADDRESS_MAX];
    list[0] = 0;
    for (int i = 0; i < n; i++) {
        strcat(list, i > 0 ? "," : "");
        strcat(list, worker_address(workers[i]));
    }
    return list;
}

/* ---- a lead ---- */

struct lead {
    struct cluster *cluster;
    struct plan plan;
    struct model *model;
    struct stage *stage;
    struct pipeline *pipeline;
    struct link *first;
    struct inbox *inbox;
};

static struct cluster_options options_for(struct lead *l, struct modelfile *file)
{
    static uint64_t epoch = 1000;
    return (struct cluster_options){.file = file,
                                    .plan = &l->plan,
                                    .numerics_id = backend->numerics_id,
                                    .kv_type = KV_F16,
                                    .n_slots = 2,
                                    .n_blocks = N_BLOCKS,
                                    .max_rows = 64,
                                    .max_context = 64,
                                    .credits = CREDITS,
                                    .epoch = epoch += 1ull << 40 | (uint64_t)getpid() << 16};
}

/* Stage i gets the layers up to ends[i], the lead the rest. */
static void plan_layers(struct lead *l, int n_workers, const int *ends)
{
    int first = 0;
    l->plan.n_stages = n_workers + 1;
    for (int i = 0; i <= n_workers; i++) {
        int last = i < n_workers ? ends[i] : TINY_LAYERS;
        l->plan.stages[i] = (struct plan_stage){.node_i = i, .first = first, .last = last};
        first = last;
    }
}

static void open_stage(struct lead *l, const struct cluster_options *o)
{
    const struct plan_stage *own = &l->plan.stages[l->plan.n_stages - 1];
    struct model_part part = {
        .first = own->first, .last = own->last, .head = true, .embedding = l->plan.n_stages == 1};
    assert_int_equal(model_load(o->file, backend, &part, NULL, NULL, &l->model, NULL), OK);
    struct stage_options s = {.model = l->model,
                              .backend = backend,
                              .max_rows = o->max_rows,
                              .n_slots = o->n_slots,
                              .n_blocks = o->n_blocks,
                              .max_context = o->max_context,
                              .kv_type = o->kv_type,
                              .epoch = o->epoch};
    assert_int_equal(stage_new(&s, &l->stage, NULL), OK);
    struct pipeline_options p = {.stage = l->stage,
                                 .vocab = TINY_VOCAB,
                                 .hidden = TINY_HIDDEN,
                                 .first = l->first,
                                 .inbox = l->inbox,
                                 .n_stages = l->plan.n_stages,
                                 .first_layer = own->first,
                                 .credits = o->credits,
                                 .max_rows = o->max_rows,
                                 .epoch = o->epoch,
                                 .timeout_us = 20 * SECOND};
    assert_int_equal(pipeline_new(&p, &l->pipeline, NULL), OK);
}

static void connect_lead(struct lead *l, int n_workers, const int *ends)
{
    struct error e = {.code = OK};
    *l = (struct lead){0};
    plan_layers(l, n_workers, ends);
    cluster_connect(addresses(n_workers), &l->cluster, &e);
    assert_string_equal(e.text, "");
}

static void open_lead(struct lead *l, struct modelfile *file, int n_workers, const int *ends)
{
    struct error e = {.code = OK};
    connect_lead(l, n_workers, ends);
    struct cluster_options o = options_for(l, file);
    cluster_assign(l->cluster, &o, &l->first, &l->inbox, &e);
    assert_string_equal(e.text, "");
    open_stage(l, &o);
}

static void close_lead(struct lead *l)
{
    pipeline_free(l->pipeline);
    stage_free(l->stage);
    model_free(l->model);
    cluster_close(l->cluster);
}

/* ---- steps ---- */

/* Rows [from, from + n) of one sequence, each wanting its logits; the first step opens the slot. */
static enum err submit(struct lead *l, uint32_t from, uint32_t n, struct error *e)
{
    struct step_update updates[4] = {{.kind = UPDATE_OPEN, .slot = 1}};
    struct step_row rows[N_TOKENS];
    struct step step = {.updates = updates, .rows = rows, .n_rows = n};
    if (from == 0)
        step.n_updates = 1;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t position = from + i;
        rows[i] = (struct step_row){.token = (position * 37 + 5) % TINY_VOCAB,
                                    .position = position,
                                    .slot = 1,
                                    .want = WANT_LOGITS};
        if (position % KV_BLOCK_TOKENS == 0) /* blocks in an order that is not their own */
            updates[step.n_updates++] = (struct step_update){
                .kind = UPDATE_APPEND, .slot = 1, .block = 7 - position / KV_BLOCK_TOKENS};
    }
    return pipeline_submit(l->pipeline, &step, e);
}

/* A prompt in two chunks and the rest one by one, several steps on their way; all logits. */
static void run_tokens(struct lead *l, float *logits)
{
    uint32_t sent = 0, got = 0;
    struct error e = {.code = OK};
    while (got < N_TOKENS) {
        while (sent < N_TOKENS && pipeline_in_flight(l->pipeline) < CREDITS) {
            uint32_t n = sent < 20 ? 10 : 1;
            submit(l, sent, n, &e);
            assert_string_equal(e.text, "");
            sent += n;
        }
        struct pipeline_result r;
        pipeline_collect(l->pipeline, &r, 20 * SECOND, &e);
        assert_string_equal(e.text, "");
        memcpy(logits + got * TINY_VOCAB, r.logits,
               (size_t)r.n_wanted * TINY_VOCAB * sizeof(float));
        got += (uint32_t)r.n_wanted;
    }
}

static void expect_same_bits(struct lead *l)
{
    static float logits[N_TOKENS * TINY_VOCAB];
    memset(logits, 0, sizeof(logits));
    run_tokens(l, logits);
    assert_memory_equal(logits, alone, sizeof(alone));
}

static void ask(int worker_i, struct node_report *out)
{
    struct rpc_channel *c;
    assert_int_equal(rpc_channel_open(worker_address(workers[worker_i]), &c, NULL), OK);
    assert_int_equal(node_ask_report(c, 2 * SECOND, out, NULL), OK);
    rpc_channel_close(c);
}

static void expect_idle(int n_workers)
{
    for (int i = 0; i < n_workers; i++) {
        struct node_report r = {.state = NODE_LINKED};
        for (int t = 0; t < 300 && r.state != NODE_IDLE; t++) {
            ask(i, &r);
            clock_sleep_us(10000);
        }
        assert_int_equal(r.state, NODE_IDLE);
        assert_int_equal(r.epoch, 0);
    }
}

static void expect_error(const struct error *e, enum err code, const char *part)
{
    if (e->code != code || strstr(e->text, part) == NULL)
        fail_msg("expected error %d with \"%s\", found %d \"%s\"", code, part, e->code, e->text);
}

/* ---- equality ---- */

static void every_ring_has_the_same_bits(void **state)
{
    (void)state;
    static const struct {
        int n, ends[3];
    } rings[] = {{1, {1}},    {1, {2}},       {1, {4}},      {2, {1, 3}},
                 {2, {2, 4}}, {3, {1, 2, 3}}, {3, {2, 3, 4}}};
    for (size_t i = 0; i < sizeof(rings) / sizeof(rings[0]); i++) {
        struct lead l;
        open_lead(&l, on_disk, rings[i].n, rings[i].ends);
        expect_same_bits(&l);
        for (int n = 0; n < rings[i].n; n++) {
            struct node_stats s;
            assert_int_equal(cluster_stats(l.cluster, n, &s, NULL), OK);
            assert_false(s.fetched);
            assert_int_equal(s.steps, 22);
            assert_int_equal(s.rows, N_TOKENS);
            assert_true(s.weight_bytes > 0 && s.kv_bytes > 0 && s.activation_bytes > 0);
            assert_true(s.anon_bytes > 0 && s.anon_peak_bytes >= s.anon_bytes);
            assert_true(s.received_bytes > 0 &&
                        s.sent_bytes > (uint64_t)N_TOKENS * TINY_HIDDEN * 4);
        }
        assert_int_equal(cluster_check(l.cluster, NULL), OK);
        close_lead(&l);
        expect_idle(rings[i].n);
    }
}

static uint64_t progress_done, progress_total;

static void note_progress(uint64_t done, uint64_t total, void *context)
{
    (void)context;
    progress_done = done;
    progress_total = total;
}

static void a_worker_without_the_file_fetches_its_tensors(void **state)
{
    (void)state;
    struct lead l;
    connect_lead(&l, 2, (int[]){1, 3});
    struct cluster_options o = options_for(&l, in_memory);
    o.progress = note_progress;
    assert_int_equal(cluster_assign(l.cluster, &o, &l.first, &l.inbox, NULL), OK);
    open_stage(&l, &o);
    expect_same_bits(&l);
    uint64_t fetched = 0;
    for (int n = 0; n < 2; n++) {
        struct node_stats s;
        struct node_report r;
        assert_int_equal(cluster_stats(l.cluster, n, &s, NULL), OK);
        assert_true(s.fetched);
        ask(n, &r);
        fetched += r.fetched_bytes;
    }
    assert_int_equal(fetched, progress_total);
    assert_int_equal(progress_done, progress_total);
    /* Embedding and three of four layers, not the lead's layer, norm and head. */
    assert_true(fetched < bytes.tensor_bytes * 8 / 10 && fetched > bytes.tensor_bytes / 2);
    close_lead(&l);
}

static void another_file_at_the_path_is_not_taken(void **state)
{
    (void)state;
    struct tiny_gguf other = tiny_gguf_make(2);
    struct modelfile *file;
    struct lead l;
    /* The lead's model under the path where another model lies. */
    FILE *f = fopen("/tmp/shoal_cluster_test_other", "wb");
    assert_int_equal(fwrite(other.data, 1, other.bytes, f), other.bytes);
    fclose(f);
    assert_int_equal(modelfile_open_memory("/tmp/shoal_cluster_test_other", bytes.data, bytes.bytes,
                                           &file, NULL),
                     OK);
    open_lead(&l, file, 1, (int[]){2});
    expect_same_bits(&l);
    struct node_stats s;
    assert_int_equal(cluster_stats(l.cluster, 0, &s, NULL), OK);
    assert_true(s.fetched);
    close_lead(&l);
    modelfile_close(file);
    unlink("/tmp/shoal_cluster_test_other");
    free(other.data);
}

static void a_new_lead_takes_over(void **state)
{
    (void)state;
    struct lead old, new;
    struct error e = {.code = OK};
    open_lead(&old, on_disk, 2, (int[]){1, 2});
    open_lead(&new, on_disk, 2, (int[]){2, 3});
    expect_same_bits(&new);
    for (int i = 0; i < 200 && cluster_check(old.cluster, &e) == OK; i++)
        clock_sleep_us(10000);
    expect_error(&e, ERR_CLOSED, "node 127.0.0.1:");
    close_lead(&old);
    /* The old lead's Unassign is for an epoch that is no more: the new ring still turns. */
    assert_int_equal(cluster_check(new.cluster, NULL), OK);
    struct node_report r;
    ask(0, &r);
    assert_int_equal(r.state, NODE_LINKED);
    close_lead(&new);
    expect_idle(2);
}

static time_us sum_of(const struct stage_sums *s)
{
    return s->busy_us + s->input_wait_us + s->send_wait_us + s->other_us;
}

static void a_worker_tells_where_its_time_goes(void **state)
{
    (void)state;
    struct lead l;
    struct node_stats before, working, idle;
    time_us start = clock_now_us();
    open_lead(&l, on_disk, 1, (int[]){2});
    assert_int_equal(cluster_stats(l.cluster, 0, &before, NULL), OK);
    assert_int_equal(before.time.busy_us, 0);
    expect_same_bits(&l);
    assert_int_equal(cluster_stats(l.cluster, 0, &working, NULL), OK);
    time_us worked = clock_now_us();
    assert_true(working.time.busy_us > 0 && working.time.other_us > 0);
    assert_true(sum_of(&working.time) <= worked - start);
    clock_sleep_us(300000);
    assert_int_equal(cluster_stats(l.cluster, 0, &idle, NULL), OK);
    /* A wait is told while it lasts, and it is one for input. */
    assert_int_equal(idle.time.busy_us, working.time.busy_us);
    assert_true(idle.time.input_wait_us - working.time.input_wait_us > 290000);
    assert_true(sum_of(&idle.time) - sum_of(&working.time) >= 300000);
    assert_true(sum_of(&idle.time) <= clock_now_us() - start);
    close_lead(&l);
}

/* ---- what goes wrong ---- */

static void nodes_that_cannot_be_had(void **state)
{
    (void)state;
    struct cluster *c;
    struct error e;
    char list[2 * ADDRESS_MAX];
    time_us start = clock_now_us();
    snprintf(list, sizeof(list), "%s,127.0.0.1:1", worker_address(workers[0]));
    assert_int_equal(cluster_connect(list, &c, &e), ERR_UNREACHABLE);
    assert_true(clock_now_us() - start < 5 * SECOND);
    assert_null(c);
    expect_error(&e, ERR_UNREACHABLE, "cannot reach 127.0.0.1:1: Connection refused");
    snprintf(list, sizeof(list), "%s,%s", worker_address(workers[0]), worker_address(workers[0]));
    assert_int_equal(cluster_connect(list, &c, &e), ERR_INVALID);
    expect_error(&e, ERR_INVALID, "is listed twice");
    static const char *const bad[] = {"", ",", "127.0.0.1", "127.0.0.1:0",
                                      "127.0.0.1:1,,127.0.0.1:2"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(cluster_connect(bad[i], &c, &e), ERR_INVALID);
}

static void describe_future(shoal_v1_DescribeResponse *m)
{
    *m = (shoal_v1_DescribeResponse){.protocol = NODE_PROTOCOL + 1};
    strcpy(m->version, "77.0.0");
}

static enum err answer_describe(void *context, struct rpc_call *call, const void *request,
                                size_t n_bytes, struct rpc_buffer *answer, struct error *e)
{
    shoal_v1_DescribeResponse m;
    (void)context;
    (void)call;
    (void)request;
    (void)n_bytes;
    describe_future(&m);
    return message_encode(shoal_v1_DescribeResponse_fields, &m, answer, e);
}

static void another_version(void **state)
{
    (void)state;
    static const struct rpc_method methods[] = {
        {.path = NODE_SERVICE "Describe", .unary = answer_describe}, {.path = NULL}};
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct cluster *c;
    struct error e;
    assert_int_equal(rpc_loop_start(&loop, &e), OK);
    struct rpc_server_options o = {.listen = "127.0.0.1:0", .methods = methods};
    assert_int_equal(rpc_server_start(loop, &o, &server, &e), OK);
    assert_int_equal(cluster_connect(rpc_server_address(server), &c, &e), ERR_VERSION);
    char wanted[80];
    snprintf(wanted, sizeof(wanted), "runs Shoal 77.0.0 (protocol %d), this is %s", NODE_PROTOCOL + 1,
             SHOAL_VERSION);
    expect_error(&e, ERR_VERSION, wanted);
    rpc_server_stop(server);
    rpc_loop_stop(loop);
}

static enum err answer_stats(void *context, struct rpc_call *call, const void *request,
                             size_t n_bytes, struct rpc_buffer *answer, struct error *e)
{
    shoal_v1_StatsResponse m = {.compute_us = 5, .send_wait_us = UINT64_MAX};
    (void)context, (void)call, (void)request, (void)n_bytes;
    return message_encode(shoal_v1_StatsResponse_fields, &m, answer, e);
}

static void impossible_times_are_refused(void **state)
{
    (void)state;
    static const struct rpc_method methods[] = {
        {.path = NODE_SERVICE "Stats", .unary = answer_stats}, {.path = NULL}};
    struct rpc_server_options o = {.listen = "127.0.0.1:0", .methods = methods};
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct rpc_channel *channel;
    struct node_report r;
    struct error e;
    assert_int_equal(rpc_loop_start(&loop, &e), OK);
    assert_int_equal(rpc_server_start(loop, &o, &server, &e), OK);
    assert_int_equal(rpc_channel_open(rpc_server_address(server), &channel, NULL), OK);
    assert_int_equal(node_ask_report(channel, 2 * SECOND, &r, &e), ERR_FORMAT);
    expect_error(&e, ERR_FORMAT,
                 "Stats: send_wait_us of at most 1152921504606846976 expected, "
                 "found 18446744073709551615");
    rpc_channel_close(channel);
    rpc_server_stop(server);
    rpc_loop_stop(loop);
}

/* A node that takes its time to say that it cannot. */
static enum err describe_slow(void *context, struct rpc_call *call, const void *request,
                              size_t n_bytes, struct rpc_buffer *answer, struct error *e)
{
    shoal_v1_DescribeResponse m = {.protocol = NODE_PROTOCOL, .version = SHOAL_VERSION};
    (void)context, (void)call, (void)request, (void)n_bytes;
    snprintf(m.numerics_id, sizeof(m.numerics_id), "%s", backend->numerics_id);
    return message_encode(shoal_v1_DescribeResponse_fields, &m, answer, e);
}

static enum err assign_slowly(void *context, struct rpc_call *call, const void *request,
                              size_t n_bytes, struct rpc_buffer *answer, struct error *e)
{
    (void)context, (void)call, (void)request, (void)n_bytes, (void)answer;
    clock_sleep_us(5 * SECOND);
    return error_set(e, ERR_MEMORY, "no memory, after all");
}

static void a_quick_worker_waits_for_a_slow_one(void **state)
{
    (void)state;
    static const struct rpc_method methods[] = {
        {.path = NODE_SERVICE "Describe", .unary = describe_slow},
        {.path = NODE_SERVICE "Assign", .unary = assign_slowly},
        {.path = NULL}};
    struct worker_options quick = {
        .listen = "127.0.0.1:0", .threads = 1, .lead_wait_us = 2 * SECOND};
    struct rpc_server_options slow = {.listen = "127.0.0.1:0", .methods = methods};
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct rpc_channel *channel;
    struct worker *w;
    struct node_report r;
    struct lead l = {0};
    struct error e;
    char list[2 * ADDRESS_MAX];
    assert_int_equal(rpc_loop_start(&loop, &e), OK);
    assert_int_equal(rpc_server_start(loop, &slow, &server, &e), OK);
    assert_int_equal(worker_start(&quick, &w, &e), OK);
    snprintf(list, sizeof(list), "%s,%s", worker_address(w), rpc_server_address(server));
    plan_layers(&l, 2, (int[]){1, 2});
    assert_int_equal(cluster_connect(list, &l.cluster, &e), OK);
    struct cluster_options o = options_for(&l, on_disk);
    assert_int_equal(cluster_assign(l.cluster, &o, &l.first, &l.inbox, &e), ERR_MEMORY);
    expect_error(&e, ERR_MEMORY, "no memory, after all");
    cluster_close(l.cluster);
    assert_int_equal(rpc_channel_open(worker_address(w), &channel, NULL), OK);
    assert_int_equal(node_ask_report(channel, 2 * SECOND, &r, NULL), OK);
    assert_int_equal(r.state, NODE_IDLE);
    assert_string_equal(r.failure, ""); /* it was let go, and had not given up before */
    rpc_channel_close(channel);
    worker_stop(w);
    rpc_server_stop(server);
    rpc_loop_stop(loop);
}

static void other_numerics_and_too_little_memory(void **state)
{
    (void)state;
    struct lead l;
    struct error e;
    connect_lead(&l, 1, (int[]){2});
    struct cluster_options o = options_for(&l, on_disk);
    o.numerics_id = "other-9";
    assert_int_equal(cluster_assign(l.cluster, &o, &l.first, &l.inbox, &e), ERR_MISMATCH);
    expect_error(&e, ERR_MISMATCH, "computes with numerics");
    cluster_close(l.cluster);

    connect_lead(&l, 1, (int[]){2});
    o = options_for(&l, on_disk);
    o.n_blocks = 1 << 26; /* terabytes */
    assert_int_equal(cluster_assign(l.cluster, &o, &l.first, &l.inbox, &e), ERR_LIMIT);
    expect_error(&e, ERR_LIMIT, "MB of memory free, layers 0-1 need");
    cluster_close(l.cluster);
    expect_idle(1);
}

static void a_worker_that_dies_is_named(void **state)
{
    (void)state;
    struct lead l;
    struct error e = {.code = OK};
    char address[ADDRESS_MAX];
    open_lead(&l, on_disk, 3, (int[]){1, 2, 3});
    strcpy(address, worker_address(workers[1]));
    time_us start = clock_now_us();
    worker_stop(workers[1]);
    while (cluster_check(l.cluster, &e) == OK && clock_now_us() - start < 10 * SECOND)
        clock_sleep_us(5000);
    assert_true(clock_now_us() - start < 5 * SECOND);
    assert_non_null(strstr(e.text, address));
    close_lead(&l);
    assert_int_equal(start_worker(1), OK);
    expect_idle(3);
}

static void a_bad_frame_fails_the_epoch(void **state)
{
    (void)state;
    struct lead l;
    struct inbox_event event;
    open_lead(&l, on_disk, 2, (int[]){1, 2});
    struct frame *f = frame_new(100);
    memset(f->data, 'x', 100);
    assert_int_equal(link_send(l.first, f), OK);
    assert_int_equal(inbox_take(l.inbox, &event, 5 * SECOND), OK);
    assert_int_equal(event.kind, INBOX_DOWN);
    assert_non_null(strstr(event.reason.text, worker_address(workers[0])));
    assert_non_null(strstr(event.reason.text, "stage 0: frame: expected magic"));
    close_lead(&l);
    expect_idle(2);
    struct node_report r;
    ask(0, &r);
    assert_non_null(strstr(r.failure, "stage 0: frame: expected magic"));
}

/* A step that is well formed but makes no sense is found by the stage. */
static void a_senseless_step_fails_the_epoch(void **state)
{
    (void)state;
    struct lead l;
    struct error e = {.code = OK};
    struct pipeline_result r;
    open_lead(&l, on_disk, 1, (int[]){2});
    struct step_row row = {.token = 1, .position = 0, .slot = 1, .want = WANT_LOGITS};
    struct step step = {.rows = &row, .n_rows = 1}; /* slot 1 was never opened */
    assert_int_equal(pipeline_submit(l.pipeline, &step, &e), OK);
    assert_int_not_equal(pipeline_collect(l.pipeline, &r, 5 * SECOND, &e), OK);
    assert_non_null(strstr(e.text, "slot 1 is not open"));
    assert_non_null(strstr(e.text, worker_address(workers[0])));
    close_lead(&l);
    expect_idle(1);
}

/* ---- a lead that dies ---- */

/* The other process: become the lead of the workers named, say so, wait to be killed. */
_Noreturn static void lead_until_killed(const char *nodes, const char *path)
{
    struct lead l = {0};
    struct error e;
    plan_layers(&l, 2, (int[]){1, 3});
    ASSERT(pool_new(1, &pool, &e) == OK && backend_cpu_open(pool, &backend, &e) == OK);
    if (modelfile_open(path, &on_disk, &e) != OK || cluster_connect(nodes, &l.cluster, &e) != OK)
        PANIC("%s", e.text);
    struct cluster_options o = options_for(&l, on_disk);
    if (cluster_assign(l.cluster, &o, &l.first, &l.inbox, &e) != OK)
        PANIC("%s", e.text);
    printf("leading\n");
    fflush(stdout);
    for (;;)
        pause();
}

static void workers_survive_their_lead(void **state)
{
    (void)state;
    int ends[2];
    pid_t pid;
    char line[16], nodes[N_WORKERS * ADDRESS_MAX];
    struct node_report r;
    strcpy(nodes, addresses(2));
    char *args[] = {"cluster_test", "--lead", nodes, model_path, NULL};
    assert_int_equal(pipe(ends), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, args, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    FILE *out = fdopen(ends[0], "r");
    assert_non_null(fgets(line, sizeof(line), out));
    assert_string_equal(line, "leading\n");
    ask(1, &r);
    assert_int_equal(r.state, NODE_LINKED);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    fclose(out);
    expect_idle(2); /* within three seconds */
    ask(0, &r);
    assert_non_null(strstr(r.failure, "lead 127.0.0.1:"));
    struct lead l;
    open_lead(&l, on_disk, 2, (int[]){2, 3});
    expect_same_bits(&l);
    close_lead(&l);
}

/* ---- other programs ---- */

static struct rpc_channel *open_channel(int worker_i)
{
    struct rpc_channel *c;
    assert_int_equal(rpc_channel_open(worker_address(workers[worker_i]), &c, NULL), OK);
    return c;
}

static void hostile_assigns(void **state)
{
    (void)state;
    struct rpc_channel *c = open_channel(0);
    struct rpc_buffer answer, message;
    struct error e;
    assert_int_equal(
        rpc_unary(c, NODE_SERVICE "Assign", "\xff\xff\xff", 3, 2 * SECOND, &answer, &e),
        ERR_FORMAT);
    shoal_v1_AssignRequest good = {.protocol = NODE_PROTOCOL,
                                   .version = SHOAL_VERSION,
                                   .epoch = 5,
                                   .path = "/nowhere",
                                   .has_identity = true,
                                   .has_params = true,
                                   .last = 1,
                                   .n_blocks = 1,
                                   .n_slots = 1,
                                   .max_rows = 1,
                                   .max_context = 1,
                                   .credits = 1,
                                   .fetch_port = 1};
    struct bad {
        uint32_t *field, value;
        const char *part;
    } bad[] = {{&good.protocol, 9, "the lead runs Shoal"},
               {&good.n_blocks, 0, "KV blocks is 0"},
               {&good.n_blocks, UINT32_MAX, "KV blocks is 4294967295"},
               {&good.n_slots, SLOT_MAX + 1, "slots"},
               {&good.max_rows, STEP_MAX_ROWS + 1, "rows of a step"},
               {&good.credits, 0, "credits"},
               {&good.first, 1, "the first layer is 1, expected 0 to 0"},
               {&good.last, 100000, "the last layer"},
               {&good.kv_type, N_KV_TYPES, "KV type"},
               {&good.stage, 1, "stage 1 begins with layer 0"},
               {&good.fetch_port, 65536, "port"},
               {&good.fetch_port, 0, "no copy of /nowhere here, and the lead serves none"},
               {&good.params.vocab, UINT32_MAX, "hyper-parameter"},
               {&good.params.hidden, 0, "expected"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct tensor_list none = {0};
        uint32_t before = *bad[i].field;
        *bad[i].field = bad[i].value;
        assert_int_equal(assign_encode(&good, &none, &message, NULL), OK);
        *bad[i].field = before;
        assert_int_not_equal(rpc_unary(c, NODE_SERVICE "Assign", message.data, message.bytes,
                                       5 * SECOND, &answer, &e),
                             OK);
        assert_non_null(strstr(e.text, bad[i].part));
        rpc_buffer_release(&message);
    }
    expect_idle(1);
    rpc_channel_close(c);
}

static void health_and_probe(void **state)
{
    (void)state;
    static const char check[] = "/grpc.health.v1.Health/Check";
    struct rpc_channel *c = open_channel(0);
    struct rpc_buffer answer;
    struct error e;
    struct node_probe p;
    assert_int_equal(rpc_unary(c, check, "", 0, 2 * SECOND, &answer, &e), OK);
    assert_int_equal(answer.bytes, 2); /* field 1: SERVING, byte for byte */
    assert_memory_equal(answer.data, "\x08\x01", 2);
    rpc_buffer_release(&answer);
    assert_int_equal(rpc_unary(c, check, "\x0a\x04none", 6, 2 * SECOND, &answer, &e),
                     ERR_NOT_FOUND);
    assert_int_equal(rpc_unary(c, "/grpc.health.v1.Health/Watch", "", 0, 2 * SECOND, &answer, &e),
                     ERR_UNSUPPORTED);
    assert_int_equal(node_ask_probe(c, 1000, 0, 2 * SECOND, &p, &e), OK);
    assert_int_equal(p.bytes_back, 1000);
    assert_true(p.round_trip_us > 0 && p.handling_us <= p.round_trip_us);
    assert_int_equal(node_ask_probe(c, 10, PROBE_MAX_BYTES, 5 * SECOND, &p, &e), OK);
    assert_int_equal(p.bytes_back, PROBE_MAX_BYTES);
    assert_int_equal(node_ask_probe(c, PROBE_MAX_BYTES + 1, 0, SECOND, &p, &e), ERR_LIMIT);
    assert_int_equal(node_unassign(c, 0, SECOND, &e), ERR_INVALID);
    rpc_channel_close(c);
}

static void addresses_that_need_permission(void **state)
{
    (void)state;
    struct worker *w;
    struct error e;
    struct worker_options o = {.listen = "0.0.0.0:0", .threads = 1};
    assert_int_equal(worker_start(&o, &w, &e), ERR_INVALID);
    expect_error(&e, ERR_INVALID, "--insecure");
    assert_null(w);
    o.insecure = true;
    assert_int_equal(worker_start(&o, &w, &e), OK);
    worker_stop(w);
    o.listen = worker_address(workers[0]);
    assert_int_equal(worker_start(&o, &w, &e), ERR_IO);
    expect_error(&e, ERR_IO, "Address already in use");
}

/* ---- fetching, with a server that cheats ---- */

static struct {
    int n_calls;
    int lie; /* 0: none, 1: wrong hashes, 2: stops in the middle once, 3: wrong offset */
} cheat;

static enum err serve_cheating(void *context, struct rpc_call *call, const void *request,
                               size_t n_bytes, struct error *e)
{
    (void)context;
    shoal_v1_FetchTensorsRequest r = shoal_v1_FetchTensorsRequest_init_zero;
    const struct model_tensor *t = modelfile_find(in_memory, "token_embd.weight");
    const uint8_t *data = modelfile_data(in_memory, t);
    uint8_t head[CHUNK_HEAD_MAX];
    cheat.n_calls++;
    if (cheat.lie == 0 || (cheat.lie == 2 && cheat.n_calls > 1))
        return tensor_serve(in_memory, call, request, n_bytes, e);
    assert_int_equal(
        message_decode(shoal_v1_FetchTensorsRequest_fields, &r, request, n_bytes, "", e), OK);
    size_t n = chunk_head_encode(cheat.lie == 3 ? 64 : 0,
                                 XXH3_64bits(data, 1000) ^ (cheat.lie == 1), 1000, head);
    struct rpc_outgoing m = {.head = head, .head_bytes = n, .body = data, .body_bytes = 1000};
    rpc_call_send(call, &m);
    return error_set(e, cheat.lie == 2 ? ERR_UNREACHABLE : ERR_INVALID, "that was all");
}

static enum err fetch_embedding(const char *address, const struct model_identity *identity,
                                uint8_t *into, struct error *e)
{
    struct tensor_source s;
    struct model_tensor t = *modelfile_find(in_memory, "token_embd.weight");
    assert_int_equal(tensor_source_open(&s, address, identity, e), OK);
    enum err err = tensor_source_fetch(&s, &t, into, e);
    tensor_source_close(&s);
    return err;
}

static void fetching_checks_what_comes(void **state)
{
    (void)state;
    static const struct rpc_method methods[] = {
        {.path = NODE_SERVICE "FetchTensors", .produce = serve_cheating}, {.path = NULL}};
    struct rpc_loop *loop;
    struct rpc_server *server;
    struct error e = {.code = OK};
    struct model_identity identity;
    const struct model_tensor *t = modelfile_find(in_memory, "token_embd.weight");
    uint8_t *into = calloc(1, t->bytes);
    modelfile_identity(in_memory, &identity);
    assert_int_equal(rpc_loop_start(&loop, &e), OK);
    struct rpc_server_options o = {.listen = "127.0.0.1:0", .methods = methods};
    assert_int_equal(rpc_server_start(loop, &o, &server, &e), OK);
    const char *address = rpc_server_address(server);

    cheat.lie = 2; /* goes on after the first thousand bytes */
    cheat.n_calls = 0;
    assert_int_equal(fetch_embedding(address, &identity, into, &e), OK);
    assert_int_equal(cheat.n_calls, 2);
    assert_memory_equal(into, modelfile_data(in_memory, t), t->bytes);
    cheat.lie = 1;
    assert_int_equal(fetch_embedding(address, &identity, into, &e), ERR_FORMAT);
    expect_error(&e, ERR_FORMAT, "token_embd.weight: FetchTensors: expected hash");
    cheat.lie = 3;
    assert_int_equal(fetch_embedding(address, &identity, into, &e), ERR_FORMAT);
    expect_error(&e, ERR_FORMAT, "expected bytes from 0 of");
    cheat.lie = 0;
    identity.total_bytes++;
    assert_int_equal(fetch_embedding(address, &identity, into, &e), ERR_MISMATCH);
    expect_error(&e, ERR_MISMATCH, "another model is asked for");
    rpc_server_stop(server);
    rpc_loop_stop(loop);
    /* A worker serves no tensors. */
    assert_int_equal(fetch_embedding(worker_address(workers[0]), &identity, into, &e),
                     ERR_UNSUPPORTED);
    free(into);
}

/* ---- all of it ---- */

static int start_all(void **state)
{
    (void)state;
    struct lead l = {0};
    bytes = tiny_gguf_make(1);
    int fd = mkstemp(model_path);
    assert_int_equal(write(fd, bytes.data, bytes.bytes), bytes.bytes);
    close(fd);
    struct error e = {.code = OK};
    modelfile_open(model_path, &on_disk, &e);
    assert_string_equal(e.text, "");
    assert_int_equal(
        modelfile_open_memory("/nowhere/tiny.gguf", bytes.data, bytes.bytes, &in_memory, NULL), OK);
    assert_int_equal(pool_new(1, &pool, NULL), OK);
    assert_int_equal(backend_cpu_open(pool, &backend, NULL), OK);
    for (int i = 0; i < N_WORKERS; i++)
        assert_int_equal(start_worker(i), OK);
    plan_layers(&l, 0, NULL);
    struct cluster_options o = options_for(&l, on_disk);
    open_stage(&l, &o);
    run_tokens(&l, alone);
    close_lead(&l);
    return 0;
}

static int stop_all(void **state)
{
    (void)state;
    for (int i = 0; i < N_WORKERS; i++)
        worker_stop(workers[i]);
    backend->ops->free(backend);
    pool_free(pool);
    modelfile_close(on_disk);
    modelfile_close(in_memory);
    unlink(model_path);
    free(bytes.data);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--lead") == 0)
        lead_until_killed(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_ring_has_the_same_bits),
        cmocka_unit_test(a_worker_without_the_file_fetches_its_tensors),
        cmocka_unit_test(another_file_at_the_path_is_not_taken),
        cmocka_unit_test(a_new_lead_takes_over),
        cmocka_unit_test(a_worker_tells_where_its_time_goes),
        cmocka_unit_test(impossible_times_are_refused),
        cmocka_unit_test(nodes_that_cannot_be_had),
        cmocka_unit_test(another_version),
        cmocka_unit_test(a_quick_worker_waits_for_a_slow_one),
        cmocka_unit_test(other_numerics_and_too_little_memory),
        cmocka_unit_test(a_worker_that_dies_is_named),
        cmocka_unit_test(a_bad_frame_fails_the_epoch),
        cmocka_unit_test(a_senseless_step_fails_the_epoch),
        cmocka_unit_test(workers_survive_their_lead),
        cmocka_unit_test(hostile_assigns),
        cmocka_unit_test(health_and_probe),
        cmocka_unit_test(addresses_that_need_permission),
        cmocka_unit_test(fetching_checks_what_comes)};
    return cmocka_run_group_tests(tests, start_all, stop_all);
}
