/* Checks of attention, a part of kernels_check. */
#include "backend/cpu/check.h"

#include "backend/cpu/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const char *const type_names[N_KV_TYPES] = {"f16", "f32", "q8"};

/* Rows of one sequence at the positions before n_positions. */
struct attention_case {
    enum kv_type type;
    int n_kv_heads, sharing, head_size, n_positions, n_rows;
    enum fill fill;
    bool hostile;
    int window;
};

/* What a case needs in memory. */
struct attention_data {
    struct attention a;
    struct batch batch;
    uint8_t *cells;
    float *q, *scratch;
    int32_t *table, *positions;
    const int32_t **tables;
    size_t n; /* floats of q and y */
};

static void fill_f16(struct random *r, const struct attention_case *c, uint8_t *at, size_t n)
{
    float *x = values_new(r, c->fill, c->hostile, n);
    ref.to_f16((struct f16 *)(void *)at, x, n);
    free(x);
}

static void fill_f32(struct random *r, const struct attention_case *c, uint8_t *at, size_t n)
{
    float *x = values_new(r, c->fill, c->hostile, n);
    memcpy(at, x, n * sizeof *x);
    free(x);
}

/* Keys, or values, of a head in one block: elements, and the scales of a q8 store. */
static void fill_block(struct random *r, const struct attention_case *c, uint8_t *at, size_t n,
                       size_t n_scales)
{
    if (c->type == KV_F16)
        fill_f16(r, c, at, n);
    else if (c->type == KV_F32)
        fill_f32(r, c, at, n);
    else {
        for (size_t i = 0; i < n; i++)
            at[i] = fill_code(r, c->fill);
        fill_f32(r, c, at + n, n_scales);
    }
}

/* A store of exactly the blocks that are needed (so that ASan sees a read past them), the padding
 * of values filled too. */
static void fill_cells(struct random *r, const struct attention_case *c, const struct kv_layout *l,
                       uint8_t *cells, int n_blocks)
{
    const size_t n = KV_BLOCK_TOKENS, scales = n * (size_t)l->n_groups;
    for (int h = 0; h < c->n_kv_heads; h++)
        for (int b = 0; b < n_blocks; b++) {
            fill_block(r, c, cells + kv_keys_at(l, n_blocks, b, h), n * l->head_size, scales);
            fill_block(r, c, cells + kv_values_at(l, n_blocks, b, h), n * l->padded, scales);
        }
}

static void data_init(struct attention_data *x, const struct attention_case *c)
{
    struct random random = {.state = (uint64_t)(c->n_positions * 100 + c->head_size)};
    struct kv_layout l = kv_layout(c->type, c->n_kv_heads, c->head_size);
    int n_blocks = (c->n_positions - 1) / KV_BLOCK_TOKENS + 1, n_heads = c->n_kv_heads * c->sharing;
    x->table = xmalloc((size_t)n_blocks * sizeof *x->table);
    x->positions = xmalloc((size_t)c->n_rows * sizeof *x->positions);
    x->tables = xmalloc((size_t)c->n_rows * sizeof *x->tables);
    int n_holes = window_first(c->window, c->n_positions - c->n_rows) / KV_BLOCK_TOKENS;
    for (int b = 0; b < n_blocks; b++)
        x->table[b] = n_blocks - 1 - b; /* in reverse */
    for (int b = 0; b < n_holes; b++)
        x->table[b] = INT32_MAX; /* a block that is not there: reading it would crash */
    for (int i = 0; i < c->n_rows; i++) {
        x->positions[i] = c->n_positions - c->n_rows + i;
        x->tables[i] = x->table;
    }
    x->batch = (struct batch){c->n_rows, x->positions, x->tables};
    x->n = (size_t)c->n_rows * n_heads * c->head_size;
    x->cells = xmalloc((size_t)n_blocks * l.block_bytes);
    fill_cells(&random, c, &l, x->cells, n_blocks);
    x->q = values_new(&random, c->fill, false, x->n);
    x->scratch = cpu_alloc(attention_scratch_floats(&l) * sizeof(float));
    ASSERT(x->scratch != NULL);
    x->a = (struct attention){.cells = x->cells,
                              .layout = l,
                              .n_blocks = n_blocks,
                              .n_heads = n_heads,
                              .n_kv_heads = c->n_kv_heads,
                              .window = c->window,
                              .scale = 1.0f / sqrtf((float)c->head_size),
                              .q = x->q,
                              .batch = &x->batch};
}

