/* Attention over lanes (lanes.h): one body for every instruction set, included once by a file that
 * is compiled for it; attend, attend_chunk_alone and merge_chunks are slots of struct kernels.
 *
 * A tile's queries go together. Chunk by chunk of positions: scores; weights; sums of values
 * (attention_spans.h). The store is read as it is, by as many queries at a time as stay in
 * registers; the first of them fetch the blocks ahead, because the processor cannot guess where a
 * table leads, and the others find them in a cache. */
#include "backend/cpu/attention_spans.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/lanes.h"

#include <math.h>
#include <string.h>

enum {
    AHEAD = 5,      /* blocks fetched ahead: more than a span, and well inside the first cache */
    SHORT_STEP = 4, /* blocks; a multiple of every span */
};
_Static_assert((int)SHORT_STEP % (int)SPAN == 0, "a span lies in one step");

struct work {
    const struct attention *a;
    const struct attention_tile *t;
    struct kv_layout layout;
    const int32_t *table;
    int kv_head;
    int n_queries;
    int n_positions; /* of the last row */
    float *q;        /* group after group (group_size): [head_size][queries of the group] */
    float *weights;  /* [n_queries][ATTENTION_CHUNK]; scores first */
    /* Of the current chunk: */
    int n_blocks, first_block;   /* blocks before this one nobody sees: they may not be there */
    int seen[ATTENTION_QUERIES]; /* its positions that a query sees, may be negative; ascending … */
    int from[ATTENTION_QUERIES]; /* … from this one on, which may be before or behind the chunk */
    bool cut;                    /* for some query it is behind the chunk's first */
    const uint8_t *stream[2 * ATTENTION_BLOCKS + AHEAD]; /* keys, values, what is read next */
};

/* --- scores --- */

/* Some blocks of the chunk. */
struct step {
    int b, n; /* the first, how many */
    const uint8_t *const *blocks;
    const struct group_ops *ops; /* [4] */
};

static void score_step(struct work *w, const struct step *step)
{
    for (int i = 0, n_q; i < w->n_queries; i += n_q) {
        n_q = group_size(w->n_queries - i);
        if (w->seen[i + n_q - 1] <= step->b * LANES || w->from[i] >= (step->b + step->n) * LANES)
            continue;
        struct score_job job = {.layout = &w->layout,
                                .q = w->q + (size_t)i * w->layout.head_size,
                                .scale = w->a->scale,
                                .blocks = step->blocks,
                                .ahead = w->stream + step->b + AHEAD,
                                .n = step->n,
                                .scores = w->weights + (size_t)i * ATTENTION_CHUNK +
                                          (size_t)step->b * LANES};
        ops_of(step->ops, n_q)->score(&job);
    }
}

/* --- weights --- */

/* Values go in one step, because outputs between steps go through memory and the next products wait
 * for them; but where a row ends in a span that is not full, that one is over too fast for what it
 * reads to be fetched in time, and steps are short. */
static int value_blocks(const struct work *w)
{
    return spans_fill(&w->layout, group_size(w->n_queries)) ? ATTENTION_BLOCKS : SHORT_STEP;
}

/* Whether a group's scores become weights while its values are added: where every query sees the
 * whole chunk, and all values go in one step and have no scales. */
static bool weighs_late(const struct work *w, int i, int n_q)
{
    return w->seen[i] >= ATTENTION_CHUNK && w->from[i + n_q - 1] <= 0 &&
           !is_scaled(w->layout.type) && value_blocks(w) == ATTENTION_BLOCKS &&
           spans_fill(&w->layout, n_q);
}

/* Set the maximum of the scores in vectors [begin, last]. */
static void find_greatest(const struct work *w, int i, int begin, int last, struct partial *chunk)
{
    const float *scores = w->weights + (size_t)i * ATTENTION_CHUNK;
    struct lanes max = lanes_all(-INFINITY);
    for (int p = begin; p <= last; p += LANES)
        max = lanes_max(lanes_load(scores + p), max); /* a NaN is not greater */
    chunk->max[i] = lanes_greatest(max);
}

