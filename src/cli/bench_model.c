/* shoal bench model: prefill and decode speed of a model, here or on a cluster.
 *
 * A repetition is a prompt for every sequence and then single steps of all of them. Beside it
 * stands what this machine can do at most (bench/probe.h), probed just before and just after each
 * phase: prefill against the int8 dot products, decode against the read bandwidth. Where the two
 * probes of a phase differ too much the machine changed meanwhile, and the repetition has no
 * fraction. On a cluster other machines take part, whose limits are not known here, and a simulated
 * backend has none: nothing is probed. */
#include "base/clock.h"
#include "base/printable.h"
#include "bench/probe.h"
#include "cli/bench.h"
#include "cli/bench_context.h"
#include "cli/bench_cost.h"
#include "cli/bench_guessing.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lead_flags.h"
#include "cli/lone_sequences.h"
#include "engine/draft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BENCH_ROWS = 512, BENCH_MAX_REPEATS = 1000, BENCH_DRAFT = 8 };

struct bench_flags {
    struct lead_flags lead;
    int n_prompt, n_decode, repeats;
    const char *batches_text;
    int draft;
    int batches[BENCH_MAX_LIST], n_batches;
    const char *contexts_text; /* NULL: prefill and decode of `batches` are measured */
    int contexts[BENCH_MAX_LIST], n_contexts;
    bool batched; /* -b was given */
    bool sized;   /* -p or -n was given */
    bool no_probe, json;
};

struct bench {
    const struct bench_flags *flags;
    struct lead lead;
    struct bench_cost cost;
    struct probe *probe; /* NULL: none wanted */
    int32_t *ids;
    double *step_us; /* of each step of a decode */
    struct lone_sequences s;
    int batch;                                      /* sequences under way */
    struct bench_guessing guessing[BENCH_MAX_LIST]; /* with a draft model only */
};

/* One phase of one repetition. */
struct run {
    double tok_s;
    double step_us; /* the median step of a decode */
    double rate;    /* 1e9 operations, or bytes, a second */
    double before, after;
};

enum { PREFILL, DECODE, N_PHASES };

static const struct phase {
    const char *name;
    const char *unit, *unit_key;
    double (*probe)(struct probe *p);
} phases[N_PHASES] = {
    {"prefill", "Gop/s", "gop_s", probe_dot_gop_s},
    {"decode", "GB/s", "gb_s", probe_read_gb_s},
};

/* Logits are computed, as for a real completion, and not looked at. */
static void ignore_logits(int sequence, int position, float *logits, void *context)
{
    (void)sequence, (void)position, (void)logits, (void)context;
}

static int tokens_of(const struct bench *b, int phase)
{
    return phase == PREFILL ? b->flags->n_prompt : b->flags->n_decode;
}

/* Operations of a prefill, bytes of a decode. */
static double work_of(const struct bench *b, int phase)
{
    const struct bench_flags *f = b->flags;
    return phase == PREFILL ? bench_prefill_ops(&b->cost, f->n_prompt, b->batch)
                            : bench_decode_bytes(&b->cost, f->n_prompt, f->n_decode, b->batch);
}

static enum err append(struct bench *b, int phase, struct error *e)
{
    const int32_t *each[BENCH_ROWS];
    for (int i = 0; i < b->batch; i++)
        each[i] = b->ids;
    if (phase == PREFILL)
        return lone_sequences_append(&b->s, each, b->flags->n_prompt, false, ignore_logits, NULL,
                                     e);
    enum err err = OK;
    time_us begin = clock_now_us();
    for (int i = 0; i < b->flags->n_decode && err == OK; i++) {
        err = lone_sequences_append(&b->s, each, 1, false, ignore_logits, NULL, e);
        time_us end = clock_now_us();
        b->step_us[i] = (double)(end - begin);
        begin = end;
    }
    return err;
}

static enum err run_phase(struct bench *b, int phase, bool probed, struct run *run, struct error *e)
{
    *run = (struct run){0};
    if (tokens_of(b, phase) == 0)
        return OK;
    if (probed)
        run->before = phases[phase].probe(b->probe);
    time_us begin = clock_now_us();
    enum err err = append(b, phase, e);
    double took_us = (double)(clock_now_us() - begin + 1);
    if (probed)
        run->after = phases[phase].probe(b->probe);
    run->tok_s = (double)tokens_of(b, phase) * b->batch * 1e6 / took_us;
    run->rate = work_of(b, phase) / took_us * 1e-3;
    if (phase == DECODE && err == OK)
        run->step_us = bench_median(b->step_us, b->flags->n_decode);
    return err;
}