static void data_release(struct attention_data *x)
{
    cpu_free(x->scratch, attention_scratch_floats(&x->a.layout) * sizeof(float));
    free(x->cells);
    free(x->q);
    free(x->table);
    free(x->positions);
    free(x->tables);
}

static struct attention_tile tile_of(const struct attention_case *c, int kv_head)
{
    return (struct attention_tile){0, c->n_rows, kv_head * c->sharing, c->sharing};
}

/* Chunks each alone and merged, as threads share them. The chunks come in an order of their own. */
static void attend_in_chunks(const struct kernels *k, const struct attention_data *x,
                             const struct attention_tile *t)
{
    size_t stride = partial_floats(t->n_heads, x->a.layout.padded);
    int n = tile_chunks(&x->a, t), first = tile_first_chunk(&x->a, t);
    float *partials = cpu_alloc(stride * (size_t)n * sizeof *partials);
    ASSERT(partials != NULL);
    for (int c = n - 1; c >= 0; c--)
        k->attention_chunk(&x->a, t, first + c, partials + stride * (size_t)c, x->scratch);
    k->attention_merge(&x->a, t, partials, stride, n);
    cpu_free(partials, stride * (size_t)n * sizeof *partials);
}

static void check_case(const struct kernels *k, const struct attention_case *c)
{
    static int n_cases;
    if (n_cases++ % check_every != 0)
        return;
    struct attention_data x;
    data_init(&x, c);
    size_t bytes = x.n * sizeof(float);
    float *expected = guarded_new(bytes, 0);
    char what[200];
    snprintf(what, sizeof what,
             "%s attention %s kv heads %d x %d size %d positions %d rows %d window %d %s%s",
             k->variant, type_names[c->type], c->n_kv_heads, c->sharing, c->head_size,
             c->n_positions, c->n_rows, c->window, fill_names[c->fill],
             c->hostile ? " with NaN" : "");
    x.a.y = expected;
    for (int h = 0; h < c->n_kv_heads; h++)
        ref.attention(&x.a, &(struct attention_tile){0, c->n_rows, h * c->sharing, c->sharing},
                      x.scratch);
    for (int chunked = 0; chunked < (c->n_rows == 1 ? 3 : 1); chunked++) {
        float *y = x.a.y = guarded_new(bytes, 4);
        for (int h = 0; h < c->n_kv_heads; h++) {
            struct attention_tile t = tile_of(c, h);
            if (chunked == 0)
                k->attention(&x.a, &t, x.scratch);
            else
                attend_in_chunks(chunked == 1 ? k : &ref, &x, &t);
        }
        compare_floats(y, expected, x.n, what);
        report(guards_intact(y, bytes, 4), "attention: guard bytes");
        guarded_free(y, 4);
    }
    guarded_free(expected, 0);
    data_release(&x);
}

static void check_sizes(const struct kernels *k)
{
    static const int sizes[] = {1, 8, 16, 20, 32, 48, 64, 65, 80, 96, 128, 256};
    static const int counts[] = {1, 3, 16, 18, 100, 255, 256, 257, 530, 1100};
    int i = 0;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t p = 0; p < sizeof counts / sizeof counts[0]; p++) {
            for (int type = 0; type < N_KV_TYPES; type++, i++) {
                struct attention_case c = {(enum kv_type)type, 1 + i % 2,  1 + i % 9,
                                           sizes[s],           counts[p],  1,
                                           FILL_RANDOM,        i % 7 == 0, 0};
                check_case(k, &c);
                if (counts[p] < 256) {
                    c.fill = (enum fill)(i % N_FILLS);
                    check_case(k, &c);
                }
            }
        }
    }
}

