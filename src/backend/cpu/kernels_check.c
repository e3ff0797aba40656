/* The checker: every op of every instruction set that this processor has, over shapes and inputs,
 * bit for bit against the reference kernels. Outputs lie between guard bytes. A NaN equals any NaN.
 *
 *   kernels_check            the ctest
 *   kernels_check --time     ends with how fast each matrix product is, on one thread
 *   kernels_check --quick    one product and one attention in 7, for an emulated processor
 *
 * A new kernel is a new slot in struct kernels and, here, a new check in `checks`. */
#include "backend/cpu/check.h"

#include "backend/cpu/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { GUARD = 64 };

const char *const fill_names[N_FILLS] = {"random", "extreme", "zero", "denormal", "huge"};
struct kernels ref;
int check_every = 1;
static int n_compared, n_failures;

/* --- buffers and comparison --- */

/* `bytes` writable bytes between guards, off any alignment by `skew` bytes. */
void *guarded_new(size_t bytes, size_t skew)
{
    uint8_t *p = xmalloc(bytes + 2 * GUARD + skew);
    memset(p, GUARD_BYTE, bytes + 2 * GUARD + skew);
    return p + GUARD + skew;
}

bool guards_intact(const void *at, size_t bytes, size_t skew)
{
    const uint8_t *p = at;
    for (size_t i = 1; i <= GUARD + skew; i++)
        if (p[-(ptrdiff_t)i] != GUARD_BYTE)
            return false;
    for (size_t i = 0; i < GUARD; i++)
        if (p[bytes + i] != GUARD_BYTE)
            return false;
    return true;
}

void guarded_free(void *p, size_t skew)
{
    free((uint8_t *)p - GUARD - skew);
}

static bool same_float(uint32_t a, uint32_t b)
{
    bool a_nan = (a & 0x7fffffffu) > 0x7f800000u, b_nan = (b & 0x7fffffffu) > 0x7f800000u;
    return a == b || (a_nan && b_nan);
}

void report(bool ok, const char *what)
{
    n_compared++;
    if (!ok && ++n_failures <= 20)
        printf("DIFFERS: %s\n", what);
}

/* Compare n floats; `what` says the case. */
void compare_floats(const float *found, const float *expected, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        if (!same_float(f32_bits(found[i]), f32_bits(expected[i]))) {
            char text[400];
            snprintf(text, sizeof text, "%s: [%zu] found %a, expected %a", what, i, found[i],
                     expected[i]);
            report(false, text);
            return;
        }
    }
    report(true, what);
}

/* Floats of a fill; one in 64 an infinity or a NaN when `hostile`. */
float *values_new(struct random *r, enum fill fill, bool hostile, size_t n)
{
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    float *x = xmalloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = hostile && random_u64(r) % 64 == 0 ? bad[random_u64(r) % 3] : fill_value(r, fill);
    return x;
}

/* --- the checks --- */

static void check_groups(const struct quant_group *q, const struct quant_group *expected, size_t n,
                         const char *what)
{
    for (size_t g = 0; g < n; g++) {
        report(memcmp(q[g].codes, expected[g].codes, GROUP) == 0, what);
        report(q[g].less_sum == expected[g].less_sum, what);
        report(q[g].less_first == expected[g].less_first, what);
        compare_floats(&q[g].scaled_sum, &expected[g].scaled_sum, 1, what);
        compare_floats(&q[g].scale, &expected[g].scale, 1, what);
    }
}

/* Some groups of some rows of a larger array: what is beside them stays. */
static void check_quantise_rows(const struct kernels *k, const char *name, const float *x,
                                size_t n_rows, size_t n_groups, bool interleaved)
{
    enum { ROW = 3, BEFORE = 2, BEHIND = 1 };
    struct quant_rows rows = {NULL, BEFORE + n_groups + BEHIND, interleaved}, expected_rows = rows;
    size_t n = quant_rows_room(ROW + n_rows, rows.n_groups), bytes = n * sizeof *rows.groups;
    rows.groups = guarded_new(bytes, 0);
    expected_rows.groups = guarded_new(bytes, 0);
    memset(rows.groups, 0, bytes);
    memset(expected_rows.groups, 0, bytes);
    k->quantise(&rows, ROW, BEFORE, x, n_rows, n_groups);
    ref.quantise(&expected_rows, ROW, BEFORE, x, n_rows, n_groups);
    char what[120];
    snprintf(what, sizeof what, "%s quantise %s, %zu rows of %zu groups%s", k->variant, name,
             n_rows, n_groups, interleaved ? ", interleaved" : "");
    check_groups(rows.groups, expected_rows.groups, n, what);
    report(guards_intact(rows.groups, bytes, 0), "quantise: guard bytes");
    guarded_free(rows.groups, 0);
    guarded_free(expected_rows.groups, 0);
}

