#include "kv/slot_book.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The changes heard, as text: "o0 a0:1 y1:2 t0:3 c0 " (y: 1 is copied to 2; t: 3 holes). */
struct heard {
    char text[512];
};

static void hear(void *context, const struct slot_change *c)
{
    struct heard *h = context;
    size_t n = strlen(h->text), left = sizeof(h->text) - n;
    switch (c->kind) {
    case SLOT_OPEN: snprintf(h->text + n, left, "o%d ", c->slot); break;
    case SLOT_APPEND: snprintf(h->text + n, left, "a%d:%d ", c->slot, c->block); break;
    case SLOT_COPY: snprintf(h->text + n, left, "y%d:%d ", c->from, c->block); break;
    case SLOT_CLOSE: snprintf(h->text + n, left, "c%d ", c->slot); break;
    case SLOT_TRIM: snprintf(h->text + n, left, "t%d:%d ", c->slot, c->block); break;
    }
}

static struct slot_book *make(int n_slots, int n_blocks, struct heard *h)
{
    return slot_book_new(&(struct slot_book_options){.n_slots = n_slots,
                                                     .n_blocks = n_blocks,
                                                     .max_positions = 100,
                                                     .cache_key = 9,
                                                     .change = hear,
                                                     .context = h});
}

static struct slot_book *make_windowed(int window, int n_blocks, bool no_reuse, struct heard *h)
{
    return slot_book_new(&(struct slot_book_options){.n_slots = 3,
                                                     .n_blocks = n_blocks,
                                                     .max_positions = 1000,
                                                     .window = window,
                                                     .no_reuse = no_reuse,
                                                     .change = hear,
                                                     .context = h});
}

static const int32_t *count_up(void)
{
    static int32_t tokens[1000];
    for (int i = 0; i < 1000; i++)
        tokens[i] = 1000 + i;
    return tokens;
}

static void blocks_round_up(void **state)
{
    (void)state;
    assert_int_equal(slot_book_blocks_for(0), 0);
    assert_int_equal(slot_book_blocks_for(1), 1);
    assert_int_equal(slot_book_blocks_for(KV_BLOCK_TOKENS), 1);
    assert_int_equal(slot_book_blocks_for(KV_BLOCK_TOKENS + 1), 2);
}

static void every_change_is_told_in_order(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make(2, 5, &h);
    int slot = slot_book_open(b);
    assert_int_equal(slot, 0);
    assert_int_equal(slot_book_extend(b, slot, 1), 1);
    assert_int_equal(slot_book_extend(b, slot, KV_BLOCK_TOKENS), KV_BLOCK_TOKENS); /* already */
    assert_int_equal(slot_book_extend(b, slot, 2 * KV_BLOCK_TOKENS + 1), 33);
    assert_int_equal(slot_book_covers(b, slot), 48);
    const int32_t *table;
    assert_int_equal(slot_book_table(b, slot, &table), 3);
    assert_int_equal(table[2], 2);
    assert_int_equal(slot_book_open(b), 1);
    assert_int_equal(slot_book_open(b), -1);
    assert_int_equal(slot_book_n_open(b), 2);
    slot_book_close(b, 0);
    assert_string_equal(h.text, "o0 a0:0 a0:1 a0:2 o1 c0 ");
    assert_int_equal(block_pool_used(slot_book_pool(b)), 0);
    slot_book_free(b);
}

static void out_of_blocks_is_an_ordinary_answer(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make(2, 3, &h);
    assert_int_equal(slot_book_open(b), 0);
    assert_int_equal(slot_book_open(b), 1);
    assert_int_equal(slot_book_extend(b, 0, 17), 17);
    assert_int_equal(slot_book_extend(b, 1, 40), 16); /* as far as they go */
    slot_book_close(b, 0);
    assert_int_equal(slot_book_extend(b, 1, 40), 40);
    slot_book_free(b);
}

