/* Matrix products of the CPU backend: how they are shared out over the pool, and what is fused
 * around them so that activations cross memory as seldom as can be: the norm of a row is quantised
 * while it is in the first-level cache, sums are added to the residual where they are made, and a
 * gated feed-forward block goes from gate and up straight to the quantised input of down. The bits
 * are those of the operations one after the other.
 *
 * A piece of work is some pairs of panels (32 rows of the matrix) for all tokens: threads take
 * pieces until none is left (pool_take), so that a slower one does less. */
#include "backend/cpu/cpu_impl.h"

enum {
    MATMUL_MANY_MAX = POOL_SERIES, /* matrices behind one barrier */
    PAIR_ROWS = 2 * PANEL_ROWS,
    PIECES = 8,       /* of one matrix for each thread */
    PIECE_PAIRS = 16, /* at most: what is read again for each piece are the activations */
    FFN_TOKENS = 132, /* tokens of a gated block at a time, at most; */
    FFN_TILE = 12,    /* a multiple of the kernels' tiles */
};
_Static_assert((int)FFN_TILE % (int)QUANT_TILE == 0, "tokens from any on are rows of their own");

static int n_pairs(const struct packed *w)
{
    return (w->n_panels + 1) / 2;
}

static int piece(const struct cpu *c, int pairs)
{
    int grain = pairs / (PIECES * pool_n_threads(c->pool));
    return grain < 1 ? 1 : grain > PIECE_PAIRS ? PIECE_PAIRS : grain;
}

static size_t work_of(const struct packed *w, int n)
{
    return (size_t)w->n_panels * PANEL_ROWS * (size_t)w->n_cols * n;
}

/* --- input rows: normed, quantised, or both --- */

/* Rows of n tokens, as the products that read them want them. */
static struct quant_rows quant_rows(const struct cpu *c, struct quant_group *groups, int n,
                                    int n_cols)
{
    struct quant_rows rows = {.groups = groups, .n_groups = (size_t)(n_cols / GROUP)};
    rows.interleaved = c->kernels.interleave_from > 0 && n >= c->kernels.interleave_from;
    ASSERT(quant_rows_room((size_t)n, rows.n_groups) <= c->n_quantised);
    return rows;
}

struct input_job {
    const struct cpu *cpu;
    const float *x;
    const float *gain; /* NULL: no norm */
    float *normed; /* [n][cols] */
    bool passing;  /* only their groups are wanted of the normed rows */
    float eps;
    struct quant_rows q; /* no groups: no quantising */
    int n, cols;
};

static void input_part(void *context, int thread_i, int n_threads)
{
    const struct input_job *job = context;
    const struct kernels *k = &job->cpu->kernels;
    int tile = job->q.interleaved ? QUANT_TILE : 1, begin, end; /* rows that share cache lines */
    pool_share((job->n - 1) / tile + 1, thread_i, n_threads, &begin, &end);
    for (int i = begin * tile; i < job->n && i < end * tile; i++) {
        size_t at = (size_t)i * job->cols;
        const float *row = job->x + at;
        if (job->gain != NULL) {
            float *normed = job->normed + (job->passing ? (size_t)begin * tile * job->cols : at);
            k->rms_norm(normed, row, job->gain, job->eps, job->cols);
            row = normed;
        }
        if (job->q.groups != NULL)
            k->quantise(&job->q, (size_t)i, 0, row, 1, job->q.n_groups);
    }
}

static void prepare_input(struct cpu *c, struct input_job *job)
{
    job->cpu = c;
    if (job->gain != NULL || job->q.groups != NULL)
        cpu_run(c, (size_t)job->n * job->cols, input_part, job);
}

/* --- products --- */

struct matmul_job {
    struct cpu *cpu;
    int n_weights;
    struct matmul m[MATMUL_MANY_MAX];
};

