#include "kv/slot_book.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The changes heard, as text: "o0 a0:1 c0 ". */
struct heard {
    char text[512];
};

static void hear(void *context, enum slot_change change, int slot, int32_t block)
{
    struct heard *h = context;
    size_t n = strlen(h->text), left = sizeof(h->text) - n;
    if (change == SLOT_APPEND)
        snprintf(h->text + n, left, "a%d:%d ", slot, block);
    else
        snprintf(h->text + n, left, "%c%d ", change == SLOT_OPEN ? 'o' : 'c', slot);
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
    struct slot_book *b = slot_book_new(2, 5, 100);
    int slot = slot_book_open(b, 3 * KV_BLOCK_TOKENS, hear, &h);
    assert_int_equal(slot, 0);
    slot_book_extend(b, slot, 1, hear, &h);
    slot_book_extend(b, slot, KV_BLOCK_TOKENS, hear, &h); /* covered already */
    slot_book_extend(b, slot, 2 * KV_BLOCK_TOKENS + 1, hear, &h);
    const int32_t *table;
    assert_int_equal(slot_book_table(b, slot, &table), 3);
    assert_int_equal(table[2], 2);
    assert_int_equal(slot_book_open(b, 5, hear, &h), 1);
    assert_int_equal(slot_book_n_open(b), 2);
    slot_book_close(b, 0, hear, &h);
    assert_string_equal(h.text, "o0 a0:0 a0:1 a0:2 o1 c0 ");
    assert_int_equal(block_pool_used(slot_book_pool(b)), 0);
    assert_int_equal(block_pool_available(slot_book_pool(b)), 4); /* slot 1 keeps its promise */
    slot_book_free(b);
}

static void full_is_an_ordinary_answer(void **state)
{
    (void)state;
    struct heard h = {""};
    struct slot_book *b = slot_book_new(2, 3, 3 * KV_BLOCK_TOKENS);
    assert_int_equal(slot_book_open(b, 2 * KV_BLOCK_TOKENS, hear, &h), 0);
    assert_int_equal(slot_book_open(b, 2 * KV_BLOCK_TOKENS, hear, &h), -1); /* no blocks */
    assert_int_equal(slot_book_open(b, KV_BLOCK_TOKENS, hear, &h), 1);
    slot_book_close(b, 0, hear, &h);
    assert_int_equal(slot_book_open(b, 1, hear, &h), 0);
    assert_int_equal(slot_book_open(b, 1, hear, &h), -1); /* no slot */
    assert_string_equal(h.text, "o0 o1 c0 o0 ");
    slot_book_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_round_up),
        cmocka_unit_test(every_change_is_told_in_order),
        cmocka_unit_test(full_is_an_ordinary_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