/* Several rows at once: up to ATTENTION_QUERIES of them, over and between the ends of chunks. */
static void check_rows(const struct kernels *k)
{
    static const struct {
        int sharing, n_rows;
    } shapes[] = {{1, 2}, {1, 7}, {1, 64}, {2, 13}, {3, 21}, {4, 2},  {4, 5},  {4, 16},
                  {5, 3}, {6, 7}, {7, 9},  {8, 1},  {8, 8},  {12, 1}, {16, 3}, {64, 1}};
    static const int sizes[] = {64, 20, 128, 80, 32};
    static const int ends[] = {0, 30, 256, 261, 300, 520, 779};
    int i = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (size_t e = 0; e < sizeof ends / sizeof ends[0]; e++, i++) {
            int n_positions = ends[e] < shapes[s].n_rows ? shapes[s].n_rows : ends[e];
            struct attention_case c = {(enum kv_type)(i % 3), 1 + i % 2,   shapes[s].sharing,
                                       sizes[i % 5],          n_positions, shapes[s].n_rows,
                                       FILL_RANDOM,           i % 4 == 1,  0};
            check_case(k, &c);
            c.fill = (enum fill)(i % N_FILLS);
            c.hostile = !c.hostile;
            check_case(k, &c);
        }
    }
}

/* Windows: one position to several chunks; of one row and of many, whose windows begin in different
 * blocks and chunks, or have nothing in common. */
static void check_windows(const struct kernels *k)
{
    static const struct {
        int sharing, n_rows;
    } shapes[] = {{1, 1}, {5, 1}, {12, 1}, {1, 7}, {2, 13}, {4, 2}, {4, 16}, {8, 8}, {1, 64}};
    static const int sizes[] = {64, 20, 128, 48};
    static const int windows[] = {1, 2, 5, 16, 17, 40, 63, 64, 200, 255, 256, 257, 300, 512, 600};
    static const int ends[] = {64, 100, 256, 257, 300, 520, 800};
    int i = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
            for (size_t e = 0; e < sizeof ends / sizeof ends[0]; e++, i++) {
                struct attention_case c = {(enum kv_type)(i % 3), 1 + i % 2,  shapes[s].sharing,
                                           sizes[i % 4],          ends[e],    shapes[s].n_rows,
                                           FILL_RANDOM,           i % 5 == 1, windows[w]};
                check_case(k, &c);
                if (i % 4 == 0) {
                    c.fill = (enum fill)(i % N_FILLS);
                    c.hostile = !c.hostile;
                    check_case(k, &c);
                }
            }
        }
    }
}

void check_attention(const struct kernels *k)
{
    if (k->attention == ref.attention) /* an instruction set that has none of its own */
        return;
    check_sizes(k);
    check_rows(k);
    check_windows(k);
}

/* --- speed --- */

enum { TIMED_HEADS = 8, TIMED_SHARING = 4, TIMED_BYTES = 96 << 20, TIMED_ROWS = 512 };

#if defined(__x86_64__)
/* What the multiply-add units do at best, Gflop/s: 12 independent chains. */
__attribute__((target("avx2,fma"))) static double peak(void)
{
    __m256 x[12], a = _mm256_set1_ps(0.999f);
    double best = 1e9;
    for (int i = 0; i < 12; i++)
        x[i] = _mm256_set1_ps((float)i);
    for (int repeat = 0; repeat < 20; repeat++) {
        double t = check_seconds();
        for (int i = 0; i < 100000; i++) {
#pragma GCC unroll 12
            for (int j = 0; j < 12; j++)
                x[j] = _mm256_fmadd_ps(x[j], a, a);
        }
        t = check_seconds() - t;
        best = t < best ? t : best;
    }
    for (int i = 1; i < 12; i++)
        x[0] = _mm256_add_ps(x[0], x[i]);
    volatile float keep = _mm256_cvtss_f32(x[0]);
    (void)keep;
    return 12 * 100000 * 16 / best * 1e-9;
}
#else
static double peak(void)
{
    return 0;
}
#endif

/* Attention of a batch over the layers of a store much larger than the caches. */
struct timed {
    struct attention a;
    uint8_t *cells;
    size_t layer_bytes;
    int n_layers;
    float *scratch;
};

/* Best of some repetitions of the tiles of `rows` rows from position `first` on, seconds a layer.
 */
