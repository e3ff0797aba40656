/* Attention of the CPU backend, shared out over threads: long sequences in ranges of chunks,
 * prompts in tiles, both in one batch, heads that do not fit into a tile; every row has the bits
 * that it has alone, on one thread, from the plain kernels. */
#include "backend/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <cmocka.h>

#include "backend/cpu/check_data.h"
#include "backend/cpu/kernels.h"

#include <stdlib.h>

enum { MAX_ROWS = 64, MAX_SEQUENCES = 4, MAX_POSITIONS = 1600, LAYERS = 2 };
enum { TABLE = MAX_POSITIONS / KV_BLOCK_TOKENS, BLOCKS = MAX_SEQUENCES * TABLE };

/* Rows of a batch: `n` of a sequence, the last at position `last`. */
struct piece {
    int sequence, last, n;
};

struct scene {
    const char *name;
    int n_kv_heads, sharing, head_size;
    struct piece pieces[6]; /* up to the first without rows */
    int window;
};

static const struct scene scenes[] = {
    {"one long row", 2, 4, 64, {{0, 1599, 1}}, 0},
    {"one head for all", 1, 7, 80, {{1, 1300, 1}}, 0},
    {"more heads than a tile takes", 1, 70, 16, {{0, 700, 1}}, 0},
    {"rows of unequal length", 2, 3, 32, {{0, 1500, 1}, {1, 3, 1}, {2, 700, 1}, {3, 256, 1}}, 0},
    {"a short prompt", 2, 2, 64, {{2, 40, 41}}, 0},
    {"the end of a long prompt", 2, 8, 20, {{3, 1030, 60}}, 0},
    {"prompts and rows", 1, 4, 48, {{0, 900, 1}, {1, 30, 31}, {2, 511, 1}, {3, 300, 20}}, 0},
    {"a row of each of one sequence", 4, 1, 64, {{0, 10, 1}, {0, 700, 1}, {0, 300, 1}}, 0},
    {"one row in a window of chunks", 2, 4, 64, {{0, 1599, 1}}, 1000},
    {"windows inside and over chunks", 1, 4, 48, {{0, 900, 1}, {1, 300, 40}, {2, 511, 1}}, 60},
    {"many rows, small windows", 2, 8, 20, {{3, 1030, 60}}, 9},
    {"windows of all lengths", 2, 3, 32, {{0, 1500, 1}, {1, 3, 1}, {2, 700, 1}, {3, 9, 1}}, 600},
};
enum { N_SCENES = sizeof scenes / sizeof scenes[0] };

struct rows {
    int n;
    int32_t positions[MAX_ROWS];
    const int32_t *tables[MAX_ROWS];
};

/* Block tables, in an order that is not the blocks' own. */
static int32_t tables[MAX_SEQUENCES][TABLE];

static void tables_init(void)
{
    for (int s = 0; s < MAX_SEQUENCES; s++)
        for (int i = 0; i < TABLE; i++)
            tables[s][i] = (i * 37 + s * 101 + 11) % TABLE * MAX_SEQUENCES + s;
}

static void rows_init(struct rows *rows, const struct scene *s)
{
    rows->n = 0;
    for (const struct piece *p = s->pieces; p->n > 0; p++) {
        for (int i = 0; i < p->n; i++, rows->n++) {
            rows->positions[rows->n] = p->last - p->n + 1 + i;
            rows->tables[rows->n] = tables[p->sequence];
        }
    }
}

struct rig {
    struct pool *pool;
    struct backend *b;
    struct kv_store *kv;
    struct tensor *q, *k, *v, *y;
};

static struct tensor *random_tensor(struct backend *b, uint64_t seed, int cols)
{
    struct random r = {.state = seed};
    struct tensor *t;
    float *x = malloc((size_t)MAX_ROWS * cols * sizeof *x);
    for (int i = 0; i < MAX_ROWS * cols; i++)
        x[i] = random_unit(&r);
    assert_int_equal(b->ops->tensor_new(b, MAX_ROWS, cols, &t, NULL), OK);
    b->ops->write(b, t, 0, MAX_ROWS, x);
    free(x);
    return t;
}