static void matmul_part(void *context, int thread_i, int n_threads)
{
    (void)n_threads;
    const struct matmul_job *job = context;
    struct cpu *c = job->cpu;
    for (int i = 0; i < job->n_weights; i++) {
        const struct matmul *m = &job->m[i];
        int n_panels = m->w->n_panels, pairs = n_pairs(m->w), begin, end;
        while (pool_take(c->pool, thread_i, i, pairs, piece(c, pairs), &begin, &end))
            c->kernels.matmul[m->w->format](m, 2 * begin, 2 * end < n_panels ? 2 * end : n_panels);
    }
}

static int count_quantised(const struct weight *const W[], int n_weights)
{
    int n = 0;
    for (int i = 0; i < n_weights; i++)
        n += pack_is_quantised(W[i]->packed.format);
    return n;
}

/* y[i] (+)= x W[i]^T for rows that have been prepared. */
static void products(struct cpu *c, struct tensor *const y[], const struct weight *const W[],
                     int n_weights, const struct tensor *x, const struct input_job *input, bool add)
{
    int n = input->n;
    struct matmul_job job = {.cpu = c, .n_weights = n_weights};
    size_t work = 0;
    for (int i = 0; i < n_weights; i++) {
        const struct packed *w = &W[i]->packed;
        ASSERT(w->n_cols == x->cols && n <= y[i]->rows && w->n_rows == y[i]->cols);
        job.m[i] = (struct matmul){.w = w,
                                   .x = x->data,
                                   .q = input->q,
                                   .y = y[i]->data,
                                   .y_stride = (size_t)y[i]->cols,
                                   .n = n,
                                   .add = add};
        work += work_of(w, n);
    }
    cpu_run(c, work, matmul_part, &job);
}

static void many(struct cpu *c, struct tensor *const y[], const struct weight *const W[],
                 int n_weights, const struct tensor *x, const struct input_job *input)
{
    for (int i = 0; i < n_weights; i += MATMUL_MANY_MAX) {
        int count = n_weights - i < MATMUL_MANY_MAX ? n_weights - i : MATMUL_MANY_MAX;
        products(c, y + i, W + i, count, x, input, false);
    }
}

void cpu_matmul_many(struct backend *b, struct tensor *const y[], const struct weight *const W[],
                     int n_weights, const struct tensor *x, int n)
{
    struct cpu *c = cpu_of(b);
    ASSERT(n <= x->rows);
    if (n <= 0)
        return;
    struct input_job input = {.x = x->data, .n = n, .cols = x->cols};
    if (count_quantised(W, n_weights) > 0)
        input.q = quant_rows(c, c->quantised, n, x->cols);
    prepare_input(c, &input);
    many(c, y, W, n_weights, x, &input);
}

void cpu_matmul(struct backend *b, struct tensor *y, const struct weight *W, const struct tensor *x,
                int n)
{
    cpu_matmul_many(b, &y, &W, 1, x, n);
}

static struct input_job norm_job(const struct normed *in, int n)
{
    const struct tensor *x = in->x;
    ASSERT(n <= x->rows && n <= in->scratch->rows && in->scratch->cols == x->cols);
    ASSERT(in->gain->cols == x->cols);
    return (struct input_job){.x = x->data,
                              .gain = in->gain->data,
                              .normed = in->scratch->data,
                              .eps = in->eps,
                              .n = n,
                              .cols = x->cols};
}

void cpu_norm_matmul_many(struct backend *b, struct tensor *const y[],
                          const struct weight *const W[], int n_weights, const struct normed *x,
                          int n)
{
    struct cpu *c = cpu_of(b);
    if (n <= 0)
        return;
    struct input_job input = norm_job(x, n);
    int n_quantised = count_quantised(W, n_weights);
    if (n_quantised > 0)
        input.q = quant_rows(c, c->quantised, n, input.cols);
    input.passing = n_quantised == n_weights;
    prepare_input(c, &input);
    many(c, y, W, n_weights, x->scratch, &input);
}

