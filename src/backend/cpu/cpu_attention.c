/* Attention of a batch shared out over the pool. The batch is cut into tiles: rows that follow each
 * other in one sequence, times the query heads of a key-value head. Where there are many tiles,
 * threads take one after the other; where there are few (one stream on many cores), every thread
 * has an equal range of all tiles' chunks of positions, and tiles that lie in several ranges are
 * merged by whoever finishes last. Either way gives the same bits (docs/numerics.md, "Attention").
 */
#include "backend/cpu/cpu_impl.h"

#include "backend/cpu/memory.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    ALONE = 1 << 14,      /* elements of keys below which waking the pool costs more */
    TILES_PER_THREAD = 4, /* fewer are split by positions */
    SLOT_CHUNKS = 512,    /* longest sequence that is split, in chunks … */
    SLOT_QUERIES = 8,     /* … of a tile of so many queries */
};

/* --- memory --- */

static bool grow_runs(struct attention_space *s, int max_rows)
{
    if (max_rows <= s->max_rows)
        return true;
    struct row_run *runs = realloc(s->runs, (size_t)max_rows * sizeof *runs);
    if (runs == NULL)
        return false;
    s->runs = runs;
    s->max_rows = max_rows;
    return true;
}

/* At least `each` floats for every thread; the old ones are lost. */
static bool grow_floats(float **p, size_t *had, size_t each, int n_threads)
{
    if (each <= *had)
        return true;
    cpu_free(*p, *had * (size_t)n_threads * sizeof **p);
    *had = 0;
    *p = cpu_alloc(each * (size_t)n_threads * sizeof **p);
    if (*p == NULL)
        return false;
    *had = each;
    return true;
}

bool attention_reserve(struct cpu *c, const struct kv_store *kv)
{
    struct attention_space *s = &c->attention;
    int n_threads = pool_n_threads(c->pool);
    if (!grow_runs(s, c->max_rows))
        return false;
    if (kv == NULL)
        return true;
    const struct kv_layout *l = &kv->layout;
    int chunks = (kv->shape.n_blocks - 1) / ATTENTION_BLOCKS + 1;
    size_t slot = partial_floats(SLOT_QUERIES, l->padded) *
                  (size_t)(chunks < SLOT_CHUNKS ? chunks : SLOT_CHUNKS);
    return grow_floats(&s->scratch, &s->scratch_floats, attention_scratch_floats(l), n_threads) &&
           (n_threads == 1 || grow_floats(&s->partials, &s->slot_floats, slot, n_threads));
}

void attention_release(struct cpu *c)
{
    struct attention_space *s = &c->attention;
    size_t n_threads = (size_t)pool_n_threads(c->pool);
    free(s->runs);
    cpu_free(s->scratch, s->scratch_floats * n_threads * sizeof(float));
    cpu_free(s->partials, s->slot_floats * n_threads * sizeof(float));
    *s = (struct attention_space){0};
}

/* --- tiles --- */

struct attention_job {
    struct cpu *cpu;
    struct attention a;
    const struct row_run *runs;
    int n_runs;
    int parts, part_heads; /* of the query heads of a key-value head */
    int n_tiles;
    /* For ranges of chunks: */
    int64_t n_chunks;                  /* of all tiles */
    atomic_int done[POOL_MAX_THREADS]; /* chunks of the tile that begins in a thread's range and
                                          ends beyond it */
};

/* Tiles count runs from the last to the first: later rows of a prompt see more, and go first. */
static struct attention_tile tile_of(const struct attention_job *job, int i)
{
    int per_run = job->a.n_kv_heads * job->parts, sharing = job->a.n_heads / job->a.n_kv_heads;
    struct row_run run = job->runs[job->n_runs - 1 - i / per_run];
    int kv_head = i % per_run / job->parts, begin = i % job->parts * job->part_heads;
    int n = sharing - begin < job->part_heads ? sharing - begin : job->part_heads;
    return (struct attention_tile){run.row, run.n, kv_head * sharing + begin, n};
}

/* Cut the batch into runs of at most `limit` rows. */
static int find_runs(const struct batch *batch, int limit, struct row_run *runs)
{
    int n = 0;
    for (int r = 0; r < batch->n; r++) {
        if (n > 0 && runs[n - 1].n < limit && batch->tables[r] == batch->tables[r - 1] &&
            batch->positions[r] == batch->positions[r - 1] + 1)
            runs[n - 1].n++;
        else
            runs[n++] = (struct row_run){r, 1};
    }
    return n;
}

/* Tiles as large as can be while there are enough for all threads. */
static void cut_tiles(struct attention_job *job, struct row_run *runs, int n_threads)
{
    int sharing = job->a.n_heads / job->a.n_kv_heads;
    job->parts = (sharing - 1) / ATTENTION_QUERIES + 1;
    job->part_heads = (sharing - 1) / job->parts + 1;
    job->runs = runs;
    int limit = ATTENTION_QUERIES / job->part_heads;
    for (;; limit /= 2) {
        job->n_runs = find_runs(job->a.batch, limit, runs);
        job->n_tiles = job->n_runs * job->a.n_kv_heads * job->parts;
        if (limit == 1 || job->n_runs == job->a.batch->n ||
            job->n_tiles >= TILES_PER_THREAD * n_threads)
            return;
    }
}

