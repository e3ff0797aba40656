#include "plan/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MB = 1000000 };

static uint64_t ten_megabytes[64];

static struct plan_model model_of(int n_layers)
{
    for (int i = 0; i < 64; i++)
        ten_megabytes[i] = 10 * MB;
    return (struct plan_model){.n_layers = n_layers,
                               .layer_bytes = ten_megabytes,
                               .embedding_bytes = 20 * MB,
                               .head_bytes = 20 * MB,
                               .kv_bytes_per_layer = 1 * MB,
                               .fixed_bytes = 5 * MB};
}

static void nodes_with(struct plan_node *nodes, int n, const uint64_t *megabytes)
{
    for (int i = 0; i < n; i++) {
        nodes[i] = (struct plan_node){.memory_bytes = megabytes[i] * MB};
        if (i < n - 1)
            snprintf(nodes[i].address, sizeof nodes[i].address, "10.0.0.%d:50100", i);
    }
}

static void check_cover(const struct plan *p, int n_layers)
{
    int at = 0;
    for (int i = 0; i < p->n_stages; i++) {
        assert_int_equal(p->stages[i].first, at);
        at = p->stages[i].last;
    }
    assert_int_equal(at, n_layers);
}

static void layers_follow_memory(void **state)
{
    (void)state;
    struct plan_model m = model_of(28);
    struct plan_node nodes[3];
    struct plan p;
    nodes_with(nodes, 3, (uint64_t[]){400, 400, 800});
    assert_int_equal(plan_by_memory(&m, nodes, 3, &p, NULL), OK);
    check_cover(&p, 28);
    assert_int_equal(p.stages[0].last - p.stages[0].first, 7);
    assert_int_equal(p.stages[1].last - p.stages[1].first, 7);
    assert_int_equal(p.stages[2].last - p.stages[2].first, 14);
    assert_int_equal(p.stages[0].bytes, 7 * 11 * MB + 25 * MB);
    assert_int_equal(p.stages[1].bytes, 7 * 11 * MB + 5 * MB);
}

static void every_shape_covers_and_fits(void **state)
{
    (void)state;
    uint64_t sizes[] = {60, 90, 200, 400, 1000};
    for (int n_layers = 1; n_layers <= 40; n_layers++) {
        struct plan_model m = model_of(n_layers);
        for (int code = 0; code < 125; code++) {
            uint64_t mb[3] = {sizes[code % 5], sizes[code / 5 % 5], sizes[code / 25]};
            struct plan_node nodes[3];
            struct plan p;
            nodes_with(nodes, 3, mb);
            if (plan_by_memory(&m, nodes, 3, &p, NULL) != OK)
                continue;
            check_cover(&p, n_layers);
            for (int i = 0; i < 3; i++) {
                assert_true(p.stages[i].bytes <= nodes[i].memory_bytes);
                assert_true(i == 2 || p.stages[i].last > p.stages[i].first);
            }
        }
    }
}

/* Layers of mixed types: nobody gets more than its own layers' bytes, whatever the mean is. */
static void unequal_layers_fit_too(void **state)
{
    (void)state;
    struct plan_model m = model_of(20);
    static uint64_t bytes[20];
    for (int i = 0; i < 20; i++)
        bytes[i] = (i < 10 ? 16 : 4) * MB; /* the first node's are the large ones */
    m.layer_bytes = bytes;
    for (uint64_t first = 60; first < 400; first += 7) {
        struct plan_node nodes[2];
        struct plan p;
        nodes_with(nodes, 2, (uint64_t[]){first, 180});
        if (plan_by_memory(&m, nodes, 2, &p, NULL) != OK)
            continue;
        check_cover(&p, 20);
        assert_true(p.stages[0].bytes <= nodes[0].memory_bytes);
        assert_true(p.stages[1].bytes <= nodes[1].memory_bytes);
    }
    struct plan_node nodes[2];
    struct plan p;
    nodes_with(nodes, 2, (uint64_t[]){195, 1000});
    assert_int_equal(plan_by_memory(&m, nodes, 2, &p, NULL), OK);
}

