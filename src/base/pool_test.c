#include "base/pool.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
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
        cmocka_unit_test(bad_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
