/* The simulated backend: no arithmetic. Every number is a hash of all that a real backend would
 * have computed it from, so two runs agree in their tokens exactly when they agree in everything
 * that matters: weights, inputs, positions, and every earlier key-value cell that a row sees, in
 * its order.
 *
 * What it is for: whole clusters in one process (src/sim), where a wrong block, a lost or
 * swapped row, a stale cell must change the outcome, and thousands of steps must cost little; and
 * rings of real processes (shoal --backend sim), to measure all but the arithmetic.
 * Values are multiples of 2^-24 in [0, 1), so that they pass through floats, frames and the sampler
 * like real ones. A key-value cell is one 64-bit hash of k and v; a cell never written is its own
 * value, 0, which no written cell has. */
#include "backend/backend.h"

#include "base/bounds.h"
#include "base/clock.h"
#include "base/panic.h"

#include <stdlib.h>
#include <string.h>

struct sim_backend {
    struct backend base; /* first: a struct backend * is one of these */
    time_us pass_us;
    time_us began_us; /* when rows entered last; 0: they have left */
};

struct tensor {
    int rows, cols;
    float *values;
};

struct weight {
    int n_rows, n_cols;
    size_t bytes;
    uint64_t identity;
};

struct kv_store {
    struct kv_shape shape;
    uint64_t *cells; /* [n_layers][n_blocks * KV_BLOCK_TOKENS] */
};

/* ---- hashing ---- */

/* What is being computed enters every hash, so that equal inputs of different operations differ. */
enum sim_op { SIM_WEIGHT = 1, SIM_EMBED, SIM_NORM, SIM_MATMUL, SIM_ADD, SIM_ROPE, SIM_CELL,
              SIM_ATTENTION, SIM_SILU_MUL };

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
    hash *= 0xD6E8FEB86659FD93u;
    return hash ^ hash >> 32;
}

static uint64_t begin(enum sim_op op)
{
    return mix(0x53494d, (uint64_t)op);
}

static uint64_t mix_floats(uint64_t hash, const float *x, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof(bits));
        hash = mix(hash, bits);
    }
    return hash;
}

static void spread(float *y, int n, uint64_t hash)
{
    for (int i = 0; i < n; i++)
        y[i] = (float)(mix(hash, (uint64_t)i) >> 40) * 0x1p-24f;
}

static float *row_at(const struct tensor *t, int row)
{
    ASSERT(row >= 0 && row < t->rows);
    return t->values + (size_t)row * (size_t)t->cols;
}

/* Rows enter: a pass begins. */
static void begin_pass(struct backend *b)
{
    struct sim_backend *sim = (struct sim_backend *)b;
    if (sim->pass_us > 0)
        sim->began_us = clock_now_us();
}

/* ---- memory ---- */

static enum err sim_tensor_new(struct backend *b, int rows, int cols, struct tensor **out,
                               struct error *e)
{
    (void)b;
    ASSERT(rows >= 1 && cols >= 1);
    struct tensor *t = calloc(1, sizeof(*t));
    if (t != NULL)
        t->values = calloc((size_t)rows * (size_t)cols, sizeof(float));
    if (t == NULL || t->values == NULL) {
        free(t);
        *out = NULL;
        return error_set(e, ERR_MEMORY, "no memory for %d x %d values", rows, cols);
    }
    t->rows = rows;
    t->cols = cols;
    *out = t;
    return OK;
}

static void sim_tensor_free(struct backend *b, struct tensor *t)
{
    (void)b;
    free(t->values);
    free(t);
}

static void sim_write(struct backend *b, struct tensor *t, int row, int n, const float *src)
{
    ASSERT(row >= 0 && n >= 0 && row + n <= t->rows);
    begin_pass(b);
    memcpy(t->values + (size_t)row * (size_t)t->cols, src,
           (size_t)n * (size_t)t->cols * sizeof(float));
}

static void sim_read(struct backend *b, const struct tensor *t, int row, int n, float *dst)
{
    (void)b;
    ASSERT(row >= 0 && n >= 0 && row + n <= t->rows);
    memcpy(dst, t->values + (size_t)row * (size_t)t->cols,
           (size_t)n * (size_t)t->cols * sizeof(float));
}

/* The pass is over: it takes its time. */
static void sim_sync(struct backend *b)
{
    struct sim_backend *sim = (struct sim_backend *)b;
    if (sim->began_us > 0)
        clock_wait_until_us(sim->began_us + sim->pass_us);
    sim->began_us = 0;
}

