#include "bench/probe.h"

#include "base/panic.h"
#include "bench/probe_loops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_plain_c_is_first_and_always_there(void **state)
{
    (void)state;
    assert_string_equal(probe_isas[0].isa, "ref");
    assert_true(probe_isas[0].present());
}

/* Changing any one byte changes the answer: nothing is skipped. */
static void test_read_looks_at_every_byte(void **state)
{
    (void)state;
    size_t bytes = 3 * PROBE_READ_STEP;
    uint8_t *p = aligned_alloc(64, bytes);
    assert_non_null(p);
    for (const struct probe_loops *l = probe_isas; l->name != NULL; l++) {
        if (!l->present())
            continue;
        memset(p, 7, bytes);
        uint64_t whole = l->read(p, bytes);
        assert_true(whole == probe_read_c(p, bytes));
        for (size_t i = 0; i < bytes; i++) {
            p[i] ^= 0x55;
            assert_true(l->read(p, bytes) != whole);
            p[i] ^= 0x55;
        }
    }
    free(p);
}

/* The loops sum 3 * -5 for every product that they claim to make: as many as `round_ops` says. */
static void test_dot_makes_the_products_it_counts(void **state)
{
    (void)state;
    for (const struct probe_loops *l = &probe_isas[1]; l->name != NULL; l++) {
        if (!l->present())
            continue;
        for (long rounds = 0; rounds < 50; rounds += 7) {
            long products = rounds * l->round_ops / 2;
            if (l->dot(rounds) != -15 * products)
                fail_msg("%s: %d after %ld products", l->name, l->dot(rounds), products);
        }
    }
}

/* Each multiply-add adds 0.5 * 2. */
static void test_fma_makes_the_products_it_counts(void **state)
{
    (void)state;
    for (const struct probe_loops *l = &probe_isas[1]; l->name != NULL; l++) {
        if (!l->present())
            continue;
        for (long rounds = 0; rounds < 50; rounds += 7)
            assert_true(l->fma(rounds) == (float)(rounds * l->fma_round_ops / 2));
    }
    /* Of plain C: 0 + 0.5 + … + 31.5 for every 64. */
    assert_true(probe_fma_c(3) == 3.0f * PROBE_C_ROUND / 64 * 1008);
    assert_int_equal(probe_isas[0].fma_round_ops, 2 * PROBE_C_ROUND);
}

static void test_dot_of_plain_c(void **state)
{
    (void)state;
    /* Of 64 values eight are not zero: 1 + 4 + … + 64 = 204. */
    assert_int_equal(probe_dot_c(3), 3 * PROBE_C_ROUND / 64 * 204);
    assert_int_equal(probe_isas[0].round_ops, 2 * PROBE_C_ROUND);
}

static void test_choice(void **state)
{
    (void)state;
    assert_string_equal(probe_choose("ref")->isa, "ref");
    const struct probe_loops *last = NULL;
    for (const struct probe_loops *l = probe_isas; l->name != NULL; l++) {
        if (l->present()) {
            assert_string_equal(probe_choose(l->isa)->isa, l->isa);
            last = l;
        }
    }
    assert_ptr_equal(probe_choose("no such kernels"), last);
}

/* Rates of real machines: the bounds only catch wrong units. */
static void test_rates(void **state)
{
    (void)state;
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        struct pool *pool;
        struct probe *probe;
        struct error e;
        assert_int_equal(pool_new(n_threads, &pool, &e), OK);
        assert_int_equal(probe_new(pool, "ref", &probe, &e), OK);
        double read = probe_read_gb_s(probe), dot = probe_dot_gop_s(probe);
        double fma = probe_fma_gop_s(probe);
        printf("%d threads: %.1f GB/s, %s %.1f Gop/s, %s %.1f Gop/s\n", n_threads, read,
               probe_dot_name(probe), dot, probe_fma_name(probe), fma);
        assert_true(fma > 0.01 && fma < 50000);
        assert_true(read > 0.05 && read < 5000);
        assert_true(dot > 0.01 && dot < 50000);
        assert_string_equal(probe_dot_name(probe), "plain C");
        probe_free(probe);
        pool_free(pool);
    }
    probe_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_c_is_first_and_always_there),
        cmocka_unit_test(test_read_looks_at_every_byte),
        cmocka_unit_test(test_dot_makes_the_products_it_counts),
        cmocka_unit_test(test_fma_makes_the_products_it_counts),
        cmocka_unit_test(test_dot_of_plain_c),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_rates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
