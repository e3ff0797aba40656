/* What the hashing backend promises: a value depends on all that a real one would depend on, and on
 * nothing else. */
#include "backend/backend.h"

#include "base/bounds.h"
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { WIDTH = 8, ROWS = 4, BLOCKS = 4 };

struct rig {
    struct backend *b;
    const struct backend_ops *ops;
    struct tensor *x, *y;
    struct kv_store *kv;
};

static int set_up(void **state)
{
    static struct rig rig;
    struct kv_shape shape = {.n_layers = 2, .n_blocks = BLOCKS, .n_kv_heads = 1, .head_size = WIDTH};
    assert_int_equal(backend_sim_open(0, &rig.b, NULL), OK);
    rig.ops = rig.b->ops;
    assert_int_equal(rig.ops->tensor_new(rig.b, ROWS, WIDTH, &rig.x, NULL), OK);
    assert_int_equal(rig.ops->tensor_new(rig.b, ROWS, WIDTH, &rig.y, NULL), OK);
    assert_int_equal(rig.ops->kv_new(rig.b, &shape, &rig.kv, NULL), OK);
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *rig = *state;
    rig->ops->tensor_free(rig->b, rig->x);
    rig->ops->tensor_free(rig->b, rig->y);
    rig->ops->kv_free(rig->b, rig->kv);
    rig->ops->free(rig->b);
    return 0;
}

static void fill(struct rig *rig, int row, float value)
{
    float values[WIDTH];
    for (int i = 0; i < WIDTH; i++)
        values[i] = value + (float)i;
    rig->ops->write(rig->b, rig->x, row, 1, values);
}

/* Store a cell made of `value` at a position of a table. */
static void store(struct rig *rig, int layer, const int32_t *table, int32_t position, float value)
{
    struct batch batch = {.n = 1, .positions = &position, .tables = &table};
    fill(rig, 0, value);
    rig->ops->kv_write(rig->b, rig->kv, layer, rig->x, rig->x, &batch);
}

/* What a fixed query sees from a position of a table. */
static void look(struct rig *rig, int layer, const int32_t *table, int32_t position, float *seen)
{
    struct batch batch = {.n = 1, .positions = &position, .tables = &table};
    fill(rig, 0, 0.5f);
    rig->ops->attention(rig->b, rig->y, rig->x, rig->kv, layer, 1, &batch);
    rig->ops->read(rig->b, rig->y, 0, 1, seen);
    for (int i = 0; i < WIDTH; i++)
        assert_true(seen[i] >= 0 && seen[i] < 1);
}

static void attention_sees_every_cell_through_the_table(void **state)
{
    struct rig *rig = *state;
    const int32_t table[] = {2, 0}, other[] = {2, 3};
    enum { END = KV_BLOCK_TOKENS + 3 };
    float before[WIDTH], after[WIDTH];
    for (int p = 0; p <= END; p++)
        store(rig, 1, table, p, (float)p);
    look(rig, 1, table, END, before);
    look(rig, 1, table, END, after);
    assert_memory_equal(before, after, sizeof(before));
    look(rig, 1, other, END, after); /* unwritten cells */
    assert_memory_not_equal(before, after, sizeof(before));
    look(rig, 0, table, END, after); /* another layer */
    assert_memory_not_equal(before, after, sizeof(before));
    look(rig, 1, table, END - 1, after);
    assert_memory_not_equal(before, after, sizeof(before));
    for (int p = 0; p <= END; p++) { /* any one cell */
        store(rig, 1, table, p, 1000);
        look(rig, 1, table, END, after);
        assert_memory_not_equal(before, after, sizeof(before));
        store(rig, 1, table, p, (float)p);
    }
    store(rig, 1, table, END + 1, 5); /* what comes later does not matter */
    look(rig, 1, table, END, after);
    assert_memory_equal(before, after, sizeof(before));
    const int32_t swapped[] = {0, 2};
    look(rig, 1, swapped, END, after);
    assert_memory_not_equal(before, after, sizeof(before));
    rig->ops->kv_copy_block(rig->b, rig->kv, 0, 3); /* a copy is as good */
    look(rig, 1, other, END, after);
    assert_memory_equal(before, after, sizeof(before));
}