/* All repetitions of one batch size, after one to warm up. */
static enum err measure(struct bench *b, struct run *runs[N_PHASES], struct error *e)
{
    enum err err = OK;
    for (int i = -1; i < b->flags->repeats && err == OK; i++) {
        lone_sequences_restart(&b->s, b->batch);
        for (int phase = 0; phase < N_PHASES && err == OK; phase++)
            err = run_phase(b, phase, b->probe != NULL && i >= 0, &runs[phase][i < 0 ? 0 : i], e);
    }
    return err;
}

/* --- reporting --- */

static bool counts(const struct run *r)
{
    return bench_probes_agree(r->before, r->after);
}

static double fraction(const struct run *r)
{
    return r->rate / ((r->before + r->after) / 2);
}

/* Values of all runs, or of those whose fraction counts. */
static int values_of(const struct run *runs, int n, double (*value)(const struct run *),
                     bool counted, double *out)
{
    int n_out = 0;
    for (int i = 0; i < n; i++)
        if (!counted || counts(&runs[i]))
            out[n_out++] = value(&runs[i]);
    return n_out;
}

static double tok_s_of(const struct run *r)
{
    return r->tok_s;
}

static double rate_of(const struct run *r)
{
    return r->rate;
}

/* Are the machine's limits those of what is measured? */
static bool has_limits(const struct bench *b)
{
    return b->lead.cluster == NULL && b->flags->lead.backend.kind == BACKEND_CPU;
}

static json_t *phase_json(const struct bench *b, int phase, const struct run *runs)
{
    double values[BENCH_MAX_REPEATS];
    int n = b->flags->repeats;
    json_t *j = json_object(), *list = json_array();
    json_object_set_new(j, "tok_s",
                        bench_spread_json(values, values_of(runs, n, tok_s_of, false, values)));
    if (has_limits(b))
        json_object_set_new(j, phases[phase].unit_key,
                            bench_spread_json(values, values_of(runs, n, rate_of, false, values)));
    if (b->probe != NULL)
        json_object_set_new(j, "fraction",
                            bench_spread_json(values, values_of(runs, n, fraction, true, values)));
    for (int i = 0; i < n; i++) {
        json_t *run = json_pack("{s:f}", "tok_s", runs[i].tok_s);
        if (phase == DECODE)
            json_object_set_new(run, "step_us", json_real(runs[i].step_us));
        if (b->probe != NULL)
            json_object_update_new(run, json_pack("{s:f, s:f, s:f, s:b}", "rate", runs[i].rate,
                                                  "before", runs[i].before, "after", runs[i].after,
                                                  "counts", counts(&runs[i])));
        json_array_append_new(list, run);
    }
    json_object_set_new(j, "runs", list);
    return j;
}

static void print_phase(const struct bench *b, int phase, const struct run *runs)
{
    double values[BENCH_MAX_REPEATS];
    int n = b->flags->repeats;
    double median = bench_median(values, values_of(runs, n, tok_s_of, false, values));
    printf("%-8s %5d %5d %10.2f %10.2f … %-10.2f", phases[phase].name, tokens_of(b, phase),
           b->batch, median, values[0], values[n - 1]);
    if (has_limits(b))
        printf(" %8.1f %-6s", bench_median(values, values_of(runs, n, rate_of, false, values)),
               phases[phase].unit);
    int n_counted = b->probe != NULL ? values_of(runs, n, fraction, true, values) : 0;
    if (n_counted > 0)
        printf(" %5.1f %% (%d of %d)", 100 * bench_median(values, n_counted), n_counted, n);
    else if (b->probe != NULL)
        printf(" unknown: the machine's limit drifted");
    putchar('\n');
}

/* What was probed, over all repetitions of all batches: it is the same machine. */
struct limits {
    double *values[N_PHASES];
    int n[N_PHASES];
};

static void gather_limits(struct limits *l, struct run *const runs[N_PHASES], int n_runs)
{
    for (int phase = 0; phase < N_PHASES; phase++) {
        for (int i = 0; i < n_runs && runs[phase][i].tok_s > 0; i++) {
            l->values[phase][l->n[phase]++] = runs[phase][i].before;
            l->values[phase][l->n[phase]++] = runs[phase][i].after;
        }
    }
}