void cpu_matmul_add(struct backend *b, struct tensor *x, const struct weight *W,
                    const struct tensor *y, struct tensor *product, int n)
{
    struct cpu *c = cpu_of(b);
    (void)product;
    ASSERT(n <= y->rows);
    if (n <= 0)
        return;
    struct input_job input = {.x = y->data, .n = n, .cols = y->cols};
    if (pack_is_quantised(W->packed.format))
        input.q = quant_rows(c, c->quantised, n, y->cols);
    prepare_input(c, &input);
    products(c, &x, &W, 1, y, &input, true);
}

/* --- the gated feed-forward block --- */

struct gated_job {
    struct cpu *cpu;
    const struct packed *gate, *up;
    struct quant_rows x, gated;
    int n;
};

/* n tokens of the rows of some pairs of gate and up become as many groups of each token's input of
 * down. n * count <= FFN_TOKENS. */
static void gated_pairs(const struct gated_job *job, int first_pair, int count, int token, int n)
{
    const struct kernels *k = &job->cpu->kernels;
    float gated[FFN_TOKENS * PAIR_ROWS], upped[FFN_TOKENS * PAIR_ROWS];
    size_t cols = (size_t)count * PAIR_ROWS;
    int panel = 2 * first_pair, end = panel + 2 * count;
    struct matmul m = {.w = job->gate,
                       .q = job->x,
                       .y = gated,
                       .y_stride = cols,
                       .n = n,
                       .first_row = panel * PANEL_ROWS};
    m.q.groups = quant_at(&job->x, (size_t)token, 0);
    k->matmul[m.w->format](&m, panel, end);
    m.w = job->up;
    m.y = upped;
    k->matmul[m.w->format](&m, panel, end);
    k->silu_mul(gated, gated, upped, (size_t)n * cols);
    k->quantise(&job->gated, (size_t)token, (size_t)first_pair, gated, (size_t)n, (size_t)count);
}

/* With few tokens as many pairs at a time as there is room for: going to and fro between gate and up
 * in small steps, the prefetcher would have to find each stream again. */
static void gated_part(void *context, int thread_i, int n_threads)
{
    (void)n_threads;
    const struct gated_job *job = context;
    int all = n_pairs(job->gate), begin, end;
    int tokens = even_tokens(job->n, FFN_TOKENS, FFN_TILE);
    int pairs = job->n < tokens ? FFN_TOKENS / job->n : 1;
    while (pool_take(job->cpu->pool, thread_i, 0, all, piece(job->cpu, all), &begin, &end)) {
        for (int t = 0; t < job->n; t += tokens) {
            int n = job->n - t < tokens ? job->n - t : tokens;
            for (int pair = begin; pair < end; pair += pairs)
                gated_pairs(job, pair, end - pair < pairs ? end - pair : pairs, t, n);
        }
    }
}

void cpu_gated_ffn(struct backend *b, struct tensor *x, const struct gated_ffn *f, int n)
{
    struct cpu *c = cpu_of(b);
    const struct packed *gate = &f->gate->packed, *up = &f->up->packed, *down = &f->down->packed;
    if (n <= 0)
        return;
    if (!pack_is_quantised(gate->format) || !pack_is_quantised(up->format) ||
        !pack_is_quantised(down->format)) {
        backend_gated_ffn_steps(b, x, f, n);
        return;
    }
    ASSERT(f->in.x == x && gate->n_cols == x->cols && up->n_cols == x->cols);
    ASSERT(gate->n_rows == up->n_rows && down->n_cols == gate->n_rows && down->n_rows == x->cols);
    struct input_job input = norm_job(&f->in, n);
    input.q = quant_rows(c, c->quantised, n, x->cols);
    input.passing = true;
    prepare_input(c, &input);
    struct gated_job gated = {.cpu = c,
                              .gate = gate,
                              .up = up,
                              .x = input.q,
                              .gated = quant_rows(c, c->gated, n, down->n_cols),
                              .n = n};
    cpu_run(c, work_of(gate, n), gated_part, &gated);
    struct matmul_job job = {.cpu = c, .n_weights = 1};
    job.m[0] = (struct matmul){
        .w = down, .q = gated.gated, .y = x->data, .y_stride = (size_t)x->cols, .n = n, .add = true};
    cpu_run(c, work_of(down, n), matmul_part, &job);
}