static void check_quantise(const struct kernels *k)
{
    struct random random = {.state = 11};
    for (int fill = 0; fill < 2 * N_FILLS; fill++) {
        enum { N_GROUPS = 67, N = N_GROUPS * GROUP };
        float *x = values_new(&random, (enum fill)(fill / 2), fill & 1, N);
        for (int i = 0; i < 64; i++) /* ties, and the ends of the codes */
            x[i] = (float)(i - 32) * 0.5f + (i == 0 ? -111.0f : i == 63 ? 111.5f : 0.0f);
        const char *name = fill_names[fill / 2];
        for (int interleaved = 0; interleaved < 2; interleaved++) {
            check_quantise_rows(k, name, x, 1, N_GROUPS, interleaved);
            check_quantise_rows(k, name, x, N_GROUPS, 1, interleaved);
            check_quantise_rows(k, name, x, 9, 7, interleaved);
        }
        free(x);
    }
}

struct product {
    struct packed w;
    float *x;
    struct quant_rows q, interleaved;
    int n;
};

static struct quant_rows rows_new(size_t n, size_t n_groups, bool interleaved)
{
    size_t room = quant_rows_room(n, n_groups);
    return (struct quant_rows){xmalloc((room + 1) * sizeof(struct quant_group)), n_groups,
                               interleaved};
}

static void product_init(struct product *p, enum dtype type, enum fill fill, bool hostile,
                         int n_rows, int n_cols, int n)
{
    struct random random = {.state = (uint64_t)(n_rows * 131 + n_cols * 7 + n)};
    uint64_t row_bytes = 0;
    ASSERT(pack_layout(type, n_rows, n_cols, &p->w));
    ASSERT(dtype_row_bytes(type, (uint64_t)n_cols, &row_bytes));
    uint8_t *file = xmalloc(row_bytes * n_rows);
    fill_weights(&random, fill, type, (size_t)n_rows * n_cols, file);
    p->w.data = cpu_alloc(p->w.panel_bytes * (size_t)p->w.n_panels);
    pack_panels(&p->w, file, row_bytes, 0, p->w.n_panels);
    free(file);
    p->n = n;
    p->x = values_new(&random, fill, hostile, (size_t)n * n_cols);
    p->q = rows_new((size_t)n, (size_t)(n_cols / GROUP), false);
    p->interleaved = rows_new((size_t)n, (size_t)(n_cols / GROUP), true);
    if (!pack_is_quantised(p->w.format))
        return;
    ref.quantise(&p->q, 0, 0, p->x, (size_t)n, p->q.n_groups);
    ref.quantise(&p->interleaved, 0, 0, p->x, (size_t)n, p->q.n_groups);
}

static void product_release(struct product *p)
{
    cpu_free(p->w.data, p->w.panel_bytes * (size_t)p->w.n_panels);
    free(p->x);
    free(p->q.groups);
    free(p->interleaved.groups);
}

/* The product as a kernel wants its rows. */
static struct matmul matmul_of(const struct kernels *k, const struct product *p, float *y)
{
    bool interleaved = k->interleave_from > 0 && p->n >= k->interleave_from;
    return (struct matmul){.w = &p->w,
                           .x = p->x,
                           .q = interleaved ? p->interleaved : p->q,
                           .y = y,
                           .y_stride = (size_t)p->w.n_rows,
                           .n = p->n};
}

/* y of all rows of panels [begin, end), n tokens from t; guards checked, freed by the caller. */
static float *multiply(const struct kernels *k, const struct product *p, int begin, int end)
{
    size_t bytes = (size_t)p->n * p->w.n_rows * sizeof(float);
    float *y = guarded_new(bytes, 4);
    struct matmul m = matmul_of(k, p, y);
    k->matmul[p->w.format](&m, begin, end);
    report(guards_intact(y, bytes, 4), "matmul: guard bytes");
    return y;
}