/* Scores to weights relative to their maximum, and their sum. */
static void weigh(const struct work *w, int i, struct partial *chunk)
{
    float *scores = w->weights + (size_t)i * ATTENTION_CHUNK;
    int n = least(w->seen[i], ATTENTION_CHUNK), last = (n - 1) & ~(LANES - 1);
    int begin = w->from[i] > 0 ? w->from[i] & ~(LANES - 1) : 0, hidden = w->from[i] - begin;
    const struct lanes none = lanes_all(-INFINITY);
    if (hidden > 0)
        lanes_store(scores + begin, lanes_first(hidden, none, lanes_load(scores + begin)));
    lanes_store(scores + last, lanes_first(n - last, lanes_load(scores + last), none));
    find_greatest(w, i, begin, last, chunk);
    struct lanes max = lanes_all(chunk->max[i]), sum = lanes_zero();
    for (int p = begin; p < n; p += LANES) {
        struct lanes weight = lanes_exp(lanes_sub(lanes_load(scores + p), max));
        weight = lanes_first(n - p, weight, lanes_zero()); /* -inf - -inf is a NaN */
        if (p < begin + hidden)
            weight = lanes_first(hidden, lanes_zero(), weight);
        sum = lanes_add(sum, weight);
        lanes_store(scores + p, weight);
    }
    chunk->sum[i] = lanes_sum(sum);
}

static void weigh_all(const struct work *w, struct partial *chunk)
{
    for (int i = 0, n_q; i < w->n_queries; i += n_q) {
        n_q = group_size(w->n_queries - i);
        bool late = weighs_late(w, i, n_q);
        for (int j = i; j < i + n_q; j++)
            if (late)
                find_greatest(w, j, 0, ATTENTION_CHUNK - LANES, chunk);
            else if (w->seen[j] > 0 && w->from[j] < ATTENTION_CHUNK)
                weigh(w, j, chunk);
    }
}

/* --- values --- */

static struct value_job value_job(const struct work *w, const struct step *step,
                                  const struct partial *chunk, int i)
{
    return (struct value_job){.layout = &w->layout,
                              .blocks = step->blocks,
                              .ahead = w->stream + w->n_blocks + step->b + AHEAD,
                              .weights = w->weights + (size_t)i * ATTENTION_CHUNK +
                                         (size_t)step->b * LANES,
                              .out = chunk->out + (size_t)i * w->layout.padded};
}

/* Values of positions [begin, end) of the step for queries i to i + n_q. */
static void add_values(const struct work *w, const struct step *step, const struct partial *chunk,
                       int i, int n_q, int begin, int end)
{
    struct value_job job = value_job(w, step, chunk, i);
    job.begin = begin;
    job.end = end;
    job.fresh = step->b == 0 && begin == 0 && !w->cut;
    ops_of(step->ops, n_q)->add_values(&job);
}

/* All values of a whole chunk, whose scores become weights meanwhile. */
static void weigh_values(const struct work *w, const struct step *step, const struct partial *chunk,
                         int i, int n_q)
{
    struct weighing weighing;
    struct value_job job = value_job(w, step, chunk, i);
    job.weighing = &weighing;
    job.end = ATTENTION_CHUNK;
    job.fresh = !w->cut;
    for (int j = 0; j < n_q; j++) {
        weighing.max[j] = chunk->max[i + j];
        weighing.sum[j] = lanes_zero();
    }
    ops_of(step->ops, n_q)->add_values(&job);
    for (int j = 0; j < n_q; j++)
        chunk->sum[i + j] = lanes_sum(weighing.sum[j]);
}

/* A position relative to the step, as far as it lies in it. */
static int inside(const struct step *step, int position)
{
    int relative = position - step->b * KV_BLOCK_TOKENS;
    return relative < 0 ? 0 : least(relative, step->n * KV_BLOCK_TOKENS);
}

/* Positions that all queries of a group see go together; what the earlier ones see before and the
 * later ones beyond (a position must not reach a row that does not see it: 0 times infinity), one
 * by one. */
