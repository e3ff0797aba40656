#include "kv/slot_book.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The changes heard, as text: "o0 a0:1 y1:2 c0 " (y: 1 is copied to 2). */
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

static const int32_t *count_up(void)
{
    static int32_t tokens[100];
    for (int i = 0; i < 100; i++)
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