/* The rows from panel `begin` on, into a matrix of these alone and added to what is there. */
static void check_added(const struct kernels *k, const struct product *p, int begin,
                        const char *what)
{
    size_t n_cols = (size_t)(p->w.n_rows - begin * PANEL_ROWS), n = (size_t)p->n * n_cols;
    float *y = guarded_new(n * sizeof(float), 4), *expected = guarded_new(n * sizeof(float), 4);
    for (size_t i = 0; i < n; i++)
        y[i] = expected[i] = (float)i * 0.37f - 2.0f;
    struct matmul m = matmul_of(k, p, y), by_ref = matmul_of(&ref, p, expected);
    m.y_stride = by_ref.y_stride = n_cols;
    m.first_row = by_ref.first_row = begin * PANEL_ROWS;
    m.add = by_ref.add = true;
    k->matmul[p->w.format](&m, begin, p->w.n_panels);
    ref.matmul[p->w.format](&by_ref, begin, p->w.n_panels);
    compare_floats(y, expected, n, what);
    report(guards_intact(y, n * sizeof(float), 4), "matmul added: guard bytes");
    guarded_free(y, 4);
    guarded_free(expected, 4);
}

static void check_product(const struct kernels *k, enum dtype type, enum fill fill, bool hostile,
                          int n_rows, int n_cols, int n)
{
    static int n_products;
    if (n_products++ % check_every != 0)
        return;
    struct product p;
    product_init(&p, type, fill, hostile, n_rows, n_cols, n);
    char what[160];
    snprintf(what, sizeof what, "%s matmul %s %s rows %d k %d n %d%s", k->variant, dtype_name(type),
             fill_names[fill], n_rows, n_cols, n, hostile ? " with NaN" : "");
    float *expected = multiply(&ref, &p, 0, p.w.n_panels);
    float *y = multiply(k, &p, 0, p.w.n_panels);
    compare_floats(y, expected, (size_t)n * n_rows, what);
    guarded_free(y, 4);

    /* A part of the panels writes its own columns and no other. */
    int begin = p.w.n_panels / 3, end = begin + (p.w.n_panels - begin + 1) / 2;
    y = multiply(k, &p, begin, end);
    for (int t = 0; t < n; t++) {
        for (int r = 0; r < n_rows; r++) {
            bool inside = r >= begin * PANEL_ROWS && r < end * PANEL_ROWS;
            if (!inside)
                memset(&expected[(size_t)t * n_rows + r], GUARD_BYTE, sizeof(float));
        }
    }
    compare_floats(y, expected, (size_t)n * n_rows, what);
    guarded_free(y, 4);
    guarded_free(expected, 4);
    check_added(k, &p, begin, what);
    product_release(&p);
}

static void check_format(const struct kernels *k, enum dtype type)
{
    static const int row_counts[] = {1, 15, 16, 17, 40, 100};
    static const int token_counts[] = {1,  2,  3,  4,  5,  6,  7,  8,   9,
                                       12, 15, 16, 17, 33, 65, 66, 133, 270};
    static const int block_counts[] = {1, 2, 5, 8, 9, 19};
    static const int float_widths[] = {1, 5, 31, 32, 33, 100, 257, 288};
    int block = dtype_info(type)->block_elems;
    for (size_t t = 0; t < sizeof token_counts / sizeof token_counts[0]; t++)
        for (size_t r = 0; r < 6; r++)
            check_product(k, type, FILL_RANDOM, r == 3, row_counts[r],
                          block == 1 ? float_widths[(t + r) % 8]
                                     : block * block_counts[(t + r) % 6],
                          token_counts[t]);
    for (int fill = 0; fill < N_FILLS; fill++)
        for (size_t b = 0; b < 6; b++)
            for (int n = 1; n < 10; n += 4)
                check_product(k, type, (enum fill)fill, b == 2, 24,
                              (block == 1 ? GROUP : block) * block_counts[b], n);
    for (size_t w = 0; w < sizeof float_widths / sizeof float_widths[0] && block == 1; w++)
        for (int n = 1; n < 10; n += 4)
            check_product(k, type, FILL_RANDOM, false, 20, float_widths[w], n);
}

/* A slot that an instruction set leaves is ref's: there is nothing to compare. */
static void check_matmul(const struct kernels *k)
{
    static const enum dtype types[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0,
                                       DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q6_K};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct packed p;
        ASSERT(pack_layout(types[i], 1, SUPER_BLOCK, &p));
        if (k->matmul[p.format] != ref.matmul[p.format])
            check_format(k, types[i]);
    }
}

static const int lengths[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 100, 288, 1031};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

