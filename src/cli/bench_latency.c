/* shoal bench latency: how long users wait.
 *
 * Two questions, asked of the engine as serve runs it (the same profile and sizes, no HTTP):
 *  - prefix: the time to the first token of a prompt, and of another that begins with the same
 *    tokens, which the prefix cache then has;
 *  - load: streams are decoding, and a long prompt joins them. How long is the wait between two
 *    tokens of a stream before it came, and how long while it is computed?
 * Streams guess nothing ahead here: guesses that are right would come in bunches, and bunches have
 * no pace. Every prompt is of other tokens, unless it is meant to begin alike. */
#include "base/clock.h"
#include "base/panic.h"
#include "base/printable.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lead_flags.h"
#include "cli/size_flags.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LATENCY_MAX_REPEATS = 100,
    LATENCY_MAX_STREAMS = 1024,
    TAIL = 16,          /* tokens of a prompt behind those that it shares */
    STREAM_PROMPT = 16, /* tokens of a stream's own prompt */
    QUIET_TOKENS = 64,  /* of each stream, before the long prompt comes */
};

struct latency_flags {
    struct lead_flags lead;
    struct size_flags sizes;
    int prefix, prompt, streams, repeats;
    bool json;
};

/* When gaps between tokens were seen. */
enum { BEFORE, DURING, N_TIMES };

struct gaps {
    double *ms;
    int n, capacity;
};

struct latency {
    const struct latency_flags *flags;
    struct lead lead;
    int32_t *ids; /* of the prompt at hand */
    uint32_t salt;

    pthread_mutex_t lock; /* guards what follows, and every listener */
    pthread_cond_t changed;
    int time; /* BEFORE or DURING; N_TIMES: nothing counts */
    struct gaps gaps[N_TIMES];
};

/* One request as its owner sees it. */
struct listener {
    struct latency *bench;
    uint64_t id;
    time_us submitted_us, first_us, last_us; /* 0: not yet */
    int n_tokens, wanted;                    /* wanted: at the next pause */
    bool is_stream;                          /* its gaps count */
    bool ended;
    struct error error; /* code OK: none */
    int n_cached;
};

/* What one repetition found. */
struct finding {
    double cold_ms, warm_ms; /* to the first token; 0 where nothing was asked */
    int n_cached;
    double median_ms, p99_ms, most_ms; /* between tokens, before */
    double during_median_ms, during_p99_ms, during_most_ms;
    double join_ms; /* to the first token of the long prompt */
};

static void note_gap(struct latency *b, double ms)
{
    if (b->time == N_TIMES)
        return;
    struct gaps *g = &b->gaps[b->time];
    if (g->n == g->capacity) {
        g->capacity = g->capacity > 0 ? 2 * g->capacity : 4096;
        g->ms = xrealloc(g->ms, (size_t)g->capacity * sizeof g->ms[0]);
    }
    g->ms[g->n++] = ms;
}