static void full_blocks_are_shared_also_when_their_slot_has_closed(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make(3, 6, &h);
    const int32_t *tokens = count_up();
    assert_int_equal(slot_book_open(b), 0);
    slot_book_extend(b, 0, 40);
    slot_book_fill(b, 0, tokens, 20, 1);
    slot_book_fill(b, 0, tokens, 32, 2);
    assert_int_equal(slot_book_n_shareable(b, tokens, 100), 2);
    assert_int_equal(slot_book_n_shareable(b, tokens, 31), 1);
    h.text[0] = 0;
    assert_int_equal(slot_book_open(b), 1);
    struct slot_reuse reuse = slot_book_reuse(b, 1, tokens, 0, 32, 2);
    assert_int_equal(reuse.n_done, 32); /* in the very step that fills them */
    assert_string_equal(h.text, "o1 a1:0 a1:1 ");
    slot_book_close(b, 0);
    slot_book_close(b, 1);
    assert_int_equal(block_pool_used(slot_book_pool(b)), 0);
    assert_int_equal(block_pool_idle(slot_book_pool(b)), 2);
    assert_int_equal(slot_book_n_shareable(b, tokens, 100), 0); /* nobody holds them */
    h.text[0] = 0;
    slot_book_open(b);
    assert_int_equal(slot_book_reuse(b, 1, tokens, 0, 100, 3).n_done, 32);
    /* Another beginning shares nothing; the oldest are evicted when all is needed. */
    assert_int_equal(slot_book_open(b), 0);
    assert_int_equal(slot_book_reuse(b, 0, tokens + 1, 0, 64, 3).n_done, 0);
    slot_book_close(b, 1);
    assert_int_equal(slot_book_extend(b, 0, 96), 96);
    assert_int_equal(slot_book_open(b), 1);
    assert_int_equal(slot_book_reuse(b, 1, tokens, 0, 64, 3).n_done, 0);
    slot_book_free(b);
}

static void the_beginning_of_a_block_is_copied(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make(3, 7, &h);
    const int32_t *tokens = count_up();
    slot_book_open(b);
    slot_book_extend(b, 0, 24);
    slot_book_fill(b, 0, tokens, 24, 1);
    slot_book_open(b);
    struct slot_reuse reuse = slot_book_reuse(b, 1, tokens, 0, 23, 1);
    assert_true(reuse.wait); /* the rows that write the second block run after the copy would */
    assert_int_equal(reuse.n_done, 16);
    h.text[0] = 0;
    reuse = slot_book_reuse(b, 1, tokens, 16, 23, 2);
    assert_false(reuse.wait);
    assert_int_equal(reuse.n_done, 23);
    assert_string_equal(h.text, "y1:2 a1:2 ");
    assert_int_equal(slot_book_covers(b, 1), 32);
    /* A prompt that is cached but for its last token, which is always computed. */
    slot_book_extend(b, 0, 32);
    slot_book_fill(b, 0, tokens, 32, 3);
    slot_book_close(b, 0);
    slot_book_open(b);
    assert_int_equal(slot_book_reuse(b, 0, tokens, 0, 31, 4).n_done, 31);
    slot_book_free(b);
}

static void waiting_is_told_once(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make(2, 7, &h);
    const int32_t *tokens = count_up();
    slot_book_open(b);
    slot_book_extend(b, 0, 16);
    slot_book_open(b);
    slot_book_fill(b, 0, tokens, 3, 1);
    assert_true(slot_book_reuse(b, 1, tokens, 0, 16, 1).wait);
    slot_book_fill(b, 0, tokens, 4, 2); /* one more every step */
    struct slot_reuse reuse = slot_book_reuse(b, 1, tokens, 0, 16, 2);
    assert_false(reuse.wait);
    assert_int_equal(reuse.n_done, 3);
    slot_book_free(b);
}

static void no_copy_without_a_block_for_it(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make(2, 2, &h);
    const int32_t *tokens = count_up();
    slot_book_open(b);
    slot_book_extend(b, 0, 32);
    slot_book_fill(b, 0, tokens, 20, 1);
    slot_book_open(b);
    assert_int_equal(slot_book_reuse(b, 1, tokens, 0, 20, 2).n_done, 16);
    slot_book_close(b, 0);
    slot_book_close(b, 1);
    assert_int_equal(block_pool_available(slot_book_pool(b)), 2);
    slot_book_free(b);
}