static void check_rms_norm(const struct kernels *k)
{
    struct random random = {.state = 12};
    /* Most errors of a sum vanish in the square root: many repetitions with random values. */
    enum { REPEATS = 20 };
    for (int i = 0; i < N_LENGTHS * (N_FILLS + REPEATS); i++) {
        int n = lengths[i % N_LENGTHS], round = i / N_LENGTHS;
        enum fill fill = round < N_FILLS ? (enum fill)round : FILL_RANDOM;
        size_t bytes = (size_t)n * sizeof(float);
        float *x = values_new(&random, fill, round == N_FILLS, (size_t)n);
        float *gain = values_new(&random, FILL_RANDOM, false, (size_t)n);
        float *y = guarded_new(bytes, 4), *expected = guarded_new(bytes, 0);
        k->rms_norm(y, x, gain, 1e-5f, n);
        ref.rms_norm(expected, x, gain, 1e-5f, n);
        char what[120];
        snprintf(what, sizeof what, "%s rms_norm %s %d", k->variant, fill_names[fill], n);
        compare_floats(y, expected, (size_t)n, what);
        report(guards_intact(y, bytes, 4), "rms_norm: guard bytes");
        k->rms_norm(x, x, gain, 1e-5f, n); /* in place */
        compare_floats(x, expected, (size_t)n, what);
        free(x);
        free(gain);
        guarded_free(y, 4);
        guarded_free(expected, 0);
    }
}

/* silu and add over values of every size, among them all that the exponential treats apart. */
static void check_elementwise(const struct kernels *k)
{
    struct random random = {.state = 13};
    static const float special[] = {0.0f,  -0.0f,  88.72f,  88.73f,   88.74f,    -88.73f,  103.9f,
                                    104.f, 104.1f, -104.0f, -104.1f,  87.34f,    1e-30f,   -1e-30f,
                                    1e30f, -1e30f, NAN,     INFINITY, -INFINITY, 0x1p-149f};
    for (int i = 0; i < N_LENGTHS * N_FILLS; i++) {
        size_t n = (size_t)lengths[i % N_LENGTHS] * 3, bytes = n * sizeof(float);
        enum fill fill = (enum fill)(i / N_LENGTHS);
        float *gate = values_new(&random, fill, true, n), *up = values_new(&random, fill, true, n);
        for (size_t j = 0; j < n && fill == FILL_RANDOM; j++)
            gate[j] = j % 3 ? gate[j] * 110.0f : special[random_u64(&random) % 20];
        float *y = guarded_new(bytes, 4), *expected = guarded_new(bytes, 0);
        char what[120];
        snprintf(what, sizeof what, "%s silu_mul %s %zu", k->variant, fill_names[fill], n);
        k->silu_mul(y, gate, up, n);
        ref.silu_mul(expected, gate, up, n);
        compare_floats(y, expected, n, what);
        report(guards_intact(y, bytes, 4), "silu_mul: guard bytes");
        memcpy(y, gate, bytes);
        memcpy(expected, gate, bytes);
        k->silu_mul(y, y, up, n); /* in place */
        ref.silu_mul(expected, expected, up, n);
        compare_floats(y, expected, n, what);
        k->add(y, up, n);
        ref.add(expected, up, n);
        compare_floats(y, expected, n, "add");
        report(guards_intact(y, bytes, 4), "add: guard bytes");
        free(gate);
        free(up);
        guarded_free(y, 4);
        guarded_free(expected, 0);
    }
}

static void check_rotate(const struct kernels *k)
{
    struct random random = {.state = 14};
    for (int pairs = 1; pairs <= 70; pairs++) {
        for (int variant = 0; variant < 4; variant++) {
            size_t n = (size_t)pairs * 2, bytes = n * sizeof(float);
            bool halves = variant & 1;
            float *turn = values_new(&random, FILL_RANDOM, false, n);
            float *x = values_new(&random, variant & 2 ? FILL_DENORMAL : FILL_RANDOM, false, n);
            float *y = guarded_new(bytes, 4);
            memcpy(y, x, bytes);
            k->rotate(y, turn, pairs * 2, halves);
            ref.rotate(x, turn, pairs * 2, halves);
            char what[120];
            snprintf(what, sizeof what, "%s rotate %d %s", k->variant, pairs,
                     halves ? "halves" : "neighbours");
            compare_floats(y, x, n, what);
            report(guards_intact(y, bytes, 4), "rotate: guard bytes");
            free(turn);
            free(x);
            guarded_free(y, 4);
        }
    }
}

/* Every 1021st float there is, NaNs included, and a few lengths. */
static void check_to_f16(const struct kernels *k)
{
    size_t n = (size_t)((UINT64_C(1) << 32) / 1021);
    float *x = xmalloc(n * sizeof *x);
    struct f16 *y = guarded_new(n * 2, 2), *expected = xmalloc(n * 2);
    for (size_t i = 0; i < n; i++)
        x[i] = f32_from_bits((uint32_t)(i * 1021));
    k->to_f16(y, x, n);
    ref.to_f16(expected, x, n);
    report(memcmp(y, expected, n * 2) == 0, "to_f16");
    report(guards_intact(y, n * 2, 2), "to_f16: guard bytes");
    guarded_free(y, 2);
    for (int i = 0; i < N_LENGTHS; i++) {
        size_t part = (size_t)lengths[i];
        y = guarded_new(part * 2, 2);
        k->to_f16(y, x + 777777, part);
        report(memcmp(y, expected + 777777, part * 2) == 0, "to_f16 part");
        report(guards_intact(y, part * 2, 2), "to_f16 part: guard bytes");
        guarded_free(y, 2);
    }
    free(x);
    free(expected);
}