static void on_event(void *context, const struct request_event *event)
{
    struct listener *l = context;
    struct latency *b = l->bench;
    time_us now = clock_now_us();
    pthread_mutex_lock(&b->lock);
    if (event->token >= 0) {
        if (l->n_tokens++ == 0)
            l->first_us = now;
        else if (l->is_stream)
            note_gap(b, (double)(now - l->last_us) / 1e3);
        l->last_us = now;
    }
    if (event->finish != FINISH_NONE) {
        l->ended = true;
        if (event->error != NULL)
            l->error = *event->error;
        if (event->timings != NULL)
            l->n_cached = event->timings->n_cached;
    }
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

/* n ids, of which the first n_shared follow from `shared` alone and the rest are new each time. */
static void make_ids(struct latency *b, uint32_t shared, int n_shared, int n)
{
    uint32_t vocab = (uint32_t)b->lead.params.vocab, salt = ++b->salt;
    for (int i = 0; i < n; i++) {
        uint32_t x = (i < n_shared ? shared : salt) * 0x9e3779b9u + (uint32_t)i * 2654435761u;
        x = (x ^ x >> 15) * 0x2c1b3c6du;
        b->ids[i] = (int32_t)((x ^ x >> 12) % vocab);
    }
}

static enum err submit(struct latency *b, struct listener *l, int n_prompt, int max_tokens,
                       struct error *e)
{
    *l = (struct listener){.bench = b, .is_stream = max_tokens < 0, .submitted_us = clock_now_us()};
    const struct request_options o = {.prompt = b->ids,
                                      .n_prompt = n_prompt,
                                      .max_tokens = max_tokens,
                                      .sampling = SAMPLING_GREEDY,
                                      .no_draft = true,
                                      .ignore_eos = true,
                                      .on_event = on_event,
                                      .context = l};
    return engine_submit(b->lead.engine, &o, &l->id, e);
}

/* Until the listener has n tokens or has ended; an end with an error, or before that, is an error.
 * The lock is held. */
static enum err wait_for(struct latency *b, struct listener *l, int n, struct error *e)
{
    while (l->n_tokens < n && !l->ended)
        pthread_cond_wait(&b->changed, &b->lock);
    if (l->error.code != OK) {
        *e = l->error;
        return e->code;
    }
    if (l->n_tokens < n)
        return error_set(e, ERR_LIMIT, "a request ended after %d of %d tokens: the context has %d",
                         l->n_tokens, n, b->lead.context);
    return OK;
}

static void wait_for_end(struct latency *b, struct listener *l)
{
    while (!l->ended)
        pthread_cond_wait(&b->changed, &b->lock);
}

static double first_ms(const struct listener *l)
{
    return (double)(l->first_us - l->submitted_us) / 1e3;
}

/* --- prefix --- */

static enum err time_prompt(struct latency *b, uint32_t shared, double *ms, int *n_cached,
                            struct error *e)
{
    struct listener l;
    int n = b->flags->prefix;
    make_ids(b, shared, n, n + TAIL);
    enum err err = submit(b, &l, n + TAIL, 1, e);
    if (err != OK)
        return err;
    pthread_mutex_lock(&b->lock);
    wait_for_end(b, &l);
    err = wait_for(b, &l, 1, e);
    pthread_mutex_unlock(&b->lock);
    *ms = first_ms(&l);
    *n_cached = l.n_cached;
    return err;
}

static enum err measure_prefix(struct latency *b, struct finding *f, struct error *e)
{
    int none;
    uint32_t shared = ++b->salt;
    enum err err = time_prompt(b, shared, &f->cold_ms, &none, e);
    return err == OK ? time_prompt(b, shared, &f->warm_ms, &f->n_cached, e) : err;
}

/* --- load --- */

static void set_time(struct latency *b, int time)
{
    pthread_mutex_lock(&b->lock);
    b->time = time;
    pthread_mutex_unlock(&b->lock);
}

static void summarise(struct gaps *g, double *median, double *p99, double *most)
{
    if (g->n == 0)
        return;
    *median = bench_median(g->ms, g->n); /* sorts */
    *p99 = g->ms[(int64_t)g->n * 99 / 100];
    *most = g->ms[g->n - 1];
}

/* Until every stream has `more` tokens beyond those it has now; one that ends is an error. */
static enum err let_run(struct latency *b, struct listener *streams, int more, int time,
                        struct error *e)
{
    enum err err = OK;
    pthread_mutex_lock(&b->lock);
    b->time = time;
    for (int i = 0; i < b->flags->streams; i++)
        streams[i].wanted = streams[i].n_tokens + more;
    for (int i = 0; i < b->flags->streams && err == OK; i++)
        err = wait_for(b, &streams[i], streams[i].wanted, e);
    b->time = N_TIMES;
    pthread_mutex_unlock(&b->lock);
    return err;
}

/* All streams run; then a long prompt comes. */
static enum err join(struct latency *b, const struct listener *streams, struct finding *f,
                     struct error *e)
{
    struct listener joining;
    make_ids(b, 0, 0, b->flags->prompt);
    set_time(b, DURING);
    enum err err = submit(b, &joining, b->flags->prompt, 1, e);
    if (err != OK)
        return err;
    pthread_mutex_lock(&b->lock);
    wait_for_end(b, &joining);
    b->time = N_TIMES;
    err = wait_for(b, &joining, 1, e);
    for (int i = 0; i < b->flags->streams && err == OK; i++)
        if (streams[i].ended)
            err = error_set(e, ERR_LIMIT,
                            "a stream reached the end of the context (%d tokens) before the long "
                            "prompt had its first token",
                            b->lead.context);
    pthread_mutex_unlock(&b->lock);
    f->join_ms = first_ms(&joining);
    return err;
}

static enum err measure_load(struct latency *b, struct finding *f, struct error *e)
{
    int n = b->flags->streams, n_started = 0;
    struct listener *streams = xcalloc((size_t)n, sizeof streams[0]);
    enum err err = OK;
    for (; n_started < n && err == OK; n_started += err == OK) {
        make_ids(b, 0, 0, STREAM_PROMPT);
        err = submit(b, &streams[n_started], STREAM_PROMPT, -1, e);
    }
    b->gaps[BEFORE].n = b->gaps[DURING].n = 0;
    if (err == OK)
        err = let_run(b, streams, 1, N_TIMES, e); /* all have their rhythm */
    if (err == OK)
        err = let_run(b, streams, QUIET_TOKENS, BEFORE, e);
    if (err == OK)
        err = join(b, streams, f, e);
    for (int i = 0; i < n_started; i++)
        engine_cancel(b->lead.engine, streams[i].id);
    pthread_mutex_lock(&b->lock);
    for (int i = 0; i < n_started; i++)
        wait_for_end(b, &streams[i]);
    pthread_mutex_unlock(&b->lock);
    free(streams);
    summarise(&b->gaps[BEFORE], &f->median_ms, &f->p99_ms, &f->most_ms);
    summarise(&b->gaps[DURING], &f->during_median_ms, &f->during_p99_ms, &f->during_most_ms);
    return err;
}

/* --- reporting --- */

static double cold_of(const struct finding *f)
{
    return f->cold_ms;
}
static double warm_of(const struct finding *f)
{
    return f->warm_ms;
}
static double sooner_of(const struct finding *f)
{
    return f->cold_ms / f->warm_ms;
}
static double median_of(const struct finding *f)
{
    return f->median_ms;
}
static double p99_of(const struct finding *f)
{
    return f->p99_ms;
}
static double most_of(const struct finding *f)
{
    return f->most_ms;
}
static double during_median_of(const struct finding *f)
{
    return f->during_median_ms;
}
static double during_p99_of(const struct finding *f)
{
    return f->during_p99_ms;
}
static double during_most_of(const struct finding *f)
{
    return f->during_most_ms;
}
static double raised_of(const struct finding *f)
{
    return f->during_p99_ms / f->median_ms;
}
static double join_of(const struct finding *f)
{
    return f->join_ms;
}

/* What is reported, in order: `load` rows only where there were streams. */
static const struct row {
    const char *key, *text;
    double (*value)(const struct finding *f);
    bool load;
} rows[] = {
    {"first_token_ms", "first token, new prompt (ms)", cold_of, false},
    {"first_token_shared_ms", "first token, prompt known from before (ms)", warm_of, false},
    {"sooner", "  so many times sooner", sooner_of, false},
    {"itl_median_ms", "between tokens, median (ms)", median_of, true},
    {"itl_p99_ms", "between tokens, 99 of 100 below (ms)", p99_of, true},
    {"itl_max_ms", "between tokens, longest (ms)", most_of, true},
    {"during_median_ms", "beside the long prompt, median (ms)", during_median_of, true},
    {"during_p99_ms", "beside the long prompt, 99 of 100 below (ms)", during_p99_of, true},
    {"during_max_ms", "beside the long prompt, longest (ms)", during_most_of, true},
    {"raised", "  99 of 100, over the median before", raised_of, true},
    {"join_first_token_ms", "first token of the long prompt (ms)", join_of, true},
};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

static bool reported(const struct latency *b, const struct row *row)
{
    return row->load ? b->flags->streams > 0 : b->flags->prefix > 0;
}

static int values_of(const struct latency *b, const struct finding *found, int row_i,
                     double *values)
{
    for (int i = 0; i < b->flags->repeats; i++)
        values[i] = rows[row_i].value(&found[i]);
    return b->flags->repeats;
}

static void print_findings(const struct latency *b, const struct finding *found)
{
    const struct latency_flags *f = b->flags;
    char name[sizeof b->lead.params.name];
    double values[LATENCY_MAX_REPEATS];
    memcpy(name, b->lead.params.name, sizeof name);
    make_printable(name);
    printf("%s, %s kernels, %d threads, %s profile; %d repetitions\n",
           name[0] != 0 ? name : "model", b->lead.backend->variant, pool_n_threads(b->lead.pool),
           profile_names[f->sizes.profile], f->repeats);
    if (f->prefix > 0)
        printf("prefix: %d tokens, and %d more; found again: %d\n", f->prefix, TAIL,
               found[0].n_cached);
    if (f->streams > 0)
        printf("load: %d streams, and a prompt of %d tokens joins\n", f->streams, f->prompt);
    printf("%-46s %10s %10s … %s\n", "", "median", "least", "most");
    for (int i = 0; i < N_ROWS; i++) {
        if (!reported(b, &rows[i]))
            continue;
        int n = values_of(b, found, i, values);
        double median = bench_median(values, n);
        printf("%-46s %10.2f %10.2f … %.2f\n", rows[i].text, median, values[0], values[n - 1]);
    }
}

static enum err print_findings_json(const struct latency *b, const struct finding *found,
                                    struct error *e)
{
    const struct latency_flags *f = b->flags;
    double values[LATENCY_MAX_REPEATS];
    json_t *j =
        json_pack("{s:s, s:i, s:s, s:i, s:i, s:i, s:i, s:i}", "kernels", b->lead.backend->variant,
                  "threads", pool_n_threads(b->lead.pool), "profile",
                  profile_names[f->sizes.profile], "prefix", f->prefix, "tail", (int)TAIL,
                  "streams", f->streams, "prompt", f->prompt, "cached_tokens", found[0].n_cached);
    for (int i = 0; i < N_ROWS; i++)
        if (reported(b, &rows[i]))
            json_object_set_new(j, rows[i].key,
                                bench_spread_json(values, values_of(b, found, i, values)));
    return print_json(j, e);
}

/* --- putting it together --- */

/* The first repetition warms up and is not counted. */
static enum err measure(struct latency *b, struct finding *found, struct error *e)
{
    enum err err = OK;
    for (int i = -1; i < b->flags->repeats && err == OK; i++) {
        struct finding *f = &found[i < 0 ? 0 : i];
        *f = (struct finding){0};
        if (b->flags->prefix > 0)
            err = measure_prefix(b, f, e);
        if (err == OK && b->flags->streams > 0)
            err = measure_load(b, f, e);
    }
    return err;
}

static enum err open_and_run(const struct latency_flags *f, struct modelfile *file, struct error *e)
{
    struct lead_options o = lead_options_from(&f->lead);
    size_flags_apply(&f->sizes, &o);
    o.file = file;
    if (f->sizes.slots < 0 && o.n_slots < f->streams + 1)
        o.n_slots = f->streams + 1; /* the one that joins is not to wait for a slot */
    o.progress = show_progress;
    o.progress_context = "loading";
    struct finding found[LATENCY_MAX_REPEATS];
    struct latency b = {.flags = f, .time = N_TIMES};
    enum err err = lead_open(&o, &b.lead, e);
    if (err != OK)
        return err;
    int longest = f->prefix + TAIL > f->prompt ? f->prefix + TAIL : f->prompt;
    b.ids = xcalloc((size_t)longest + STREAM_PROMPT, sizeof b.ids[0]);
    pthread_mutex_init(&b.lock, NULL);
    pthread_cond_init(&b.changed, NULL);
    err = measure(&b, found, e);
    if (err == OK && f->json)
        err = print_findings_json(&b, found, e);
    else if (err == OK)
        print_findings(&b, found);
    lead_close(&b.lead); /* first: nobody listens after this */
    pthread_mutex_destroy(&b.lock);
    pthread_cond_destroy(&b.changed);
    for (int i = 0; i < N_TIMES; i++)
        free(b.gaps[i].ms);
    free(b.ids);
    return err;
}

enum err bench_latency(int argc, char **argv, struct error *e)
{
    struct latency_flags f = {
        .sizes = SIZE_FLAGS_UNSAID, .prefix = 2000, .prompt = 4096, .streams = 16, .repeats = 5};
    const struct flag table[] = {
        {"prefix", FLAG_INT, &f.prefix, "N",
         "tokens that two prompts share (default 2000); 0: not measured", .max = SHAPE_MAX_CONTEXT},
        {"s", FLAG_INT, &f.streams, "N",
         "streams that a long prompt joins (default 16); 0: not measured",
         .max = LATENCY_MAX_STREAMS},
        {"p", FLAG_INT, &f.prompt, "N", "tokens of that prompt (default 4096)", .min = 1,
         .max = SHAPE_MAX_CONTEXT},
        {"t", FLAG_INT, &f.lead.threads, "K", "same as --threads", .min = 1,
         .max = POOL_MAX_THREADS},
        {"r", FLAG_INT, &f.repeats, "N", "repetitions (default 5)", .min = 1,
         .max = LATENCY_MAX_REPEATS},
        {"json", FLAG_BOOL, &f.json, NULL, "print JSON"},
        SIZE_FLAGS(f.sizes),
        LEAD_FLAGS(f.lead),
        CONTEXT_FLAG(f.lead),
        {0},
    };
    const struct verb_usage usage = {
        "bench latency",
        "MODEL [flags]",
        "Measures what users wait for, with the engine of serve: the first token of a prompt and "
        "of one\n"
        "that begins alike; and the time between two tokens of running streams, before and while "
        "a long\n"
        "prompt is computed beside them.",
        table,
        1,
        1};
    const char *args[1];
    int n_args;
    struct modelfile *file;
    enum err err = flags_parse(&usage, argc, argv, args, &n_args, e);
    if (err == OK)
        err = size_flags_check(&f.sizes, e);
    if (err == OK && f.prefix == 0 && f.streams == 0)
        err = error_set(e, ERR_USAGE, "nothing to measure: --prefix 0 -s 0");
    if (err == OK)
        err = modelfile_open(args[0], &file, e);
    if (err != OK)
        return err;
    err = open_and_run(&f, file, e);
    modelfile_close(file);
    return err;
}