static void a_tied_head_is_counted_once_on_one_node(void **state)
{
    (void)state;
    struct plan_model m = model_of(4);
    m.shared_bytes = 20 * MB;
    struct plan_node nodes[2];
    struct plan p;
    nodes_with(nodes, 1, (uint64_t[]){4 * 11 + 25});
    assert_int_equal(plan_by_memory(&m, nodes, 1, &p, NULL), OK);
    assert_int_equal(p.stages[0].bytes, (4 * 11 + 25) * MB);
    nodes[0].memory_bytes -= 1;
    assert_int_equal(plan_by_memory(&m, nodes, 1, &p, NULL), ERR_LIMIT);
    nodes_with(nodes, 2, (uint64_t[]){100, 100}); /* two nodes: each has its own */
    assert_int_equal(plan_by_memory(&m, nodes, 2, &p, NULL), OK);
    assert_int_equal(p.stages[0].bytes + p.stages[1].bytes, (4 * 11 + 2 * 25) * MB);
}

static void boasting_nodes_do_not_wrap_a_sum(void **state)
{
    (void)state;
    struct plan_model m = model_of(6);
    struct plan_node nodes[3];
    struct plan p;
    nodes_with(nodes, 3, (uint64_t[]){0, 0, 0});
    for (int i = 0; i < 3; i++)
        nodes[i].memory_bytes = UINT64_MAX - (uint64_t)i;
    assert_int_equal(plan_by_memory(&m, nodes, 3, &p, NULL), OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(p.stages[i].last - p.stages[i].first, 2);
}

static void one_node_takes_all(void **state)
{
    (void)state;
    struct plan_model m = model_of(5);
    struct plan_node lead = {.memory_bytes = 4000ull * MB};
    struct plan p;
    assert_int_equal(plan_by_memory(&m, &lead, 1, &p, NULL), OK);
    assert_int_equal(p.n_stages, 1);
    check_cover(&p, 5);
}

static void a_lead_without_memory_holds_only_the_head(void **state)
{
    (void)state;
    struct plan_model m = model_of(4);
    struct plan_node nodes[2];
    struct plan p;
    nodes_with(nodes, 2, (uint64_t[]){1000, 26});
    assert_int_equal(plan_by_memory(&m, nodes, 2, &p, NULL), OK);
    assert_int_equal(p.stages[0].last, 4);
    assert_int_equal(p.stages[1].last - p.stages[1].first, 0);
}

/* Two layers for two workers, whoever has the most memory: none stays with the lead. */
static void every_worker_gets_a_layer_of_a_small_model(void **state)
{
    (void)state;
    struct plan_model m = model_of(2);
    for (uint64_t code = 0; code < 27; code++) {
        uint64_t mb[3] = {1000 + code % 3, 1000 + code / 3 % 3, 1000 + code / 9};
        struct plan_node nodes[3];
        struct plan p;
        nodes_with(nodes, 3, mb);
        assert_int_equal(plan_by_memory(&m, nodes, 3, &p, NULL), OK);
        check_cover(&p, 2);
        assert_int_equal(p.stages[0].last, 1);
        assert_int_equal(p.stages[1].last, 2);
    }
}

static void what_does_not_fit_is_refused_with_numbers(void **state)
{
    (void)state;
    struct plan_model m = model_of(28);
    struct plan_node nodes[3];
    struct plan p;
    struct error e;
    nodes_with(nodes, 3, (uint64_t[]){50, 50, 50});
    assert_int_equal(plan_by_memory(&m, nodes, 3, &p, &e), ERR_LIMIT);
    assert_string_equal(e.text,
                        "the model does not fit: 363.0 MB needed on 3 nodes, 150.0 MB there");
    m = model_of(1);
    nodes_with(nodes, 3, (uint64_t[]){500, 500, 500});
    assert_int_equal(plan_by_memory(&m, nodes, 3, &p, &e), ERR_INVALID);
    assert_string_equal(e.text, "2 workers for 1 layers: expected at most one a layer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_follow_memory),
        cmocka_unit_test(every_shape_covers_and_fits),
        cmocka_unit_test(unequal_layers_fit_too),
        cmocka_unit_test(a_tied_head_is_counted_once_on_one_node),
        cmocka_unit_test(boasting_nodes_do_not_wrap_a_sum),
        cmocka_unit_test(one_node_takes_all),
        cmocka_unit_test(a_lead_without_memory_holds_only_the_head),
        cmocka_unit_test(every_worker_gets_a_layer_of_a_small_model),
        cmocka_unit_test(what_does_not_fit_is_refused_with_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
