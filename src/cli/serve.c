/* shoal serve: the OpenAI-compatible API in front of this process or a cluster that it leads.
 * Listens first, so that probes see "Loading model" while gigabytes are being read. */
#include "api/api.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/printable.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lead_flags.h"
#include "cli/size_flags.h"
#include "rpc/address.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WATCH_MS = 500 };

struct serve_flags {
    struct lead_flags lead;
    const char *listen, *model_id;
    struct size_flags sizes;
};

struct service {
    struct modelfile *file, *draft_file;
    struct tokenizer *tokenizer;
    struct chat_template *template;
    struct lead lead;
    bool leads; /* lead is open */
    char id[MODEL_MAX_NAME];
};

/* The last part of the path, without ".gguf": the model's name in the API. */
static void name_of_path(const char *path, char id[MODEL_MAX_NAME])
{
    size_t bytes = strlen(path);
    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    size_t begin = bytes;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    if (bytes - begin > 5 && memcmp(path + bytes - 5, ".gguf", 5) == 0)
        bytes -= 5;
    snprintf(id, MODEL_MAX_NAME, "%.*s", (int)(bytes - begin), path + begin);
}

/* The signals that end the server are blocked, so that only wait_for_signal takes them; while a
 * large model loads nobody waits there. Then they end the process as they would have unblocked. */
static void load_progress(uint64_t done_bytes, uint64_t total_bytes, void *context)
{
    static const int ends[] = {SIGINT, SIGTERM};
    sigset_t pending;
    show_progress(done_bytes, total_bytes, context);
    sigpending(&pending);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (sigismember(&pending, ends[i]) != 1)
            continue;
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, ends[i]);
        pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    }
}

static enum err load(const struct serve_flags *f, struct service *s, struct error *e)
{
    enum err err = tokenizer_open(s->file, &s->tokenizer, e);
    if (err != OK)
        return err;
    struct error reason;
    err = chat_template_open(s->file, s->tokenizer, &s->template, &reason);
    if (err != OK && err != ERR_NOT_FOUND)
        log_warn("no chat completions: %s", reason.text);
    struct lead_options o = lead_options_from(&f->lead);
    o.file = s->file;
    o.tokenizer = s->tokenizer;
    size_flags_apply(&f->sizes, &o);
    o.progress = load_progress;
    o.progress_context = "loading";
    err = open_draft_model(&f->lead, o.max_draft, &s->draft_file, e);
    if (err != OK)
        return err;
    o.draft_file = s->draft_file;
    err = lead_open(&o, &s->lead, e);
    s->leads = err == OK;
    return err;
}

static void unload(struct service *s)
{
    if (s->leads)
        lead_close(&s->lead);
    chat_template_free(s->template);
    tokenizer_close(s->tokenizer);
    modelfile_close(s->draft_file);
    modelfile_close(s->file);
}

/* For /metrics. A ring that has failed is not asked: its nodes would be waited for. */
static int ask_stages(void *context, struct api_stage *out, int most)
{
    struct lead *lead = context;
    struct error reason;
    bool failed = engine_failure(lead->engine, &reason);
    int n = lead->plan.n_stages < most ? lead->plan.n_stages : most;
    for (int i = 0; i < n; i++) {
        struct node_stats s;
        struct api_stage *stage = &out[i];
        snprintf(stage->node, sizeof stage->node, "%s", lead_stage_name(lead, i));
        make_printable(stage->node);
        stage_layers_text(&lead->plan.stages[i], stage->layers);
        stage->known = !failed && stage_stats(lead, i, &s);
        if (!stage->known)
            continue;
        stage->steps = s.steps;
        stage->rows = s.rows;
        stage->busy_us = s.time.busy_us;
        stage->input_wait_us = s.time.input_wait_us;
        stage->send_wait_us = s.time.send_wait_us;
        stage->other_us = s.time.other_us;
        stage->sent_bytes = s.sent_bytes;
        stage->received_bytes = s.received_bytes;
    }
    return n;
}

/* Until SIGTERM or SIGINT, which the caller has blocked. A failed engine is told once; the server
 * goes on answering with the reason. */
