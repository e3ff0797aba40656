#include "bench/kernel_bench.h"

#include "backend/cpu/kernels.h"
#include "base/panic.h"
#include "bench/trial_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_SAMPLES = 1000, LEAST_SAMPLES = 3 };
static const double IN_TURN_BYTES = 256e6; /* what is read in turn adds up to so much */
static const double SAMPLE_SECONDS = 1e-3; /* calls are timed together until they take so long */

const char *const kernel_op_names[] = {"matmul",   "ffn", "attention", "rms_norm",
                                       "silu_mul", "add", "rope",      NULL};

static const struct trial_op *const trial_ops[N_KERNEL_OPS] = {
    &matmul_trial,   &ffn_trial, &attention_trial, &rms_norm_trial,
    &silu_mul_trial, &add_trial, &rope_trial};

struct kernel_bench {
    struct backend *measured, *reference;
};

/* --- backends --- */

/* The backend reads SHOAL_CPU when it opens; what the user set is put back. */
static enum err open_backend(struct pool *pool, const char *isa, struct backend **out,
                             struct error *e)
{
    const char *had = getenv("SHOAL_CPU");
    char *kept = had != NULL ? xmalloc(strlen(had) + 1) : NULL;
    if (kept != NULL)
        memcpy(kept, had, strlen(had) + 1);
    setenv("SHOAL_CPU", isa, 1);
    enum err err = backend_cpu_open(pool, out, e);
    if (kept != NULL)
        setenv("SHOAL_CPU", kept, 1);
    else
        unsetenv("SHOAL_CPU");
    free(kept);
    return err;
}

enum err kernel_bench_new(struct pool *pool, const char *isa, struct kernel_bench **out,
                          struct error *e)
{
    *out = NULL;
    struct kernel_bench *b = xcalloc(1, sizeof *b);
    enum err err = open_backend(pool, isa, &b->measured, e);
    if (err == OK)
        err = open_backend(pool, "ref", &b->reference, e);
    if (err != OK) {
        kernel_bench_free(b);
        return err;
    }
    *out = b;
    return OK;
}

void kernel_bench_free(struct kernel_bench *b)
{
    if (b == NULL)
        return;
    if (b->measured != NULL)
        b->measured->ops->free(b->measured);
    if (b->reference != NULL)
        b->reference->ops->free(b->reference);
    free(b);
}

void kernel_bench_isas(char *text, size_t text_bytes)
{
    kernels_names(text, text_bytes);
}

const char *kernel_bench_best_isa(void)
{
    struct kernels best;
    enum err err = kernels_select(NULL, &best, NULL);
    ASSERT(err == OK);
    return best.variant;
}

bool kernel_bench_is_exact(const struct kernel_bench *b)
{
    return strcmp(b->measured->numerics_id, b->reference->numerics_id) == 0;
}

/* --- a trial --- */

void trial_values(int what, int row, float *x, int n)
{
    uint64_t state = (uint64_t)what * 0x9e3779b97f4a7c15u + (uint64_t)row * 0xd1342543de82ef95u + 1;
    for (int i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint32_t mixed = (uint32_t)(state >> 32) ^ (uint32_t)(state >> 45);
        x[i] = (float)(int32_t)(mixed >> 8) * 0x1p-23f - 1.0f;
    }
}

void trial_fill(struct trial *t, struct tensor *to, int what, int n_cols, float scale)
{
    float *row = xmalloc((size_t)n_cols * sizeof *row);
    for (int i = 0; i < t->n; i++) {
        trial_values(what, trial_token(t, i), row, n_cols);
        for (int k = 0; k < n_cols && scale != 1; k++)
            row[k] *= scale;
        t->b->ops->write(t->b, to, i, 1, row);
    }
    free(row);
}

static void trial_close(struct trial *t)
{
    const struct backend_ops *ops = t->b->ops;
    struct tensor *tensors[] = {t->x, t->y, t->z, t->more[0], t->more[1], t->more[2]};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        if (tensors[i] != NULL)
            ops->tensor_free(t->b, tensors[i]);
    for (int i = 0; i < MAX_COPIES; i++)
        if (t->w[i] != NULL)
            ops->weight_free(t->b, t->w[i]);
    if (t->kv != NULL)
        ops->kv_free(t->b, t->kv);
    free(t->positions);
    free(t->table);
    free(t->tables);
    free(t->inv_freq);
}

static enum err trial_open(struct trial *t, struct error *e)
{
    const struct trial_op *op = trial_ops[t->c->op];
    enum err err = op->open(t, e);
    if (err != OK)
        trial_close(t);
    else
        op->reset(t);
    return err;
}

