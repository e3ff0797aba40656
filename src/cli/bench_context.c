#include "cli/bench_context.h"

#include "base/clock.h"
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>

/* What was measured at one context; arrays are of the repetitions. */
struct context_run {
    double *step_s;   /* seconds a step */
    double *read_gb;  /* probes, two a repetition */
    double positions; /* seen by a step, on average over all repetitions */
};

int64_t context_bench_length(const int *contexts, int n_contexts, int n_decode, int repeats)
{
    int most = 0;
    for (int i = 0; i < n_contexts; i++)
        most = contexts[i] > most ? contexts[i] : most;
    return most + (int64_t)n_decode * (repeats + 1);
}

double context_bench_allowed_s(const struct bench_cost *c, double positions, double read_gb_s)
{
    return (double)c->kv_position_bytes * positions / (CONTEXT_BANDWIDTH * read_gb_s * 1e9);
}

/* Logits are computed, as for a real completion, and not looked at. */
static void ignore_logits(int sequence, int position, float *logits, void *context)
{
    (void)sequence, (void)position, (void)logits, (void)context;
}

static enum err decode(const struct context_bench *b, struct error *e)
{
    const int32_t *each[1] = {b->ids};
    enum err err = OK;
    for (int i = 0; i < b->n_decode && err == OK; i++)
        err = lone_sequences_append(b->s, each, 1, false, ignore_logits, NULL, e);
    return err;
}

static enum err measure(const struct context_bench *b, int context, struct context_run *run,
                        struct error *e)
{
    const int32_t *each[1] = {b->ids};
    lone_sequences_restart(b->s, 1);
    enum err err = lone_sequences_append(b->s, each, context, false, NULL, NULL, e);
    if (err == OK)
        err = decode(b, e); /* to warm up */
    run->positions = context + b->n_decode + (b->n_decode * (double)b->repeats + 1) / 2;
    for (int i = 0; i < b->repeats && err == OK; i++) {
        if (b->probe != NULL)
            run->read_gb[2 * i] = probe_read_gb_s(b->probe);
        time_us begin = clock_now_us();
        err = decode(b, e);
        run->step_s[i] = (double)(clock_now_us() - begin + 1) * 1e-6 / b->n_decode;
        if (b->probe != NULL)
            run->read_gb[2 * i + 1] = probe_read_gb_s(b->probe);
    }
    return err;
}

/* --- reporting --- */

static void print_head(const struct context_bench *b)
{
    printf("%-8s %10s %10s … %-10s", "context", "ms a step", "least", "most");
    printf("%s\n", b->probe != NULL ? " reading GB/s   extra ms   allowed   extra / allowed"
                                    : "   extra ms");
}

/* Whether the probes differ so little that their median is a limit. They are sorted. */
static bool steady(const struct context_bench *b, const struct context_run *run)
{
    return bench_probes_agree(run->read_gb[0], run->read_gb[2 * b->repeats - 1]);
}

/* The arrays of `run` are sorted. */
static void print_context(const struct context_bench *b, int context, struct context_run *run,
                          double extra_s, double median_s, double allowed_s, double read_gb_s)
{
    printf("%-8d %10.3f %10.3f … %-10.3f", context, 1e3 * median_s, 1e3 * run->step_s[0],
           1e3 * run->step_s[b->repeats - 1]);
    if (b->probe != NULL)
        printf(" %12.1f%c", read_gb_s, steady(b, run) ? ' ' : '?');
    printf(" %10.3f", 1e3 * extra_s);
    if (b->probe != NULL && allowed_s > 0)
        printf(" %9.3f %17.2f", 1e3 * allowed_s, extra_s / allowed_s);
    putchar('\n');
}

static json_t *context_json(const struct context_bench *b, int context, struct context_run *run,
                            double base_s, double extra_s, double allowed_s, double read_gb_s)
{
    json_t *j = json_pack("{s:i, s:f, s:f, s:f}", "context", context, "positions", run->positions,
                          "base_s", base_s, "extra_s", extra_s);
    json_object_set_new(j, "step_s", bench_spread_json(run->step_s, b->repeats));
    if (b->probe != NULL)
        json_object_update_new(j, json_pack("{s:f, s:b, s:f}", "read_gb_s", read_gb_s, "steady",
                                            steady(b, run), "allowed_s", allowed_s));
    return j;
}

/* The first context is what the others are held against: it is measured again after each of them,
 * because filling one takes long enough for the machine to drift. */
enum err context_bench_run(const struct context_bench *b, json_t *json, struct error *e)
{
    size_t n = (size_t)b->repeats;
    double *values = calloc(6 * n, sizeof *values);
    if (values == NULL)
        return error_set(e, ERR_MEMORY, "no memory for the results");
    struct context_run run = {.step_s = values, .read_gb = values + n};
    json_t *list = json_array();
    struct context_run base = {.step_s = values + 3 * n, .read_gb = values + 4 * n};
    enum err err = OK;
    if (json == NULL)
        print_head(b);
    for (int i = 0; i < b->n_contexts && err == OK; i++) {
        err = measure(b, b->contexts[i], &run, e);
        if (err == OK)
            err = measure(b, b->contexts[0], &base, e);
        if (err != OK)
            break;
        double median_s = bench_median(run.step_s, b->repeats);
        double read_gb_s = b->probe != NULL ? bench_median(run.read_gb, 2 * b->repeats) : 0;
        double base_s = bench_median(base.step_s, b->repeats);
        double extra_s = median_s - base_s, allowed_s = 0;
        if (b->probe != NULL)
            allowed_s = context_bench_allowed_s(b->cost, run.positions - base.positions, read_gb_s);
        if (json == NULL)
            print_context(b, b->contexts[i], &run, extra_s, median_s, allowed_s, read_gb_s);
        else
            json_array_append_new(
                list, context_json(b, b->contexts[i], &run, base_s, extra_s, allowed_s, read_gb_s));
        fflush(stdout);
    }
    if (json != NULL && err == OK)
        json_object_set(json, "contexts", list);
    json_decref(list);
    free(values);
    return err;
}