static double time_rows(const struct kernels *k, struct timed *x, int rows, int tile_rows)
{
    double best = 1e9, begin = check_seconds();
    for (int repeat = 0; repeat < 3 || (repeat < 20 && check_seconds() - begin < 0.5); repeat++) {
        double t = check_seconds();
        for (int layer = 0; layer < x->n_layers; layer++) {
            x->a.cells = x->cells + (size_t)layer * x->layer_bytes;
            for (int row = 0; row < rows; row += tile_rows) {
                for (int h = 0; h < TIMED_HEADS; h++) {
                    struct attention_tile tile = {row, tile_rows, h * TIMED_SHARING, TIMED_SHARING};
                    k->attention(&x->a, &tile, x->scratch);
                }
            }
        }
        t = (check_seconds() - t) / x->n_layers;
        best = t < best ? t : best;
    }
    return best;
}

static void time_case(const struct kernels *k, enum kv_type type, int head_size, int context,
                      int rows)
{
    struct kv_layout l = kv_layout(type, TIMED_HEADS, head_size);
    int n_blocks = context / KV_BLOCK_TOKENS, width = TIMED_HEADS * TIMED_SHARING * head_size;
    size_t scratch_bytes = attention_scratch_floats(&l) * sizeof(float);
    struct timed x = {.layer_bytes = l.block_bytes * (size_t)n_blocks,
                      .scratch = cpu_alloc(scratch_bytes)};
    x.n_layers = rows > 1 ? 1 : (int)(TIMED_BYTES / x.layer_bytes) + 1;
    size_t bytes = x.layer_bytes * (size_t)x.n_layers;
    x.cells = cpu_alloc(bytes);
    int32_t *table = xmalloc((size_t)n_blocks * sizeof *table), positions[TIMED_ROWS];
    const int32_t *tables[TIMED_ROWS];
    float *q = xmalloc((size_t)rows * width * sizeof *q), *y = xmalloc((size_t)rows * width * 4);
    ASSERT(x.cells != NULL && x.scratch != NULL);
    memset(x.cells, 0x11, bytes); /* small numbers of any type */
    for (int b = 0; b < n_blocks; b++)
        table[b] = b;
    double products = 0;
    for (int i = 0; i < rows; i++) {
        positions[i] = context - rows + i;
        tables[i] = table;
        products += 2.0 * (positions[i] + 1) * width;
    }
    for (int i = 0; i < rows * width; i++)
        q[i] = (float)(i % 7) - 3.0f;
    struct batch batch = {rows, positions, tables};
    x.a = (struct attention){NULL, l, n_blocks, TIMED_HEADS * TIMED_SHARING, TIMED_HEADS, 0, 0.1f,
                             q,    y, &batch};
    double t = time_rows(k, &x, rows, rows > 1 ? ATTENTION_QUERIES / TIMED_SHARING : 1);
    if (rows > 1)
        printf("%-7s attention %-3s %d/%d heads of %3d, %d rows to %5d: %6.1f Gflop/s\n",
               k->variant, type_names[type], TIMED_HEADS * TIMED_SHARING, TIMED_HEADS, head_size,
               rows, context, 2 * products / t * 1e-9);
    else
        printf("%-7s attention %-3s %d/%d heads of %3d, 1 row at %5d: %5.1f GB/s, %7.1f us\n",
               k->variant, type_names[type], TIMED_HEADS * TIMED_SHARING, TIMED_HEADS, head_size,
               context, (double)x.layer_bytes / t * 1e-9, t * 1e6);
    cpu_free(x.cells, bytes);
    cpu_free(x.scratch, scratch_bytes);
    free(table);
    free(q);
    free(y);
}

void time_attention(const struct kernels *k)
{
    static const int contexts[] = {512, 2048, 8192}, sizes[] = {64, 128};
    static void (*timed)(const struct attention *, const struct attention_tile *, float *);
    if (k->attention == timed) /* the one of the instruction set before */
        return;
    timed = k->attention;
    for (int s = 0; s < 2; s++) {
        for (int c = 0; c < 3; c++)
            time_case(k, KV_F16, sizes[s], contexts[c], 1);
        time_case(k, KV_Q8, sizes[s], 8192, 1);
        time_case(k, KV_F16, sizes[s], 512, TIMED_ROWS);
        time_case(k, KV_F16, sizes[s], 4096, TIMED_ROWS);
    }
    printf("256-bit multiply-adds, one thread: %.1f Gflop/s\n", peak());
}
