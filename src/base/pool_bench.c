/* What the pool costs, printed; not a test. For 1 to n threads (default: every processor, and twice
 * as many): an empty operation back to back, one after a pause in which the workers fell asleep,
 * one with chunks that are taken one at a time, and the processor time of a pool that has nothing
 * to do.
 *
 *     pool_bench [THREADS …]
 *
 * Each figure is the best of many rounds, with the median beside it: other processes only add. */
#include "base/clock.h"
#include "base/pool.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    ROUNDS = 200,
    OPERATIONS = 500, /* of a round */
    WAKE_ROUNDS = 50,
    PAUSE_US = 5000, /* longer than the pool spins */
    IDLE_US = 500000,
    CHUNKS = 64,
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_figure(const char *what, double *us, int n)
{
    qsort(us, (size_t)n, sizeof us[0], by_value);
    printf("  %-34s %9.3f us, median %.3f, 9 in 10 below %.3f\n", what, us[0], us[n / 2],
           us[n * 9 / 10]);
}

static void nothing(void *context, int thread_i, int n_threads)
{
    (void)context, (void)thread_i, (void)n_threads;
}

static void take_all(void *context, int thread_i, int n_threads)
{
    struct pool *p = context;
    int begin, end;
    (void)n_threads;
    while (pool_take(p, thread_i, 0, CHUNKS, 1, &begin, &end))
        continue;
}

static double time_us_of(struct pool *p, pool_fn fn, int n_operations)
{
    time_us begin = clock_now_us();
    for (int i = 0; i < n_operations; i++)
        pool_run(p, fn, p);
    return (double)(clock_now_us() - begin) / n_operations;
}

static void measure(int n_threads)
{
    struct pool *p;
    struct error e;
    double us[ROUNDS > WAKE_ROUNDS ? ROUNDS : WAKE_ROUNDS];
    if (pool_new(n_threads, &p, &e) != OK) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    printf("%d threads\n", n_threads);
    for (int i = 0; i < ROUNDS; i++)
        us[i] = time_us_of(p, nothing, OPERATIONS);
    print_figure("an operation", us, ROUNDS);
    for (int i = 0; i < ROUNDS; i++)
        us[i] = time_us_of(p, take_all, OPERATIONS);
    print_figure("an operation of 64 empty chunks", us, ROUNDS);
    for (int i = 0; i < WAKE_ROUNDS; i++) {
        clock_sleep_us(PAUSE_US);
        us[i] = time_us_of(p, nothing, 1);
    }
    print_figure("an operation after a pause", us, WAKE_ROUNDS);
    clock_t before = clock();
    clock_sleep_us(IDLE_US);
    printf("  %-34s %9.3f %% of one processor\n", "idle",
           (double)(clock() - before) / CLOCKS_PER_SEC * 1e6 / IDLE_US * 100);
    pool_free(p);
}

int main(int argc, char **argv)
{
    int n = pool_default_threads();
    if (argc > 1) {
        for (int i = 1; i < argc; i++)
            measure(atoi(argv[i]));
        return 0;
    }
    for (int n_threads = 1; n_threads <= n; n_threads *= 2)
        measure(n_threads);
    measure(2 * n);
    return 0;
}
