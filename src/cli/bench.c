/* shoal bench model: prefill and decode speed of a model, here or on a cluster. */
#include "base/clock.h"
#include "base/printable.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lead_flags.h"
#include "cli/lone_sequences.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BENCH_ROWS = 512, BENCH_MAX_REPEATS = 1000 };

struct bench_flags {
    struct lead_flags lead;
    int n_prompt, n_decode, batch, repeats;
    bool sized; /* -p or -n was given */
    bool json;
};

struct speeds {
    double *values; /* [n] tok/s */
    int n;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const struct speeds *s)
{
    return s->n % 2 == 1 ? s->values[s->n / 2]
                         : (s->values[s->n / 2 - 1] + s->values[s->n / 2]) / 2;
}

/* Into `json`, or as a line of text where that is NULL. */
static void report(const char *what, struct speeds *s, json_t *json)
{
    if (s->n == 0)
        return;
    qsort(s->values, (size_t)s->n, sizeof *s->values, by_value);
    double low = s->values[0], high = s->values[s->n - 1];
    if (json != NULL)
        json_object_set_new(json, what,
                            json_pack("{s:f, s:f, s:f, s:i}", "median", median(s), "min", low,
                                      "max", high, "repetitions", s->n));
    else
        printf("%-14s %10.2f   %10.2f … %.2f   (%d repetitions)\n", what, median(s), low, high,
               s->n);
}

/* Logits are computed, as for a real completion, and not looked at. */
static void ignore_logits(int sequence, int position, float *logits, void *context)
{
    (void)sequence, (void)position, (void)logits, (void)context;
}

/* One repetition: a prompt of n_prompt ids for every sequence, then n_decode single steps. */
static enum err repeat(const struct bench_flags *f, struct lone_sequences *s, const int32_t *ids,
                       double *prefill, double *decode, struct error *e)
{
    const int32_t **each = calloc((size_t)f->batch, sizeof *each);
    if (each == NULL)
        return error_set(e, ERR_MEMORY, "no memory for %d sequences", f->batch);
    for (int i = 0; i < f->batch; i++)
        each[i] = ids;
    lone_sequences_restart(s);
    time_us begin = clock_now_us();
    enum err err = lone_sequences_append(s, each, f->n_prompt, false, ignore_logits, NULL, e);
    time_us middle = clock_now_us();
    for (int i = 0; i < f->n_decode && err == OK; i++)
        err = lone_sequences_append(s, each, 1, false, ignore_logits, NULL, e);
    time_us end = clock_now_us();
    *prefill = (double)f->n_prompt * f->batch * 1e6 / (double)(middle - begin + 1);
    *decode = (double)f->n_decode * f->batch * 1e6 / (double)(end - middle + 1);
    free(each);
    return err;
}

static enum err measure(const struct bench_flags *f, struct lead *lead, struct speeds *prefill,
                        struct speeds *decode, struct error *e)
{
    struct lone_sequences s;
    enum err err = lone_sequences_init(&s, lead, f->batch, BENCH_ROWS, e);
    if (err != OK)
        return err;
    int32_t *ids = calloc((size_t)f->n_prompt + 1, sizeof *ids);
    if (ids == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for a prompt of %d ids", f->n_prompt);
    for (int i = 0; ids != NULL && i <= f->n_prompt; i++)
        ids[i] = (int32_t)(((uint32_t)i * 2654435761u >> 8) % (uint32_t)lead->params.vocab);
    for (int i = -1; i < f->repeats && err == OK; i++) { /* -1: warm up */
        double p = 0, d = 0;
        err = repeat(f, &s, ids, &p, &d, e);
        if (err != OK || i < 0)
            continue;
        if (f->n_prompt > 0)
            prefill->values[prefill->n++] = p;
        if (f->n_decode > 0)
            decode->values[decode->n++] = d;
    }
    free(ids);
    lone_sequences_release(&s);
    return err;
}

static enum err print_speeds(const struct bench_flags *f, const struct lead *lead,
                             struct speeds *prefill, struct speeds *decode, struct error *e)
{
    char name[sizeof lead->params.name];
    memcpy(name, lead->params.name, sizeof name);
    make_printable(name);
    json_t *json = NULL;
    if (f->json)
        json = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:f}", "model", name, "kernels",
                         lead->backend->variant, "threads", pool_n_threads(lead->pool), "prompt",
                         f->n_prompt, "decode", f->n_decode, "batch", f->batch, "load_s",
                         (double)lead->load_us / 1e6);
    else
        printf("%s, %s kernels, %d threads, %d sequences\n%-14s %10s   tok/s, least … most\n",
               name[0] != 0 ? name : "model", lead->backend->variant, pool_n_threads(lead->pool),
               f->batch, "", "median");
    report("prefill_tok_s", prefill, json);
    report("decode_tok_s", decode, json);
    return f->json ? print_json(json, e) : OK;
}

