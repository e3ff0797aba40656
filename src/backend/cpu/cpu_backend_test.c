/* The CPU backend through backend.h, as the model uses it: every operation gives the same bits for
 * any number of threads, any instruction set, and for a row alone or among others; handles keep
 * what they hold; choosing an instruction set fails as promised. */
#include "backend/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <cmocka.h>

#include "backend/cpu/check_handles.h"
#include "backend/cpu/kernels.h"
#include "tensor/exact_math.h"

#include <math.h>
#include <stdlib.h>

enum {
    ROWS = 33,
    HIDDEN = 768,
    FFN = 512,
    HEADS = 12, /* 6 to a key-value head: more than attention takes in one piece */
    KV_HEADS = 2,
    HEAD_SIZE = 64,
    KV_WIDTH = KV_HEADS * HEAD_SIZE,
    BLOCKS = 40,
    LAYERS = 2,
    VOCAB = 50,
};

/* A forward pass of one layer over rows that belong to two sequences, by all operations. */
struct layer {
    struct backend *b;
    struct weight *embedding, *q, *k, *v, *o, *gate, *up, *down;
    struct tensor *gain, *x, *norm, *tq, *tk, *tv, *att, *tgate, *tup, *out;
    struct kv_store *kv;
    double inv_freq[HEAD_SIZE / 2];
};

static void layer_init(struct layer *l, struct backend *b, enum dtype type, enum kv_type kv)
{
    struct random r = {.state = 42};
    l->b = b;
    l->embedding = random_weight(b, &r, type, VOCAB, HIDDEN);
    l->q = random_weight(b, &r, type, HIDDEN, HIDDEN);
    l->k = random_weight(b, &r, DTYPE_Q8_0, KV_WIDTH, HIDDEN); /* types mixed behind one barrier */
    l->v = random_weight(b, &r, DTYPE_F16, KV_WIDTH, HIDDEN);
    l->o = random_weight(b, &r, type, HIDDEN, HIDDEN);
    l->gate = random_weight(b, &r, type, FFN, HIDDEN);
    l->up = random_weight(b, &r, type, FFN, HIDDEN);
    l->down = random_weight(b, &r, type, HIDDEN, FFN);
    l->gain = random_tensor(b, &r, 1, HIDDEN);
    l->x = new_tensor(b, ROWS, HIDDEN);
    l->norm = new_tensor(b, ROWS, HIDDEN);
    l->tq = new_tensor(b, ROWS, HIDDEN);
    l->tk = new_tensor(b, ROWS, KV_WIDTH);
    l->tv = new_tensor(b, ROWS, KV_WIDTH);
    l->att = new_tensor(b, ROWS, HIDDEN);
    l->tgate = new_tensor(b, ROWS, FFN);
    l->tup = new_tensor(b, ROWS, FFN);
    l->out = new_tensor(b, ROWS, HIDDEN);
    struct kv_shape shape = {LAYERS, BLOCKS, KV_HEADS, HEAD_SIZE, kv, 0};
    assert_int_equal(b->ops->kv_new(b, &shape, &l->kv, NULL), OK);
    for (int i = 0; i < HEAD_SIZE / 2; i++)
        l->inv_freq[i] = exact_pow(10000.0, -2.0 * i / HEAD_SIZE);
}

static void layer_release(struct layer *l)
{
    const struct backend_ops *ops = l->b->ops;
    struct weight *weights[] = {l->embedding, l->q, l->k, l->v, l->o, l->gate, l->up, l->down};
    struct tensor *tensors[] = {l->gain, l->x,   l->norm,  l->tq,  l->tk,
                                l->tv,   l->att, l->tgate, l->tup, l->out};
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++)
        ops->weight_free(l->b, weights[i]);
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        ops->tensor_free(l->b, tensors[i]);
    ops->kv_free(l->b, l->kv);
}