static void value_step(const struct work *w, const struct step *step, const struct partial *chunk)
{
    int begin = step->b * KV_BLOCK_TOKENS, n = step->n * KV_BLOCK_TOKENS;
    for (int i = 0, n_q; i < w->n_queries; i += n_q) {
        n_q = group_size(w->n_queries - i);
        if (w->seen[i + n_q - 1] <= begin || w->from[i] >= begin + n)
            continue;
        if (weighs_late(w, i, n_q)) {
            weigh_values(w, step, chunk, i, n_q);
            continue;
        }
        int first = inside(step, w->from[i + n_q - 1]), end = inside(step, w->seen[i]);
        if (first >= end) /* nothing in common */
            first = end = n;
        for (int j = i; j < i + n_q && w->from[j] < begin + first; j++) {
            int alone = inside(step, w->from[j]), stop = least(first, inside(step, w->seen[j]));
            if (alone < stop)
                add_values(w, step, chunk, j, 1, alone, stop);
        }
        if (first < end)
            add_values(w, step, chunk, i, n_q, first, end);
        for (int j = i + 1; j < i + n_q; j++) {
            int stop = inside(step, w->seen[j]);
            if (stop > end)
                add_values(w, step, chunk, j, 1, end, stop);
        }
    }
}

/* --- a chunk --- */

/* Where windows begin inside the chunk, its outputs do not begin with its first position. */
static void clear_outputs(const struct work *w, const struct partial *chunk)
{
    if (w->cut)
        memset(chunk->out, 0, (size_t)w->n_queries * w->layout.padded * sizeof chunk->out[0]);
}

/* Where the chunk's blocks are, which begin with the table's number `first`, and the keys that are
 * read after them: the next chunk's, or behind the last (`total`) those of the next key-value head,
 * which is mostly the next tile. */
static void find_blocks(struct work *w, int first, int total)
{
    const struct attention *a = w->a;
    const struct kv_layout *l = &w->layout;
    const int32_t *table = w->table + first;
    int n = w->n_blocks, seen = w->first_block;
    const uint8_t **keys = w->stream, **values = w->stream + n, **next = w->stream + 2 * n;
    for (int b = seen; b < n; b++) {
        keys[b] = a->cells + kv_keys_at(l, a->n_blocks, table[b], w->kv_head);
        values[b] = a->cells + kv_values_at(l, a->n_blocks, table[b], w->kv_head);
    }
    for (int b = 0; b < seen; b++) { /* in place of what is not there: it is fetched only */
        keys[b] = keys[seen];
        values[b] = values[seen];
    }
    int b = 0;
    for (; b < AHEAD && first + n + b < total; b++)
        next[b] = a->cells + kv_keys_at(l, a->n_blocks, table[n + b], w->kv_head);
    int next_head = least(w->kv_head + 1, a->n_kv_heads - 1);
    for (int i = tile_first(a, w->t, 0) / KV_BLOCK_TOKENS; b < AHEAD; b++, i++)
        next[b] = a->cells + kv_keys_at(l, a->n_blocks, w->table[least(i, total - 1)], next_head);
}

/* Positions [begin, begin + ATTENTION_CHUNK) that the tile sees. */
static void attend_chunk(struct work *w, int begin, struct partial *chunk)
{
    const struct attention *a = w->a;
    int total = (w->n_positions - 1) / KV_BLOCK_TOKENS + 1, first = begin / KV_BLOCK_TOKENS;
    int before = tile_first(a, w->t, 0) - begin;
    w->n_blocks = least(total - first, ATTENTION_BLOCKS);
    w->first_block = before > 0 ? before / KV_BLOCK_TOKENS : 0;
    find_blocks(w, first, total);
    for (int i = 0, end; i < w->n_queries; i = end) { /* row by row */
        int seen = tile_positions(a, w->t, i) - begin, from = tile_first(a, w->t, i) - begin;
        for (end = i + w->t->n_heads; i < end; i++) {
            w->seen[i] = seen;
            w->from[i] = from;
        }
    }
    w->cut = w->from[w->n_queries - 1] > 0;
    static const struct group_ops *const ops[N_KV_TYPES] = {
        [KV_F16] = f16_ops, [KV_F32] = f32_ops, [KV_Q8] = q8_ops};
    struct step step = {.b = w->first_block,
                        .n = w->n_blocks - w->first_block,
                        .blocks = w->stream + w->first_block,
                        .ops = ops[w->layout.type]};
    score_step(w, &step);
    weigh_all(w, chunk);
    clear_outputs(w, chunk);
    for (int most = value_blocks(w); step.b < w->n_blocks; step.b += most) {
        step.n = least(w->n_blocks - step.b, most);
        step.blocks = w->stream + w->n_blocks + step.b;
        value_step(w, &step, chunk);
    }
}

