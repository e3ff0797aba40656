#include "plan/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct plan_node nodes[] = {{"a:1", 0}, {"b:2", 0}, {"", 0}};
static const uint64_t layer_bytes[8] = {1, 1, 1, 1, 1, 1, 1, 1};
static const struct plan_model model = {.n_layers = 8, .layer_bytes = layer_bytes};

static void ranges_become_stages_in_layer_order(void **state)
{
    (void)state;
    struct plan p;
    assert_int_equal(plan_by_hand(&model, "b:2=0-2,a:1=3", nodes, 3, &p, NULL), OK);
    assert_int_equal(p.n_stages, 3);
    assert_int_equal(p.stages[0].node_i, 1);
    assert_int_equal(p.stages[0].last, 3);
    assert_int_equal(p.stages[1].node_i, 0);
    assert_int_equal(p.stages[1].first, 3);
    assert_int_equal(p.stages[1].last, 4);
    assert_int_equal(p.stages[2].node_i, 2);
    assert_int_equal(p.stages[2].first, 4);
    assert_int_equal(p.stages[2].last, 8);
}

static void the_lead_may_be_named_or_empty(void **state)
{
    (void)state;
    struct plan p;
    assert_int_equal(plan_by_hand(&model, "a:1=0-3,b:2=4-5,lead=6-7", nodes, 3, &p, NULL), OK);
    assert_int_equal(p.stages[2].first, 6);
    assert_int_equal(plan_by_hand(&model, "a:1=0-3,b:2=4-7", nodes, 3, &p, NULL), OK);
    assert_int_equal(p.stages[2].first, 8);
    assert_int_equal(p.stages[2].last, 8);
}

static void refused(const char *list, const char *reason)
{
    struct plan p;
    struct error e;
    assert_int_equal(plan_by_hand(&model, list, nodes, 3, &p, &e), ERR_INVALID);
    assert_string_equal(e.text, reason);
}

static void bad_lists_are_refused(void **state)
{
    (void)state;
    refused("", "--layers: expected HOST:PORT=FIRST-LAST, found \"\"");
    refused("a:1", "--layers: expected HOST:PORT=FIRST-LAST, found \"a:1\"");
    refused("c:3=0-7", "--layers: node c:3 is not among --nodes");
    refused("a:1=0-8,b:2=1", "--layers: expected FIRST-LAST within 0-7 after a:1=, found \"0-8\"");
    refused("a:1=3-2,b:2=1", "--layers: expected FIRST-LAST within 0-7 after a:1=, found \"3-2\"");
    refused("a:1=0-,b:2=1", "--layers: expected FIRST-LAST within 0-7 after a:1=, found \"0-\"");
    refused("a:1=x,b:2=1", "--layers: expected FIRST-LAST within 0-7 after a:1=, found \"x\"");
    refused("a:1=0-1", "--layers: node b:2 of --nodes is given no layers");
    refused("a:1=0-1,a:1=2", "--layers: one range a node expected, found two for a:1");
    refused("a:1=0-3,b:2=3-7", "--layers: layer 3 is given to two nodes");
    refused("a:1=0-2,b:2=4-7", "--layers: layer 3 is given to no node");
    refused("a:1=0-2,b:2=3-4,lead=5-6", "--layers: layer 7 is given to no node");
    refused("lead=0-2,a:1=3-4,b:2=5-7",
            "--layers: the lead is the last stage: expected its layers after all others");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_become_stages_in_layer_order),
        cmocka_unit_test(the_lead_may_be_named_or_empty),
        cmocka_unit_test(bad_lists_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
