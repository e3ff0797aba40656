/* Each operation has a number. The caller publishes function and context, then the number; workers
 * wait for a number they have not done, run, and count themselves out. Both sides spin first and
 * sleep on a condition variable after; whoever changes what the other waits for looks at `sleepers`
 * (sequentially consistent on both sides, so a sleeper is either seen or sees the change). */
#include "base/pool.h"

#include "base/bounds.h"
#include "base/cpus.h"
#include "base/panic.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { SPINS = 4000 }; /* roughly 20 to 100 microseconds */

struct worker {
    struct pool *pool;
    pthread_t thread;
    int thread_i;
};

struct pool {
    int n_threads;
    int n_started; /* workers with a running thread */
    pool_fn fn;    /* of the current operation; written before `operation` */
    void *context;
    atomic_uint operation; /* number of the current operation */
    atomic_int running;    /* workers that have not finished it */
    atomic_int sleepers;
    atomic_bool stopping;
    pthread_mutex_t lock; /* guards only sleeping and waking */
    pthread_cond_t changed;
    struct worker workers[];
};

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wake_all(struct pool *p)
{
    if (atomic_load(&p->sleepers) == 0)
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static bool has_operation(struct pool *p, unsigned done)
{
    return atomic_load(&p->operation) != done || atomic_load(&p->stopping);
}

static bool is_finished(struct pool *p, unsigned unused)
{
    (void)unused;
    return atomic_load(&p->running) == 0;
}

static void wait_until(struct pool *p, bool (*condition)(struct pool *, unsigned), unsigned value)
{
    for (int i = 0; i < SPINS; i++) {
        if (condition(p, value))
            return;
        cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (!condition(p, value))
        pthread_cond_wait(&p->changed, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *argument)
{
    struct worker *w = argument;
    struct pool *p = w->pool;
    for (unsigned done = 0;; done++) {
        wait_until(p, has_operation, done);
        if (atomic_load(&p->stopping))
            return NULL;
        p->fn(p->context, w->thread_i, p->n_threads);
        if (atomic_fetch_sub(&p->running, 1) == 1)
            wake_all(p);
    }
}

enum err pool_new(int n_threads, struct pool **out, struct error *e)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > POOL_MAX_THREADS)
        return error_set(e, ERR_INVALID, "threads: expected 1 to %d, found %d", POOL_MAX_THREADS,
                         n_threads);
    struct pool *p = xcalloc(1, sizeof *p + (size_t)n_threads * sizeof p->workers[0]);
    p->n_threads = n_threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    for (int i = 1; i < n_threads; i++) {
        p->workers[i] = (struct worker){.pool = p, .thread_i = i};
        int failed = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        if (failed) {
            enum err err = error_errno(e, ERR_LIMIT, failed, "starting compute thread %d", i);
            pool_free(p);
            return err;
        }
        p->n_started++;
    }
    *out = p;
    return OK;
}

void pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    atomic_store(&p->stopping, true);
    wake_all(p);
    for (int i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int pool_n_threads(const struct pool *p)
{
    return p->n_threads;
}

void pool_run(struct pool *p, pool_fn fn, void *context)
{
    if (p->n_threads > 1) {
        ASSERT(atomic_load(&p->running) == 0);
        p->fn = fn;
        p->context = context;
        atomic_store(&p->running, p->n_threads - 1);
        atomic_fetch_add(&p->operation, 1);
        wake_all(p);
    }
    fn(context, 0, p->n_threads);
    if (p->n_threads > 1)
        wait_until(p, is_finished, 0);
}

int pool_default_threads(void)
{
    int n = cpus_usable();
    return n > POOL_MAX_THREADS ? POOL_MAX_THREADS : n;
}
