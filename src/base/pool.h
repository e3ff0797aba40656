/* The fork-join compute pool: one parallel operation at a time over a fixed set of threads.
 *
 * pool_run calls the function once per thread, with thread_i = 0 on the calling thread, and
 * returns when all calls have returned: one barrier per operation, well under a microsecond where
 * every thread has a processor (`pool_bench` prints it). Between operations threads spin for some
 * microseconds (a forward pass is hundreds of operations) and then sleep, so that an idle pool
 * costs nothing; a pool of more threads than the process has processors does not spin at all.
 *
 * Work is shared out in one of two ways. pool_share cuts it beforehand, equally. pool_take hands it
 * out piece by piece: first those of a thread's own range, in order, so that what it reads is one
 * long stream; then those that other threads have not come to, so that one whose processor is
 * slower, or busy with something else, takes fewer. (The ranges are those of pool_share.) Which
 * thread got which piece differs from run to run. Either way the pieces must be independent and
 * their boundaries must not change a bit of the result.
 *
 * Several memory nodes (NUMA): threads are spread over the nodes' processors in order, each may run
 * on its node's processors only and helps the threads of its own node before others: what was first
 * written through pool_take or pool_share over n items is later read through either of them, over
 * as many items, mostly by the node that holds it. With `pin` a thread keeps to one
 * processor. For the caller, thread 0, this begins with its first pool_run and ends with
 * pool_unbind_caller. Results never depend on any of it.
 *
 * Threads begin with the floating-point environment of the thread that made the pool; nothing in
 * the program changes the default one (round to nearest, denormals kept), which the kernels' bits
 * rely on. A pool has one caller at a time; it is not recursive. */
#ifndef SHOAL_BASE_POOL_H
#define SHOAL_BASE_POOL_H

#include "base/error.h"

#include <stdbool.h>

struct pool;

typedef void (*pool_fn)(void *context, int thread_i, int n_threads);

enum { POOL_SERIES = 8 }; /* pieces of work that pool_take tells apart in one operation */

/* n_threads >= 1 counts the caller: n_threads - 1 are started. */
enum err pool_new(int n_threads, struct pool **out, struct error *e);

struct pool_options {
    int n_threads; /* >= 1, the caller included */
    bool pin;      /* each thread to one processor; no effect with more threads than processors */
};
enum err pool_open(const struct pool_options *o, struct pool **out, struct error *e);
void pool_free(struct pool *p); /* NULL allowed; frees what either of them made */

int pool_n_threads(const struct pool *p);
void pool_run(struct pool *p, pool_fn fn, void *context);

/* fn(context, 0, 1) on the calling thread, with the same pool_take as in pool_run: for work that is
 * not worth waking anybody. */
void pool_run_alone(struct pool *p, pool_fn fn, void *context);

/* Inside an operation: the next of `n` items, at most `grain` of them, for thread thread_i; false
 * when all are taken. In each operation every item of every series is given out exactly once if all
 * threads call until the answer is false, with the same n (>= 0) and grain (>= 1) for a series.
 * Some 10 ns, more where several threads are at one range: give it pieces of some microseconds. */
bool pool_take(struct pool *p, int thread_i, int series, int n, int grain, int *begin, int *end);

/* Let the calling thread run on all processors again that were the process's when the pool was
 * made: for a caller that goes on to other things, or starts threads, which inherit the binding.
 * Does nothing for a pool that binds nobody. */
void pool_unbind_caller(struct pool *p);

/* One thread for every processor that this process may use (base/cpus.h), within the bounds. */
int pool_default_threads(void);

/* The share of `n` items in thread_i's range [*begin, *end): contiguous, sizes differ by one
 * at most. */
static inline void pool_share(int n, int thread_i, int n_threads, int *begin, int *end)
{
    *begin = (int)((long long)n * thread_i / n_threads);
    *end = (int)((long long)n * (thread_i + 1) / n_threads);
}

#endif