static void layer_forward(struct layer *l, const int32_t *ids, const struct batch *batch)
{
    const struct backend_ops *ops = l->b->ops;
    struct backend *b = l->b;
    int n = batch->n;
    struct rope_spec rope = {HEAD_SIZE, HEAD_SIZE, true, l->inv_freq};
    ops->embed(b, l->x, l->embedding, ids, n);
    ops->rms_norm(b, l->norm, l->x, l->gain, 1e-5f, n);
    struct tensor *const qkv[] = {l->tq, l->tk, l->tv};
    const struct weight *const qkv_w[] = {l->q, l->k, l->v};
    backend_matmul_many(b, qkv, qkv_w, 3, l->norm, n);
    ops->rope(b, l->tq, &rope, batch->positions, n);
    ops->rope(b, l->tk, &rope, batch->positions, n);
    ops->kv_write(b, l->kv, 1, l->tk, l->tv, batch);
    ops->attention(b, l->att, l->tq, l->kv, 1, HEADS, batch);
    ops->matmul(b, l->out, l->o, l->att, n);
    ops->add(b, l->x, l->out, n);
    ops->rms_norm(b, l->norm, l->x, l->gain, 1e-5f, n);
    struct tensor *const gate_up[] = {l->tgate, l->tup};
    const struct weight *const gate_up_w[] = {l->gate, l->up};
    backend_matmul_many(b, gate_up, gate_up_w, 2, l->norm, n);
    ops->silu_mul(b, l->tgate, l->tgate, l->tup, n);
    ops->matmul(b, l->out, l->down, l->tgate, n);
    ops->add(b, l->x, l->out, n);
    ops->sync(b);
}

/* The tokens: rows 0 … 16 are positions 0 … 16 of sequence A, the others 0 … 15 of B. */
struct input {
    int32_t ids[ROWS], positions[ROWS], table_a[2], table_b[2];
    const int32_t *tables[ROWS];
};

static void input_init(struct input *in)
{
    *in = (struct input){.table_a = {7, 3}, .table_b = {0, 39}};
    for (int i = 0; i < ROWS; i++) {
        in->ids[i] = i * 7 % VOCAB;
        in->positions[i] = i < 17 ? i : i - 17;
        in->tables[i] = i < 17 ? in->table_a : in->table_b;
    }
}

/* All rows at once, or one by one. */
static void run_layer(struct layer *l, bool one_by_one, float *out)
{
    struct input in;
    input_init(&in);
    for (int i = 0; one_by_one && i < ROWS; i++) {
        struct batch batch = {1, in.positions + i, in.tables + i};
        layer_forward(l, in.ids + i, &batch);
        l->b->ops->read(l->b, l->x, 0, 1, out + (size_t)i * HIDDEN);
    }
    if (!one_by_one) {
        struct batch batch = {ROWS, in.positions, in.tables};
        layer_forward(l, in.ids, &batch);
        l->b->ops->read(l->b, l->x, 0, ROWS, out);
    }
}

static void forward_with(const char *isa, int n_threads, enum dtype type, enum kv_type kv,
                         bool one_by_one, float *out)
{
    struct pool *pool;
    struct backend *b;
    struct layer l;
    setenv("SHOAL_CPU", isa, 1);
    assert_int_equal(pool_new(n_threads, &pool, NULL), OK);
    assert_int_equal(backend_cpu_open(pool, &b, NULL), OK);
    assert_string_equal(b->variant, isa);
    layer_init(&l, b, type, kv);
    run_layer(&l, one_by_one, out);
    layer_release(&l);
    b->ops->free(b);
    pool_free(pool);
    unsetenv("SHOAL_CPU");
}

static void same_bits_for_threads_rows_and_instruction_sets(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q6_K, DTYPE_BF16, DTYPE_F32};
    size_t bytes = (size_t)ROWS * HIDDEN * sizeof(float);
    float *expected = malloc(bytes), *found = malloc(bytes);
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        enum kv_type kv = (enum kv_type)(t % N_KV_TYPES);
        forward_with("ref", 1, types[t], kv, false, expected);
        for (int i = 0; i < ROWS * HIDDEN; i++)
            assert_true(isfinite(expected[i]));
        forward_with("ref", 1, types[t], kv, true, found);
        assert_memory_equal(found, expected, bytes);
        forward_with("ref", 3, types[t], kv, false, found);
        assert_memory_equal(found, expected, bytes);
        for (const struct isa *isa = kernels_isas; isa->name != NULL; isa++) {
            bool exact = isa->present() && isa->numerics_id == NULL;
            for (int n_threads = 1; n_threads <= 3 && exact; n_threads++) {
                forward_with(isa->name, n_threads, types[t], kv, n_threads == 2, found);
                assert_memory_equal(found, expected, bytes);
            }
        }
    }
    free(expected);
    free(found);
}

struct fixture {
    struct pool *pool;
    struct backend *b;
};

static int fixture_init(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_int_equal(pool_new(2, &f->pool, NULL), OK);
    assert_int_equal(backend_cpu_open(f->pool, &f->b, NULL), OK);
    *state = f;
    return 0;
}

static int fixture_release(void **state)
{
    struct fixture *f = *state;
    f->b->ops->free(f->b);
    pool_free(f->pool);
    free(f);
    return 0;
}

