/* The key-value store's operations: writing the rows of a batch, attention over what was written.
 */
#include "backend/cpu/cpu_impl.h"

#include <math.h>
#include <string.h>

enum {
    ALONE = 1 << 14,     /* elements below which waking the pool costs more than it saves */
    ATTENTION_HEADS = 4, /* query heads of one piece of work; they share their keys */
};

static void run(struct cpu *c, size_t elems, pool_fn fn, void *job)
{
    if (elems < ALONE)
        fn(job, 0, 1);
    else
        pool_run(c->pool, fn, job);
}

struct kv_job {
    const struct kernels *kernels;
    const struct kv_store *kv;
    int layer;
    const float *k, *v;
    const struct batch *batch;
};

/* All key-value heads of one row into one layer of `store`. */
static void store_row(const struct kv_job *job, uint8_t *store, const float *x, int row)
{
    const struct kv_shape *s = &job->kv->shape;
    int position = job->batch->positions[row];
    int block = job->batch->tables[row][position / KV_BLOCK_TOKENS];
    size_t elem_bytes = s->type == KV_F16 ? 2 : 4;
    uint8_t *at = store + kv_block_at(job->kv, job->layer, block) +
                  (size_t)(position % KV_BLOCK_TOKENS) * s->head_size * elem_bytes;
    x += (size_t)row * s->n_kv_heads * s->head_size;
    for (int h = 0; h < s->n_kv_heads; h++) {
        if (s->type == KV_F16)
            job->kernels->to_f16((struct f16 *)at, x, (size_t)s->head_size);
        else
            memcpy(at, x, (size_t)s->head_size * sizeof(float));
        at += (size_t)KV_BLOCK_TOKENS * s->head_size * elem_bytes;
        x += s->head_size;
    }
}

static void kv_write_part(void *context, int thread_i, int n_threads)
{
    const struct kv_job *job = context;
    int begin, end;
    pool_share(job->batch->n, thread_i, n_threads, &begin, &end);
    for (int row = begin; row < end; row++) {
        store_row(job, job->kv->keys, job->k, row);
        store_row(job, job->kv->values, job->v, row);
    }
}

void cpu_kv_write(struct backend *b, struct kv_store *kv, int layer, const struct tensor *k,
                  const struct tensor *v, const struct batch *batch)
{
    struct cpu *c = cpu_of(b);
    ASSERT(layer >= 0 && layer < kv->shape.n_layers);
    ASSERT(batch->n <= k->rows && batch->n <= v->rows && k->cols == v->cols);
    ASSERT(k->cols == kv->shape.n_kv_heads * kv->shape.head_size);
    struct kv_job job = {&c->kernels, kv, layer, k->data, v->data, batch};
    run(c, (size_t)batch->n * k->cols, kv_write_part, &job);
}

struct attention_job {
    const struct kernels *kernels;
    struct attention a;
};

/* One piece of work is up to ATTENTION_HEADS query heads of one key-value head of one row. Pieces
 * are dealt out in turn, because later rows of a prefill see more positions than earlier ones. */
static void attention_part(void *context, int thread_i, int n_threads)
{
    const struct attention_job *job = context;
    const struct attention *a = &job->a;
    int sharing = a->n_heads / a->n_kv_heads;
    int per_kv_head = (sharing - 1) / ATTENTION_HEADS + 1;
    int per_row = per_kv_head * a->n_kv_heads;
    for (int i = thread_i; i < a->batch->n * per_row; i += n_threads) {
        int kv_head = i % per_row / per_kv_head, part = i % per_kv_head;
        int begin = part * ATTENTION_HEADS;
        int end = begin + ATTENTION_HEADS < sharing ? begin + ATTENTION_HEADS : sharing;
        job->kernels->attention(a, i / per_row, kv_head * sharing + begin, kv_head * sharing + end);
    }
}

void cpu_attention(struct backend *b, struct tensor *y, const struct tensor *q, struct kv_store *kv,
                   int layer, int n_heads, const struct batch *batch)
{
    struct cpu *c = cpu_of(b);
    const struct kv_shape *s = &kv->shape;
    ASSERT(batch->n <= q->rows && batch->n <= y->rows && q->cols == y->cols);
    ASSERT(n_heads % s->n_kv_heads == 0 && q->cols == n_heads * s->head_size);
    size_t work = 0, layer_at = kv_block_at(kv, layer, 0);
    for (int r = 0; r < batch->n; r++) {
        ASSERT(batch->positions[r] >= 0);
        work += (size_t)(batch->positions[r] + 1) * q->cols;
    }
    struct attention_job job = {.kernels = &c->kernels,
                                .a = {.keys = kv->keys + layer_at,
                                      .values = kv->values + layer_at,
                                      .type = s->type,
                                      .n_heads = n_heads,
                                      .n_kv_heads = s->n_kv_heads,
                                      .head_size = s->head_size,
                                      .scale = 1.0f / sqrtf((float)s->head_size),
                                      .q = q->data,
                                      .y = y->data,
                                      .batch = batch}};
    run(c, work, attention_part, &job);
}
