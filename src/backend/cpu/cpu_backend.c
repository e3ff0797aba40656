/* The CPU backend's operations: how each is shared out over the pool. What is computed stands in
 * the kernels; here is who computes which part. Operations run at once, so `sync` has nothing to
 * wait for, and one pool_run is one barrier. */
#include "backend/cpu/cpu_impl.h"

#include "tensor/exact_math.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One job for all operations on rows; each uses the fields that it needs. */
struct row_job {
    const struct kernels *kernels;
    float *y;
    const float *x, *z;
    const int32_t *index;
    const struct packed *packed;
    float eps;
    int n, cols;
};

static void embed_part(void *context, int thread_i, int n_threads)
{
    const struct row_job *job = context;
    int begin, end;
    pool_share(job->n, thread_i, n_threads, &begin, &end);
    for (int i = begin; i < end; i++)
        unpack_row(job->packed, job->index[i], job->y + (size_t)i * job->cols);
}

static void cpu_embed(struct backend *b, struct tensor *y, const struct weight *W,
                      const int32_t *ids, int n)
{
    ASSERT(n <= y->rows && y->cols == W->packed.n_cols);
    for (int i = 0; i < n; i++)
        ASSERT(ids[i] >= 0 && ids[i] < W->packed.n_rows);
    struct row_job job = {
        .y = y->data, .packed = &W->packed, .index = ids, .n = n, .cols = y->cols};
    cpu_run(cpu_of(b), (size_t)n * y->cols, embed_part, &job);
}

static void norm_part(void *context, int thread_i, int n_threads)
{
    const struct row_job *job = context;
    int begin, end;
    pool_share(job->n, thread_i, n_threads, &begin, &end);
    for (int i = begin; i < end; i++) {
        size_t at = (size_t)i * job->cols;
        job->kernels->rms_norm(job->y + at, job->x + at, job->z, job->eps, job->cols);
    }
}

static void cpu_rms_norm(struct backend *b, struct tensor *y, const struct tensor *x,
                         const struct tensor *gain, float eps, int n)
{
    struct cpu *c = cpu_of(b);
    ASSERT(n <= x->rows && n <= y->rows && x->cols == y->cols && gain->cols == x->cols);
    struct row_job job = {.kernels = &c->kernels,
                          .y = y->data,
                          .x = x->data,
                          .z = gain->data,
                          .eps = eps,
                          .n = n,
                          .cols = x->cols};
    cpu_run(c, (size_t)n * x->cols, norm_part, &job);
}

static void add_part(void *context, int thread_i, int n_threads)
{
    const struct row_job *job = context;
    int begin, end;
    pool_share(job->n, thread_i, n_threads, &begin, &end);
    size_t at = (size_t)begin * job->cols, count = (size_t)(end - begin) * job->cols;
    job->kernels->add(job->y + at, job->x + at, count);
}

static void cpu_add(struct backend *b, struct tensor *x, const struct tensor *y, int n)
{
    struct cpu *c = cpu_of(b);
    ASSERT(n <= x->rows && n <= y->rows && x->cols == y->cols);
    struct row_job job = {
        .kernels = &c->kernels, .y = x->data, .x = y->data, .n = n, .cols = x->cols};
    cpu_run(c, (size_t)n * x->cols, add_part, &job);
}

static void silu_part(void *context, int thread_i, int n_threads)
{
    const struct row_job *job = context;
    size_t total = (size_t)job->n * job->cols;
    size_t begin = total * thread_i / n_threads, end = total * (thread_i + 1) / n_threads;
    job->kernels->silu_mul(job->y + begin, job->x + begin, job->z + begin, end - begin);
}

static void cpu_silu_mul(struct backend *b, struct tensor *y, const struct tensor *gate,
                         const struct tensor *up, int n)
{
    struct cpu *c = cpu_of(b);
    ASSERT(n <= y->rows && n <= gate->rows && n <= up->rows);
    ASSERT(y->cols == gate->cols && y->cols == up->cols);
    struct row_job job = {.kernels = &c->kernels,
                          .y = y->data,
                          .x = gate->data,
                          .z = up->data,
                          .n = n,
                          .cols = y->cols};
    cpu_run(c, (size_t)n * y->cols, silu_part, &job);
}

static void gather_part(void *context, int thread_i, int n_threads)
{
    const struct row_job *job = context;
    int begin, end;
    pool_share(job->n, thread_i, n_threads, &begin, &end);
    for (int i = begin; i < end; i++)
        memcpy(job->y + (size_t)i * job->cols, job->x + (size_t)job->index[i] * job->cols,
               (size_t)job->cols * sizeof(float));
}

static void cpu_gather(struct backend *b, struct tensor *y, const struct tensor *x,
                       const int32_t *rows, int n)
{
    ASSERT(n <= y->rows && x->cols == y->cols && x != y);
    for (int i = 0; i < n; i++)
        ASSERT(rows[i] >= 0 && rows[i] < x->rows);
    struct row_job job = {.y = y->data, .x = x->data, .index = rows, .n = n, .cols = x->cols};
    cpu_run(cpu_of(b), (size_t)n * x->cols, gather_part, &job);
}

