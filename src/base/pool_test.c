#include "base/pool.h"

#include "base/bounds.h"
#include "base/clock.h"
#include "base/pool_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { N = 1000 };

struct job {
    int hits[N];
    int calls_of[8];
};

static void mark(void *context, int thread_i, int n_threads)
{
    struct job *job = context;
    int begin, end;
    pool_share(N, thread_i, n_threads, &begin, &end);
    for (int i = begin; i < end; i++)
        job->hits[i]++;
    job->calls_of[thread_i]++;
}

static void every_item_once_per_run(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= 5; n_threads++) {
        struct pool *p;
        struct error e;
        struct job job = {0};
        assert_int_equal(pool_new(n_threads, &p, &e), OK);
        assert_int_equal(pool_n_threads(p), n_threads);
        for (int run = 1; run <= 300; run++) {
            if (run % 100 == 0)
                clock_sleep_us(3000); /* let the workers fall asleep in between */
            pool_run(p, mark, &job);
            for (int i = 0; i < N; i++)
                assert_int_equal(job.hits[i], run);
        }
        for (int t = 0; t < n_threads; t++)
            assert_int_equal(job.calls_of[t], 300);
        pool_free(p);
    }
}

struct taking {
    struct pool *pool;
    int n, grain;
    int n_series;
    atomic_int hits[POOL_SERIES][N];
    atomic_int oversized;
};

static void take(void *context, int thread_i, int n_threads)
{
    struct taking *t = context;
    (void)n_threads;
    for (int s = 0; s < t->n_series; s++) {
        int begin, end;
        while (pool_take(t->pool, thread_i, s, t->n, t->grain, &begin, &end)) {
            if (begin < 0 || begin >= end || end > t->n || end - begin > t->grain)
                t->oversized++;
            for (int i = begin; i < end; i++)
                t->hits[s][i]++;
        }
        if (pool_take(t->pool, thread_i, s, t->n, t->grain, &begin, &end)) /* stays at the end */
            t->oversized++;
    }
}

static void each_item_was_taken(struct taking *t, int times)
{
    assert_int_equal(t->oversized, 0);
    for (int s = 0; s < POOL_SERIES; s++)
        for (int i = 0; i < N; i++)
            assert_int_equal(t->hits[s][i], s < t->n_series && i < t->n ? times : 0);
}

static void every_item_is_taken_once(void **state)
{
    (void)state;
    static const struct {
        int n, grain, n_series;
    } cases[] = {{N, 7, 3}, {N, 1, 1}, {1, 1, POOL_SERIES}, {5, 100, 2}, {0, 3, 1}, {17, N, 1}};
    for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
        struct pool *p;
        assert_int_equal(pool_new(n_threads, &p, NULL), OK);
        for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
            struct taking t = {
                .pool = p, .n = cases[c].n, .grain = cases[c].grain, .n_series = cases[c].n_series};
            for (int run = 1; run <= 30; run++) {
                pool_run(p, take, &t);
                each_item_was_taken(&t, 2 * run - 1);
                pool_run_alone(p, take, &t);
                each_item_was_taken(&t, 2 * run);
            }
        }
        pool_free(p);
    }
}

static void alone_is_one_thread(void **state)
{
    (void)state;
    struct pool *p;
    struct job job = {0};
    assert_int_equal(pool_new(3, &p, NULL), OK);
    pool_run_alone(p, mark, &job);
    for (int i = 0; i < N; i++)
        assert_int_equal(job.hits[i], 1);
    assert_int_equal(job.calls_of[0], 1);
    assert_int_equal(job.calls_of[1] + job.calls_of[2], 0);
    pool_free(p);
}

/* The threads of a pool with far more than there are processors make way for each other. */
static void more_threads_than_processors_make_progress(void **state)
{
    (void)state;
    struct pool *p;
    struct job job = {0};
    int n_threads = 4 * cpus_usable() < 64 ? 4 * cpus_usable() : 64;
    assert_int_equal(pool_new(n_threads, &p, NULL), OK);
    for (int run = 1; run <= 100; run++)
        pool_run(p, mark, &job);
    for (int i = 0; i < N; i++)
        assert_int_equal(job.hits[i], 100);
    pool_free(p);
}

static int n_places(void)
{
    struct cpu_place places[CPUS_MAX];
    return cpus_places(places, CPUS_MAX);
}

struct seen_places {
    int n[POOL_MAX_THREADS], cpu[POOL_MAX_THREADS];
};

static void look_around(void *context, int thread_i, int n_threads)
{
    struct seen_places *seen = context;
    struct cpu_place places[CPUS_MAX];
    (void)n_threads;
    seen->n[thread_i] = cpus_places(places, CPUS_MAX);
    seen->cpu[thread_i] = places[0].cpu;
}

static void pinned_threads_keep_to_one_processor_each(void **state)
{
    (void)state;
    struct pool *p;
    struct seen_places seen = {0};
    int before = n_places(), n_threads = pool_default_threads();
    struct pool_options o = {.n_threads = n_threads, .pin = true};
    if (before < 1 || n_threads > before)
        skip();
    assert_int_equal(pool_open(&o, &p, NULL), OK);
    assert_int_equal(pool_n_threads(p), n_threads);
    pool_run(p, look_around, &seen);
    pool_unbind_caller(p);
    assert_int_equal(n_places(), before);
    for (int i = 0; i < n_threads; i++) {
        assert_int_equal(seen.n[i], 1);
        for (int j = 0; j < i; j++)
            assert_int_not_equal(seen.cpu[i], seen.cpu[j]);
    }
    pool_free(p);
}

