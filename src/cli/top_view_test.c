/* Two snapshots as rates, quantiles and shares, and the stage that is marked. */
#include "cli/top_view.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct metrics_snapshot a, b;
static struct top_view view;

static void begin(void)
{
    a = (struct metrics_snapshot){.at_s = 10, .ready = 1, .steps = 100, .generated = 50};
    b = a;
    b.at_s = 12;
}

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) < 1e-9))
        fail_msg("expected %g, found %g", expected, found);
}

static void make(void)
{
    assert_true(top_view_make(&a, &b, &view));
}

static void rates_are_of_the_interval(void **state)
{
    (void)state;
    begin();
    b.generated = 150;
    b.prompt_rows = 600;
    a.requests = 1;
    b.requests = 4;
    b.refused = 2;
    b.running = 3;
    a.looked_for = 100;
    a.found = 100;
    b.looked_for = 300;
    b.found = 150;
    b.guessed = 10;
    b.right = 9;
    make();
    assert_near(view.interval_s, 2);
    assert_near(view.decode_per_s, 50);
    assert_near(view.prefill_per_s, 300);
    assert_near(view.requests_per_s, 1.5);
    assert_near(view.refused, 2);
    assert_near(view.running, 3);
    assert_near(view.prefix_found, 0.25); /* of this interval's, not of all */
    assert_near(view.guesses_right, 0.9);
}

static void nothing_is_no_number(void **state)
{
    (void)state;
    begin();
    make();
    assert_true(isnan(view.prefix_found) && isnan(view.guesses_right));
    assert_true(isnan(view.first_token_s[0]) && isnan(view.between_tokens_s[1]));
    assert_near(view.decode_per_s, 0);
    json_t *json = top_view_json(&view);
    assert_true(json_is_null(json_object_get(json, "prefix_found")));
    assert_true(json_is_null(json_object_get(json, "bottleneck")));
    json_decref(json);
}

static void another_run_is_no_interval(void **state)
{
    (void)state;
    begin();
    b.steps = 3;
    assert_false(top_view_make(&a, &b, &view));
    begin();
    b.at_s = a.at_s;
    assert_false(top_view_make(&a, &b, &view));
}

static struct metrics_histogram buckets(double n1, double n2, double n3, double n4)
{
    return (struct metrics_histogram){4, {0.1, 0.2, 0.4, INFINITY}, {n1, n2, n3, n4}};
}

static void quantiles_are_of_what_was_added(void **state)
{
    (void)state;
    begin();
    a.first_token = buckets(1000, 1000, 1000, 1000); /* long ago */
    b.first_token = buckets(1000, 1010, 1020, 1020);
    make();
    assert_near(view.first_token_s[0], 0.2);          /* 10 of 20: the end of the second bucket */
    assert_near(view.first_token_s[1], 0.38);         /* 19 of 20: nine tenths into the third */
    a.between_tokens = (struct metrics_histogram){0}; /* none so far: the first scrape */
    b.between_tokens = buckets(4, 4, 4, 8);
    make();
    assert_near(view.between_tokens_s[0], 0.1);
    assert_near(view.between_tokens_s[1], 0.4); /* beyond all bounds: the last of them */
}

static void set_stage(int i, double busy, double input, double send, double other)
{
    a.stages[i] = (struct metrics_stage){.node = "n", .layers = "0-1", .is_up = true, .busy_s = 7};
    b.stages[i] = a.stages[i];
    b.stages[i].busy_s += busy;
    b.stages[i].input_wait_s = input;
    b.stages[i].send_wait_s = send;
    b.stages[i].other_s = other;
    b.stages[i].rows = 40;
    if (i >= b.n_stages)
        a.n_stages = b.n_stages = i + 1;
}

static void shares_and_the_bottleneck(void **state)
{
    (void)state;
    begin();
    set_stage(0, 0.5, 1.25, 0.25, 0); /* the account of a stage may be of another moment: 2.0 … */
    make();
    assert_int_equal(view.bottleneck, -1); /* alone it waits for nobody */
    set_stage(1, 1.5, 0.1, 0.3, 0.1);
    set_stage(2, 0.3, 0.5, 0, 1.0); /* … and 1.8 seconds: shares are of its own time */
    make();
    assert_near(view.stages[0].busy, 0.25);
    assert_near(view.stages[0].input_wait, 0.625);
    assert_near(view.stages[0].send_wait, 0.125);
    assert_near(view.stages[2].other, 1 / 1.8);
    assert_near(view.stages[1].rows_per_s, 20);
    assert_int_equal(view.bottleneck, 1);
    assert_false(view.is_network);
    set_stage(2, 0.3, 0.2, 0, 1.5); /* scheduling and sampling hold a ring up, too */
    make();
    assert_int_equal(view.bottleneck, 2);
    set_stage(0, 0.05, 0, 1.95, 0); /* a slow network behind the first */
    make();
    assert_int_equal(view.bottleneck, 0);
    assert_true(view.is_network);
    for (int i = 0; i < 3; i++)
        set_stage(i, 0.01, 1.99, 0, 0); /* idle */
    make();
    assert_int_equal(view.bottleneck, -1);
    b.stages[1].is_up = false;
    make();
    assert_true(isnan(view.stages[1].busy));
}

static void text_and_json_say_the_same(void **state)
{
    (void)state;
    begin();
    set_stage(0, 1.5, 0.5, 0, 0);
    set_stage(1, 0.25, 1.75, 0, 0);
    set_stage(2, 0, 0, 0, 0);
    b.stages[2].is_up = false;
    b.first_token = buckets(0, 10, 10, 10);
    b.held = 25;
    b.free = 75;
    make();
    struct strbuf text;
    strbuf_init(&text, 10000);
    top_view_append(&text, &view);
    static const char *const parts[] = {"kv blocks  25 held (25 %)", "first token p50 150 ms",
                                        "75 %     25 %       0 %", "20.0  <- bottleneck\n",
                                        "does not answer"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strstr(text.data, parts[i]) == NULL)
            fail_msg("expected \"%s\" in\n%s", parts[i], text.data);
    strbuf_release(&text);
    json_t *json = top_view_json(&view);
    assert_non_null(json);
    json_t *stages = json_object_get(json, "stages");
    assert_int_equal(json_array_size(stages), 3);
    assert_near(json_real_value(json_object_get(json_array_get(stages, 0), "busy")), 0.75);
    assert_true(json_is_true(json_object_get(json_array_get(stages, 0), "bottleneck")));
    assert_true(json_is_false(json_object_get(json_array_get(stages, 2), "up")));
    assert_string_equal(json_string_value(json_object_get(json, "bottleneck")), "stage");
    assert_near(json_real_value(json_object_get(json_object_get(json, "first_token_s"), "p50")),
                0.15);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_of_the_interval),
        cmocka_unit_test(nothing_is_no_number),
        cmocka_unit_test(another_run_is_no_interval),
        cmocka_unit_test(quantiles_are_of_what_was_added),
        cmocka_unit_test(shares_and_the_bottleneck),
        cmocka_unit_test(text_and_json_say_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