static enum err sim_weight_new(struct backend *b, enum dtype type, int n_rows, int n_cols,
                               const void *data, struct weight **out, struct error *e)
{
    (void)b;
    struct weight *w = calloc(1, sizeof(*w));
    *out = w;
    if (w == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a weight");
    uint64_t row_bytes = 0;
    if (!dtype_row_bytes(type, (uint64_t)n_cols, &row_bytes))
        PANIC("a weight of %d columns of %s", n_cols, dtype_name(type));
    *w = (struct weight){
        .n_rows = n_rows, .n_cols = n_cols, .bytes = (size_t)row_bytes * (size_t)n_rows};
    uint64_t hash = mix(mix(begin(SIM_WEIGHT), (uint64_t)n_rows), (uint64_t)n_cols);
    for (size_t i = 0; data != NULL && i < w->bytes; i += sizeof(uint64_t)) {
        uint64_t word = 0;
        size_t n = w->bytes - i < sizeof(word) ? w->bytes - i : sizeof(word);
        memcpy(&word, (const char *)data + i, n);
        hash = mix(hash, word);
    }
    w->identity = hash;
    return OK;
}

static void sim_weight_free(struct backend *b, struct weight *w)
{
    (void)b;
    free(w);
}

static size_t sim_weight_bytes(const struct weight *w)
{
    return w->bytes;
}

static enum err sim_kv_new(struct backend *b, const struct kv_shape *shape, struct kv_store **out,
                           struct error *e)
{
    (void)b;
    ASSERT(shape->n_layers >= 1 && shape->n_blocks >= 1);
    struct kv_store *kv = calloc(1, sizeof(*kv));
    if (kv != NULL) {
        kv->shape = *shape;
        kv->cells = calloc((size_t)shape->n_layers * (size_t)shape->n_blocks,
                           KV_BLOCK_TOKENS * sizeof(uint64_t));
    }
    if (kv == NULL || kv->cells == NULL) {
        free(kv);
        *out = NULL;
        return error_set(e, ERR_MEMORY, "no memory for %d blocks", shape->n_blocks);
    }
    *out = kv;
    return OK;
}

static void sim_kv_free(struct backend *b, struct kv_store *kv)
{
    (void)b;
    free(kv->cells);
    free(kv);
}

static size_t sim_kv_bytes(const struct kv_store *kv)
{
    return (size_t)kv->shape.n_layers * (size_t)kv->shape.n_blocks * KV_BLOCK_TOKENS *
           sizeof(uint64_t);
}

static uint64_t *block_at(const struct kv_store *kv, int layer, int block)
{
    ASSERT(layer >= 0 && layer < kv->shape.n_layers);
    ASSERT(block >= 0 && block < kv->shape.n_blocks);
    return kv->cells + ((size_t)layer * (size_t)kv->shape.n_blocks + (size_t)block) * KV_BLOCK_TOKENS;
}

static void sim_kv_copy_block(struct backend *b, struct kv_store *kv, int from, int to)
{
    (void)b;
    for (int layer = 0; layer < kv->shape.n_layers && from != to; layer++)
        memcpy(block_at(kv, layer, to), block_at(kv, layer, from),
               KV_BLOCK_TOKENS * sizeof(uint64_t));
}

/* ---- operations ---- */

static void sim_embed(struct backend *b, struct tensor *y, const struct weight *W,
                      const int32_t *ids, int n)
{
    ASSERT(y->cols == W->n_cols);
    begin_pass(b);
    for (int r = 0; r < n; r++) {
        ASSERT(ids[r] >= 0 && ids[r] < W->n_rows);
        spread(row_at(y, r), y->cols, mix(mix(begin(SIM_EMBED), W->identity), (uint64_t)ids[r]));
    }
}

static void sim_rms_norm(struct backend *b, struct tensor *y, const struct tensor *x,
                         const struct tensor *gain, float eps, int n)
{
    (void)b;
    ASSERT(y->cols == x->cols && gain->cols == x->cols);
    uint64_t with = mix_floats(mix_floats(begin(SIM_NORM), row_at(gain, 0), gain->cols), &eps, 1);
    for (int r = 0; r < n; r++)
        spread(row_at(y, r), y->cols, mix_floats(with, row_at(x, r), x->cols));
}

static void sim_matmul(struct backend *b, struct tensor *y, const struct weight *W,
                       const struct tensor *x, int n)
{
    (void)b;
    ASSERT(x->cols == W->n_cols && y->cols == W->n_rows);
    uint64_t with = mix(begin(SIM_MATMUL), W->identity);
    for (int r = 0; r < n; r++)
        spread(row_at(y, r), y->cols, mix_floats(with, row_at(x, r), x->cols));
}

static void sim_add(struct backend *b, struct tensor *x, const struct tensor *y, int n)
{
    (void)b;
    ASSERT(x->cols == y->cols);
    for (int r = 0; r < n; r++) {
        uint64_t hash = mix_floats(begin(SIM_ADD), row_at(x, r), x->cols);
        spread(row_at(x, r), x->cols, mix_floats(hash, row_at(y, r), y->cols));
    }
}

static void sim_rope(struct backend *b, struct tensor *x, const struct rope_spec *spec,
                     const int32_t *positions, int n)
{
    (void)b;
    ASSERT(x->cols % spec->head_size == 0);
    for (int r = 0; r < n; r++) {
        uint64_t hash = mix(mix(begin(SIM_ROPE), (uint64_t)positions[r]), spec->halves);
        for (int i = 0; i < spec->rope_size / 2; i++) {
            uint64_t bits;
            memcpy(&bits, &spec->inv_freq[i], sizeof(bits));
            hash = mix(hash, bits);
        }
        spread(row_at(x, r), x->cols, mix_floats(hash, row_at(x, r), x->cols));
    }
}

static uint64_t *cell_at(const struct kv_store *kv, int layer, const int32_t *table, int position)
{
    return block_at(kv, layer, table[position / KV_BLOCK_TOKENS]) + position % KV_BLOCK_TOKENS;
}

static void sim_kv_write(struct backend *b, struct kv_store *kv, int layer, const struct tensor *k,
                         const struct tensor *v, const struct batch *batch)
{
    (void)b;
    for (int r = 0; r < batch->n; r++) {
        uint64_t hash = mix_floats(begin(SIM_CELL), row_at(k, r), k->cols);
        hash = mix_floats(hash, row_at(v, r), v->cols);
        *cell_at(kv, layer, batch->tables[r], batch->positions[r]) = hash != 0 ? hash : 1;
    }
}

static void sim_attention(struct backend *b, struct tensor *y, const struct tensor *q,
                          struct kv_store *kv, int layer, int n_heads, const struct batch *batch)
{
    (void)b;
    ASSERT(q->cols == y->cols && n_heads % kv->shape.n_kv_heads == 0);
    for (int r = 0; r < batch->n; r++) {
        uint64_t hash = mix_floats(begin(SIM_ATTENTION), row_at(q, r), q->cols);
        for (int p = window_first(kv->shape.window, batch->positions[r]); p <= batch->positions[r];
             p++)
            hash = mix(hash, *cell_at(kv, layer, batch->tables[r], p));
        spread(row_at(y, r), y->cols, hash);
    }
}

static void sim_silu_mul(struct backend *b, struct tensor *y, const struct tensor *gate,
                         const struct tensor *up, int n)
{
    (void)b;
    ASSERT(y->cols == gate->cols && gate->cols == up->cols);
    for (int r = 0; r < n; r++) {
        uint64_t hash = mix_floats(begin(SIM_SILU_MUL), row_at(gate, r), gate->cols);
        spread(row_at(y, r), y->cols, mix_floats(hash, row_at(up, r), up->cols));
    }
}

static void sim_gather(struct backend *b, struct tensor *y, const struct tensor *x,
                       const int32_t *rows, int n)
{
    (void)b;
    ASSERT(y != x && y->cols == x->cols);
    for (int i = 0; i < n; i++)
        memcpy(row_at(y, i), row_at(x, rows[i]), (size_t)x->cols * sizeof(float));
}

static void sim_free(struct backend *b)
{
    free(b);
}

static const struct backend_ops sim_ops = {
    .free = sim_free,
    .tensor_new = sim_tensor_new,
    .tensor_free = sim_tensor_free,
    .write = sim_write,
    .read = sim_read,
    .sync = sim_sync,
    .weight_new = sim_weight_new,
    .weight_free = sim_weight_free,
    .weight_bytes = sim_weight_bytes,
    .kv_new = sim_kv_new,
    .kv_free = sim_kv_free,
    .kv_bytes = sim_kv_bytes,
    .kv_copy_block = sim_kv_copy_block,
    .embed = sim_embed,
    .rms_norm = sim_rms_norm,
    .matmul = sim_matmul,
    .add = sim_add,
    .rope = sim_rope,
    .kv_write = sim_kv_write,
    .attention = sim_attention,
    .silu_mul = sim_silu_mul,
    .gather = sim_gather,
};

enum err backend_sim_open(int64_t pass_us, struct backend **out, struct error *e)
{
    ASSERT(pass_us >= 0 && pass_us <= SIM_MAX_PASS_US);
    struct sim_backend *b = calloc(1, sizeof(*b));
    *out = NULL;
    if (b == NULL)
        return error_set(e, ERR_MEMORY, "no memory for the simulated backend");
    b->base =
        (struct backend){.ops = &sim_ops, .name = "sim", .variant = "hash", .numerics_id = "sim-1"};
    b->pass_us = pass_us;
    *out = &b->base;
    return OK;
}
