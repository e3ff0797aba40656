#include "kv/block_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void takes_within_the_reservation(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(4, 2);
    assert_int_equal(block_pool_available(p), 4);
    assert_true(block_pool_reserve(p, 0, 3));
    assert_int_equal(block_pool_available(p), 1);
    assert_int_equal(block_pool_used(p), 0);
    assert_false(block_pool_reserve(p, 1, 2)); /* promised blocks are not for others */
    assert_int_equal(block_pool_reserved(p, 1), 0);
    assert_true(block_pool_reserve(p, 1, 1));
    assert_int_equal(block_pool_take(p, 0), 0);
    assert_int_equal(block_pool_take(p, 1), 1);
    assert_int_equal(block_pool_take(p, 0), 2);
    assert_int_equal(block_pool_take(p, 0), 3);
    assert_int_equal(block_pool_available(p), 0);
    assert_int_equal(block_pool_used(p), 4);
    assert_int_equal(block_pool_held(p, 0), 3);
    assert_true(block_pool_drop(p, 0, 2));
    assert_int_equal(block_pool_available(p), 1);
    assert_true(block_pool_reserve(p, 1, 1));
    assert_int_equal(block_pool_take(p, 1), 2); /* the one freed last */
    block_pool_free(p);
}

static void unreserve_gives_back_only_the_promise(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(5, 1);
    assert_true(block_pool_reserve(p, 0, 5));
    block_pool_take(p, 0);
    block_pool_unreserve(p, 0);
    assert_int_equal(block_pool_available(p), 4);
    assert_int_equal(block_pool_held(p, 0), 1);
    assert_int_equal(block_pool_reserved(p, 0), 0);
    block_pool_free(p);
}

static void a_shared_block_lives_until_the_last_drop(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(2, 3);
    assert_true(block_pool_reserve(p, 0, 1));
    int32_t block = block_pool_take(p, 0);
    block_pool_share(p, 1, block);
    block_pool_share(p, 2, block);
    assert_int_equal(block_pool_refs(p, block), 3);
    assert_false(block_pool_drop(p, 0, block));
    assert_false(block_pool_drop(p, 2, block));
    assert_int_equal(block_pool_used(p), 1);
    assert_true(block_pool_drop(p, 1, block));
    assert_int_equal(block_pool_used(p), 0);
    assert_int_equal(block_pool_refs(p, block), 0);
    block_pool_free(p);
}

/* Random owners against a naive account: a block has at most one taker, counts add up. */
enum { N_BLOCKS = 37, N_OWNERS = 5 };

static void random_life_adds_up(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(N_BLOCKS, N_OWNERS);
    int owner_of[N_BLOCKS], reserved[N_OWNERS] = {0}, n_used = 0, n_refused = 0;
    for (int i = 0; i < N_BLOCKS; i++)
        owner_of[i] = -1;
    unsigned seed = 7;
    for (int round = 0; round < 20000; round++) {
        int owner = rand_r(&seed) % N_OWNERS, what = rand_r(&seed) % 3;
        int total_reserved = 0;
        for (int i = 0; i < N_OWNERS; i++)
            total_reserved += reserved[i];
        if (what == 0) {
            int n = rand_r(&seed) % 6;
            bool fits = n <= N_BLOCKS - n_used - total_reserved;
            n_refused += !fits;
            assert_int_equal(block_pool_reserve(p, owner, n), fits);
            reserved[owner] += fits ? n : 0;
        } else if (what == 1 && reserved[owner] > 0) {
            int32_t block = block_pool_take(p, owner);
            assert_in_range(block, 0, N_BLOCKS - 1);
            assert_int_equal(owner_of[block], -1);
            owner_of[block] = owner;
            reserved[owner]--;
            n_used++;
        } else if (what == 2) {
            int block = rand_r(&seed) % N_BLOCKS;
            if (owner_of[block] >= 0) {
                assert_true(block_pool_drop(p, owner_of[block], block));
                owner_of[block] = -1;
                n_used--;
            }
        }
        assert_int_equal(block_pool_used(p), n_used);
    }
    assert_true(n_refused > 100);
    block_pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_within_the_reservation),
        cmocka_unit_test(unreserve_gives_back_only_the_promise),
        cmocka_unit_test(a_shared_block_lives_until_the_last_drop),
        cmocka_unit_test(random_life_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