/* --- tiles --- */

/* Where query i of the tile begins in q and y. */
FORCE_INLINE size_t query_at(const struct attention *a, const struct attention_tile *t, int i)
{
    size_t head = (size_t)(t->row + i / t->n_heads) * a->n_heads + t->head + i % t->n_heads;
    return head * a->layout.head_size;
}

static void work_init(struct work *w, const struct attention *a, const struct attention_tile *t,
                      float **scratch)
{
    size_t padded = (size_t)a->layout.padded;
    int head_size = a->layout.head_size;
    w->a = a;
    w->t = t;
    w->layout = a->layout;
    w->table = a->batch->tables[t->row];
    w->kv_head = t->head / (a->n_heads / a->n_kv_heads);
    w->n_queries = t->n_rows * t->n_heads;
    w->n_positions = tile_positions(a, t, w->n_queries - 1);
    w->q = *scratch;
    w->weights = w->q + ATTENTION_QUERIES * padded;
    *scratch = w->weights + ATTENTION_QUERIES * ATTENTION_CHUNK;
    for (int i = 0, n; i < w->n_queries; i += n) {
        n = group_size(w->n_queries - i);
        float *to = w->q + (size_t)i * head_size;
        const float *from[LANES_TILE];
        for (int j = 0; j < n; j++)
            from[j] = a->q + query_at(a, t, i + j);
        int d = 0;
        if (n == LANES_TILE)
            for (; d + LANES <= head_size; d += LANES)
                lanes_transpose(to + d * n, from, (size_t)d);
        for (int j = 0; j < n; j++)
            for (int rest = d; rest < head_size; rest++)
                to[rest * n + j] = from[j][rest];
    }
}

/* all = all merged with the chunk after it, for queries [first, n). */
static void merge(const struct partial *all, const struct partial *chunk, int first, int n,
                  int padded)
{
    float keep[ATTENTION_QUERIES], take[ATTENTION_QUERIES], top[ATTENTION_QUERIES];
    for (int i = first & ~(LANES - 1); i < n; i += LANES) {
        struct lanes before = lanes_load(all->max + i), here = lanes_load(chunk->max + i);
        struct lanes max = lanes_max(here, before);
        lanes_store(top + i, max);
        lanes_store(keep + i, lanes_exp(lanes_sub(before, max)));
        lanes_store(take + i, lanes_exp(lanes_sub(here, max)));
    }
    for (int i = first; i < n; i++) {
        all->max[i] = top[i];
        all->sum[i] = fmaf(all->sum[i], keep[i], chunk->sum[i] * take[i]);
        struct lanes kept = lanes_all(keep[i]), taken = lanes_all(take[i]);
        float *to = all->out + (size_t)i * padded;
        const float *from = chunk->out + (size_t)i * padded;
        for (int d = 0; d < padded; d += LANES)
            lanes_store(to + d, lanes_fma(lanes_load(to + d), kept,
                                          lanes_mul(lanes_load(from + d), taken)));
    }
}

