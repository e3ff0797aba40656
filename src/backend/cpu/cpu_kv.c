/* The key-value store of the CPU backend: making it, writing the rows of a batch, copying a block.
 * Layout: attention.h. */
#include "backend/cpu/cpu_impl.h"

#include "backend/cpu/memory.h"
#include "base/size.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALONE = 1 << 14, /* elements below which waking the pool costs more than it saves */
    SMALL_PAGE = 4096,
    TOUCH_PIECE = 2 << 20,
};

struct touch_job {
    struct pool *pool;
    uint8_t *cells;
    uint64_t bytes;
};

static void touch_part(void *context, int thread_i, int n_threads)
{
    const struct touch_job *job = context;
    int begin, end, n = (int)((job->bytes + TOUCH_PIECE - 1) / TOUCH_PIECE);
    (void)n_threads;
    while (pool_take(job->pool, thread_i, 0, n, 1, &begin, &end))
        for (uint64_t at = (uint64_t)begin * TOUCH_PIECE;
             at < (uint64_t)end * TOUCH_PIECE && at < job->bytes; at += SMALL_PAGE)
            ((volatile uint8_t *)job->cells)[at] = 0;
}

/* Have all pages now. Blocks with following numbers lie side by side in every head of every layer:
 * when the first of them reaches another huge page, all heads need a new one in the same step,
 * which the system must clear first (a 1B model: 256 pages, 0.6 s in which no stream has a token).
 * And memory that is not there after all is better missed at the start. */
static void touch(struct cpu *c, const struct kv_store *kv)
{
    struct touch_job job = {c->pool, kv->cells, kv->bytes};
    if (kv->bytes < TOUCH_PIECE)
        pool_run_alone(c->pool, touch_part, &job);
    else
        pool_run(c->pool, touch_part, &job);
}

enum err cpu_kv_new(struct backend *b, const struct kv_shape *shape, struct kv_store **out,
                    struct error *e)
{
    struct cpu *c = cpu_of(b);
    ASSERT(shape->n_layers >= 0 && shape->n_blocks >= 1 && shape->n_kv_heads >= 1);
    ASSERT(shape->head_size >= 1 && shape->head_size <= SHAPE_MAX_HEAD_SIZE);
    *out = NULL;
    struct kv_layout layout = kv_layout(shape->type, shape->n_kv_heads, shape->head_size);
    uint64_t bytes;
    bool fits = size_mul((uint64_t)shape->n_layers * shape->n_blocks, layout.block_bytes, &bytes);
    struct kv_store *kv = calloc(1, sizeof *kv);
    uint8_t *cells = fits ? cpu_alloc(bytes) : NULL;
    c->max_head = shape->head_size > c->max_head ? shape->head_size : c->max_head;
    if (kv != NULL)
        *kv = (struct kv_store){.shape = *shape, .layout = layout, .bytes = bytes, .cells = cells};
    if (kv == NULL || cells == NULL || !cpu_turns_reserve(c) || !attention_reserve(c, kv)) {
        cpu_free(cells, bytes);
        free(kv);
        return error_set(e, ERR_MEMORY,
                         "KV store of %d layers, %d blocks: no memory for %llu bytes",
                         shape->n_layers, shape->n_blocks, (unsigned long long)bytes);
    }
    touch(c, kv);
    *out = kv;
    return OK;
}

void cpu_kv_free(struct backend *b, struct kv_store *kv)
{
    (void)b;
    if (kv == NULL)
        return;
    cpu_free(kv->cells, kv->bytes);
    free(kv);
}

size_t cpu_kv_bytes(const struct kv_store *kv)
{
    return kv->bytes;
}

void cpu_kv_copy_block(struct backend *b, struct kv_store *kv, int from, int to)
{
    (void)b;
    const struct kv_layout *l = &kv->layout;
    int n = kv->shape.n_blocks;
    ASSERT(from >= 0 && from < n && to >= 0 && to < n);
    if (from == to)
        return;
    for (int layer = 0; layer < kv->shape.n_layers; layer++) {
        uint8_t *cells = kv_layer(kv, layer);
        for (int h = 0; h < kv->shape.n_kv_heads; h++) {
            memcpy(cells + kv_keys_at(l, n, to, h), cells + kv_keys_at(l, n, from, h),
                   l->key_bytes);
            memcpy(cells + kv_values_at(l, n, to, h), cells + kv_values_at(l, n, from, h),
                   l->value_bytes);
        }
    }
}

/* --- writing --- */

/* Codes and scale of n <= KV_GROUP values (docs/numerics.md, "Quantised activations"). */
static float quantise_group(int8_t codes[KV_GROUP], const float *x, int n)
{
    float amax = 0;
    bool finite = true;
    for (int i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    }
    float inverse = 127.0f / amax;
    memset(codes, 0, KV_GROUP);
    if (!finite)
        return NAN;
    if (!isfinite(inverse)) /* amax is 0, or hardly more */
        return 0;
    for (int i = 0; i < n; i++)
        codes[i] = (int8_t)((x[i] * inverse + 0x1.8p23f) - 0x1.8p23f); /* to nearest even */
    return amax / 127.0f;
}

