#include "kv/block_pool.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* For a sequence that has none yet. */
static int32_t take_first(struct block_pool *p)
{
    return block_pool_take(p, -1, 0);
}

static void takes_until_none_is_left(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(3);
    assert_int_equal(take_first(p), 0);
    assert_int_equal(take_first(p), 1);
    assert_int_equal(block_pool_available(p), 1);
    assert_int_equal(take_first(p), 2);
    assert_int_equal(take_first(p), -1);
    assert_int_equal(block_pool_used(p), 3);
    assert_true(block_pool_drop(p, 1));
    assert_true(block_pool_drop(p, 0));
    assert_int_equal(take_first(p), 0); /* the first */
    block_pool_free(p);
}

/* The table of a sequence. */
struct table {
    int32_t blocks[64];
    int n;
};

static void grow(struct block_pool *p, struct table *t, int n_blocks)
{
    for (; n_blocks > 0; n_blocks--, t->n++) {
        int32_t block = block_pool_take(p, t->n > 0 ? t->blocks[t->n - 1] : -1, t->n);
        assert_true(block >= 0);
        t->blocks[t->n] = block;
    }
}

/* The last block first, as sequences end. */
static void end(struct block_pool *p, struct table *t)
{
    while (t->n > 0)
        block_pool_drop(p, t->blocks[--t->n]);
}

/* Entries from `begin` on are blocks from `first` on. */
static void is_run(const struct table *t, int begin, int n, int32_t first)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(t->blocks[begin + i], first + i);
}

static void sequences_fill_strips(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(5 * KV_STRIP_BLOCKS + 3);
    struct table a = {.n = 0}, b = {.n = 0}, c = {.n = 0}, d = {.n = 0};
    for (int i = 0; i < 20; i++) { /* grow in turn */
        grow(p, &a, 1);
        grow(p, &b, 1);
    }
    is_run(&a, 0, 16, 0);
    is_run(&b, 0, 16, 16);
    is_run(&a, 16, 4, 32);
    is_run(&b, 16, 4, 48);
    grow(p, &c, 17);
    is_run(&c, 0, 16, 64);
    is_run(&c, 16, 1, 80); /* no strip is left: what there is behind its last */
    end(p, &a);
    grow(p, &b, 13);
    is_run(&b, 16, 16, 48);
    is_run(&b, 32, 1, 0); /* none behind, but another */
    grow(p, &d, 1);
    is_run(&d, 0, 1, 32);
    grow(p, &c, 2);
    is_run(&c, 17, 2, 81);
    grow(p, &c, 1);
    is_run(&c, 19, 1, 3); /* place 3 of a strip whose rest is free */
    block_pool_free(p);
}

/* A sequence that begins with another's blocks goes on where its own part of a strip is free. */
static void a_place_has_its_own_number_in_a_strip(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(3 * KV_STRIP_BLOCKS);
    struct table a = {.n = 0}, b = {.n = 0};
    grow(p, &a, 8);
    for (b.n = 0; b.n < 5; b.n++) {
        block_pool_share(p, a.blocks[b.n]);
        b.blocks[b.n] = a.blocks[b.n];
    }
    grow(p, &b, 12);
    is_run(&b, 5, 11, 16 + 5);
    is_run(&b, 16, 1, 32);
    grow(p, &a, 1);
    is_run(&a, 8, 1, 8);
    block_pool_free(p);
}

static void idle_strips_are_filled_upwards_too(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(3 * KV_STRIP_BLOCKS);
    struct table a = {.n = 0}, b = {.n = 0};
    grow(p, &a, 32);
    grow(p, &b, 16);
    for (int32_t i = 0; i < 48; i++)
        block_pool_keep(p, i);
    end(p, &a); /* 31 became idle first, 0 last */
    end(p, &b);
    grow(p, &a, 20);
    is_run(&a, 0, 16, 16);
    is_run(&a, 16, 4, 0);
    end(p, &a); /* not kept: free */
    assert_int_equal(block_pool_idle(p), 28);
    block_pool_free(p);
}

/* Of a strip with a block that became idle much later only those go that lay long. */
static void what_became_idle_lately_stays(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(3 * KV_STRIP_BLOCKS);
    struct table a = {.n = 0}, b = {.n = 0};
    grow(p, &a, 16);
    grow(p, &b, 32);
    for (int32_t i = 0; i < 48; i++)
        block_pool_keep(p, i);
    block_pool_share(p, 3); /* somebody else's as well */
    end(p, &a);
    end(p, &b);
    block_pool_drop(p, 3);
    for (int i = 15; i > 0; i--)
        if (i != 3)
            assert_int_equal(take_first(p), i);
    assert_int_equal(take_first(p), 0);
    assert_int_equal(take_first(p), 32); /* a strip of those that lay idle next longest */
    assert_int_equal(block_pool_idle(p), 32);
    block_pool_free(p);
}

static void a_shared_block_lives_until_the_last_drop(void **state)
{
    (void)state;
    struct block_pool *p = block_pool_new(2);
    int32_t block = take_first(p);
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
        assert_int_equal(take_first(p), i);
    for (int i = 0; i < 3; i++)
        block_pool_keep(p, i);
    assert_false(block_pool_drop(p, 1));
    assert_false(block_pool_drop(p, 0));
    assert_false(block_pool_drop(p, 2));
    assert_int_equal(block_pool_idle(p), 3);
    assert_int_equal(block_pool_available(p), 4);
    assert_int_equal(block_pool_used(p), 0);
    block_pool_share(p, 0);             /* wanted again: from the middle of the list */
    assert_int_equal(take_first(p), 3); /* the free one first */
    assert_int_equal(take_first(p), 1); /* then what lay idle longest */
    assert_int_equal(take_first(p), 2);
    assert_int_equal(take_first(p), -1);
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
            int32_t block = block_pool_take(p, at - 1, rand_r(&seed) % 40);
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
        cmocka_unit_test(sequences_fill_strips),
        cmocka_unit_test(a_place_has_its_own_number_in_a_strip),
        cmocka_unit_test(idle_strips_are_filled_upwards_too),
        cmocka_unit_test(what_became_idle_lately_stays),
        cmocka_unit_test(a_shared_block_lives_until_the_last_drop),
        cmocka_unit_test(kept_blocks_lie_idle_and_are_taken_last),
        cmocka_unit_test(random_life_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