static void wait_for_signal(struct service *s, const sigset_t *signals)
{
    bool told = false;
    for (;;) {
        struct timespec wait = {.tv_nsec = WATCH_MS * 1000000L};
        if (sigtimedwait(signals, NULL, &wait) > 0)
            return;
        struct error reason;
        if (!told && engine_failure(s->lead.engine, &reason)) {
            log_error("the ring failed: %s", reason.text);
            told = true;
        }
    }
}

static enum err serve(const struct serve_flags *f, struct service *s, struct api_server *server,
                      const sigset_t *signals, struct error *e)
{
    enum err err = load(f, s, e);
    if (err != OK)
        return err;
    struct api_model model = {.engine = s->lead.engine,
                              .tokenizer = s->tokenizer,
                              .chat_template = s->template,
                              .id = s->id,
                              .created = clock_unix_s(),
                              .max_context = s->lead.context,
                              .vocab = s->lead.params.vocab,
                              .stages = ask_stages,
                              .stages_context = &s->lead};
    api_server_set_model(server, &model);
    if (s->lead.plan.n_stages > 1)
        print_ring(&s->lead);
    struct engine_stats stats;
    engine_stats(s->lead.engine, &stats);
    fprintf(stderr, "serving %s on http://%s (context %d, %d sequences)\n", s->id,
            api_server_address(server), s->lead.context, stats.n_slots);
    wait_for_signal(s, signals);
    return OK;
}

static enum err parse(int argc, char **argv, struct serve_flags *f, const char **model,
                      struct error *e)
{
    const struct flag table[] = {
        {"listen", FLAG_STRING, &f->listen, "H:P", "address (default 127.0.0.1:8100; port 0: any)"},
        {"model-id", FLAG_STRING, &f->model_id, "NAME", "the model's name in the API"},
        SIZE_FLAGS(f->sizes),
        DRAFT_MODEL_FLAG(f->lead),
        LEAD_FLAGS(f->lead),
        BACKEND_FLAGS(f->lead.backend),
        CONTEXT_FLAG(f->lead),
        {0},
    };
    const struct verb_usage usage = {
        "serve",
        "MODEL [--listen H:P] [--nodes H:P,…] [flags]",
        "Serves the model over an OpenAI-compatible HTTP API until stopped.",
        table,
        1,
        1};
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, model, &n_args, e);
    return err == OK ? size_flags_check(&f->sizes, e) : err;
}

/* Other machines may reach the API only where the user said that they may. */
static enum err check_listen(const struct serve_flags *f, struct address *out, struct error *e)
{
    enum err err = address_parse(f->listen, out, e);
    if (err != OK) {
        error_prefix(e, "--listen");
        return ERR_USAGE;
    }
    if (!f->lead.insecure && !address_is_loopback(out))
        return error_set(e, ERR_INVALID,
                         "--listen %s: expected a loopback address (or --insecure: everybody who "
                         "reaches this address may use the model)",
                         f->listen);
    return OK;
}

enum err verb_serve(int argc, char **argv, struct error *e)
{
    struct serve_flags f = {.listen = "127.0.0.1:8100", .sizes = SIZE_FLAGS_UNSAID};
    struct service s = {0};
    struct api_server *server;
    const char *model;
    struct address address;
    enum err err = parse(argc, argv, &f, &model, e);
    if (err == OK)
        err = check_listen(&f, &address, e);
    if (err == OK)
        err = modelfile_open(model, &s.file, e);
    if (err != OK)
        return err;
    if (f.model_id != NULL)
        snprintf(s.id, sizeof s.id, "%s", f.model_id);
    else
        name_of_path(model, s.id);
    make_printable(s.id); /* it goes into JSON */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* inherited by every thread: only we take them */
    err = api_server_start(&(struct api_options){.host = address.host, .port = address.port},
                           &server, e);
    if (err == OK) {
        printf("listening on %s\n", api_server_address(server));
        fflush(stdout);
        err = serve(&f, &s, server, &signals, e);
        api_server_stop(server);
    }
    unload(&s);
    return err;
}
