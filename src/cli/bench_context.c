#include "cli/bench_context.h"

#include "base/clock.h"
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>

/* What was measured at one context; arrays are of the repetitions. */
struct context_run {
    double *step_s, *base_s; /* seconds a step, at the context and at the first one */
    double *extra_s;         /* their difference */
    double *read_gb;         /* probes, two a repetition: before and after */
    double *of_allowed;      /* extra over allowed, of those whose probes agree */
    int n_counted;           /* so many */
    double positions;        /* seen by a step at the context, on average */
};

/* What stands in a row of the table. */
struct context_row {
    int context;
    double step_s, base_s, extra_s, read_gb_s, allowed_s; /* medians */
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

static enum err decode(const struct context_bench *b, struct lone_sequences *s, double *step_s,
                       struct error *e)
{
    const int32_t *each[1] = {b->ids};
    enum err err = OK;
    time_us begin = clock_now_us();
    for (int i = 0; i < b->n_decode && err == OK; i++)
        err = lone_sequences_append(s, each, 1, false, ignore_logits, NULL, e);
    *step_s = (double)(clock_now_us() - begin + 1) * 1e-6 / b->n_decode;
    return err;
}

/* Begin anew with so many positions, warmed up. */
static enum err fill(const struct context_bench *b, struct lone_sequences *s, int context,
                     struct error *e)
{
    const int32_t *each[1] = {b->ids};
    double warming_s;
    lone_sequences_restart(s, 1);
    enum err err = lone_sequences_append(s, each, context, false, NULL, NULL, e);
    return err == OK ? decode(b, s, &warming_s, e) : err;
}

static double probe(const struct context_bench *b)
{
    return b->probe != NULL ? probe_read_gb_s(b->probe) : 0;
}

/* One repetition: both sequences, each first in every other one. */
static enum err repeat(const struct context_bench *b, struct lone_sequences *s, int i,
                       struct context_run *run, struct error *e)
{
    double *each[2] = {&run->base_s[i], &run->step_s[i]};
    int first = i % 2;
    run->read_gb[2 * i] = probe(b);
    enum err err = decode(b, &s[first], each[first], e);
    if (err == OK)
        err = decode(b, &s[1 - first], each[1 - first], e);
    run->read_gb[2 * i + 1] = probe(b);
    run->extra_s[i] = run->step_s[i] - run->base_s[i];
    return err;
}

static enum err measure(const struct context_bench *b, struct lone_sequences *s, int context,
                        struct context_run *run, struct error *e)
{
    enum err err = fill(b, &s[0], b->contexts[0], e);
    if (err == OK)
        err = fill(b, &s[1], context, e);
    int more = context - b->contexts[0];
    run->positions = context + b->n_decode + (b->n_decode * (double)b->repeats + 1) / 2;
    run->n_counted = 0;
    for (int i = 0; i < b->repeats && err == OK; i++) {
        err = repeat(b, s, i, run, e);
        double before = run->read_gb[2 * i], after = run->read_gb[2 * i + 1];
        if (b->probe != NULL && more != 0 && bench_probes_agree(before, after))
            run->of_allowed[run->n_counted++] =
                run->extra_s[i] / context_bench_allowed_s(b->cost, more, (before + after) / 2);
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

/* Sorts the arrays of `run`. */
static struct context_row row_of(const struct context_bench *b, int context,
                                 struct context_run *run)
{
    struct context_row row = {.context = context,
                              .step_s = bench_median(run->step_s, b->repeats),
                              .base_s = bench_median(run->base_s, b->repeats),
                              .extra_s = bench_median(run->extra_s, b->repeats)};
    if (b->probe == NULL)
        return row;
    row.read_gb_s = bench_median(run->read_gb, 2 * b->repeats);
    row.allowed_s = context_bench_allowed_s(b->cost, context - b->contexts[0], row.read_gb_s);
    return row;
}

/* The arrays of `run` are sorted, but for of_allowed. */
static void print_row(const struct context_bench *b, const struct context_row *row,
                      struct context_run *run)
{
    printf("%-8d %10.3f %10.3f … %-10.3f", row->context, 1e3 * row->step_s, 1e3 * run->step_s[0],
           1e3 * run->step_s[b->repeats - 1]);
    if (b->probe != NULL)
        printf(" %12.1f", row->read_gb_s);
    printf(" %10.3f", 1e3 * row->extra_s);
    if (b->probe != NULL && row->allowed_s != 0)
        printf(" %9.3f", 1e3 * row->allowed_s);
    if (run->n_counted > 0)
        printf(" %17.2f (%d of %d)", bench_median(run->of_allowed, run->n_counted), run->n_counted,
               b->repeats);
    else if (b->probe != NULL && row->allowed_s != 0)
        printf("  unknown: the machine's limit drifted");
    putchar('\n');
}

static json_t *row_json(const struct context_bench *b, const struct context_row *row,
                        struct context_run *run)
{
    json_t *j = json_pack("{s:i, s:f}", "context", row->context, "positions", run->positions);
    json_object_set_new(j, "step_s", bench_spread_json(run->step_s, b->repeats));
    json_object_set_new(j, "base_s", bench_spread_json(run->base_s, b->repeats));
    json_object_set_new(j, "extra_s", bench_spread_json(run->extra_s, b->repeats));
    if (b->probe == NULL)
        return j;
    json_object_update_new(
        j, json_pack("{s:f, s:f}", "read_gb_s", row->read_gb_s, "allowed_s", row->allowed_s));
    json_object_set_new(j, "of_allowed", bench_spread_json(run->of_allowed, run->n_counted));
    return j;
}

static enum err measure_all(const struct context_bench *b, struct lone_sequences *s,
                            struct context_run *run, json_t *list, struct error *e)
{
    enum err err = OK;
    if (list == NULL)
        print_head(b);
    for (int i = 0; i < b->n_contexts && err == OK; i++) {
        err = measure(b, s, b->contexts[i], run, e);
        if (err != OK)
            break;
        struct context_row row = row_of(b, b->contexts[i], run);
        if (list == NULL)
            print_row(b, &row, run);
        else
            json_array_append_new(list, row_json(b, &row, run));
        fflush(stdout);
    }
    return err;
}

static int base_length(const struct context_bench *b)
{
    return (int)context_bench_length(b->contexts, 1, b->n_decode, b->repeats);
}

/* Both sequences begin a strip of KV blocks, as the engine's do: what lies across strips is read
 * more slowly. */
static enum err init_sequences(const struct context_bench *b, struct lone_sequences *s,
                               struct error *e)
{
    int longest = (int)context_bench_length(b->contexts, b->n_contexts, b->n_decode, b->repeats);
    enum err err = lone_sequences_init_one(&s[1], b->lead, 0, 0, longest, b->max_rows, e);
    if (err != OK)
        return err;
    int begin = (s[1].n_blocks - 1) / KV_STRIP_BLOCKS * KV_STRIP_BLOCKS + KV_STRIP_BLOCKS;
    err = lone_sequences_init_one(&s[0], b->lead, 1, begin, base_length(b), b->max_rows, e);
    if (err == ERR_LIMIT) /* as long as the other, or nearly */
        err = lone_sequences_init_one(&s[0], b->lead, 1, s[1].n_blocks, base_length(b), b->max_rows,
                                      e);
    return err;
}

enum err context_bench_run(const struct context_bench *b, json_t *json, struct error *e)
{
    size_t n = (size_t)b->repeats;
    double *values = calloc(6 * n, sizeof *values);
    if (values == NULL)
        return error_set(e, ERR_MEMORY, "no memory for the results");
    struct context_run run = {.step_s = values,
                              .base_s = values + n,
                              .extra_s = values + 2 * n,
                              .read_gb = values + 3 * n,
                              .of_allowed = values + 5 * n};
    struct lone_sequences s[CONTEXT_SEQUENCES] = {0}; /* of the first context, of another */
    enum err err = init_sequences(b, s, e);
    json_t *list = json != NULL ? json_array() : NULL;
    if (err == OK)
        err = measure_all(b, s, &run, list, e);
    if (list != NULL)
        json_object_set_new(json, "contexts", list);
    for (int i = 0; i < CONTEXT_SEQUENCES; i++)
        lone_sequences_release(&s[i]);
    free(values);
    return err;
}