static void nobody_is_pinned_where_it_cannot_be(void **state)
{
    (void)state;
    struct pool *p;
    struct seen_places seen = {0};
    int before = n_places();
    if (before + 1 > POOL_MAX_THREADS)
        skip();
    struct pool_options o = {.n_threads = before + 1, .pin = true};
    assert_int_equal(pool_open(&o, &p, NULL), OK);
    pool_run(p, look_around, &seen);
    for (int i = 0; i <= before; i++)
        assert_true(seen.n[i] == before || before > CPUS_MAX);
    pool_free(p);
}

/* Two nodes, one with a processor and one with two: what each thread takes first. */
struct first_pieces {
    struct pool *pool;
    atomic_int arrived;
    int begin[3], end[3];
};

static void take_first(void *context, int thread_i, int n_threads)
{
    struct first_pieces *f = context;
    int begin = -1, end = -1;
    pool_take(f->pool, thread_i, 2, 300, 10, &begin, &end);
    f->begin[thread_i] = begin;
    f->end[thread_i] = end;
    f->arrived++;
    while (f->arrived < n_threads)
        clock_sleep_us(10); /* everybody has a piece before anybody takes a second */
    while (pool_take(f->pool, thread_i, 2, 300, 10, &begin, &end))
        continue;
}

static void a_thread_takes_its_own_range_first(void **state)
{
    (void)state;
    static const struct cpu_place places[] = {{0, 0}, {1, 3}, {2, 3}};
    struct pool_options o = {.n_threads = 3};
    struct first_pieces f = {0};
    assert_int_equal(pool_open_on(&o, places, 3, &f.pool, NULL), OK);
    for (int run = 0; run < 20; run++) {
        f.arrived = 0;
        pool_run(f.pool, take_first, &f);
        for (int t = 0; t < 3; t++) {
            assert_int_equal(f.begin[t], 100 * t);
            assert_int_equal(f.end[t], 100 * t + 10);
        }
    }
    pool_unbind_caller(f.pool);
    pool_free(f.pool);
}

/* Everything is done by thread 2, for the others are held up: in which order. */
struct all_pieces {
    struct pool *pool;
    atomic_bool done;
    int begin[32], n;
};

static void take_all(void *context, int thread_i, int n_threads)
{
    struct all_pieces *a = context;
    int end;
    (void)n_threads;
    while (thread_i != 2 && !a->done)
        clock_sleep_us(10);
    while (a->n < 32 && pool_take(a->pool, thread_i, 0, 300, 25, &a->begin[a->n], &end))
        a->n++;
    a->done = true;
}

static void a_thread_helps_its_own_node_first(void **state)
{
    (void)state;
    static const struct cpu_place places[] = {{0, 0}, {1, 3}, {2, 3}};
    static const int order[12] = {200, 225, 250, 275, 100, 125, 150, 175, 0, 25, 50, 75};
    struct pool_options o = {.n_threads = 3};
    struct all_pieces a = {0};
    assert_int_equal(pool_open_on(&o, places, 3, &a.pool, NULL), OK);
    pool_run(a.pool, take_all, &a);
    assert_int_equal(a.n, 12);
    assert_memory_equal(a.begin, order, sizeof order);
    pool_unbind_caller(a.pool);
    pool_free(a.pool);
}

static void nodes_help_each_other(void **state)
{
    (void)state;
    static const struct cpu_place places[] = {{0, 0}, {1, 1}};
    for (int n_threads = 1; n_threads <= 7; n_threads += 3) {
        struct pool_options o = {.n_threads = n_threads, .pin = true};
        struct taking t = {.n = 997, .grain = 13, .n_series = 2};
        assert_int_equal(pool_open_on(&o, places, 2, &t.pool, NULL), OK);
        for (int run = 1; run <= 30; run++) {
            pool_run(t.pool, take, &t);
            each_item_was_taken(&t, 2 * run - 1);
            pool_run_alone(t.pool, take, &t); /* one thread: all of it */
            each_item_was_taken(&t, 2 * run);
        }
        pool_unbind_caller(t.pool);
        pool_free(t.pool);
    }
}

static void bad_counts_are_refused(void **state)
{
    (void)state;
    struct pool *p;
    struct error e;
    assert_int_equal(pool_new(0, &p, &e), ERR_INVALID);
    assert_string_equal(e.text, "threads: expected 1 to 256, found 0");
    assert_int_equal(pool_new(257, &p, NULL), ERR_INVALID);
    assert_null(p);
    pool_free(NULL);
    assert_true(pool_default_threads() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once_per_run),
        cmocka_unit_test(every_item_is_taken_once),
        cmocka_unit_test(alone_is_one_thread),
        cmocka_unit_test(more_threads_than_processors_make_progress),
        cmocka_unit_test(pinned_threads_keep_to_one_processor_each),
        cmocka_unit_test(nobody_is_pinned_where_it_cannot_be),
        cmocka_unit_test(a_thread_takes_its_own_range_first),
        cmocka_unit_test(a_thread_helps_its_own_node_first),
        cmocka_unit_test(nodes_help_each_other),
        cmocka_unit_test(bad_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