static int group_size(const struct kv_layout *l, int g)
{
    int left = l->head_size - g * KV_GROUP;
    return left < KV_GROUP ? left : KV_GROUP;
}

/* One head of one row as position p of a block's keys. */
static void write_key(const struct kernels *k, const struct kv_layout *l, uint8_t *at, int p,
                      const float *x)
{
    const size_t n = KV_BLOCK_TOKENS;
    if (l->type == KV_F16) {
        struct f16 halves[SHAPE_MAX_HEAD_SIZE], *to = (struct f16 *)(void *)at + p;
        k->to_f16(halves, x, (size_t)l->head_size);
        for (int d = 0; d < l->head_size; d++)
            to[d * n] = halves[d];
    } else if (l->type == KV_F32) {
        float *to = (float *)(void *)at + p;
        for (int d = 0; d < l->head_size; d++)
            to[d * n] = x[d];
    } else {
        float *scales = (float *)(void *)(at + n * l->head_size);
        for (int g = 0; g < l->n_groups; g++) {
            int8_t codes[KV_GROUP];
            int d = g * KV_GROUP, n_codes = group_size(l, g);
            scales[g * n + p] = quantise_group(codes, x + d, n_codes);
            for (int i = 0; i < n_codes; i++)
                at[(d + i) * n + p] = (uint8_t)codes[i];
        }
    }
}

static void write_value(const struct kernels *k, const struct kv_layout *l, uint8_t *at, int p,
                        const float *x)
{
    size_t begin = (size_t)p * l->padded;
    if (l->type == KV_F16) {
        k->to_f16((struct f16 *)(void *)at + begin, x, (size_t)l->head_size);
    } else if (l->type == KV_F32) {
        memcpy((float *)(void *)at + begin, x, (size_t)l->head_size * sizeof(float));
    } else {
        float *scales = (float *)(void *)(at + (size_t)KV_BLOCK_TOKENS * l->padded);
        for (int g = 0; g < l->n_groups; g++) {
            int8_t codes[KV_GROUP];
            int d = g * KV_GROUP, n_codes = group_size(l, g);
            scales[g * KV_BLOCK_TOKENS + p] = quantise_group(codes, x + d, n_codes);
            memcpy(at + begin + d, codes, (size_t)n_codes);
        }
    }
}

struct write_job {
    const struct kernels *kernels;
    const struct kv_store *kv;
    int layer;
    const float *k, *v;
    const struct batch *batch;
};

static void write_head(const struct write_job *job, int head, bool is_value)
{
    const struct kv_layout *l = &job->kv->layout;
    uint8_t *cells = kv_layer(job->kv, job->layer);
    int n_blocks = job->kv->shape.n_blocks, width = job->kv->shape.n_kv_heads * l->head_size;
    for (int row = 0; row < job->batch->n; row++) {
        int position = job->batch->positions[row], p = position % KV_BLOCK_TOKENS;
        int block = job->batch->tables[row][position / KV_BLOCK_TOKENS];
        size_t from = (size_t)row * width + (size_t)head * l->head_size;
        ASSERT(block >= 0 && block < n_blocks);
        if (is_value)
            write_value(job->kernels, l, cells + kv_values_at(l, n_blocks, block, head), p,
                        job->v + from);
        else
            write_key(job->kernels, l, cells + kv_keys_at(l, n_blocks, block, head), p,
                      job->k + from);
    }
}

/* Dealt by heads: rows beside each other share the cache lines of a block's keys. */
static void kv_write_part(void *context, int thread_i, int n_threads)
{
    const struct write_job *job = context;
    int begin, end;
    pool_share(2 * job->kv->shape.n_kv_heads, thread_i, n_threads, &begin, &end);
    for (int i = begin; i < end; i++)
        write_head(job, i / 2, i % 2);
}

void cpu_kv_write(struct backend *b, struct kv_store *kv, int layer, const struct tensor *k,
                  const struct tensor *v, const struct batch *batch)
{
    struct cpu *c = cpu_of(b);
    ASSERT(layer >= 0 && layer < kv->shape.n_layers);
    ASSERT(batch->n <= k->rows && batch->n <= v->rows && k->cols == v->cols);
    ASSERT(k->cols == kv->shape.n_kv_heads * kv->shape.head_size);
    struct write_job job = {&c->kernels, kv, layer, k->data, v->data, batch};
    if ((size_t)batch->n * k->cols < ALONE)
        kv_write_part(&job, 0, 1);
    else
        pool_run(c->pool, kv_write_part, &job);
}
