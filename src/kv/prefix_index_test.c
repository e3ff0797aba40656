#include "kv/prefix_index.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = KV_BLOCK_TOKENS };

static void count_up(int32_t *tokens, int n, int32_t from)
{
    for (int i = 0; i < n; i++)
        tokens[i] = from + i;
}

static bool same(struct prefix_hash a, struct prefix_hash b)
{
    return a.low == b.low && a.high == b.high;
}

static void a_name_covers_key_parent_and_tokens(void **state)
{
    (void)state;
    int32_t a[N], b[N];
    count_up(a, N, 5);
    count_up(b, N, 5);
    struct prefix_hash root = prefix_hash_root(1), other = prefix_hash_root(2);
    assert_false(same(root, other));
    assert_true(same(prefix_hash_next(root, a), prefix_hash_next(root, b)));
    assert_false(same(prefix_hash_next(root, a), prefix_hash_next(other, a)));
    b[N - 1]++;
    assert_false(same(prefix_hash_next(root, a), prefix_hash_next(root, b)));
}

static void a_full_block_is_found_until_forgotten(void **state)
{
    (void)state;
    struct prefix_index *x = prefix_index_new(5);
    struct prefix_hash root = prefix_hash_root(1);
    int32_t tokens[N], others[N];
    count_up(tokens, N, 5);
    count_up(others, N, 5);
    others[3] = 0;
    struct prefix_hash name = prefix_hash_next(root, tokens);
    assert_int_equal(prefix_index_find(x, name, tokens), -1);
    assert_false(prefix_index_fill(x, 2, root, tokens, N - 1, 0));
    assert_int_equal(prefix_index_find(x, name, tokens), -1); /* not full */
    assert_true(prefix_index_fill(x, 2, root, tokens, N, 1));
    assert_int_equal(prefix_index_find(x, name, tokens), 2);
    assert_int_equal(prefix_index_find(x, name, others), -1);  /* even if hashes were equal */
    assert_false(prefix_index_fill(x, 4, root, tokens, N, 1)); /* one is enough */
    assert_int_equal(prefix_index_find(x, name, tokens), 2);
    prefix_index_forget(x, 4);
    assert_int_equal(prefix_index_find(x, name, tokens), 2);
    prefix_index_forget(x, 2);
    prefix_index_forget(x, 2); /* nothing to forget any more */
    assert_int_equal(prefix_index_find(x, name, tokens), -1);
    assert_true(prefix_index_fill(x, 4, root, tokens, N, 2));
    assert_int_equal(prefix_index_find(x, name, tokens), 4);
    prefix_index_free(x);
}

static void parts_are_those_of_earlier_steps(void **state)
{
    (void)state;
    struct prefix_index *x = prefix_index_new(5);
    struct prefix_hash root = prefix_hash_root(1);
    int32_t tokens[N], query[N];
    count_up(tokens, N, 5);
    count_up(query, N, 5);
    query[10] = 0;
    assert_int_equal(prefix_index_find_part(x, root, query, N, 7).block, -1);
    prefix_index_fill(x, 3, root, tokens, 6, 7);
    struct prefix_part part = prefix_index_find_part(x, root, query, N, 7);
    assert_int_equal(part.block, 3);
    assert_int_equal(part.n_now, 0); /* step 7 has yet to write it */
    assert_int_equal(part.n_soon, 6);
    prefix_index_fill(x, 3, root, tokens, 12, 8);
    part = prefix_index_find_part(x, root, query, N, 8);
    assert_int_equal(part.n_now, 6);
    assert_int_equal(part.n_soon, 10); /* they part at 10 */
    part = prefix_index_find_part(x, root, query, 4, 9);
    assert_int_equal(part.n_now, 4);
    assert_int_equal(prefix_index_find_part(x, prefix_hash_root(2), query, N, 9).block, -1);
    prefix_index_forget(x, 3);
    assert_int_equal(prefix_index_find_part(x, root, query, N, 9).block, -1);
    prefix_index_free(x);
}

static void the_best_of_several_parts(void **state)
{
    (void)state;
    struct prefix_index *x = prefix_index_new(3);
    struct prefix_hash root = prefix_hash_root(1);
    int32_t tokens[N];
    for (int block = 0; block < 3; block++) {
        count_up(tokens, N, 5);
        tokens[block == 1 ? 9 : 2 + block] = 0;
        prefix_index_fill(x, block, root, tokens, N, 1);
    }
    count_up(tokens, N, 5);
    struct prefix_part part = prefix_index_find_part(x, root, tokens, N, 2);
    assert_int_equal(part.block, 1);
    assert_int_equal(part.n_now, 9);
    prefix_index_forget(x, 1); /* from the middle of its chain */
    assert_int_equal(prefix_index_find_part(x, root, tokens, N, 2).block, 2);
    prefix_index_free(x);
}

/* Names come and go in a table that is too small for them not to meet. */
static void random_life_against_a_list(void **state)
{
    (void)state;
    enum { BLOCKS = 9, KINDS = 20 };
    struct prefix_index *x = prefix_index_new(BLOCKS);
    struct prefix_hash root = prefix_hash_root(3);
    int kind_of[BLOCKS], n_found = 0;
    memset(kind_of, -1, sizeof(kind_of));
    unsigned seed = 5;
    for (int round = 0; round < 20000; round++) {
        int block = rand_r(&seed) % BLOCKS, kind = rand_r(&seed) % KINDS;
        int32_t tokens[N];
        count_up(tokens, N, kind);
        int holder = -1;
        for (int i = 0; i < BLOCKS; i++)
            if (kind_of[i] == kind)
                holder = i;
        int32_t found = prefix_index_find(x, prefix_hash_next(root, tokens), tokens);
        assert_int_equal(found, holder);
        n_found += found >= 0;
        prefix_index_forget(x, block);
        kind_of[block] = -1;
        holder = holder == block ? -1 : holder;
        if (rand_r(&seed) % 3 > 0) {
            bool named = prefix_index_fill(x, block, root, tokens, N, (uint64_t)round);
            assert_int_equal(named, holder < 0);
            kind_of[block] = named ? kind : -1;
        }
    }
    assert_true(n_found > 1000);
    prefix_index_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_covers_key_parent_and_tokens),
        cmocka_unit_test(a_full_block_is_found_until_forgotten),
        cmocka_unit_test(parts_are_those_of_earlier_steps),
        cmocka_unit_test(the_best_of_several_parts),
        cmocka_unit_test(random_life_against_a_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