static void tensors_hold_rows_and_gather_picks_them(void **state)
{
    struct backend *b = ((struct fixture *)*state)->b;
    struct tensor *x = new_tensor(b, 4, 3), *y = new_tensor(b, 3, 3);
    float zeros[12], rows[6] = {1, 2, 3, 4, 5, 6}, found[9];
    b->ops->read(b, x, 0, 4, zeros);
    for (int i = 0; i < 12; i++)
        assert_true(zeros[i] == 0.0f);
    b->ops->write(b, x, 2, 2, rows);
    static const int32_t picks[] = {3, 0, 2};
    b->ops->gather(b, y, x, picks, 3);
    b->ops->read(b, y, 0, 3, found);
    static const float expected[] = {4, 5, 6, 0, 0, 0, 1, 2, 3};
    assert_memory_equal(found, expected, sizeof expected);
    b->ops->tensor_free(b, x);
    b->ops->tensor_free(b, y);
}

/* Rotation by exact angles, both pairings; dimensions beyond rope_size stay. */
static void rope_turns_pairs_by_position_times_frequency(void **state)
{
    struct backend *b = ((struct fixture *)*state)->b;
    static const double inv_freq[] = {1.0, 0.01};
    static const int32_t positions[] = {0, 1000000};
    struct kv_shape shape = {1, 1, 1, 6, KV_F32, 0};
    struct kv_store *kv;
    assert_int_equal(b->ops->kv_new(b, &shape, &kv, NULL), OK);
    for (int halves = 0; halves < 2; halves++) {
        struct tensor *x = new_tensor(b, 2, 12); /* two heads of 6, 4 of them rotated */
        float row[12], found[24];
        for (int i = 0; i < 12; i++)
            row[i] = (float)(i + 1);
        b->ops->write(b, x, 0, 1, row);
        b->ops->write(b, x, 1, 1, row);
        struct rope_spec spec = {6, 4, halves, inv_freq};
        b->ops->rope(b, x, &spec, positions, 2);
        b->ops->read(b, x, 0, 2, found);
        assert_memory_equal(found, row, sizeof row); /* position 0 */
        for (int h = 0; h < 2; h++) {
            for (int i = 0; i < 2; i++) {
                int at0 = h * 6 + (halves ? i : 2 * i), at1 = h * 6 + (halves ? i + 2 : 2 * i + 1);
                double a = 1e6 * inv_freq[i];
                assert_true(fabs(found[12 + at0] - (row[at0] * cos(a) - row[at1] * sin(a))) < 1e-5);
                assert_true(fabs(found[12 + at1] - (row[at1] * cos(a) + row[at0] * sin(a))) < 1e-5);
            }
            assert_memory_equal(found + 12 + h * 6 + 4, row + h * 6 + 4, 2 * sizeof(float));
        }
        b->ops->tensor_free(b, x);
    }
    b->ops->kv_free(b, kv);
}

/* What n <= KV_GROUP values are once they went through a store. */
static void store_as(enum kv_type type, float *x, int n)
{
    float amax = 0;
    for (int i = 0; i < n; i++)
        amax = fmaxf(amax, fabsf(x[i]));
    for (int i = 0; i < n; i++) {
        if (type == KV_F16)
            x[i] = f16_to_f32(f16_from_f32(x[i]));
        if (type == KV_Q8)
            x[i] = rintf(x[i] * (127.0f / amax)) * (amax / 127.0f);
    }
}

/* With one position attention returns its value; a copied block answers like its source. */
static void attention_reads_the_blocks_of_its_table(void **state)
{
    struct backend *b = ((struct fixture *)*state)->b;
    struct random r = {.state = 3};
    for (int type = 0; type < N_KV_TYPES; type++) {
        struct kv_shape shape = {2, 4, 1, 8, (enum kv_type)type, 0};
        struct kv_store *kv;
        assert_int_equal(b->ops->kv_new(b, &shape, &kv, NULL), OK);
        assert_int_equal(b->ops->kv_bytes(kv), 2 * 4 * kv_block_bytes(shape.type, 1, 8));
        struct tensor *k = random_tensor(b, &r, 1, 8), *v = random_tensor(b, &r, 1, 8),
                      *q = random_tensor(b, &r, 1, 16);
        struct tensor *y = new_tensor(b, 1, 16);
        int32_t position = 0, written = 2, copy = 1, other = 3;
        const int32_t *table = &written;
        struct batch batch = {1, &position, &table};
        float value[8], found[16];
        b->ops->kv_write(b, kv, 1, k, v, &batch);
        b->ops->read(b, v, 0, 1, value);
        store_as(shape.type, value, 8);
        b->ops->kv_copy_block(b, kv, written, copy);
        table = &copy;
        b->ops->attention(b, y, q, kv, 1, 2, &batch);
        b->ops->read(b, y, 0, 1, found);
        assert_memory_equal(found, value, sizeof value);
        assert_memory_equal(found + 8, value, sizeof value);
        table = &other; /* never written: zeros; and layer 0 was not touched */
        b->ops->attention(b, y, q, kv, 1, 2, &batch);
        b->ops->read(b, y, 0, 1, found);
        assert_true(found[0] == 0.0f);
        table = &written;
        b->ops->attention(b, y, q, kv, 0, 2, &batch);
        b->ops->read(b, y, 0, 1, found);
        assert_true(found[0] == 0.0f);
        struct tensor *all[] = {k, v, q, y};
        for (int i = 0; i < 4; i++)
            b->ops->tensor_free(b, all[i]);
        b->ops->kv_free(b, kv);
    }
}

