/* The fork-join compute pool: one parallel operation at a time over a fixed set of threads.
 *
 * pool_run calls the function once per thread, with thread_i = 0 on the calling thread, and
 * returns when all calls have returned: one barrier per operation. Between operations threads
 * spin for some microseconds (a forward pass is hundreds of operations) and then sleep, so that an
 * idle pool costs nothing. Threads begin with the floating-point environment of the thread that
 * made the pool; nothing in the program changes the default one (round to nearest, denormals kept),
 * which the kernels' bits rely on. A pool has one caller at a time; it is not recursive. */
#ifndef SHOAL_BASE_POOL_H
#define SHOAL_BASE_POOL_H

#include "base/error.h"

struct pool;

typedef void (*pool_fn)(void *context, int thread_i, int n_threads);

/* n_threads >= 1 counts the caller: n_threads - 1 are started. */
enum err pool_new(int n_threads, struct pool **out, struct error *e);
void pool_free(struct pool *p); /* NULL allowed */
int pool_n_threads(const struct pool *p);
void pool_run(struct pool *p, pool_fn fn, void *context);

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