static void print_limits(const struct bench *b, struct limits *l)
{
    static const char *const what[N_PHASES] = {"int8 products", "reading"};
    for (int phase = 0; phase < N_PHASES; phase++) {
        double *values = l->values[phase];
        if (l->n[phase] == 0)
            continue;
        double median = bench_median(values, l->n[phase]);
        printf("limit of %-13s %8.1f … %.1f %s, median %.1f (%d probes%s%s)\n", what[phase],
               values[0], values[l->n[phase] - 1], phases[phase].unit, median, l->n[phase],
               phase == PREFILL ? " of " : "", phase == PREFILL ? probe_dot_name(b->probe) : "");
    }
}

static json_t *head_json(const struct bench *b, const char *name)
{
    const struct bench_flags *f = b->flags;
    json_t *j =
        json_pack("{s:s, s:s, s:i, s:i, s:i, s:f}", "model", name, "kernels",
                  b->lead.backend->variant, "threads", pool_n_threads(b->lead.pool), "prompt",
                  f->n_prompt, "decode", f->n_decode, "load_s", (double)b->lead.load_us / 1e6);
    if (b->probe != NULL)
        json_object_set_new(j, "dot_instruction", json_string(probe_dot_name(b->probe)));
    return j;
}

static void print_head(const struct bench *b, const char *name)
{
    printf("%s, %s kernels, %d threads, loaded in %.2f s; %d repetitions\n",
           name[0] != 0 ? name : "model", b->lead.backend->variant, pool_n_threads(b->lead.pool),
           (double)b->lead.load_us / 1e6, b->flags->repeats);
    if (b->flags->n_contexts > 0)
        return;
    printf("%-8s %5s %5s %10s %10s … %-10s", "", "each", "seqs", "tok/s", "least", "most");
    if (has_limits(b))
        printf(" %15s", "median");
    printf(b->probe != NULL ? " of the limit\n" : "\n");
}

/* --- putting it together --- */

static enum err measure_batches(struct bench *b, struct limits *limits, json_t *json,
                                struct error *e)
{
    const struct bench_flags *f = b->flags;
    json_t *list = json_array();
    struct run *storage = calloc((size_t)N_PHASES * (size_t)f->repeats, sizeof *storage);
    struct run *runs[N_PHASES] = {storage, storage + f->repeats};
    enum err err = storage != NULL ? OK : error_set(e, ERR_MEMORY, "no memory for the results");
    for (int i = 0; i < f->n_batches && err == OK; i++) {
        b->batch = f->batches[i];
        err = measure(b, runs, e);
        if (err != OK)
            break;
        json_t *entry = json_pack("{s:i}", "batch", b->batch);
        for (int phase = 0; phase < N_PHASES; phase++) {
            if (tokens_of(b, phase) == 0)
                continue;
            if (json == NULL)
                print_phase(b, phase, runs[phase]);
            else
                json_object_set_new(entry, phases[phase].name, phase_json(b, phase, runs[phase]));
        }
        json_array_append_new(list, entry);
        if (b->probe != NULL)
            gather_limits(limits, runs, f->repeats);
        if (json == NULL && f->lead.draft_model != NULL)
            bench_guessing_print(&b->guessing[i]);
        else if (f->lead.draft_model != NULL)
            json_object_set_new(entry, "guessing", bench_guessing_json(&b->guessing[i]));
        fflush(stdout);
    }
    free(storage);
    if (json != NULL)
        json_object_set_new(json, "batches", list);
    else
        json_decref(list);
    return err;
}

static enum err measure_contexts(struct bench *b, json_t *json, struct error *e)
{
    const struct bench_flags *f = b->flags;
    struct context_bench c = {.lead = &b->lead,
                              .max_rows = BENCH_ROWS,
                              .probe = b->probe,
                              .cost = &b->cost,
                              .ids = b->ids,
                              .contexts = f->contexts,
                              .n_contexts = f->n_contexts,
                              .n_decode = f->n_decode,
                              .repeats = f->repeats};
    return context_bench_run(&c, json, e);
}

static enum err report(struct bench *b, struct limits *limits, struct error *e)
{
    char name[sizeof b->lead.params.name];
    memcpy(name, b->lead.params.name, sizeof name);
    make_printable(name);
    json_t *json = b->flags->json ? head_json(b, name) : NULL;
    if (json == NULL)
        print_head(b, name);
    enum err err = b->flags->n_contexts > 0 ? measure_contexts(b, json, e)
                                            : measure_batches(b, limits, json, e);
    if (err != OK) {
        json_decref(json);
        return err;
    }
    if (json == NULL) {
        print_limits(b, limits);
        return OK;
    }
    if (b->probe != NULL && b->flags->n_contexts == 0) {
        json_object_set_new(json, "dot_gop_s",
                            bench_spread_json(limits->values[PREFILL], limits->n[PREFILL]));
        json_object_set_new(json, "read_gb_s",
                            bench_spread_json(limits->values[DECODE], limits->n[DECODE]));
    }
    return print_json(json, e);
}

