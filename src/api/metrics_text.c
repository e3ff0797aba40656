#include "api/metrics_text_impl.h"

#include <stdio.h>

static void head(struct strbuf *out, const char *name, const char *type, const char *help)
{
    strbuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void gauge(struct strbuf *out, const char *name, const char *help, double value)
{
    head(out, name, "gauge", help);
    strbuf_printf(out, "%s %.9g\n", name, value);
}

static void counter(struct strbuf *out, const char *name, const char *help, uint64_t value)
{
    head(out, name, "counter", help);
    strbuf_printf(out, "%s %llu\n", name, (unsigned long long)value);
}

static void seconds(struct strbuf *out, const char *name, const char *help, time_us us)
{
    head(out, name, "counter", help);
    strbuf_printf(out, "%s %.6f\n", name, (double)us / 1e6);
}

static void histogram(struct strbuf *out, const char *name, const char *help,
                      const struct histogram *h)
{
    uint64_t below = 0;
    head(out, name, "histogram", help);
    for (int i = 0; i < HISTOGRAM_BOUNDS; i++) {
        below += h->counts[i];
        strbuf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, histogram_bounds[i],
                      (unsigned long long)below);
    }
    strbuf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name,
                  (unsigned long long)h->n, name, h->sum_s, name, (unsigned long long)h->n);
}

static void append_requests(struct strbuf *out, const struct engine_stats *s)
{
    static const char *const reasons[] = {[FINISH_STOP] = "stop",
                                          [FINISH_LENGTH] = "length",
                                          [FINISH_CANCELLED] = "abort",
                                          [FINISH_ERROR] = "error"};
    gauge(out, "shoal_num_requests_running", "Sequences that have a slot.", s->running);
    gauge(out, "shoal_num_requests_waiting", "Requests in line, preempted ones included.",
          s->queued);
    counter(out, "shoal_requests_total", "Requests taken in.", s->requests);
    counter(out, "shoal_requests_refused_total", "Requests refused because the queue was full.",
            s->refused);
    head(out, "shoal_request_success_total", "counter", "Requests ended, by reason.");
    for (int i = FINISH_STOP; i <= FINISH_ERROR; i++)
        strbuf_printf(out, "shoal_request_success_total{finished_reason=\"%s\"} %llu\n", reasons[i],
                      (unsigned long long)s->ended[i]);
    counter(out, "shoal_prompt_tokens_total", "Tokens of all prompts taken in.", s->prompt_tokens);
    counter(out, "shoal_generation_tokens_total", "Tokens generated.", s->output_tokens);
    counter(out, "shoal_num_preemptions_total", "Sequences that lost their blocks to others.",
            s->preempted);
    histogram(out, "shoal_time_to_first_token_seconds", "From submission to the first token.",
              &s->first_token);
    histogram(out, "shoal_inter_token_latency_seconds", "Between two tokens of a request.",
              &s->between_tokens);
    histogram(out, "shoal_e2e_request_latency_seconds", "From submission to the last token.",
              &s->whole);
    histogram(out, "shoal_request_queue_time_seconds", "From submission to the first step.",
              &s->queue);
    histogram(out, "shoal_request_prefill_time_seconds", "From the first step to the first token.",
              &s->prefill);
    histogram(out, "shoal_request_decode_time_seconds", "From the first token to the last.",
              &s->decode);
}

static void by_source(struct strbuf *out, const char *name, const char *help,
                      const uint64_t values[N_GUESS_SOURCES])
{
    static const char *const sources[] = {[GUESS_LOOKUP] = "lookup", [GUESS_MODEL] = "model"};
    head(out, name, "counter", help);
    for (int i = 0; i < N_GUESS_SOURCES; i++)
        strbuf_printf(out, "%s{source=\"%s\"} %llu\n", name, sources[i],
                      (unsigned long long)values[i]);
}

static void append_cache(struct strbuf *out, const struct engine_stats *s)
{
    gauge(out, "shoal_kv_cache_usage_ratio", "Share of the key-value blocks that are held.",
          s->blocks_total > 0 ? (double)s->blocks_used / s->blocks_total : 0);
    head(out, "shoal_kv_blocks", "gauge", "Key-value blocks by state.");
    strbuf_printf(out,
                  "shoal_kv_blocks{state=\"held\"} %d\nshoal_kv_blocks{state=\"idle\"} %d\n"
                  "shoal_kv_blocks{state=\"free\"} %d\n",
                  s->blocks_used, s->blocks_idle,
                  s->blocks_total - s->blocks_used - s->blocks_idle);
    counter(out, "shoal_prefix_cache_queries_total", "Prompt tokens looked for in the cache.",
            s->started_tokens);
    counter(out, "shoal_prefix_cache_hits_total", "Of these, found there and not computed.",
            s->cached_tokens);
    by_source(out, "shoal_spec_decode_num_draft_tokens_total", "Tokens guessed ahead.", s->guessed);
    by_source(out, "shoal_spec_decode_num_accepted_tokens_total", "Of these, right.", s->right);
    counter(out, "shoal_spec_decode_num_drafts_ahead_total",
            "Groups of guesses sent while those in front of them had no answer yet.",
            s->shares_ahead);
    seconds(out, "shoal_draft_model_seconds_total", "Time the draft model took.", s->draft_us);
}