static void a_row_depends_on_itself_only(void **state)
{
    struct rig *rig = *state;
    struct weight *w;
    float data[WIDTH * WIDTH] = {1, 2, 3}, alone[WIDTH], among[WIDTH];
    assert_int_equal(
        rig->ops->weight_new(rig->b, DTYPE_F32, WIDTH, WIDTH, data, &w, NULL), OK);
    fill(rig, 0, 42);
    rig->ops->matmul(rig->b, rig->y, w, rig->x, 1);
    rig->ops->read(rig->b, rig->y, 0, 1, alone);
    for (int r = 0; r < ROWS; r++)
        fill(rig, r, r == 2 ? 42 : (float)r);
    rig->ops->matmul(rig->b, rig->y, w, rig->x, ROWS);
    rig->ops->read(rig->b, rig->y, 2, 1, among);
    assert_memory_equal(alone, among, sizeof(alone));
    rig->ops->read(rig->b, rig->y, 1, 1, among);
    assert_memory_not_equal(alone, among, sizeof(alone));
    rig->ops->weight_free(rig->b, w);
    data[WIDTH * WIDTH - 1] = 1e-9f; /* other weights */
    assert_int_equal(
        rig->ops->weight_new(rig->b, DTYPE_F32, WIDTH, WIDTH, data, &w, NULL), OK);
    fill(rig, 0, 42);
    rig->ops->matmul(rig->b, rig->y, w, rig->x, 1);
    rig->ops->read(rig->b, rig->y, 0, 1, among);
    assert_memory_not_equal(alone, among, sizeof(alone));
    rig->ops->weight_free(rig->b, w);
}

static void positions_and_operations_matter(void **state)
{
    struct rig *rig = *state;
    const double inv_freq[] = {1, 0.1};
    const struct rope_spec spec = {.head_size = 4, .rope_size = 4, .inv_freq = inv_freq};
    const int32_t positions[] = {3, 4, 3};
    float rows[3][WIDTH], sum[WIDTH], product[WIDTH];
    for (int r = 0; r < 3; r++)
        fill(rig, r, 9);
    rig->ops->rope(rig->b, rig->x, &spec, positions, 3);
    rig->ops->read(rig->b, rig->x, 0, 3, rows[0]);
    assert_memory_equal(rows[0], rows[2], sizeof(rows[0]));
    assert_memory_not_equal(rows[0], rows[1], sizeof(rows[0]));
    fill(rig, 0, 1);
    fill(rig, 1, 1);
    rig->ops->silu_mul(rig->b, rig->y, rig->x, rig->x, 1);
    rig->ops->read(rig->b, rig->y, 0, 1, product);
    rig->ops->add(rig->b, rig->x, rig->x, 1);
    rig->ops->read(rig->b, rig->x, 0, 1, sum);
    assert_memory_not_equal(sum, product, sizeof(sum));
}

static void a_pass_takes_its_time(void **state)
{
    (void)state;
    struct backend *slow;
    struct tensor *x;
    float row[WIDTH] = {0};
    assert_int_equal(backend_sim_open(20000, &slow, NULL), OK);
    assert_int_equal(slow->ops->tensor_new(slow, 1, WIDTH, &x, NULL), OK);
    time_us shortest = 1000000;
    for (int i = 0; i < 5; i++) {
        time_us begin = clock_now_us();
        slow->ops->write(slow, x, 0, 1, row);
        slow->ops->add(slow, x, x, 1);
        slow->ops->add(slow, x, x, 1); /* not for each operation */
        slow->ops->sync(slow);
        time_us took = clock_now_us() - begin;
        assert_true(took >= 20000);
        shortest = took < shortest ? took : shortest;
    }
    assert_true(shortest < 40000);
    slow->ops->tensor_free(slow, x);
    slow->ops->free(slow);
}

static void a_backend_is_chosen_by_name(void **state)
{
    (void)state;
    struct backend *b;
    struct error e;
    assert_string_equal(backend_names[BACKEND_CPU], "cpu");
    assert_string_equal(backend_names[BACKEND_SIM], "sim");
    struct backend_choice choice = {.kind = BACKEND_SIM, .pass_us = 5};
    assert_int_equal(backend_open(&choice, NULL, &b, &e), OK);
    assert_string_equal(b->name, "sim");
    assert_string_equal(b->numerics_id, "sim-1");
    b->ops->free(b);
    choice.kind = BACKEND_CPU;
    assert_int_equal(backend_open(&choice, NULL, &b, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "5 us"));
    assert_null(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(attention_sees_every_cell_through_the_table, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_row_depends_on_itself_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(positions_and_operations_matter, set_up, tear_down),
        cmocka_unit_test(a_pass_takes_its_time),
        cmocka_unit_test(a_backend_is_chosen_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
