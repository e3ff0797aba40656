#include "stage/slot_tables.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct slot_tables tables;

static int set_up(void **state)
{
    (void)state;
    const struct slot_tables_options o = {
        .n_slots = 4, .n_blocks = 10, .max_context = 48, .vocab = 100};
    return slot_tables_init(&tables, &o, NULL) == OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    slot_tables_release(&tables);
    return 0;
}

static struct step step_of(const struct step_update *u, uint32_t n_updates,
                           const struct step_row *r, uint32_t n_rows)
{
    return (struct step){.updates = u, .n_updates = n_updates, .rows = r, .n_rows = n_rows};
}

static void apply_all(const struct step *s)
{
    for (uint32_t i = 0; i < s->n_updates; i++)
        slot_tables_apply(&tables, &s->updates[i]);
}

static void tables_grow_and_go(void **state)
{
    (void)state;
    const struct step_update u[] = {
        {UPDATE_OPEN, 2, 0, 0}, {UPDATE_APPEND, 2, 9, 0}, {UPDATE_APPEND, 2, 4, 0}};
    const struct step_row r[] = {{0, 0, 2, 0}, {99, 31, 2, 1}};
    struct step s = step_of(u, 3, r, 2);
    assert_int_equal(slot_tables_check(&tables, &s, NULL), OK);
    assert_false(tables.slots[2].open); /* a check changes nothing */
    apply_all(&s);
    assert_int_equal(tables.slots[2].n_blocks, 2);
    assert_int_equal(tables.slots[2].blocks[0], 9);
    assert_int_equal(tables.slots[2].blocks[1], 4);
    const struct step_update end[] = {{UPDATE_CLOSE, 2, 0, 0}, {UPDATE_OPEN, 2, 0, 0}};
    s = step_of(end, 2, NULL, 0);
    assert_int_equal(slot_tables_check(&tables, &s, NULL), OK);
    apply_all(&s);
    assert_true(tables.slots[2].open);
    assert_int_equal(tables.slots[2].n_blocks, 0);
}

static void refused(struct step s, const char *reason)
{
    struct error e;
    assert_int_equal(slot_tables_check(&tables, &s, &e), ERR_FORMAT);
    assert_string_equal(e.text, reason);
    assert_false(tables.slots[0].open);
}

static void wrong_steps_are_refused(void **state)
{
    (void)state;
    const struct step_update open = {UPDATE_OPEN, 0, 0, 0};
    const struct step_update far_slot = {UPDATE_OPEN, 4, 0, 0};
    const struct step_update closed = {UPDATE_CLOSE, 0, 0, 0};
    const struct step_update far_copy = {UPDATE_COPY, 0, 3, 10};
    refused(step_of(&far_slot, 1, NULL, 0), "update 0: expected a slot below 4, found 4");
    refused(step_of(&closed, 1, NULL, 0), "update 0: slot 0 is not open");
    refused(step_of((struct step_update[]){open, open}, 2, NULL, 0),
            "update 1: slot 0 is open already");
    refused(step_of(&far_copy, 1, NULL, 0), "update 0: expected a block below 10, found 10");
    refused(step_of((struct step_update[]){open, {UPDATE_APPEND, 0, 10, 0}}, 2, NULL, 0),
            "update 1: expected a block below 10, found 10");
    const struct step_update a = {UPDATE_APPEND, 0, 1, 0};
    refused(step_of((struct step_update[]){open, a, a, a, a}, 5, NULL, 0),
            "update 4: slot 0 already has all of its 3 blocks");
    const struct step_update two[] = {open, a};
    refused(step_of(NULL, 0, (struct step_row[]){{0, 0, 0, 0}}, 1), "row 0: slot 0 is not open");
    refused(step_of(two, 2, (struct step_row[]){{0, 16, 0, 0}}, 1),
            "row 0: expected a position below 16 (the blocks of slot 0), found 16");
    refused(step_of(two, 2, (struct step_row[]){{0, 5, 0, 0}, {0, 5, 0, 0}}, 2),
            "row 1: expected a position of slot 0 above 5, found 5");
    refused(step_of(two, 2, (struct step_row[]){{100, 5, 0, 0}}, 1),
            "row 0: expected a token below 100, found 100");
}

/* What a lead may ask for at most, with a store of few blocks: the tables stay as small. */
static void tables_are_no_larger_than_the_store(void **state)
{
    (void)state;
    struct slot_tables t;
    struct error e;
    struct slot_tables_options o = {
        .n_slots = SLOT_MAX, .n_blocks = 2, .max_context = SHAPE_MAX_CONTEXT, .vocab = 100};
    assert_int_equal(slot_tables_init(&t, &o, NULL), OK);
    assert_int_equal(t.max_blocks, 2);
    const struct step_update u[] = {{.kind = UPDATE_OPEN, .slot = 9},
                                    {.kind = UPDATE_APPEND, .slot = 9, .block = 0},
                                    {.kind = UPDATE_APPEND, .slot = 9, .block = 1},
                                    {.kind = UPDATE_APPEND, .slot = 9, .block = 1}};
    struct step s = step_of(u, 4, NULL, 0);
    assert_int_equal(slot_tables_check(&t, &s, &e), ERR_FORMAT);
    assert_string_equal(e.text, "update 3: slot 9 already has all of its 2 blocks");
    slot_tables_release(&t);
}