/* The first chunks of queries [first, n) as their totals. */
static void take(const struct partial *all, const struct partial *chunk, int first, int n,
                 int padded)
{
    size_t floats = (size_t)(n - first) * padded, at = (size_t)first * padded;
    memcpy(all->max + first, chunk->max + first, (size_t)(n - first) * sizeof all->max[0]);
    memcpy(all->sum + first, chunk->sum + first, (size_t)(n - first) * sizeof all->sum[0]);
    memcpy(all->out + at, chunk->out + at, floats * sizeof all->out[0]);
}

static void finish(const struct attention *a, const struct attention_tile *t,
                   const struct partial *all)
{
    int head_size = a->layout.head_size;
    for (int i = 0; i < t->n_rows * t->n_heads; i++) {
        float *y = a->y + query_at(a, t, i), *out = all->out + (size_t)i * a->layout.padded;
        struct lanes sum = lanes_all(all->sum[i]);
        int d = 0;
        for (; d + LANES <= head_size; d += LANES)
            lanes_store(y + d, lanes_div(lanes_load(out + d), sum));
        for (; d < head_size; d++)
            y[d] = out[d] / all->sum[i];
    }
}

/* The first keys that are read from position `begin` on, all at once: nobody has fetched them
 * ahead. */
static void fetch_first(const struct attention *a, const struct attention_tile *t, int begin)
{
    const struct kv_layout *l = &a->layout;
    const int32_t *table = a->batch->tables[t->row];
    int seen = tile_first(a, t, 0);
    int first = (begin > seen ? begin : seen) / KV_BLOCK_TOKENS,
        kv_head = t->head / (a->n_heads / a->n_kv_heads);
    int total = tile_positions(a, t, t->n_rows * t->n_heads - 1);
    int n = least((total - 1) / KV_BLOCK_TOKENS + 1 - first, AHEAD);
    for (int b = first; b < first + n; b++) {
        const uint8_t *keys = a->cells + kv_keys_at(l, a->n_blocks, table[b], kv_head);
        for (size_t at = 0; at < l->key_bytes; at += CACHE_LINE)
            lanes_prefetch(keys + at);
    }
}

static void attend(const struct attention *a, const struct attention_tile *t, float *scratch)
{
    struct work w;
    int begin = tile_first_chunk(a, t) * ATTENTION_CHUNK;
    fetch_first(a, t, begin);
    work_init(&w, a, t, &scratch);
    struct partial all = partial_at(scratch, ATTENTION_QUERIES);
    struct partial chunk = partial_at(scratch + partial_floats(ATTENTION_QUERIES, a->layout.padded),
                                      ATTENTION_QUERIES);
    attend_chunk(&w, begin, &all);
    for (begin += ATTENTION_CHUNK; begin < w.n_positions; begin += ATTENTION_CHUNK) {
        attend_chunk(&w, begin, &chunk);
        int first = 0, n = w.n_queries;
        while (w.seen[first] <= 0)
            first++;
        while (w.from[n - 1] >= ATTENTION_CHUNK) /* they begin behind it */
            n--;
        int begun = n;
        while (begun > first && w.from[begun - 1] >= 0)
            begun--;
        if (begun > first)
            merge(&all, &chunk, first, begun, a->layout.padded);
        take(&all, &chunk, begun, n, a->layout.padded);
    }
    finish(a, t, &all);
}

static void attend_chunk_alone(const struct attention *a, const struct attention_tile *t, int c,
                               float *partial, float *scratch)
{
    struct work w;
    fetch_first(a, t, c * ATTENTION_CHUNK);
    work_init(&w, a, t, &scratch);
    struct partial chunk = partial_at(partial, w.n_queries);
    attend_chunk(&w, c * ATTENTION_CHUNK, &chunk);
}

static void merge_chunks(const struct attention *a, const struct attention_tile *t, float *partials,
                         size_t stride, int n_chunks)
{
    int n = t->n_rows * t->n_heads;
    struct partial all = partial_at(partials, n);
    for (int c = 1; c < n_chunks; c++) {
        struct partial chunk = partial_at(partials + c * stride, n);
        merge(&all, &chunk, 0, n, a->layout.padded);
    }
    finish(a, t, &all);
}
