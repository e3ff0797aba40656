/* Each operation has a number. The caller publishes function and context, then the number; workers
 * wait for a number that they have not done, run, and count themselves out in `finished`, which is
 * never set back: the caller knows where it must arrive. Both sides spin first and sleep on a
 * condition variable after; who changes what the other waits for then looks whether it sleeps
 * (sequentially consistent on both sides, so a sleeper is either seen or sees the change).
 *
 * What one side writes and the other spins on has a cache line of its own, for that line is most of
 * what a barrier costs: one way with the operation, one way back.
 *
 * Spinning pays where every thread has a processor. When others want it too, a spinning thread uses
 * up the time that the one it waits for would need: an operation then takes half a millisecond and
 * more instead of a dozen microseconds (seen with five busy processes a processor). So when the
 * caller has spun in vain, nobody spins for a while; the while doubles as long as trying again
 * fails.
 *
 * pool_take counts on a line for each thread: what of its range is taken, by whomever. There are
 * two sets of counters, used in turn: while an operation runs, nobody looks at the other set, and
 * each thread sets its own line there back without waiting. */
#include "base/pool.h"

#include "base/bounds.h"
#include "base/clock.h"
#include "base/panic.h"
#include "base/pool_impl.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE = 64,       /* bytes; where lines are longer, neighbours only cost time */
    SPIN_US = 100,   /* longer than the serial parts of a forward pass, shorter than a sampling */
    SPIN_CHECK = 64, /* rounds of spinning between two looks at the clock; always spun, 1 or 2 us */
    CALM_MIN_US = 1000,
    CALM_MAX_US = 64000,
};

struct worker {
    struct pool *pool;
    pthread_t thread;
    int thread_i;
};

/* How many items of each series are taken, of one thread's range. */
struct taken {
    _Alignas(LINE) atomic_int of[POOL_SERIES];
};

/* The threads of a node: consecutive, and so are their ranges. */
struct part {
    int first_thread, last_thread; /* [first, last) */
};

struct pool {
    unsigned id; /* of all pools that there ever were; never 0 */
    int n_threads;
    int n_started;    /* workers with a running thread */
    bool may_spin;    /* at all */
    bool binds, pins; /* threads to their node's processors; to one each */
    int n_parts;      /* nodes with threads of ours */
    int n_places;
    struct part *parts;       /* [n_parts] */
    int *part_of;             /* [n_threads] */
    struct cpu_place *places; /* [n_places] */
    struct taken *sets[2];    /* [n_threads] each */
    struct taken *alone;      /* [1] */

    pthread_mutex_t lock; /* guards only sleeping and waking */
    pthread_cond_t work, done;

    _Alignas(LINE) atomic_uint operation; /* number of the current one; those below come first */
    pool_fn fn;
    void *context;
    struct taken *taken; /* the current set, */
    int n_ranges;        /* and the ranges in it */
    atomic_bool spins;   /* for the time being */
    atomic_bool stopping;

    _Alignas(LINE) atomic_uint finished; /* workers that have finished, of all operations */

    _Alignas(LINE) atomic_int sleepers; /* workers */
    atomic_bool caller_sleeps;

    _Alignas(LINE) bool is_running; /* the caller, who alone uses this line, is in an operation */
    time_us calm_us, calm_until;    /* see calm_down */
    time_us spins_since;

    _Alignas(LINE) struct worker workers[];
};

/* The pool that the calling thread is bound to as its thread 0; 0: none. */
static _Thread_local unsigned bound_id;

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

typedef bool (*condition_fn)(struct pool *p, unsigned value);

static bool has_operation(struct pool *p, unsigned done)
{
    return atomic_load(&p->operation) != done || atomic_load(&p->stopping);
}

static bool is_finished(struct pool *p, unsigned all)
{
    return atomic_load(&p->finished) == all;
}

static bool spin_until(struct pool *p, condition_fn condition, unsigned value)
{
    for (int i = 0; i < SPIN_CHECK; i++) {
        if (condition(p, value))
            return true;
        cpu_relax();
    }
    if (!atomic_load_explicit(&p->spins, memory_order_relaxed)) /* only a hint */
        return false;
    time_us until = clock_now_us() + SPIN_US;
    for (int i = 0; i % SPIN_CHECK != 0 || clock_now_us() < until; i++) {
        if (condition(p, value))
            return true;
        cpu_relax();
    }
    return false;
}

/* ---- workers ---- */