/* --- rope --- */

static void turns_part(void *context, int thread_i, int n_threads)
{
    const struct turns *t = context;
    int begin, end;
    pool_share(t->n, thread_i, n_threads, &begin, &end);
    for (int r = begin; r < end; r++) {
        float *turn = t->table + (size_t)r * 2 * t->n_pairs;
        for (int i = 0; i < t->n_pairs; i++) {
            double s, c;
            exact_sincos((double)t->positions[r] * t->inv_freq[i], &s, &c);
            turn[i] = (float)c;
            turn[t->n_pairs + i] = (float)s;
        }
    }
}

/* Make c->turns those of these positions, unless they are already. */
static void turns_prepare(struct cpu *c, const struct rope_spec *spec, const int32_t *positions,
                          int n)
{
    struct turns *t = &c->turns;
    int n_pairs = spec->rope_size / 2;
    size_t position_bytes = (size_t)n * sizeof positions[0];
    size_t freq_bytes = (size_t)n_pairs * sizeof spec->inv_freq[0];
    ASSERT(n <= t->max_rows && n_pairs <= t->max_pairs);
    if (t->n == n && t->n_pairs == n_pairs &&
        memcmp(t->positions, positions, position_bytes) == 0 &&
        memcmp(t->inv_freq, spec->inv_freq, freq_bytes) == 0)
        return;
    memcpy(t->positions, positions, position_bytes);
    memcpy(t->inv_freq, spec->inv_freq, freq_bytes);
    t->n = n;
    t->n_pairs = n_pairs;
    cpu_run(c, (size_t)n * n_pairs * 32, turns_part, t);
}

struct rope_job {
    const struct cpu *cpu;
    const struct rope_spec *spec;
    float *x;
    int n, n_heads;
};

static void rope_part(void *context, int thread_i, int n_threads)
{
    const struct rope_job *job = context;
    const struct rope_spec *spec = job->spec;
    int begin, end;
    pool_share(job->n * job->n_heads, thread_i, n_threads, &begin, &end);
    for (int i = begin; i < end; i++)
        job->cpu->kernels.rotate(job->x + (size_t)i * spec->head_size,
                                 job->cpu->turns.table +
                                     (size_t)(i / job->n_heads) * spec->rope_size,
                                 spec->rope_size, spec->halves);
}

static void cpu_rope(struct backend *b, struct tensor *x, const struct rope_spec *spec,
                     const int32_t *positions, int n)
{
    struct cpu *c = cpu_of(b);
    ASSERT(n <= x->rows && x->cols % spec->head_size == 0);
    ASSERT(spec->rope_size % 2 == 0 && spec->rope_size <= spec->head_size);
    if (n <= 0)
        return;
    turns_prepare(c, spec, positions, n);
    struct rope_job job = {c, spec, x->data, n, x->cols / spec->head_size};
    cpu_run(c, (size_t)n * x->cols, rope_part, &job);
}

/* --- the instance --- */

static void cpu_free_backend(struct backend *b)
{
    struct cpu *c = cpu_of(b);
    cpu_scratch_release(c);
    free(c);
}

static const struct backend_ops cpu_ops = {
    .free = cpu_free_backend,
    .tensor_new = cpu_tensor_new,
    .tensor_free = cpu_tensor_free,
    .write = cpu_write,
    .read = cpu_read,
    .sync = cpu_sync,
    .weight_new = cpu_weight_new,
    .weight_free = cpu_weight_free,
    .weight_bytes = cpu_weight_bytes,
    .kv_new = cpu_kv_new,
    .kv_free = cpu_kv_free,
    .kv_bytes = cpu_kv_bytes,
    .kv_copy_block = cpu_kv_copy_block,
    .embed = cpu_embed,
    .rms_norm = cpu_rms_norm,
    .matmul = cpu_matmul,
    .add = cpu_add,
    .rope = cpu_rope,
    .kv_write = cpu_kv_write,
    .attention = cpu_attention,
    .silu_mul = cpu_silu_mul,
    .gather = cpu_gather,
    .matmul_many = cpu_matmul_many,
    .norm_matmul_many = cpu_norm_matmul_many,
    .matmul_add = cpu_matmul_add,
    .gated_ffn = cpu_gated_ffn,
};

enum err backend_cpu_open(struct pool *pool, struct backend **out, struct error *e)
{
    *out = NULL;
    struct kernels kernels;
    enum err err = kernels_select(getenv("SHOAL_CPU"), &kernels, e);
    if (err)
        return err;
    struct cpu *c = xcalloc(1, sizeof *c);
    c->base = (struct backend){
        .ops = &cpu_ops, .name = "cpu", .variant = kernels.variant, .numerics_id = kernels.numerics_id};
    c->pool = pool;
    c->kernels = kernels;
    *out = &c->base;
    return OK;
}
