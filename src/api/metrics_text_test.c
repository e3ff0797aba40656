/* The form of /metrics: what a scraper insists on. tests/e2e asks promtool where it is there. */
#include "api/metrics_text_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct strbuf out;

static void begin(void)
{
    strbuf_init(&out, 1 << 20);
}

static void assert_line(const char *line)
{
    const char *at = strstr(out.data, line);
    if (at == NULL || (at != out.data && at[-1] != '\n') || at[strlen(line)] != '\n')
        fail_msg("no line \"%s\" in:\n%s", line, out.data);
}

static void without_a_model(void **state)
{
    (void)state;
    begin();
    metrics_append(&out, NULL, NULL, 0);
    assert_line("shoal_ready 0");
    assert_null(strstr(out.data, "shoal_steps"));
    strbuf_release(&out);
}

static void numbers_are_where_they_belong(void **state)
{
    (void)state;
    struct engine_stats s = {.running = 3,
                             .queued = 7,
                             .blocks_used = 5,
                             .blocks_idle = 2,
                             .blocks_total = 20,
                             .requests = 1ull << 40,
                             .cached_tokens = 11,
                             .guessed = {[GUESS_LOOKUP] = 12, [GUESS_MODEL] = 7},
                             .right = {[GUESS_LOOKUP] = 9, [GUESS_MODEL] = 6},
                             .shares_ahead = 2,
                             .n_decode_flights = 3,
                             .way_us = 4000000,
                             .computed_us = 3500000,
                             .draft_us = 250000,
                             .wait_us = 1500000,
                             .ended = {[FINISH_STOP] = 4, [FINISH_CANCELLED] = 1}};
    histogram_add(&s.first_token, 3000);
    histogram_add(&s.first_token, 1000 * 1000 * 1000);
    histogram_add(&s.first_token, 1000); /* a bound belongs to its bucket */
    struct api_stage stages[] = {{.node = "127.0.0.1:5",
                                  .layers = "0-3",
                                  .known = true,
                                  .busy_us = 250000,
                                  .input_wait_us = 1500000,
                                  .send_wait_us = 2,
                                  .other_us = 70},
                                 {.node = "go\"ne", .rows = 5},
                                 {.node = "lead", .known = true, .rows = 8}};
    begin();
    metrics_append(&out, &s, stages, 3);
    assert_false(out.failed);
    assert_line("shoal_num_requests_running 3");
    assert_line("shoal_num_requests_waiting 7");
    assert_line("shoal_requests_total 1099511627776");
    assert_line("shoal_kv_cache_usage_ratio 0.25");
    assert_line("shoal_kv_blocks{state=\"free\"} 13");
    assert_line("shoal_prefix_cache_hits_total 11");
    assert_line("shoal_decode_flights 3");
    assert_line("shoal_step_way_seconds_total 4.000000");
    assert_line("shoal_step_compute_seconds_total 3.500000");
    assert_line("shoal_spec_decode_num_draft_tokens_total{source=\"lookup\"} 12");
    assert_line("shoal_spec_decode_num_draft_tokens_total{source=\"model\"} 7");
    assert_line("shoal_spec_decode_num_accepted_tokens_total{source=\"lookup\"} 9");
    assert_line("shoal_spec_decode_num_accepted_tokens_total{source=\"model\"} 6");
    assert_line("shoal_spec_decode_num_drafts_ahead_total 2");
    assert_line("shoal_draft_model_seconds_total 0.250000");
    assert_line("shoal_request_success_total{finished_reason=\"stop\"} 4");
    assert_line("shoal_request_success_total{finished_reason=\"abort\"} 1");
    assert_line("shoal_ring_wait_seconds_total 1.500000");
    assert_line("shoal_time_to_first_token_seconds_bucket{le=\"0.001\"} 1");
    assert_line("shoal_time_to_first_token_seconds_bucket{le=\"0.005\"} 2");
    assert_line("shoal_time_to_first_token_seconds_bucket{le=\"120\"} 2");
    assert_line("shoal_time_to_first_token_seconds_bucket{le=\"+Inf\"} 3");
    assert_line("shoal_time_to_first_token_seconds_sum 1000.004000");
#define FIRST "{stage=\"0\",node=\"127.0.0.1:5\",layers=\"0-3\"} "
    assert_line("shoal_stage_busy_seconds_total" FIRST "0.250000");
    assert_line("shoal_stage_input_wait_seconds_total" FIRST "1.500000");
    assert_line("shoal_stage_send_wait_seconds_total" FIRST "0.000002");
    assert_line("shoal_stage_other_seconds_total" FIRST "0.000070");
    assert_line("shoal_stage_up{stage=\"1\",node=\"go\\\"ne\",layers=\"\"} 0");
    assert_null(strstr(out.data, "shoal_stage_rows_total{stage=\"1\""));
    assert_line("shoal_stage_rows_total{stage=\"2\",node=\"lead\",layers=\"\"} 8");
    strbuf_release(&out);
}

/* Each metric: HELP, TYPE, then its samples, all in one piece, counters ending in _total. */
static void each_metric_is_introduced_once(void **state)
{
    (void)state;
    struct engine_stats s = {0};
    struct api_stage stage = {.node = "lead", .known = true};
    begin();
    metrics_append(&out, &s, &stage, 1);
    char seen[16384] = " ", name[128] = "", type[32] = "";
    int n_metrics = 0;
    for (char *line = strtok(out.data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char padded[140];
        if (sscanf(line, "# HELP %127s", name) == 1) {
            snprintf(padded, sizeof(padded), " %s ", name);
            assert_null(strstr(seen, padded));
            strcat(seen, padded + 1);
            n_metrics++;
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            assert_int_equal(strncmp(line + 7, name, strlen(name)), 0);
            sscanf(line + 7 + strlen(name), " %31s", type);
            size_t n = strlen(name);
            assert_int_equal(strcmp(type, "counter") == 0,
                             n > 6 && strcmp(name + n - 6, "_total") == 0);
        } else {
            assert_int_equal(strncmp(line, name, strlen(name)), 0);
        }
    }
    assert_true(n_metrics > 30);
    strbuf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_model),
        cmocka_unit_test(numbers_are_where_they_belong),
        cmocka_unit_test(each_metric_is_introduced_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