static void wait_for_operation(struct pool *p, unsigned done)
{
    if (spin_until(p, has_operation, done))
        return;
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (!has_operation(p, done))
        pthread_cond_wait(&p->work, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void wake_workers(struct pool *p)
{
    if (atomic_load(&p->sleepers) == 0)
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
}

static void wake_caller(struct pool *p)
{
    if (!atomic_load(&p->caller_sleeps))
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->lock);
}

/* Let the calling thread run where thread_i belongs: on its node, or on one processor. That it may
 * run there was so when the pool was made; where it has changed since, the system decides. */
static void bind_to_place(const struct pool *p, int thread_i)
{
    int cpus[CPUS_MAX], n = 0;
    int node = p->places[(long long)thread_i * p->n_places / p->n_threads].node;
    for (int i = 0; i < p->n_places; i++)
        if (p->places[i].node == node)
            cpus[n++] = p->places[i].cpu;
    int nth = thread_i - p->parts[p->part_of[thread_i]].first_thread;
    if (p->pins)
        cpus_bind(&cpus[nth], 1);
    else
        cpus_bind(cpus, n);
}

/* A line of the set that the operation after this one will use: its publication, behind the end of
 * this one, orders these before its use. */
static void set_back(struct taken *t)
{
    for (int s = 0; s < POOL_SERIES; s++)
        atomic_store_explicit(&t->of[s], 0, memory_order_relaxed);
}

static void run_part(struct pool *p, unsigned number, int thread_i)
{
    set_back(&p->sets[(number + 1) % 2][thread_i]);
    p->fn(p->context, thread_i, p->n_threads);
}

static void *worker_main(void *argument)
{
    struct worker *w = argument;
    struct pool *p = w->pool;
    unsigned n_workers = (unsigned)p->n_threads - 1;
    if (p->binds)
        bind_to_place(p, w->thread_i);
    for (unsigned done = 0;; done++) {
        wait_for_operation(p, done);
        if (atomic_load(&p->stopping))
            return NULL;
        run_part(p, done + 1, w->thread_i);
        if (atomic_fetch_add(&p->finished, 1) + 1 == (done + 1) * n_workers)
            wake_caller(p);
    }
}

/* ---- making one ---- */

static void *lines_new(size_t n_bytes)
{
    size_t whole = (n_bytes + LINE - 1) / LINE * LINE;
    void *p = aligned_alloc(LINE, whole);
    if (p == NULL)
        PANIC("no memory for %zu bytes", n_bytes);
    memset(p, 0, whole);
    return p;
}

/* Spread the threads over the places, in order: which node each is on, where each node's begin. */
static void find_parts(struct pool *p)
{
    p->part_of = xcalloc((size_t)p->n_threads, sizeof p->part_of[0]);
    p->parts = xcalloc((size_t)p->n_threads, sizeof p->parts[0]);
    for (int i = 0, node = 0; i < p->n_threads; i++) {
        int here = p->n_places > 0 ? p->places[(long long)i * p->n_places / p->n_threads].node : 0;
        if (i == 0 || here != node)
            p->parts[p->n_parts++].first_thread = i;
        node = here;
        p->parts[p->n_parts - 1].last_thread = i + 1;
        p->part_of[i] = p->n_parts - 1;
    }
}

static void take_places(struct pool *p, const struct cpu_place *places, int n_places, bool pin)
{
    p->places = xcalloc((size_t)n_places + 1, sizeof p->places[0]);
    memcpy(p->places, places, (size_t)n_places * sizeof p->places[0]);
    p->n_places = n_places;
    find_parts(p);
    p->pins = pin && p->n_threads <= p->n_places;
    p->binds = p->pins || p->n_parts > 1;
    p->sets[0] = lines_new((size_t)p->n_threads * sizeof p->sets[0][0]);
    p->sets[1] = lines_new((size_t)p->n_threads * sizeof p->sets[1][0]);
    p->alone = lines_new(sizeof p->alone[0]);
}

static enum err start_workers(struct pool *p, struct error *e)
{
    for (int i = 1; i < p->n_threads; i++) {
        p->workers[i] = (struct worker){.pool = p, .thread_i = i};
        int failed = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        if (failed)
            return error_errno(e, ERR_LIMIT, failed, "starting compute thread %d", i);
        p->n_started++;
    }
    return OK;
}

static atomic_uint n_pools;

enum err pool_open_on(const struct pool_options *o, const struct cpu_place *places, int n_places,
                      struct pool **out, struct error *e)
{
    int n_threads = o->n_threads;
    *out = NULL;
    if (n_threads < 1 || n_threads > POOL_MAX_THREADS)
        return error_set(e, ERR_INVALID, "threads: expected 1 to %d, found %d", POOL_MAX_THREADS,
                         n_threads);
    struct pool *p = lines_new(sizeof *p + (size_t)n_threads * sizeof p->workers[0]);
    p->id = atomic_fetch_add(&n_pools, 1) + 1;
    p->n_threads = n_threads;
    p->may_spin = n_threads <= cpus_usable();
    p->spins = p->may_spin;
    p->calm_us = CALM_MIN_US;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    take_places(p, places, n_places, o->pin);
    enum err err = start_workers(p, e);
    if (err != OK) {
        pool_free(p);
        return err;
    }
    *out = p;
    return OK;
}

enum err pool_open(const struct pool_options *o, struct pool **out, struct error *e)
{
    struct cpu_place places[CPUS_MAX];
    return pool_open_on(o, places, cpus_places(places, CPUS_MAX), out, e);
}

enum err pool_new(int n_threads, struct pool **out, struct error *e)
{
    return pool_open(&(struct pool_options){.n_threads = n_threads}, out, e);
}

void pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    atomic_store(&p->stopping, true);
    wake_workers(p);
    for (int i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    free(p->parts);
    free(p->part_of);
    free(p->places);
    free(p->sets[0]);
    free(p->sets[1]);
    free(p->alone);
    free(p);
}

int pool_n_threads(const struct pool *p)
{
    return p->n_threads;
}

/* ---- operations; the caller ---- */

/* No spinning for a while: twice as long as the last time if that did not help for long. */
static void calm_down(struct pool *p)
{
    if (!atomic_load_explicit(&p->spins, memory_order_relaxed))
        return;
    time_us now = clock_now_us(), spun_us = now - p->spins_since;
    if (spun_us > 16 * p->calm_us)
        p->calm_us = CALM_MIN_US;
    else if (spun_us < 4 * p->calm_us && p->calm_us < CALM_MAX_US)
        p->calm_us *= 2;
    p->calm_until = now + p->calm_us;
    atomic_store_explicit(&p->spins, false, memory_order_relaxed);
}

static void try_spinning(struct pool *p)
{
    time_us now = clock_now_us();
    if (now < p->calm_until)
        return;
    p->spins_since = now;
    atomic_store_explicit(&p->spins, true, memory_order_relaxed);
}

static void wait_for_workers(struct pool *p, unsigned all)
{
    if (spin_until(p, is_finished, all))
        return;
    calm_down(p);
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->caller_sleeps, true);
    while (!is_finished(p, all))
        pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->lock);
}