static void nothing_is_reused_where_that_is_off(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = slot_book_new(&(struct slot_book_options){.n_slots = 2,
                                                                    .n_blocks = 5,
                                                                    .max_positions = 100,
                                                                    .no_reuse = true,
                                                                    .change = hear,
                                                                    .context = &h});
    const int32_t *tokens = count_up();
    slot_book_open(b);
    slot_book_extend(b, 0, 40);
    slot_book_fill(b, 0, tokens, 40, 1);
    slot_book_open(b);
    assert_int_equal(slot_book_reuse(b, 1, tokens, 0, 40, 2).n_done, 0);
    assert_int_equal(slot_book_n_shareable(b, tokens, 40), 0);
    slot_book_close(b, 0);
    assert_int_equal(block_pool_idle(slot_book_pool(b)), 0);
    slot_book_free(b);
}

/* ---- windows ---- */

static void a_window_and_rows_behind_it_need_so_many_blocks(void **state)
{
    (void)state;
    static const struct {
        int window, n_rows, expected;
    } cases[] = {{1, 1, 1},  {1, 2, 2},  {2, 1, 2},  {16, 1, 2}, {17, 1, 2},
                 {18, 1, 3}, {16, 2, 2}, {16, 3, 3}, {32, 64, 7}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct heard h = {""};
        struct slot_book *b = make_windowed(cases[i].window, 50, false, &h);
        assert_int_equal(slot_book_blocks_at_once(b, cases[i].n_rows), cases[i].expected);
        /* Really: the first row at every place of a block. */
        int most = 0;
        for (int first = 100; first < 116; first++) {
            int from = first - cases[i].window + 1, to = first + cases[i].n_rows - 1;
            int n = to / KV_BLOCK_TOKENS - from / KV_BLOCK_TOKENS + 1;
            most = n > most ? n : most;
        }
        assert_int_equal(most, cases[i].expected);
        slot_book_free(b);
    }
    struct heard h = {""};
    struct slot_book *b = make(2, 50, &h);
    assert_int_equal(slot_book_blocks_at_once(b, 1), 7); /* all of 100 positions */
    slot_book_free(b);
}

static void blocks_behind_the_window_are_given_back(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make_windowed(20, 4, false, &h);
    const int32_t *tokens = count_up();
    slot_book_open(b);
    slot_book_extend(b, 0, 64);
    slot_book_fill(b, 0, tokens, 64, 1);
    h.text[0] = 0;
    slot_book_trim(b, 0, 34); /* sees from 15 on */
    assert_string_equal(h.text, "");
    slot_book_trim(b, 0, 35);
    slot_book_trim(b, 0, 35);
    slot_book_trim(b, 0, 64);
    assert_string_equal(h.text, "t0:1 t0:2 "); /* the last two hold 45 … 63 */
    assert_int_equal(slot_book_n_held(b, 0), 2);
    assert_int_equal(slot_book_covers(b, 0), 64);
    assert_int_equal(block_pool_idle(slot_book_pool(b)), 2);
    assert_int_equal(slot_book_extend(b, 0, 80), 80); /* the table is longer than the pool */
    slot_book_fill(b, 0, tokens, 80, 2);
    slot_book_trim(b, 0, 80);
    assert_string_equal(h.text, "t0:1 t0:2 a0:0 t0:3 "); /* what lay idle longest */
    slot_book_close(b, 0);
    assert_int_equal(block_pool_used(slot_book_pool(b)), 0);
    assert_int_equal(block_pool_available(slot_book_pool(b)), 4);
    slot_book_free(b);
}

static void without_reuse_they_are_simply_free(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make_windowed(16, 2, true, &h);
    const int32_t *tokens = count_up();
    slot_book_open(b);
    for (int n = 16; n <= 160; n += 16) {
        assert_int_equal(slot_book_extend(b, 0, n), n);
        slot_book_fill(b, 0, tokens, n, (uint64_t)n);
        slot_book_trim(b, 0, n);
        assert_int_equal(slot_book_n_held(b, 0), 1);
    }
    assert_int_equal(block_pool_idle(slot_book_pool(b)), 0);
    slot_book_close(b, 0);
    slot_book_free(b);
}

