#include "kv/block_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void takes_until_none_is_left(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(3);
    assert_int_equal(block_pool_take(p, -1), 0);
    assert_int_equal(block_pool_take(p, -1), 1);
    assert_int_equal(block_pool_available(p), 1);
    assert_int_equal(block_pool_take(p, -1), 2);
    assert_int_equal(block_pool_take(p, -1), -1);
    assert_int_equal(block_pool_used(p), 3);
    assert_true(block_pool_drop(p, 1));
    assert_true(block_pool_drop(p, 0));
    assert_int_equal(block_pool_take(p, -1), 0); /* the first */
    block_pool_free(p);
}

static void blocks_follow_each_other(void **state)
{
    (void)state;
    enum { N = 200 };
    struct block_pool *p = block_pool_new(N);
    for (int i = 0; i < N; i++)
        assert_int_equal(block_pool_take(p, i - 1), i);
    for (int i = 60; i < 140; i += 2)
        assert_true(block_pool_drop(p, i));
    assert_true(block_pool_drop(p, 199));
    assert_int_equal(block_pool_take(p, 63), 64);
    assert_int_equal(block_pool_take(p, 64), 66);
    assert_int_equal(block_pool_take(p, 101), 102);
    assert_int_equal(block_pool_take(p, 138), 199);
    assert_int_equal(block_pool_take(p, 138), 60); /* none behind */
    assert_int_equal(block_pool_take(p, 199), 62);
    block_pool_free(p);
}

static void a_shared_block_lives_until_the_last_drop(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(2);
    int32_t block = block_pool_take(p, -1);
    block_pool_share(p, block);
    block_pool_share(p, block);
    assert_int_equal(block_pool_refs(p, block), 3);
    assert_false(block_pool_drop(p, block));
    assert_false(block_pool_drop(p, block));
    assert_int_equal(block_pool_used(p), 1);
    assert_true(block_pool_drop(p, block));
    assert_int_equal(block_pool_used(p), 0);
    assert_int_equal(block_pool_refs(p, block), 0);
    block_pool_free(p);
}

static void kept_blocks_lie_idle_and_are_taken_last(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(block_pool_take(p, -1), i);
    for (int i = 0; i < 3; i++)
        block_pool_keep(p, i);
    assert_false(block_pool_drop(p, 1));
    assert_false(block_pool_drop(p, 0));
    assert_false(block_pool_drop(p, 2));
    assert_int_equal(block_pool_idle(p), 3);
    assert_int_equal(block_pool_available(p), 4);
    assert_int_equal(block_pool_used(p), 0);
    block_pool_share(p, 0);                      /* wanted again: from the middle of the list */
    assert_int_equal(block_pool_take(p, -1), 3); /* the free one first */
    assert_int_equal(block_pool_take(p, -1), 1); /* then what lay idle longest */
    assert_int_equal(block_pool_take(p, -1), 2);
    assert_int_equal(block_pool_take(p, -1), -1);
    assert_true(block_pool_drop(p, 1));  /* new contents are not kept */
    assert_false(block_pool_drop(p, 0)); /* the old ones still are */
    assert_int_equal(block_pool_idle(p), 1);
    block_pool_free(p);
}

/* Random life against a naive account. */
enum { N_BLOCKS = 37 };

static void random_life_adds_up(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(N_BLOCKS);
    int refs[N_BLOCKS] = {0}, n_none = 0, n_evicted = 0;
    bool keep[N_BLOCKS] = {false};
    unsigned seed = 7;
    for (int round = 0; round < 40000; round++) {
        int at = rand_r(&seed) % N_BLOCKS, used = 0, idle = 0;
        switch (rand_r(&seed) % 5) {
        case 0:
        case 1: {
            int32_t block = block_pool_take(p, at - 1);
            n_none += block < 0;
            if (block < 0)
                break;
            assert_int_equal(refs[block], 0);
            n_evicted += keep[block];
            refs[block] = 1;
            keep[block] = false;
            break;
        }
        case 2:
            if (refs[at] > 0)
                block_pool_keep(p, at);
            keep[at] |= refs[at] > 0;
            break;
        case 3:
            if (refs[at] > 0 || keep[at]) {
                block_pool_share(p, at);
                refs[at]++;
            }
            break;
        default:
            if (refs[at] > 0) {
                bool lost = block_pool_drop(p, at);
                refs[at]--;
                assert_int_equal(lost, refs[at] == 0 && !keep[at]);
            }
        }
        for (int i = 0; i < N_BLOCKS; i++) {
            used += refs[i] > 0;
            idle += refs[i] == 0 && keep[i];
        }
        assert_int_equal(block_pool_used(p), used);
        assert_int_equal(block_pool_idle(p), idle);
        assert_int_equal(block_pool_available(p), N_BLOCKS - used);
    }
    assert_true(n_none > 50);
    assert_true(n_evicted > 50);
    block_pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_until_none_is_left),
        cmocka_unit_test(blocks_follow_each_other),
        cmocka_unit_test(a_shared_block_lives_until_the_last_drop),
        cmocka_unit_test(kept_blocks_lie_idle_and_are_taken_last),
        cmocka_unit_test(random_life_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