static enum err bench_model(const struct bench_flags *f, struct modelfile *file, struct error *e)
{
    struct lead_options o = lead_options_from(&f->lead);
    o.file = file;
    o.n_slots = f->batch;
    o.max_rows = BENCH_ROWS;
    o.no_engine = true;
    o.context = f->n_prompt + f->n_decode;
    o.progress = show_progress;
    o.progress_context = "loading";
    struct lead lead;
    enum err err = lead_open(&o, &lead, e);
    if (err != OK)
        return err;
    double values[2][BENCH_MAX_REPEATS];
    struct speeds prefill = {.values = values[0]}, decode = {.values = values[1]};
    err = measure(f, &lead, &prefill, &decode, e);
    if (err == OK)
        err = print_speeds(f, &lead, &prefill, &decode, e);
    lead_close(&lead);
    return err;
}

/* The default lengths, unless a small model's context is shorter: then the same shares of that. */
static enum err fit_defaults(struct bench_flags *f, const struct modelfile *file, struct error *e)
{
    struct model_params p;
    enum err err = modelfile_params(file, &p, e);
    if (err == OK && !f->sized && p.context < f->n_prompt + f->n_decode) {
        f->n_decode = p.context < 5 ? 1 : p.context / 5;
        f->n_prompt = p.context - f->n_decode;
    }
    return err;
}

enum err verb_bench(int argc, char **argv, struct error *e)
{
    struct bench_flags f = {.n_prompt = 512, .n_decode = 128, .batch = 1, .repeats = 5};
    const struct flag table[] = {
        {"p", FLAG_INT, &f.n_prompt, "N", "prompt tokens (default 512)", .max = SHAPE_MAX_CONTEXT,
         .given = &f.sized},
        {"n", FLAG_INT, &f.n_decode, "N", "tokens to decode (default 128)",
         .max = SHAPE_MAX_CONTEXT, .given = &f.sized},
        {"t", FLAG_INT, &f.lead.threads, "K", "same as --threads", .min = 1,
         .max = POOL_MAX_THREADS},
        {"b", FLAG_INT, &f.batch, "N", "sequences side by side (default 1)", .min = 1,
         .max = BENCH_ROWS},
        {"r", FLAG_INT, &f.repeats, "N", "repetitions (default 5)", .min = 1,
         .max = BENCH_MAX_REPEATS},
        {"json", FLAG_BOOL, &f.json, NULL, "print JSON"},
        LEAD_FLAGS(f.lead),
        {0},
    };
    const struct verb_usage usage = {"bench",
                                     "model MODEL [flags]",
                                     "Measures prefill (prompt tokens a second) and decode "
                                     "(generated tokens a second): median,\n"
                                     "least and most over repetitions after one to warm up.",
                                     table,
                                     2,
                                     2};
    const char *args[2];
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, args, &n_args, e);
    if (err != OK)
        return err;
    if (strcmp(args[0], "model") != 0)
        return error_set(e, ERR_USAGE, "expected \"bench model\", found \"bench %s\"", args[0]);
    if (f.n_prompt + f.n_decode < 1)
        return error_set(e, ERR_USAGE, "nothing to measure: -p 0 -n 0");
    struct modelfile *file;
    err = modelfile_open(args[1], &file, e);
    if (err != OK)
        return err;
    err = fit_defaults(&f, file, e);
    if (err == OK)
        err = bench_model(&f, file, e);
    modelfile_close(file);
    return err;
}