/* Blocks that are given back leave holes: nothing may read there, and all before may be too. */
static void holes_are_never_read(void **state)
{
    (void)state;
    struct slot_tables_options o = {
        .n_slots = 2, .n_blocks = 3, .max_context = 100, .window = 20, .vocab = 100};
    struct error e;
    assert_int_equal(slot_tables_init(&tables, &o, NULL), OK);
    assert_int_equal(tables.max_blocks, 7); /* longer than the store */
    const struct step_update u[] = {{UPDATE_OPEN, 1, 0, 0},   {UPDATE_APPEND, 1, 0, 0},
                                    {UPDATE_APPEND, 1, 1, 0}, {UPDATE_APPEND, 1, 2, 0},
                                    {UPDATE_TRIM, 1, 1, 0},   {UPDATE_APPEND, 1, 0, 0}};
    const struct step_row r[] = {{0, 34, 1, 0}, {0, 35, 1, 0}, {0, 63, 1, 0}};
    struct step s = step_of(u, 6, r, 3);
    assert_int_equal(slot_tables_check(&tables, &s, &e), ERR_FORMAT);
    assert_string_equal(e.text, "row 0: position 34 of slot 1 reads from 15 on, but what is before "
                                "16 was given back");
    s = step_of(u, 6, r + 1, 2);
    assert_int_equal(slot_tables_check(&tables, &s, &e), OK);
    apply_all(&s);
    assert_int_equal(tables.slots[1].n_blocks, 4);
    assert_int_equal(tables.slots[1].n_holes, 1);
    assert_int_equal(tables.slots[1].blocks[3], 0);
    /* Later steps too; holes only grow; a table may begin with them. */
    s = step_of(NULL, 0, r, 1);
    assert_int_equal(slot_tables_check(&tables, &s, &e), ERR_FORMAT);
    const struct step_update again = {UPDATE_TRIM, 1, 1, 0}, too_many = {UPDATE_TRIM, 1, 8, 0};
    s = step_of(&again, 1, NULL, 0);
    assert_int_equal(slot_tables_check(&tables, &s, &e), ERR_FORMAT);
    assert_string_equal(e.text, "update 0: expected 2 to 7 holes in the table of slot 1, found 1");
    s = step_of(&too_many, 1, NULL, 0);
    assert_int_equal(slot_tables_check(&tables, &s, &e), ERR_FORMAT);
    const struct step_update jump[] = {{UPDATE_CLOSE, 1, 0, 0},
                                       {UPDATE_OPEN, 1, 0, 0},
                                       {UPDATE_TRIM, 1, 4, 0},
                                       {UPDATE_APPEND, 1, 2, 0}};
    const struct step_row far[] = {{0, 79, 1, 0}, {0, 83, 1, 0}};
    s = step_of(jump, 4, far, 1);
    assert_int_equal(slot_tables_check(&tables, &s, &e), ERR_FORMAT); /* from 60 on */
    s = step_of(jump, 4, far + 1, 1);
    assert_int_equal(slot_tables_check(&tables, &s, &e), ERR_FORMAT); /* behind the table */
    apply_all(&s);
    assert_int_equal(tables.slots[1].n_blocks, 5);
    const struct step_update more = {UPDATE_APPEND, 1, 1, 0};
    s = step_of(&more, 1, far + 1, 1);
    assert_int_equal(slot_tables_check(&tables, &s, &e), OK);
    apply_all(&s);
    const struct step_update close = {UPDATE_CLOSE, 1, 0, 0}, open = {UPDATE_OPEN, 1, 0, 0};
    s = step_of((struct step_update[]){close, open, more}, 3, (struct step_row[]){{0, 0, 1, 0}}, 1);
    assert_int_equal(slot_tables_check(&tables, &s, &e), OK); /* a new table has no holes */
    slot_tables_release(&tables);
}

static void holes_need_a_window(void **state)
{
    (void)state;
    const struct step_update u[] = {
        {UPDATE_OPEN, 0, 0, 0}, {UPDATE_APPEND, 0, 1, 0}, {UPDATE_TRIM, 0, 1, 0}};
    refused(step_of(u, 3, NULL, 0),
            "update 2: holes in the table of slot 0, but the model has no window");
}

static void tables_with_holes_are_bounded(void **state)
{
    (void)state;
    struct slot_tables t;
    struct error e;
    struct slot_tables_options o = {.n_slots = SLOT_MAX,
                                    .n_blocks = 2,
                                    .max_context = SHAPE_MAX_CONTEXT,
                                    .window = 20,
                                    .vocab = 100};
    assert_int_equal(slot_tables_init(&t, &o, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "tables of 4096 slots of 16777216 positions"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tables_grow_and_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_steps_are_refused, set_up, tear_down),
        cmocka_unit_test(tables_are_no_larger_than_the_store),
        cmocka_unit_test(holes_are_never_read),
        cmocka_unit_test_setup_teardown(holes_need_a_window, set_up, tear_down),
        cmocka_unit_test(tables_with_holes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