/* A sequence goes on where another stood whose beginning is forgotten; and only there. */
static void only_what_the_next_row_sees_is_taken_over(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make_windowed(20, 9, false, &h);
    const int32_t *tokens = count_up();
    slot_book_open(b);
    slot_book_extend(b, 0, 96);
    slot_book_fill(b, 0, tokens, 96, 1);
    slot_book_open(b); /* all six blocks are there: two are wanted */
    assert_int_equal(slot_book_n_shareable(b, tokens, 96), 6);
    h.text[0] = 0;
    assert_int_equal(slot_book_reuse(b, 1, tokens, 0, 96, 2).n_done, 96);
    assert_string_equal(h.text, "t1:4 a1:4 a1:5 ");
    assert_int_equal(slot_book_n_held(b, 1), 2);
    slot_book_close(b, 1);
    slot_book_trim(b, 0, 96); /* holes 0 … 3, idle */
    slot_book_open(b);
    assert_int_equal(slot_book_extend(b, 1, 96), 96); /* evicts three of the four */
    h.text[0] = 0;
    slot_book_open(b);
    assert_int_equal(slot_book_n_shareable(b, tokens, 96), 6);
    assert_int_equal(slot_book_reuse(b, 2, tokens, 0, 96, 2).n_done, 96);
    assert_string_equal(h.text, "o2 t2:4 a2:4 a2:5 ");
    slot_book_close(b, 2);
    /* Up to 80 block 3 would be wanted, and it is there; up to 64 block 2, which is gone. */
    slot_book_open(b);
    h.text[0] = 0;
    assert_int_equal(slot_book_reuse(b, 2, tokens, 0, 80, 2).n_done, 80);
    assert_string_equal(h.text, "t2:3 a2:3 a2:4 ");
    slot_book_close(b, 2);
    slot_book_open(b);
    h.text[0] = 0;
    assert_int_equal(slot_book_n_shareable(b, tokens, 64), 0);
    assert_int_equal(slot_book_reuse(b, 2, tokens, 0, 64, 2).n_done, 0);
    assert_string_equal(h.text, "");
    slot_book_free(b);
}

/* Who follows another through a prompt takes over, again and again, the end of what is there. */
static void a_follower_skips_what_it_needs_no_more(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = make_windowed(20, 12, false, &h);
    const int32_t *tokens = count_up();
    slot_book_open(b);
    slot_book_open(b);
    slot_book_extend(b, 0, 32);
    slot_book_fill(b, 0, tokens, 32, 1);
    assert_int_equal(slot_book_reuse(b, 1, tokens, 0, 160, 1).n_done, 32);
    slot_book_extend(b, 0, 96);
    slot_book_fill(b, 0, tokens, 96, 2);
    h.text[0] = 0;
    assert_int_equal(slot_book_reuse(b, 1, tokens, 32, 160, 2).n_done, 96);
    assert_string_equal(h.text, "t1:4 a1:4 a1:5 ");
    assert_int_equal(slot_book_n_held(b, 1), 2);
    slot_book_trim(b, 1, 96);
    assert_string_equal(h.text, "t1:4 a1:4 a1:5 "); /* nothing is left to give back */
    slot_book_close(b, 0);
    slot_book_close(b, 1);
    assert_int_equal(block_pool_used(slot_book_pool(b)), 0);
    slot_book_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_round_up),
        cmocka_unit_test(every_change_is_told_in_order),
        cmocka_unit_test(out_of_blocks_is_an_ordinary_answer),
        cmocka_unit_test(full_blocks_are_shared_also_when_their_slot_has_closed),
        cmocka_unit_test(the_beginning_of_a_block_is_copied),
        cmocka_unit_test(waiting_is_told_once),
        cmocka_unit_test(no_copy_without_a_block_for_it),
        cmocka_unit_test(nothing_is_reused_where_that_is_off),
        cmocka_unit_test(a_window_and_rows_behind_it_need_so_many_blocks),
        cmocka_unit_test(blocks_behind_the_window_are_given_back),
        cmocka_unit_test(without_reuse_they_are_simply_free),
        cmocka_unit_test(only_what_the_next_row_sees_is_taken_over),
        cmocka_unit_test(a_follower_skips_what_it_needs_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
