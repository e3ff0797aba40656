/* shoal top: a running server, watched through its GET /metrics. */
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/top_view.h"
#include "fetch/fetch.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { METRICS_MAX_BYTES = 4 << 20, ANSWER_US = 10 * 1000000 };
#define REPAINT "\x1b[H\x1b[J" /* to the upper left corner, and clear all below */

struct top_flags {
    const char *url;
    float interval_s;
    bool once, json;
};

struct watch {
    const struct top_flags *flags;
    struct fetcher *fetcher;
    struct strbuf text;
    struct metrics_snapshot snapshots[2]; /* the later one is [i] */
    int i;
    bool has_earlier;
    sigset_t ends; /* blocked: waited for instead of sleeping */
};

/* The next snapshot; the one before stays. */
static enum err look(struct watch *w, struct error *e)
{
    struct metrics_snapshot *s = &w->snapshots[1 - w->i];
    strbuf_clear(&w->text);
    enum err err = fetcher_get(w->fetcher, &w->text, e);
    if (err == OK)
        err = metrics_read(w->text.data, w->text.bytes, s, e);
    if (err != OK)
        return err;
    s->at_s = (double)clock_now_us() / 1e6;
    w->i = 1 - w->i;
    if (s->ready <= 0)
        return error_set(e, ERR_NOT_FOUND, "%s serves no model yet", w->flags->url);
    return OK;
}

/* True: told to end. */
static bool wait_interval(const struct watch *w)
{
    double s = (double)w->flags->interval_s;
    struct timespec wait = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
    return sigtimedwait(&w->ends, NULL, &wait) > 0;
}

static enum err show(struct watch *w, struct error *e)
{
    struct top_view *v = malloc(sizeof *v); /* too large for a stack */
    if (v == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a view");
    enum err err = OK;
    w->has_earlier = top_view_make(&w->snapshots[1 - w->i], &w->snapshots[w->i], v);
    if (!w->has_earlier) {
        err = error_set(e, ERR_CLOSED, "%s was started anew meanwhile", w->flags->url);
    } else if (w->flags->json) {
        err = print_json(top_view_json(v), e);
    } else {
        struct strbuf text;
        strbuf_init(&text, METRICS_MAX_BYTES);
        top_view_append(&text, v);
        printf("%s%s, the last %.1f s\n\n%s", w->flags->once ? "" : REPAINT, w->flags->url,
               v->interval_s, text.data);
        strbuf_release(&text);
    }
    free(v);
    if (err == OK && fflush(stdout) != 0)
        err = error_set(e, ERR_IO, "writing to standard output failed");
    return err;
}

/* One view, of one interval. */
static enum err show_once(struct watch *w, struct error *e)
{
    enum err err = look(w, e);
    if (err != OK || wait_interval(w))
        return err;
    err = look(w, e);
    return err == OK ? show(w, e) : err;
}

/* View after view. A server that does not answer was there before and may come back. */
static enum err show_live(struct watch *w, struct error *e)
{
    enum err err = look(w, e);
    if (err != OK && err != ERR_NOT_FOUND)
        return err;
    w->has_earlier = err == OK;
    while (!wait_interval(w)) {
        bool had_earlier = w->has_earlier;
        err = look(w, e);
        w->has_earlier = err == OK;
        if (err == OK && had_earlier) {
            err = show(w, e);
            if (err != OK && err != ERR_CLOSED)
                return err;
        }
        if (err != OK && !w->flags->json) {
            printf(REPAINT "%s\n", e->text);
            fflush(stdout);
        }
    }
    return OK;
}

static enum err watch_url(const struct top_flags *f, const char *metrics_url, struct error *e)
{
    struct watch *w = calloc(1, sizeof *w); /* snapshots are too large for a stack */
    if (w == NULL)
        return error_set(e, ERR_MEMORY, "no memory for snapshots");
    w->flags = f;
    strbuf_init(&w->text, METRICS_MAX_BYTES);
    sigemptyset(&w->ends);
    sigaddset(&w->ends, SIGINT);
    sigaddset(&w->ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &w->ends, NULL);
    enum err err = fetcher_open(metrics_url, ANSWER_US, &w->fetcher, e);
    if (err == ERR_INVALID) {
        error_prefix(e, "--url");
        err = ERR_USAGE;
    }
    if (err == OK)
        err = f->once ? show_once(w, e) : show_live(w, e);
    fetcher_close(w->fetcher);
    strbuf_release(&w->text);
    free(w);
    return err;
}

enum err verb_top(int argc, char **argv, struct error *e)
{
    struct top_flags f = {.url = "http://127.0.0.1:8100", .interval_s = 1};
    const struct flag table[] = {
        {"url", FLAG_STRING, &f.url, "URL", "of the server (default http://127.0.0.1:8100)"},
        {"interval", FLAG_FLOAT, &f.interval_s, "S", "seconds between two looks (default 1)",
         .min = 0.1, .max = 3600},
        {"once", FLAG_BOOL, &f.once, NULL, "one view, of one interval; so without a terminal, too"},
        {"json", FLAG_BOOL, &f.json, NULL, "a JSON object a view"},
        {0},
    };
    const struct verb_usage usage = {
        "top",
        "[--url URL] [flags]",
        "Shows what a running shoal serve does: requests, tokens per second, latencies, memory "
        "for\n"
        "keys and values, and what each stage of its ring spends its time with.",
        table,
        0,
        0};
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, NULL, &n_args, e);
    if (err != OK)
        return err;
    f.once |= isatty(STDOUT_FILENO) == 0;
    char url[1024];
    size_t bytes = strlen(f.url);
    while (bytes > 0 && f.url[bytes - 1] == '/')
        bytes--;
    if (bytes + sizeof "/metrics" > sizeof url)
        return error_set(e, ERR_USAGE, "--url: expected at most %zu bytes, found %zu",
                         sizeof url - sizeof "/metrics", bytes);
    snprintf(url, sizeof url, "%.*s/metrics", (int)bytes, f.url);
    return watch_url(&f, url, e);
}