static enum err prepare_ids(struct bench *b, struct error *e)
{
    int n = b->flags->n_prompt;
    b->ids = calloc((size_t)n + 1, sizeof *b->ids);
    b->step_us = calloc((size_t)b->flags->n_decode + 1, sizeof *b->step_us);
    if (b->ids == NULL || b->step_us == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a prompt of %d ids", n);
    for (int i = 0; i <= n; i++)
        b->ids[i] = (int32_t)(((uint32_t)i * 2654435761u >> 8) % (uint32_t)b->lead.params.vocab);
    return OK;
}

static enum err run_bench(struct bench *b, const struct modelfile *file, struct error *e)
{
    const struct bench_flags *f = b->flags;
    size_t n_probes = (size_t)f->n_batches * (size_t)f->repeats * 2;
    double *values = calloc(n_probes * N_PHASES, sizeof *values);
    struct limits limits = {.values = {values, values + n_probes}};
    enum err err = bench_cost_of(file, &b->lead.params, (enum kv_type)f->lead.kv, &b->cost, e);
    if (err == OK && values == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for the results");
    if (err == OK)
        err = prepare_ids(b, e);
    if (err == OK && !f->no_probe && has_limits(b))
        err = probe_new(b->lead.pool, b->lead.backend->variant, &b->probe, e);
    if (err == OK && f->n_contexts == 0)
        err = lone_sequences_init(&b->s, &b->lead, b->batch, BENCH_ROWS, e);
    if (err == OK)
        err = report(b, &limits, e);
    lone_sequences_release(&b->s);
    probe_free(b->probe);
    free(b->ids);
    free(b->step_us);
    free(values);
    return err;
}

/* Positions of the longest sequence. */
static int sequence_length(const struct bench_flags *f)
{
    return f->n_contexts > 0
               ? (int)context_bench_length(f->contexts, f->n_contexts, f->n_decode, f->repeats)
               : f->n_prompt + f->n_decode;
}

/* --context measures decode only, of one sequence. */
static enum err check_contexts(struct bench_flags *f, struct error *e)
{
    if (f->contexts_text == NULL)
        return OK;
    if (f->batched)
        return error_set(e, ERR_USAGE, "--context measures one sequence: leave out -b");
    if (f->lead.draft_model != NULL)
        return error_set(e, ERR_USAGE,
                         "--context measures plain decoding: leave out --draft-model");
    enum err err = bench_number_list("--context", f->contexts_text, SHAPE_MAX_CONTEXT, f->contexts,
                                     &f->n_contexts, e);
    if (err != OK)
        return err;
    if (f->n_decode < 1)
        return error_set(e, ERR_USAGE, "--context measures decoding: -n 0 leaves nothing");
    int64_t length = context_bench_length(f->contexts, f->n_contexts, f->n_decode, f->repeats);
    if (length > SHAPE_MAX_CONTEXT)
        return error_set(
            e, ERR_USAGE,
            "--context: with the tokens of -n and -r a sequence has %lld positions, at "
            "most %d are possible",
            (long long)length, SHAPE_MAX_CONTEXT);
    f->n_prompt = (int)length - f->n_decode * (f->repeats + 1); /* the longest: ids for it */
    f->sized = true;
    return OK;
}

/* Before the rest, with an engine of its own. */
static enum err run_guessing(const struct bench_flags *f, struct lead_options o,
                             struct bench_guessing *results, struct error *e)
{
    struct tokenizer *tokenizer;
    struct bench_guessing_options guessing = {.lead = &o,
                                              .batches = f->batches,
                                              .n_batches = f->n_batches,
                                              .n_prompt = f->n_prompt,
                                              .n_decode = f->n_decode,
                                              .repeats = f->repeats};
    enum err err = tokenizer_open(o.file, &tokenizer, e); /* the vocabularies are compared */
    if (err != OK)
        return err;
    err = open_draft_model(&f->lead, f->draft, &o.draft_file, e);
    o.tokenizer = tokenizer;
    o.max_draft = f->draft;
    o.no_engine = false;
    if (err == OK)
        err = bench_guessing(&guessing, results, e);
    modelfile_close(o.draft_file);
    tokenizer_close(tokenizer);
    return err;
}

static enum err open_and_run(const struct bench_flags *f, struct modelfile *file, struct error *e)
{
    struct lead_options o = lead_options_from(&f->lead);
    o.file = file;
    for (int i = 0; i < f->n_batches; i++)
        o.n_slots = f->batches[i] > o.n_slots ? f->batches[i] : o.n_slots;
    if (f->n_contexts > 0)
        o.n_slots = CONTEXT_SEQUENCES;
    o.max_rows = BENCH_ROWS;
    o.no_engine = true;
    o.context = sequence_length(f);
    o.progress = show_progress;
    o.progress_context = "loading";
    struct bench b = {.flags = f, .batch = o.n_slots};
    enum err err = f->lead.draft_model != NULL ? run_guessing(f, o, b.guessing, e) : OK;
    if (err == OK)
        err = lead_open(&o, &b.lead, e);
    if (err == OK) {
        err = run_bench(&b, file, e);
        lead_close(&b.lead);
    }
    bench_guessing_release(b.guessing, f->n_batches);
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

enum err bench_model(int argc, char **argv, struct error *e)
{
    struct bench_flags f = {
        .n_prompt = 512, .n_decode = 128, .repeats = 5, .batches_text = "1", .draft = BENCH_DRAFT};
    const struct flag table[] = {
        {"p", FLAG_INT, &f.n_prompt, "N", "prompt tokens (default 512)", .max = SHAPE_MAX_CONTEXT,
         .given = &f.sized},
        {"n", FLAG_INT, &f.n_decode, "N", "tokens to decode (default 128)",
         .max = SHAPE_MAX_CONTEXT, .given = &f.sized},
        {"context", FLAG_STRING, &f.contexts_text, "N,…",
         "instead: what decoding costs more after so many tokens than after the first number"},
        {"t", FLAG_INT, &f.lead.threads, "K", "same as --threads", .min = 1,
         .max = POOL_MAX_THREADS},
        {"b", FLAG_STRING, &f.batches_text, "N,…", "sequences side by side (default 1)",
         .given = &f.batched},
        {"r", FLAG_INT, &f.repeats, "N", "repetitions (default 5)", .min = 1,
         .max = BENCH_MAX_REPEATS},
        {"no-probe", FLAG_BOOL, &f.no_probe, NULL, "do not measure what the machine can do"},
        {"json", FLAG_BOOL, &f.json, NULL, "print JSON"},
        {"draft", FLAG_INT, &f.draft, "N",
         "with --draft-model: tokens guessed ahead in a step (default 8)", .min = 1,
         .max = DRAFT_MAX},
        DRAFT_MODEL_FLAG(f.lead),
        LEAD_FLAGS(f.lead),
        BACKEND_FLAGS(f.lead.backend),
        {0},
    };
    const struct verb_usage usage = {
        "bench model",
        "MODEL [flags]",
        "Measures prefill (prompt tokens a second) and decode (generated tokens a second): "
        "median,\n"
        "least and most over repetitions after one to warm up. Beside them stands what the "
        "machine\n"
        "can do at most, probed before and after each, and the fraction of it that was reached.\n"
        "With --draft-model also what guessing ahead gives: decode with guesses and without.",
        table,
        1,
        1};
    const char *args[1];
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, args, &n_args, e);
    if (err == OK)
        err = bench_number_list("-b", f.batches_text, BENCH_ROWS, f.batches, &f.n_batches, e);
    if (err == OK)
        err = check_contexts(&f, e);
    if (err == OK && f.n_prompt + f.n_decode < 1)
        err = error_set(e, ERR_USAGE, "nothing to measure: -p 0 -n 0");
    if (err == OK && f.lead.draft_model != NULL && (f.n_prompt < 1 || f.n_decode < 2))
        err = error_set(e, ERR_USAGE,
                        "--draft-model: expected a prompt and 2 tokens to decode or more, found -p "
                        "%d -n %d",
                        f.n_prompt, f.n_decode);
    struct modelfile *file;
    if (err == OK)
        err = modelfile_open(args[0], &file, e);
    if (err != OK)
        return err;
    err = fit_defaults(&f, file, e);
    if (err == OK)
        err = open_and_run(&f, file, e);
    modelfile_close(file);
    return err;
}