static float *scratch_of(const struct attention_job *job, int thread_i)
{
    const struct attention_space *s = &job->cpu->attention;
    return s->scratch + (size_t)thread_i * s->scratch_floats;
}

static void tiles_part(void *context, int thread_i, int n_threads)
{
    const struct attention_job *job = context;
    int begin, end;
    (void)n_threads;
    while (pool_take(job->cpu->pool, thread_i, 0, job->n_tiles, 1, &begin, &end)) {
        struct attention_tile t = tile_of(job, begin);
        job->cpu->kernels.attention(&job->a, &t, scratch_of(job, thread_i));
    }
}

/* --- ranges of chunks --- */

/* The chunks [begin, end) of a tile, counted from its first, which is number `at` of all. */
static void split_tile(struct attention_job *job, const struct attention_tile *t, int64_t at,
                       int begin, int end, int thread_i, int n_threads)
{
    const struct kernels *k = &job->cpu->kernels;
    const struct attention_space *s = &job->cpu->attention;
    int n = tile_chunks(&job->a, t), first = tile_first_chunk(&job->a, t);
    int owner = (int)(((at + 1) * n_threads - 1) / job->n_chunks); /* whose range has chunk `at` */
    size_t stride = partial_floats(t->n_rows * t->n_heads, job->a.layout.padded);
    float *slot = s->partials + (size_t)owner * s->slot_floats;
    for (int c = begin; c < end; c++)
        k->attention_chunk(&job->a, t, first + c, slot + (size_t)c * stride,
                           scratch_of(job, thread_i));
    if (atomic_fetch_add(&job->done[owner], end - begin) + end - begin == n)
        k->attention_merge(&job->a, t, slot, stride, n);
}

static void chunks_part(void *context, int thread_i, int n_threads)
{
    struct attention_job *job = context;
    int64_t begin = job->n_chunks * thread_i / n_threads;
    int64_t end = job->n_chunks * (thread_i + 1) / n_threads;
    int64_t at = 0;
    for (int i = 0; i < job->n_tiles && at < end; i++) {
        struct attention_tile t = tile_of(job, i);
        int n = tile_chunks(&job->a, &t);
        int first = begin > at ? (int)(begin - at < n ? begin - at : n) : 0;
        int last = end - at < n ? (int)(end - at) : n;
        if (first == 0 && last == n)
            job->cpu->kernels.attention(&job->a, &t, scratch_of(job, thread_i));
        else if (first < last)
            split_tile(job, &t, at, first, last, thread_i, n_threads);
        at += n;
    }
}

/* Whether tiles are single rows whose partials fit in a slot; sets the count of chunks. */
static bool can_split(struct attention_job *job)
{
    job->n_chunks = 0;
    for (int i = 0; i < job->n_tiles; i++) {
        struct attention_tile t = tile_of(job, i);
        int n = tile_chunks(&job->a, &t);
        if (t.n_rows > 1 || (size_t)n * partial_floats(t.n_heads, job->a.layout.padded) >
                                job->cpu->attention.slot_floats)
            return false;
        job->n_chunks += n;
    }
    return job->n_chunks > job->n_tiles;
}

void cpu_attention(struct backend *b, struct tensor *y, const struct tensor *q, struct kv_store *kv,
                   int layer, int n_heads, const struct batch *batch)
{
    struct cpu *c = cpu_of(b);
    const struct kv_shape *s = &kv->shape;
    ASSERT(batch->n <= q->rows && batch->n <= y->rows && q->cols == y->cols);
    ASSERT(n_heads % s->n_kv_heads == 0 && q->cols == n_heads * s->head_size);
    size_t work = 0;
    for (int r = 0; r < batch->n; r++) {
        ASSERT(batch->positions[r] >= 0);
        work += (size_t)(batch->positions[r] + 1 - window_first(s->window, batch->positions[r])) *
                q->cols;
    }
    struct attention_job job = {.cpu = c,
                                .a = {.cells = kv_layer(kv, layer),
                                      .layout = kv->layout,
                                      .n_blocks = s->n_blocks,
                                      .n_heads = n_heads,
                                      .n_kv_heads = s->n_kv_heads,
                                      .window = s->window,
                                      .scale = 1.0f / sqrtf((float)s->head_size),
                                      .q = q->data,
                                      .y = y->data,
                                      .batch = batch}};
    int n_threads = work < ALONE ? 1 : pool_n_threads(c->pool);
    cut_tiles(&job, c->attention.runs, n_threads);
    if (n_threads == 1)
        pool_run_alone(c->pool, tiles_part, &job);
    else if (job.n_tiles < TILES_PER_THREAD * n_threads && can_split(&job))
        pool_run(c->pool, chunks_part, &job);
    else
        pool_run(c->pool, tiles_part, &job);
}
