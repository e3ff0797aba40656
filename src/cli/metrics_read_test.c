/* The text of /metrics as numbers; what is no such text is refused. */
#include "cli/metrics_read.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct metrics_snapshot snapshot;
static struct error error;

static enum err take(const char *text)
{
    return metrics_read(text, strlen(text), &snapshot, &error);
}

static void numbers_arrive(void **state)
{
    (void)state;
    static const char text[] =
        "# HELP shoal_ready Is a model being served?\n"
        "# TYPE shoal_ready gauge\n"
        "shoal_ready 1\n"
        "shoal_build_info{version=\"0.1.0\"} 1\n"
        "shoal_num_requests_running 3\n"
        "shoal_generation_tokens_total 1.5e3\n"
        "shoal_kv_blocks{state=\"held\"} 5\n"
        "shoal_kv_blocks{state=\"free\"} 7\n"
        "shoal_spec_decode_num_draft_tokens_total{source=\"lookup\"} 40\n"
        "shoal_spec_decode_num_draft_tokens_total{source=\"model\"} 2\n"
        "shoal_request_success_total{finished_reason=\"stop\"} 4\n"
        "shoal_time_to_first_token_seconds_bucket{le=\"0.5\"} 1\n"
        "shoal_time_to_first_token_seconds_bucket{le=\"2.5\"} 3\n"
        "shoal_time_to_first_token_seconds_bucket{le=\"+Inf\"} 4\n"
        "shoal_time_to_first_token_seconds_sum 9\n"
        "shoal_stage_up{stage=\"0\",node=\"a\\\"b\\\\c\x1b\",layers=\"0-3\"} 1\n"
        "shoal_stage_up{stage=\"1\",node=\"lead\",layers=\"head only\"} 0\n"
        "shoal_stage_busy_seconds_total{stage=\"0\",node=\"a\",layers=\"0-3\"} 0.25\n"
        "shoal_stage_send_wait_seconds_total{layers=\"0-3\",node=\"a\",stage=\"0\"} 2\n"
        "somebody_elses_metric{x=\"y\",} 1";
    if (take(text) != OK)
        fail_msg("%s", error.text);
    assert_true(snapshot.ready == 1 && snapshot.running == 3 && snapshot.generated == 1500);
    assert_true(snapshot.held == 5 && snapshot.free == 7 && snapshot.idle == 0);
    assert_true(snapshot.guessed == 42 && snapshot.right == 0);
    assert_int_equal(snapshot.first_token.n_bounds, 3);
    assert_true(snapshot.first_token.bounds[1] == 2.5 && snapshot.first_token.n_below[1] == 3);
    assert_true(snapshot.first_token.bounds[2] > 1e300);
    assert_int_equal(snapshot.between_tokens.n_bounds, 0);
    assert_int_equal(snapshot.n_stages, 2);
    assert_true(snapshot.stages[0].is_up && !snapshot.stages[1].is_up);
    assert_true(snapshot.stages[0].busy_s == 0.25 && snapshot.stages[0].send_wait_s == 2);
    assert_string_equal(snapshot.stages[1].node, "lead");
    assert_string_equal(snapshot.stages[1].layers, "head only");
    take("shoal_ready 1\nshoal_stage_up{stage=\"0\",node=\"a\\\"b\\\\c\x1b\"} 1\n");
    assert_string_equal(snapshot.stages[0].node, "a\"b\\c?"); /* nothing that a terminal obeys */
}

static void other_text_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "shoal_ready expected"},
        {"process_cpu_seconds_total 3\n", "shoal_ready expected"},
        {"shoal_ready 1\n<html>\n", "line 2 is no sample"},
        {"shoal_ready\n", "line 1 is no sample"},
        {"shoal_ready one\n", "line 1 is no sample"},
        {"shoal_ready 1 2\n", "line 1 is no sample"},
        {"shoal_ready nan\n", "line 1 is no sample"},
        {"shoal_ready{a=\"b} 1\n", "line 1 is no sample"},
        {"shoal_ready{a=\"b\\", "line 1 is no sample"},
        {"shoal_ready{a=b} 1\n", "line 1 is no sample"},
        {"shoal_ready{a=\"1\",b=\"2\",c=\"3\",d=\"4\",e=\"5\"} 1\n", "line 1 is no sample"},
        {"x{", "line 1 is no sample"},
        {"shoal_stage_up{node=\"a\"} 1\n", "line 1: shoal_stage_up: a stage from 0 to 255"},
        {"shoal_stage_up{stage=\"256\"} 1\n", "a stage from 0 to 255"},
        {"shoal_stage_up{stage=\"-1\"} 1\n", "a stage from 0 to 255"},
        {"shoal_inter_token_latency_seconds_bucket{le=\"x\"} 1\n", "ascending buckets"},
        {"shoal_inter_token_latency_seconds_bucket{le=\"2\"} 1\n"
         "shoal_inter_token_latency_seconds_bucket{le=\"1\"} 1\n",
         "line 2: shoal_inter_token_latency_seconds_bucket"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(take(cases[i].text), ERR_FORMAT);
        if (strstr(error.text, cases[i].part) == NULL)
            fail_msg("%s: \"%s\", expected \"%s\"", cases[i].text, error.text, cases[i].part);
    }
}

static void nothing_overflows(void **state)
{
    (void)state;
    char text[4096];
    memset(text, 'n', sizeof text);
    assert_int_equal(metrics_read(text, sizeof text, &snapshot, &error), ERR_FORMAT); /* a name */
    memcpy(text, "x{a=\"", 5);
    assert_int_equal(metrics_read(text, sizeof text, &snapshot, &error), ERR_FORMAT); /* a value */
    memset(text, '1', sizeof text);
    memcpy(text, "x ", 2);
    assert_int_equal(metrics_read(text, sizeof text, &snapshot, &error), ERR_FORMAT); /* a number */
    size_t n = 0;
    for (int i = 0; i <= METRICS_MAX_BUCKETS; i++)
        n +=
            (size_t)sprintf(text + n, "shoal_inter_token_latency_seconds_bucket{le=\"%d\"} 1\n", i);
    assert_int_equal(metrics_read(text, n, &snapshot, &error), ERR_FORMAT);
    assert_non_null(strstr(error.text, "at most 32"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_arrive),
        cmocka_unit_test(other_text_is_refused),
        cmocka_unit_test(nothing_overflows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