static const struct {
    const char *op;
    void (*run)(const struct kernels *k);
} checks[] = {
    {"quantise", check_quantise},         {"matmul", check_matmul}, {"rms_norm", check_rms_norm},
    {"silu_mul, add", check_elementwise}, {"rotate", check_rotate}, {"to_f16", check_to_f16},
    {"attention", check_attention},
};

/* --- speed --- */

double check_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Best of some repetitions of one product, in seconds. */
static double time_product(const struct kernels *k, const struct product *p, float *y)
{
    struct matmul m = matmul_of(k, p, y);
    double best = 1e9, begin = check_seconds();
    for (int i = 0; i < 3 || (i < 30 && check_seconds() - begin < 0.5); i++) {
        double t = check_seconds();
        k->matmul[p->w.format](&m, 0, p->w.n_panels);
        t = check_seconds() - t;
        best = t < best ? t : best;
    }
    return best;
}

/* What one thread reads from memory with the plainest loop, GB/s. */
static double read_bandwidth(void)
{
    size_t bytes = 256 << 20, n = bytes / 8;
    uint64_t *p = cpu_alloc(bytes), sums[8] = {0};
    if (p == NULL)
        return 0;
    memset(p, 1, bytes);
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        double t = check_seconds();
        for (size_t j = 0; j < n; j += 8)
            for (int l = 0; l < 8; l++)
                sums[l] += p[j + l];
        t = check_seconds() - t;
        best = t < best ? t : best;
    }
    volatile uint64_t keep =
        sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
    (void)keep;
    cpu_free(p, bytes);
    return (double)bytes / best * 1e-9;
}

static void time_products(const struct kernels *k)
{
    static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_K,
                                       DTYPE_Q6_K, DTYPE_F16,  DTYPE_F32};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        enum { ROWS = 16384, COLS = 4096, TOKENS = 128 };
        struct product p;
        product_init(&p, types[i], FILL_RANDOM, false, ROWS, COLS, TOKENS);
        float *y = xmalloc((size_t)ROWS * TOKENS * sizeof *y);
        double all = time_product(k, &p, y);
        p.n = 1;
        double one = time_product(k, &p, y);
        double bytes = (double)p.w.panel_bytes * p.w.n_panels;
        printf("%-7s %-5s 1 token %6.1f GB/s   %d tokens %7.1f Gop/s\n", k->variant,
               dtype_name(types[i]), bytes / one * 1e-9, TOKENS,
               2.0 * ROWS * COLS * TOKENS / all * 1e-9);
        free(y);
        product_release(&p);
    }
}

/* One thread: ThreadSanitizer has nothing to find here, and takes minutes over all of it. */
#ifdef __SANITIZE_THREAD__
enum { QUICK = 1 };
#else
enum { QUICK = 0 };
#endif

int main(int argc, char **argv)
{
    bool timing = argc > 1 && strcmp(argv[1], "--time") == 0;
    bool quick = QUICK || (argc > 1 && strcmp(argv[1], "--quick") == 0);
    check_every = quick ? 7 : 1;
    /* While a piece of it lives its region stays (memory.c): an emulator is slow to map another. */
    void *piece = cpu_alloc(1 << 20);
    for (const struct isa *isa = kernels_isas; isa->name != NULL; isa++) {
        if (!isa->present()) {
            printf("%-7s not on this processor\n", isa->name);
            continue;
        }
        struct kernels k;
        kernels_ref(&ref);
        if (isa->fill_ref != NULL)
            isa->fill_ref(&ref);
        kernels_ref(&k);
        isa->fill(&k); /* this instruction set alone: a slot it leaves is ref's, equal to itself */
        k.variant = isa->name;
        for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
            int before = n_compared, failed = n_failures;
            checks[i].run(&k);
            printf("%-7s %-14s %6d comparisons, %d differ\n", isa->name, checks[i].op,
                   n_compared - before, n_failures - failed);
        }
        if (timing) {
            time_products(&k);
            time_attention(&k);
        }
    }
    if (timing)
        printf("plain reading of memory, one thread: %.1f GB/s\n", read_bandwidth());
    cpu_free(piece, 1 << 20);
    return n_failures > 0;
}