static void bind_caller(struct pool *p)
{
    bind_to_place(p, 0);
    bound_id = p->id;
}

void pool_unbind_caller(struct pool *p)
{
    int cpus[CPUS_MAX];
    if (!p->binds)
        return;
    for (int i = 0; i < p->n_places; i++)
        cpus[i] = p->places[i].cpu;
    cpus_bind(cpus, p->n_places);
    bound_id = 0;
}

void pool_run(struct pool *p, pool_fn fn, void *context)
{
    unsigned number =
        atomic_load_explicit(&p->operation, memory_order_relaxed) + 1; /* we write it */
    ASSERT(!p->is_running);
    p->is_running = true;
    if (p->may_spin && !atomic_load_explicit(&p->spins, memory_order_relaxed))
        try_spinning(p);
    if (p->binds && bound_id != p->id)
        bind_caller(p);
    p->fn = fn;
    p->context = context;
    p->taken = p->sets[number % 2];
    p->n_ranges = p->n_threads;
    atomic_store(&p->operation, number);
    wake_workers(p);
    run_part(p, number, 0);
    wait_for_workers(p, number * ((unsigned)p->n_threads - 1));
    p->is_running = false;
}

void pool_run_alone(struct pool *p, pool_fn fn, void *context)
{
    ASSERT(!p->is_running);
    p->is_running = true;
    set_back(p->alone);
    p->taken = p->alone;
    p->n_ranges = 1;
    fn(context, 0, 1);
    p->is_running = false;
}

/* ---- sharing out ---- */

/* Whose range a thread looks at in its i-th attempt: its own, those of its node, the others. */
static int owner_of_attempt(const struct pool *p, int thread_i, int i)
{
    if (p->n_ranges == 1)
        return 0;
    const struct part *node = &p->parts[p->part_of[thread_i]];
    int first = node->first_thread, n = node->last_thread - first;
    return i < n ? first + (thread_i - first + i) % n : (first + i) % p->n_threads;
}

bool pool_take(struct pool *p, int thread_i, int series, int n, int grain, int *begin, int *end)
{
    ASSERT(series >= 0 && series < POOL_SERIES && n >= 0 && grain >= 1);
    grain = grain < n ? grain : n; /* counters stay below (threads + 1) n: see the assertion */
    ASSERT(n <= INT_MAX / (POOL_MAX_THREADS + 1));
    for (int i = 0; i < p->n_ranges; i++) {
        int owner = owner_of_attempt(p, thread_i, i), first, last;
        pool_share(n, owner, p->n_ranges, &first, &last);
        /* Relaxed: only who gets what is decided here; the barriers order the data. The look
         * before keeps a counter that is at its end where it is. */
        atomic_int *taken = &p->taken[owner].of[series];
        if (atomic_load_explicit(taken, memory_order_relaxed) >= last - first)
            continue;
        int at = atomic_fetch_add_explicit(taken, grain, memory_order_relaxed);
        if (at >= last - first)
            continue;
        *begin = first + at;
        *end = last - *begin < grain ? last : *begin + grain;
        return true;
    }
    return false;
}

int pool_default_threads(void)
{
    int n = cpus_usable();
    return n > POOL_MAX_THREADS ? POOL_MAX_THREADS : n;
}
