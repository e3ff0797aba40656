#include "bench/probe.h"

#include "backend/cpu/memory.h"
#include "base/clock.h"
#include "base/panic.h"
#include "bench/probe_loops.h"
#include "tensor/float16.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_LEAST_BYTES = 512 << 20,
    CACHE_TIMES = 8, /* the buffer is so many times as large as the last cache */
    N_SAMPLES = 7,   /* the median of so many is the answer */
    SAMPLE_LEAST_US = 12000,
};
static const size_t read_most_bytes = (size_t)4 << 30;

struct probe {
    struct pool *pool;
    const struct probe_loops *loops;
    uint8_t *buffer;
    size_t bytes, part_bytes; /* of all threads, of one */
    long rounds, fma_rounds;  /* of a sample, so that it is long enough to time */
    atomic_uint_fast64_t sum; /* what the loops computed; nobody looks */
};

static size_t last_cache_bytes(void)
{
#ifdef _SC_LEVEL3_CACHE_SIZE
    long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return bytes > 0 ? (size_t)bytes : 0;
#else
    return 0;
#endif
}

static size_t buffer_bytes(void)
{
    size_t bytes = last_cache_bytes() * CACHE_TIMES;
    bytes = bytes > READ_LEAST_BYTES ? bytes : READ_LEAST_BYTES;
    return bytes < read_most_bytes ? bytes : read_most_bytes;
}

static uint8_t *part_of(const struct probe *p, int thread_i)
{
    return p->buffer + (size_t)thread_i * p->part_bytes;
}

/* Each thread touches first what it will read: its pages are near it. */
static void fill_part(void *context, int thread_i, int n_threads)
{
    (void)n_threads;
    const struct probe *p = context;
    memset(part_of(p, thread_i), 1 + thread_i % 100, p->part_bytes);
}

static void read_part(void *context, int thread_i, int n_threads)
{
    (void)n_threads;
    struct probe *p = context;
    atomic_fetch_add(&p->sum, p->loops->read(part_of(p, thread_i), p->part_bytes));
}

static void dot_part(void *context, int thread_i, int n_threads)
{
    (void)thread_i, (void)n_threads;
    struct probe *p = context;
    atomic_fetch_add(&p->sum, (uint32_t)p->loops->dot(p->rounds));
}

static void fma_part(void *context, int thread_i, int n_threads)
{
    (void)thread_i, (void)n_threads;
    struct probe *p = context;
    atomic_fetch_add(&p->sum, f32_bits(p->loops->fma(p->fma_rounds)));
}

static time_us time_once(struct probe *p, pool_fn part)
{
    time_us begin = clock_now_us();
    pool_run(p->pool, part, p);
    return clock_now_us() - begin + 1;
}

static int by_length(const void *a, const void *b)
{
    time_us x = *(const time_us *)a, y = *(const time_us *)b;
    return (x > y) - (x < y);
}

/* Median of N_SAMPLES, in microseconds. */
static time_us time_median(struct probe *p, pool_fn part)
{
    time_us took[N_SAMPLES];
    for (int i = 0; i < N_SAMPLES; i++)
        took[i] = time_once(p, part);
    qsort(took, N_SAMPLES, sizeof took[0], by_length);
    return took[N_SAMPLES / 2];
}

enum err probe_new(struct pool *pool, const char *variant, struct probe **out, struct error *e)
{
    *out = NULL;
    struct probe *p = xcalloc(1, sizeof *p);
    int n_threads = pool_n_threads(pool);
    p->pool = pool;
    p->loops = probe_choose(variant);
    p->part_bytes = buffer_bytes() / (size_t)n_threads / PROBE_READ_STEP * PROBE_READ_STEP;
    p->bytes = p->part_bytes * (size_t)n_threads;
    p->buffer = cpu_alloc(p->bytes);
    if (p->buffer == NULL) {
        free(p);
        return error_set(e, ERR_MEMORY, "no memory to probe the read bandwidth with (%.0f MB)",
                         (double)buffer_bytes() / 1e6);
    }
    pool_run(pool, fill_part, p);
    for (p->rounds = 1; time_once(p, dot_part) < SAMPLE_LEAST_US;)
        p->rounds *= 2;
    for (p->fma_rounds = 1; time_once(p, fma_part) < SAMPLE_LEAST_US;)
        p->fma_rounds *= 2;
    *out = p;
    return OK;
}

void probe_free(struct probe *p)
{
    if (p == NULL)
        return;
    cpu_free(p->buffer, p->bytes);
    free(p);
}

double probe_read_gb_s(struct probe *p)
{
    return (double)p->bytes / (double)time_median(p, read_part) * 1e-3;
}

double probe_dot_gop_s(struct probe *p)
{
    double ops = (double)p->rounds * (double)p->loops->round_ops * pool_n_threads(p->pool);
    return ops / (double)time_median(p, dot_part) * 1e-3;
}

double probe_fma_gop_s(struct probe *p)
{
    double ops = (double)p->fma_rounds * (double)p->loops->fma_round_ops * pool_n_threads(p->pool);
    return ops / (double)time_median(p, fma_part) * 1e-3;
}

const char *probe_dot_name(const struct probe *p)
{
    return p->loops->name;
}

const char *probe_fma_name(const struct probe *p)
{
    return p->loops->fma_name;
}