/* Every sequence has all positions written, in batches of many rows. */
static void rig_init(struct rig *rig, const char *isa, int n_threads, const struct scene *s,
                     enum kv_type type)
{
    struct kv_shape shape = {LAYERS, BLOCKS, s->n_kv_heads, s->head_size, type, s->window};
    setenv("SHOAL_CPU", isa, 1);
    assert_int_equal(pool_new(n_threads, &rig->pool, NULL), OK);
    assert_int_equal(backend_cpu_open(rig->pool, &rig->b, NULL), OK);
    unsetenv("SHOAL_CPU");
    struct backend *b = rig->b;
    assert_int_equal(b->ops->kv_new(b, &shape, &rig->kv, NULL), OK);
    int kv_cols = s->n_kv_heads * s->head_size;
    rig->q = random_tensor(b, 1, kv_cols * s->sharing);
    rig->y = random_tensor(b, 2, kv_cols * s->sharing);
    rig->k = random_tensor(b, 3, kv_cols);
    rig->v = random_tensor(b, 4, kv_cols);
    struct rows rows = {.n = MAX_ROWS};
    for (int sequence = 0; sequence < MAX_SEQUENCES; sequence++) {
        for (int p = sequence; p < MAX_POSITIONS; p += MAX_ROWS) { /* not always a block's first */
            rows.n = MAX_POSITIONS - p < MAX_ROWS ? MAX_POSITIONS - p : MAX_ROWS;
            for (int i = 0; i < rows.n; i++) {
                rows.positions[i] = p + i;
                rows.tables[i] = tables[sequence];
            }
            struct batch batch = {rows.n, rows.positions, rows.tables};
            b->ops->kv_write(b, rig->kv, 1, rig->k, rig->v, &batch);
        }
    }
}

static void rig_release(struct rig *rig)
{
    struct backend *b = rig->b;
    struct tensor *all[] = {rig->q, rig->k, rig->v, rig->y};
    for (int i = 0; i < 4; i++)
        b->ops->tensor_free(b, all[i]);
    b->ops->kv_free(b, rig->kv);
    b->ops->free(b);
    pool_free(rig->pool);
}

/* All rows in one operation. */
static void attend_together(const char *isa, int n_threads, const struct scene *s,
                            enum kv_type type, float *out)
{
    struct rig rig;
    struct rows rows;
    rig_init(&rig, isa, n_threads, s, type);
    rows_init(&rows, s);
    struct batch batch = {rows.n, rows.positions, rows.tables};
    rig.b->ops->attention(rig.b, rig.y, rig.q, rig.kv, 1, s->n_kv_heads * s->sharing, &batch);
    rig.b->ops->read(rig.b, rig.y, 0, rows.n, out);
    rig_release(&rig);
}

/* Row after row, each as row 0 of a batch of one. */
static void attend_alone(const struct scene *s, enum kv_type type, float *out)
{
    struct rig rig;
    struct rows rows;
    size_t cols = (size_t)s->n_kv_heads * s->sharing * s->head_size;
    float *q = malloc(MAX_ROWS * cols * sizeof *q);
    rig_init(&rig, "ref", 1, s, type);
    rows_init(&rows, s);
    rig.b->ops->read(rig.b, rig.q, 0, MAX_ROWS, q);
    for (int i = 0; i < rows.n; i++) {
        struct batch batch = {1, rows.positions + i, rows.tables + i};
        rig.b->ops->write(rig.b, rig.q, 0, 1, q + (size_t)i * cols);
        rig.b->ops->attention(rig.b, rig.y, rig.q, rig.kv, 1, s->n_kv_heads * s->sharing, &batch);
        rig.b->ops->read(rig.b, rig.y, 0, 1, out + (size_t)i * cols);
    }
    free(q);
    rig_release(&rig);
}

static void rows_have_their_bits_however_they_are_shared_out(void **state)
{
    (void)state;
    static const int thread_counts[] = {1, 2, 3, 5, 16};
    tables_init();
    for (int i = 0; i < N_SCENES; i++) {
        const struct scene *s = &scenes[i];
        enum kv_type type = (enum kv_type)(i % N_KV_TYPES);
        struct rows rows;
        rows_init(&rows, s);
        size_t bytes = (size_t)rows.n * s->n_kv_heads * s->sharing * s->head_size * sizeof(float);
        float *expected = malloc(bytes), *found = malloc(bytes);
        attend_alone(s, type, expected);
        for (const struct isa *isa = kernels_isas; isa->name != NULL; isa++) {
            for (size_t t = 0; t < sizeof thread_counts / sizeof thread_counts[0]; t++) {
                if (!isa->present())
                    continue;
                attend_together(isa->name, thread_counts[t], s, type, found);
                if (memcmp(found, expected, bytes) != 0)
                    fail_msg("%s: %s, %d threads", s->name, isa->name, thread_counts[t]);
            }
        }
        attend_together("ref", 4, s, type, found);
        assert_memory_equal(found, expected, bytes);
        free(expected);
        free(found);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_have_their_bits_however_they_are_shared_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
