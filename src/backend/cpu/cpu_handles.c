/* Tensors and weights of the CPU backend, and the scratch that they imply. */
#include "backend/cpu/cpu_impl.h"

#include "backend/cpu/memory.h"
#include "base/size.h"

#include <stdlib.h>
#include <string.h>

static void quantised_release(struct cpu *c)
{
    cpu_free(c->quantised, c->n_quantised * sizeof c->quantised[0]);
    cpu_free(c->gated, c->n_quantised * sizeof c->gated[0]);
    c->quantised = c->gated = NULL;
    c->n_quantised = 0;
}

/* Room to quantise any tensor as input of any matrix. After a failure there is none, but the next
 * tensor or weight asks again. */
static bool quantised_reserve(struct cpu *c)
{
    size_t n = quant_rows_room((size_t)c->max_rows, (size_t)(c->max_width / GROUP));
    if (n <= c->n_quantised)
        return true;
    quantised_release(c);
    c->quantised = cpu_alloc(n * sizeof c->quantised[0]);
    c->gated = cpu_alloc(n * sizeof c->gated[0]);
    c->n_quantised = n;
    if (c->quantised != NULL && c->gated != NULL)
        return true;
    quantised_release(c);
    return false;
}

static void turns_release(struct turns *t)
{
    free(t->positions);
    free(t->inv_freq);
    free(t->table);
    *t = (struct turns){0};
}

bool cpu_turns_reserve(struct cpu *c)
{
    struct turns *t = &c->turns;
    int n_pairs = c->max_head / 2;
    if (c->max_rows <= t->max_rows && n_pairs <= t->max_pairs)
        return true;
    turns_release(t);
    t->positions = calloc((size_t)c->max_rows + 1, sizeof t->positions[0]);
    t->inv_freq = calloc((size_t)n_pairs + 1, sizeof t->inv_freq[0]);
    t->table = calloc((size_t)c->max_rows * n_pairs + 1, 2 * sizeof t->table[0]);
    t->max_rows = c->max_rows;
    t->max_pairs = n_pairs;
    if (t->positions != NULL && t->inv_freq != NULL && t->table != NULL)
        return true;
    turns_release(t);
    return false;
}

enum err cpu_tensor_new(struct backend *b, int rows, int cols, struct tensor **out, struct error *e)
{
    struct cpu *c = cpu_of(b);
    ASSERT(rows >= 1 && cols >= 1);
    *out = NULL;
    struct tensor *t = calloc(1, sizeof *t);
    size_t bytes = (size_t)rows * cols * sizeof(float);
    float *data = cpu_alloc(bytes);
    c->max_rows = rows > c->max_rows ? rows : c->max_rows;
    if (t == NULL || data == NULL || !quantised_reserve(c) || !cpu_turns_reserve(c) ||
        !attention_reserve(c, NULL)) {
        cpu_free(data, bytes);
        free(t);
        return error_set(e, ERR_MEMORY, "activations of %d x %d: no memory for %zu bytes", rows,
                         cols, bytes);
    }
    *t = (struct tensor){.rows = rows, .cols = cols, .data = data, .bytes = bytes};
    *out = t;
    return OK;
}

void cpu_tensor_free(struct backend *b, struct tensor *t)
{
    (void)b;
    if (t == NULL)
        return;
    cpu_free(t->data, t->bytes);
    free(t);
}

void cpu_write(struct backend *b, struct tensor *t, int row, int n, const float *src)
{
    (void)b;
    ASSERT(row >= 0 && n >= 0 && row <= t->rows - n);
    if (n > 0)
        memcpy(t->data + (size_t)row * t->cols, src, (size_t)n * t->cols * sizeof(float));
}

void cpu_read(struct backend *b, const struct tensor *t, int row, int n, float *dst)
{
    (void)b;
    ASSERT(row >= 0 && n >= 0 && row <= t->rows - n);
    if (n > 0)
        memcpy(dst, t->data + (size_t)row * t->cols, (size_t)n * t->cols * sizeof(float));
}

void cpu_sync(struct backend *b)
{
    (void)b;
}

enum { PACK_BYTES = 256 << 10 }; /* about so many are packed before a thread takes more */

struct pack_job {
    struct pool *pool;
    const struct packed *packed;
    const uint8_t *rows;
    size_t row_bytes;
};

/* The threads of a node pack the panels that they will read: memory is local to who touches it
 * first. */
static void pack_part(void *context, int thread_i, int n_threads)
{
    const struct pack_job *job = context;
    const struct packed *p = job->packed;
    int grain = (int)(PACK_BYTES / p->panel_bytes) + 1, begin, end;
    (void)n_threads;
    while (pool_take(job->pool, thread_i, 0, p->n_panels, grain, &begin, &end))
        pack_panels(p, job->rows, job->row_bytes, begin, end);
}

enum err cpu_weight_new(struct backend *b, enum dtype type, int n_rows, int n_cols,
                        const void *data, struct weight **out, struct error *e)
{
    struct cpu *c = cpu_of(b);
    struct packed packed;
    uint64_t row_bytes;
    *out = NULL;
    if (!pack_layout(type, n_rows, n_cols, &packed) ||
        !dtype_row_bytes(type, (uint64_t)n_cols, &row_bytes))
        return error_set(e, ERR_UNSUPPORTED, "the CPU backend has no kernels for %d x %d of %s",
                         n_rows, n_cols, dtype_name(type));
    size_t bytes = (size_t)packed.n_panels * packed.panel_bytes;
    struct weight *w = calloc(1, sizeof *w);
    packed.data = cpu_alloc(bytes);
    if (pack_is_quantised(packed.format) && n_cols > c->max_width)
        c->max_width = n_cols;
    if (w == NULL || packed.data == NULL || !quantised_reserve(c)) {
        cpu_free(packed.data, bytes);
        free(w);
        return error_set(e, ERR_MEMORY, "weights of %d x %d, %s: no memory for %zu bytes", n_rows,
                         n_cols, dtype_name(type), bytes);
    }
    struct pack_job job = {c->pool, &packed, data, row_bytes};
    pool_run(c->pool, pack_part, &job);
    *w = (struct weight){.packed = packed, .bytes = bytes};
    *out = w;
    return OK;
}

void cpu_weight_free(struct backend *b, struct weight *w)
{
    (void)b;
    if (w == NULL)
        return;
    cpu_free(w->packed.data, w->bytes);
    free(w);
}

size_t cpu_weight_bytes(const struct weight *w)
{
    return w->bytes;
}

void cpu_scratch_release(struct cpu *c)
{
    quantised_release(c);
    turns_release(&c->turns);
    attention_release(c);
}