/* --- speed --- */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of `n` calls; *copy goes round. */
static double time_calls(struct trial *t, long n, int *copy)
{
    const struct trial_op *op = trial_ops[t->c->op];
    double begin = now_s();
    for (long i = 0; i < n; i++) {
        op->run(t, *copy);
        *copy = (*copy + 1) % t->n_copies;
    }
    t->b->ops->sync(t->b);
    return now_s() - begin;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_seconds(struct trial *t, double least_seconds)
{
    double samples[MAX_SAMPLES];
    int copy = 0, n = 0;
    long calls = 1;
    time_calls(t, t->n_copies, &copy); /* touches everything once */
    while (time_calls(t, calls, &copy) < SAMPLE_SECONDS)
        calls *= 2;
    double begin = now_s();
    while (n < MAX_SAMPLES && (n < LEAST_SAMPLES || now_s() - begin < least_seconds))
        samples[n++] = time_calls(t, calls, &copy) / (double)calls;
    qsort(samples, (size_t)n, sizeof samples[0], by_value);
    return samples[n / 2];
}

/* --- correctness --- */

struct comparison {
    const struct trial *measured;
    struct trial *reference;
    int n_cols;    /* of the case */
    float *found;  /* a row of the measured trial */
    float *wanted; /* of the reference */
    double *exact;
    double square_sum, most;
};

static bool same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

/* Row i of the sample. The reference has all columns, or those of the sample. */
static enum err compare_row(struct comparison *c, int i, struct kernel_result *out, struct error *e)
{
    const struct trial_op *op = trial_ops[c->reference->c->op];
    const struct trial *m = c->measured, *r = c->reference;
    m->b->ops->read(m->b, op->output(m), r->tokens[i], 1, c->found);
    r->b->ops->read(r->b, op->output(r), i, 1, c->wanted);
    enum err err = op->exact(c->reference, i, c->exact, e);
    if (err != OK)
        return err;
    int n = c->n_cols < SAMPLE_COLS ? c->n_cols : SAMPLE_COLS;
    for (int j = 0; j < n; j++) {
        int col = sample_col(c->n_cols, j), ref_col = r->n_cols < c->n_cols ? j : col;
        out->equal = out->equal && same_bits(c->found[col], c->wanted[ref_col]);
        out->n_compared++;
        double exact = c->exact[ref_col], off = fabs((double)c->found[col] - exact);
        c->square_sum += exact * exact;
        c->most = off > c->most || isnan(off) ? off : c->most;
    }
    return OK;
}

static enum err compare(const struct trial *measured, struct trial *reference,
                        struct kernel_result *out, struct error *e)
{
    const struct trial_op *op = trial_ops[measured->c->op];
    struct comparison c = {measured, reference, .n_cols = op->cols(measured->c)};
    size_t n = (size_t)c.n_cols;
    c.found = malloc(n * sizeof *c.found);
    c.wanted = malloc(n * sizeof *c.wanted);
    c.exact = malloc(n * sizeof *c.exact);
    enum err err = OK;
    if (c.found == NULL || c.wanted == NULL || c.exact == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for %d outputs", c.n_cols);
    out->equal = true;
    for (int i = 0; i < reference->n && err == OK; i++)
        err = compare_row(&c, i, out, e);
    if (err == OK)
        out->error = c.square_sum > 0 ? c.most / sqrt(c.square_sum / out->n_compared) : c.most;
    free(c.found);
    free(c.wanted);
    free(c.exact);
    return err;
}

/* The first, the middle and the last token, each once. */
static int sample_tokens(int n, int tokens[SAMPLE_TOKENS])
{
    int n_tokens = 0, wanted[SAMPLE_TOKENS] = {0, n / 2, n - 1};
    for (int i = 0; i < SAMPLE_TOKENS; i++)
        if (n_tokens == 0 || wanted[i] != tokens[n_tokens - 1])
            tokens[n_tokens++] = wanted[i];
    return n_tokens;
}

/* One more run from fresh inputs, and the reference's of the sample. */
static enum err check(struct kernel_bench *b, struct trial *measured, struct kernel_result *out,
                      struct error *e)
{
    const struct kernel_case *c = measured->c;
    const struct trial_op *op = trial_ops[c->op];
    struct trial r = {.b = b->reference, .c = c, .sampled = true, .n_copies = 1};
    r.n = sample_tokens(c->n, r.tokens);
    r.n_cols = op->cols(c) < SAMPLE_COLS ? op->cols(c) : SAMPLE_COLS;
    if (c->op != OP_MATMUL)
        r.n_cols = op->cols(c);
    enum err err = trial_open(&r, e);
    if (err != OK)
        return err;
    op->reset(measured);
    op->run(measured, 0);
    op->run(&r, 0);
    err = compare(measured, &r, out, e);
    trial_close(&r);
    return err;
}

static int copies_for(enum kernel_op op, double copy_bytes)
{
    int most = op == OP_FFN ? MAX_COPIES / 3 : MAX_COPIES;
    if (copy_bytes <= 0)
        return 1;
    double n = ceil(IN_TURN_BYTES / copy_bytes);
    return n < 1 ? 1 : n > most ? most : (int)n;
}

void kernel_bench_work(const struct kernel_case *c, struct kernel_result *out)
{
    double copy_bytes;
    *out = (struct kernel_result){0};
    trial_ops[c->op]->work(c, out, &copy_bytes);
}

enum err kernel_bench_run(struct kernel_bench *b, const struct kernel_case *c, double least_seconds,
                          struct kernel_result *out, struct error *e)
{
    ASSERT(c->op < N_KERNEL_OPS && c->n >= 1);
    const struct trial_op *op = trial_ops[c->op];
    double copy_bytes;
    *out = (struct kernel_result){0};
    op->work(c, out, &copy_bytes);
    struct trial t = {.b = b->measured,
                      .c = c,
                      .n = c->n,
                      .n_cols = op->cols(c),
                      .n_copies = copies_for(c->op, copy_bytes)};
    out->from_memory = copy_bytes * t.n_copies >= IN_TURN_BYTES;
    enum err err = trial_open(&t, e);
    if (err != OK)
        return err;
    out->seconds = median_seconds(&t, least_seconds);
    err = check(b, &t, out, e);
    trial_close(&t);
    return err;
}