/* A NaN spreads over its own row and to no other. */
static void a_row_that_is_not_a_number_stays_alone(void **state)
{
    struct backend *b = ((struct fixture *)*state)->b;
    struct random r = {.state = 4};
    struct weight *w = random_weight(b, &r, DTYPE_Q8_0, 40, 64);
    struct tensor *x = random_tensor(b, &r, 3, 64), *y = new_tensor(b, 3, 40);
    float row[64], found[120];
    b->ops->read(b, x, 1, 1, row);
    row[63] = NAN;
    b->ops->write(b, x, 1, 1, row);
    b->ops->matmul(b, y, w, x, 3);
    b->ops->read(b, y, 0, 3, found);
    for (int i = 0; i < 120; i++)
        assert_int_equal(isnan(found[i]) != 0, i / 40 == 1);
    b->ops->tensor_free(b, x);
    b->ops->tensor_free(b, y);
    b->ops->weight_free(b, w);
}

static void weights_that_cannot_be_are_refused(void **state)
{
    struct backend *b = ((struct fixture *)*state)->b;
    struct weight *w = (struct weight *)b;
    struct error e;
    uint8_t data[256] = {0};
    assert_int_equal(b->ops->weight_new(b, DTYPE_Q5_K, 1, 256, data, &w, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "Q5_K"));
    assert_null(w);
    assert_int_equal(b->ops->weight_new(b, DTYPE_F32, 1 << 30, 1 << 30, data, &w, &e), ERR_MEMORY);
    assert_null(w);
    /* And the backend works on. */
    assert_int_equal(b->ops->weight_new(b, DTYPE_Q8_0, 3, 32, data, &w, &e), OK);
    assert_int_equal(b->ops->weight_bytes(w), 64 + 2 * 512); /* the second group is padding */
    b->ops->weight_free(b, w);
}

static void instruction_sets_are_chosen_by_name(void **state)
{
    (void)state;
    struct kernels k;
    struct error e;
    assert_int_equal(kernels_select("ref", &k, &e), OK);
    assert_string_equal(k.variant, "ref");
    static const char *const wrong[] = {"avx", "AVX2", "sse2", "ref ", "best"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(kernels_select(wrong[i], &k, &e), ERR_INVALID);
        assert_non_null(strstr(e.text, wrong[i]));
        assert_non_null(strstr(e.text, "ref"));
    }
    struct kernels best, empty;
    assert_int_equal(kernels_select(NULL, &best, &e), OK);
    assert_string_equal(best.numerics_id, NUMERICS_EXACT); /* nothing else by itself */
    assert_int_equal(kernels_select("", &empty, &e), OK);
    assert_string_equal(best.variant, empty.variant);
    for (const struct isa *isa = kernels_isas; isa->name != NULL; isa++) {
        enum err err = kernels_select(isa->name, &k, &e);
        assert_int_equal(err, isa->present() ? OK : ERR_INVALID);
        if (isa->present())
            assert_string_equal(k.variant, isa->name);
        if (isa->present())
            assert_string_equal(k.numerics_id,
                                isa->numerics_id ? isa->numerics_id : NUMERICS_EXACT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_for_threads_rows_and_instruction_sets),
        cmocka_unit_test(tensors_hold_rows_and_gather_picks_them),
        cmocka_unit_test(rope_turns_pairs_by_position_times_frequency),
        cmocka_unit_test(attention_reads_the_blocks_of_its_table),
        cmocka_unit_test(a_row_that_is_not_a_number_stays_alone),
        cmocka_unit_test(weights_that_cannot_be_are_refused),
        cmocka_unit_test(instruction_sets_are_chosen_by_name),
    };
    return cmocka_run_group_tests(tests, fixture_init, fixture_release);
}