static void append_ring(struct strbuf *out, const struct engine_stats *s)
{
    gauge(out, "shoal_steps_in_flight", "Steps on their way through the ring.", s->in_flight);
    gauge(out, "shoal_flights", "How many may be.", s->n_flights);
    gauge(out, "shoal_decode_flights", "Over how many of them decoding requests are spread.",
          s->n_decode_flights);
    gauge(out, "shoal_slots", "Sequences that can run at once.", s->n_slots);
    counter(out, "shoal_steps_total", "Steps sent through the ring.", s->steps);
    counter(out, "shoal_step_rows_total", "Tokens computed in them.", s->rows);
    counter(out, "shoal_step_prompt_rows_total", "Of these, tokens of prompts.", s->prompt_rows);
    seconds(out, "shoal_step_way_seconds_total", "Time of all steps from leaving to coming back.",
            s->way_us);
    seconds(out, "shoal_step_compute_seconds_total", "Of it, stages computed on the step.",
            s->computed_us);
    seconds(out, "shoal_ring_wait_seconds_total", "Time the lead waited for steps.", s->wait_us);
    seconds(out, "shoal_idle_seconds_total", "Time without any request.", s->idle_us);
}

static void append_escaped(struct strbuf *out, const char *text)
{
    for (const char *c = text; *c != 0; c++) {
        if (*c == '"' || *c == '\\')
            strbuf_puts(out, "\\");
        strbuf_append(out, c, 1);
    }
}

/* name{stage="0",node="…",layers="0-11"} , and the value is to follow. */
static void stage_labels(struct strbuf *out, const char *name, int i, const struct api_stage *stage)
{
    strbuf_printf(out, "%s{stage=\"%d\",node=\"", name, i);
    append_escaped(out, stage->node);
    strbuf_puts(out, "\",layers=\"");
    append_escaped(out, stage->layers);
    strbuf_puts(out, "\"} ");
}

/* One metric of all stages: a time_us, told in seconds, or a uint64_t. */
struct stage_metric {
    const char *name, *help;
    size_t offset;
    bool is_time;
};

static void append_stage_metric(struct strbuf *out, const struct api_stage *stages, int n,
                                const struct stage_metric *m)
{
    head(out, m->name, "counter", m->help);
    for (int i = 0; i < n; i++) {
        const void *value = (const char *)&stages[i] + m->offset;
        if (!stages[i].known)
            continue;
        stage_labels(out, m->name, i, &stages[i]);
        if (m->is_time)
            strbuf_printf(out, "%.6f\n", (double)*(const time_us *)value / 1e6);
        else
            strbuf_printf(out, "%llu\n", (unsigned long long)*(const uint64_t *)value);
    }
}

#define STAGE(member) offsetof(struct api_stage, member)
static const struct stage_metric stage_metrics[] = {
    {"shoal_stage_busy_seconds_total", "Time a stage computed.", STAGE(busy_us), true},
    {"shoal_stage_input_wait_seconds_total", "Time a stage waited for input.", STAGE(input_wait_us),
     true},
    {"shoal_stage_send_wait_seconds_total",
     "Time a stage had nothing to compute while its output waited for the network.",
     STAGE(send_wait_us), true},
    {"shoal_stage_other_seconds_total",
     "All other time of a stage: frames; on the lead scheduling and sampling.", STAGE(other_us),
     true},
    {"shoal_stage_steps_total", "Steps a stage computed.", STAGE(steps), false},
    {"shoal_stage_rows_total", "Rows a stage computed.", STAGE(rows), false},
    {"shoal_stage_sent_bytes_total", "Frames sent on.", STAGE(sent_bytes), false},
    {"shoal_stage_received_bytes_total", "Frames received.", STAGE(received_bytes), false},
};
#undef STAGE

static void append_stages(struct strbuf *out, const struct api_stage *stages, int n)
{
    head(out, "shoal_stage_up", "gauge", "Did the stage's node answer just now?");
    for (int i = 0; i < n; i++) {
        stage_labels(out, "shoal_stage_up", i, &stages[i]);
        strbuf_puts(out, stages[i].known ? "1\n" : "0\n");
    }
    for (size_t i = 0; i < sizeof stage_metrics / sizeof stage_metrics[0]; i++)
        append_stage_metric(out, stages, n, &stage_metrics[i]);
}

void metrics_append(struct strbuf *out, const struct engine_stats *stats,
                    const struct api_stage *stages, int n_stages)
{
    head(out, "shoal_build_info", "gauge", "The version, as a label.");
    strbuf_printf(out, "shoal_build_info{version=\"%s\"} 1\n", SHOAL_VERSION);
    gauge(out, "shoal_ready", "Is a model being served?", stats != NULL);
    if (stats == NULL)
        return;
    append_requests(out, stats);
    append_cache(out, stats);
    append_ring(out, stats);
    if (n_stages > 0)
        append_stages(out, stages, n_stages);
}
