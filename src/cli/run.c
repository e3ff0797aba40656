/* shoal run: one prompt, one completion on stdout, all else on stderr. */
#include "base/random.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lead_flags.h"
#include "cli/sampling_flags.h"
#include "engine/draft.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_MAX_ROWS = 256, RUN_DRAFT = 8 };

struct run_flags {
    struct lead_flags lead;
    const char *prompt;
    int n, draft;
    struct sampling sampling;
    bool seed_given, ignore_eos, truncate, json;
};

/* A request under way: the engine's thread fills it in, the main thread waits for `done`. */
struct completion {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool done;
    bool unwritable; /* stdout took no more: going on would be for nobody */
    bool too_long;   /* ids or text found no memory */
    bool quiet;      /* --json: the text is printed at the end, inside the object */
    struct token_list ids;
    struct strbuf text;
    enum finish_reason finish;
    struct error error;
    struct request_timings timings;
};

static void on_event(void *context, const struct request_event *event)
{
    struct completion *c = context;
    /* The token that ended the text is not part of it. */
    bool is_end = event->finish == FINISH_STOP && event->stop == NULL;
    pthread_mutex_lock(&c->lock);
    if (event->token >= 0 && !is_end &&
        token_list_append(&c->ids, &(uint32_t){(uint32_t)event->token}, 1, NULL) != OK)
        c->too_long = true;
    strbuf_append(&c->text, event->text, event->text_bytes);
    c->too_long |= c->text.failed;
    if (!c->quiet && event->text_bytes > 0) {
        fwrite(event->text, 1, event->text_bytes, stdout);
        if (fflush(stdout) != 0)
            c->unwritable = true;
    }
    if (c->unwritable || c->too_long)
        pthread_cond_signal(&c->changed);
    if (event->finish != FINISH_NONE) {
        c->finish = event->finish;
        if (event->error != NULL)
            c->error = *event->error;
        if (event->timings != NULL)
            c->timings = *event->timings;
        c->done = true;
        pthread_cond_signal(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
}

static double per_second(int n, time_us us)
{
    return us > 0 && n > 0 ? n * 1e6 / (double)us : 0;
}

static json_t *ids_json(const uint32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer(ids[i]));
    return array;
}

static const char *finish_name(enum finish_reason r)
{
    switch (r) {
    case FINISH_STOP: return "stop";
    case FINISH_LENGTH: return "length";
    case FINISH_CANCELLED: return "cancelled";
    case FINISH_ERROR: return "error";
    case FINISH_NONE: break;
    }
    return "none";
}

static int all_sources(const int n[N_GUESS_SOURCES])
{
    return n[GUESS_LOOKUP] + n[GUESS_MODEL];
}

static json_t *timings_json(const struct lead *lead, const struct request_timings *t)
{
    return json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "load_s",
        (double)lead->load_us / 1e6, "prefill_s", (double)t->prefill_us / 1e6, "prefill_tok_s",
        per_second(t->n_prompt, t->prefill_us), "decode_s", (double)t->decode_us / 1e6,
        "decode_tok_s", per_second(t->n_output - 1, t->decode_us), "n_prompt", t->n_prompt,
        "n_truncated", t->n_truncated, "n_output", t->n_output, "draft_tokens", all_sources(t->n_guessed), "draft_accepted_tokens",
        all_sources(t->n_right), "draft_model_tokens", t->n_guessed[GUESS_MODEL],
        "draft_model_accepted_tokens", t->n_right[GUESS_MODEL]);
}

static enum err report(struct lead *lead, const struct run_flags *f,
                       const struct token_list *prompt, struct completion *c, struct error *e)
{
    const struct request_timings *t = &c->timings;
    if (f->json)
        return print_json(json_pack("{s:o, s:o, s:s%, s:s, s:o, s:o}", "prompt_ids",
                                    ids_json(prompt->ids, prompt->n), "ids",
                                    ids_json(c->ids.ids, c->ids.n), "text", c->text.data,
                                    c->text.bytes, "finish_reason", finish_name(c->finish),
                                    "timings", timings_json(lead, t), "nodes", ring_json(lead)),
                          e);
    putchar('\n');
    fflush(stdout);
    fprintf(stderr, "\n");
    if (lead->plan.n_stages > 1)
        print_ring(lead);
    if (t->n_truncated > 0)
        fprintf(stderr, "the first %d tokens of the prompt were dropped\n", t->n_truncated);
    fprintf(stderr, "load %.2f s; prompt %d tokens, %.1f tok/s; output %d tokens, %.1f tok/s\n",
            (double)lead->load_us / 1e6, t->n_prompt, per_second(t->n_prompt, t->prefill_us),
            t->n_output, per_second(t->n_output - 1, t->decode_us));
    if (f->lead.draft_model != NULL)
        fprintf(stderr, "guessed ahead %d tokens, %d of them right; by the draft model %d, %d\n",
                all_sources(t->n_guessed), all_sources(t->n_right), t->n_guessed[GUESS_MODEL],
                t->n_right[GUESS_MODEL]);
    return OK;
}

static enum err generate(struct lead *lead, const struct run_flags *f,
                         const struct token_list *prompt, struct completion *c, struct error *e)
{
    struct request_options request = {.prompt = (const int32_t *)prompt->ids,
                                      .n_prompt = (int)prompt->n,
                                      .truncate = f->truncate,
                                      .max_tokens = f->n,
                                      .sampling = f->sampling,
                                      .ignore_eos = f->ignore_eos,
                                      .on_event = on_event,
                                      .context = c};
    uint64_t id;
    enum err err = engine_submit(lead->engine, &request, &id, e);
    if (err != OK)
        return err;
    bool cancelled = false;
    pthread_mutex_lock(&c->lock);
    while (!c->done) {
        if ((c->unwritable || c->too_long) && !cancelled) {
            cancelled = true;
            engine_cancel(lead->engine, id);
        }
        pthread_cond_wait(&c->changed, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    if (c->unwritable)
        return error_set(e, ERR_IO, "writing to standard output failed");
    if (c->too_long)
        return error_set(e, ERR_LIMIT, "the generated text does not fit in memory (limit %d bytes)",
                         TEXT_MAX_BYTES);
    if (c->finish != FINISH_ERROR)
        return OK;
    if (!f->json && c->text.bytes > 0)
        putchar('\n');
    return error_set(e, c->error.code, "%s", c->error.text);
}

/* Positions for this prompt and completion; a prompt that fills the model's context is refused, or
 * truncated by the engine. */
static enum err choose_context(const struct run_flags *f, const struct modelfile *file,
                               size_t n_prompt, struct lead_options *o, struct error *e)
{
    int n = f->n;
    struct model_params p;
    enum err err = modelfile_params(file, &p, e);
    if (err != OK)
        return err;
    int most = o->context > 0 && o->context < p.context ? o->context : p.context;
    if (n_prompt == 0)
        return error_set(e, ERR_INVALID, "the prompt is empty and the model has no BOS token");
    if (n_prompt >= (size_t)most && !f->truncate)
        return error_set(e, ERR_LIMIT,
                         "the prompt is too long: expected at most %d tokens (context %d), found "
                         "%zu; --truncate drops its beginning",
                         most - 1, most, n_prompt);
    if (o->context == 0 && n >= 0 && n_prompt + (size_t)n < (size_t)p.context)
        o->context = (int)n_prompt + n;
    return OK;
}

static enum err run_prompt(const struct run_flags *f, struct modelfile *file,
                           const struct tokenizer *tokenizer, const struct token_list *prompt,
                           struct error *e)
{
    struct lead_options o = lead_options_from(&f->lead);
    o.file = file;
    o.tokenizer = tokenizer;
    o.n_slots = 1;
    o.max_rows = RUN_MAX_ROWS;
    o.max_draft = f->draft;
    o.progress = show_progress;
    o.progress_context = "loading";
    struct lead lead;
    struct completion c = {.quiet = f->json};
    enum err err = choose_context(f, file, prompt->n, &o, e);
    if (err == OK)
        err = open_draft_model(&f->lead, f->draft, &o.draft_file, e);
    if (err == OK)
        err = lead_open(&o, &lead, e);
    if (err != OK) {
        modelfile_close(o.draft_file);
        return err;
    }
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.changed, NULL);
    strbuf_init(&c.text, TEXT_MAX_BYTES);
    err = generate(&lead, f, prompt, &c, e);
    if (err == OK)
        err = report(&lead, f, prompt, &c, e);
    lead_close(&lead);
    modelfile_close(o.draft_file);
    strbuf_release(&c.text);
    token_list_release(&c.ids);
    pthread_cond_destroy(&c.changed);
    pthread_mutex_destroy(&c.lock);
    return err;
}

static enum err parse(int argc, char **argv, struct run_flags *f, const char **model,
                      struct error *e)
{
    struct sampling *s = &f->sampling;
    const struct flag table[] = {
        {"p", FLAG_STRING, &f->prompt, "TEXT", "the prompt (\"\": from BOS alone)"},
        {"n", FLAG_INT, &f->n, "N", "tokens to generate (default: until the end)", .min = 0,
         .max = SHAPE_MAX_CONTEXT},
        {"temp", FLAG_FLOAT, &s->temperature, "T", "temperature; 0 (default) is greedy",
         .max = 100},
        {"top-k", FLAG_INT, &s->top_k, "K", "sample from the K best; 0: all", .max = 1 << 22},
        {"top-p", FLAG_FLOAT, &s->top_p, "P", "… from the best with probability P together",
         .min = 1e-6, .max = 1},
        {"min-p", FLAG_FLOAT, &s->min_p, "P", "… from those with P of the best's probability",
         .max = 1},
        {"repeat-penalty", FLAG_FLOAT, &s->repetition_penalty, "R", "repetition penalty; 1: none",
         .min = 1e-3, .max = 100},
        SAMPLING_FLAGS(*s),
        {"seed", FLAG_U64, &s->seed, "S", "of the random numbers (default: a random one)",
         .given = &f->seed_given},
        {"truncate", FLAG_BOOL, &f->truncate, NULL,
         "a prompt that is too long loses its beginning, but for the BOS token"},
        {"ignore-eos", FLAG_BOOL, &f->ignore_eos, NULL, "go on after the end of text"},
        {"json", FLAG_BOOL, &f->json, NULL, "print one JSON object instead of the text"},
        {"draft", FLAG_INT, &f->draft, "N", "tokens guessed ahead in a step (default 8); 0: none",
         .max = DRAFT_MAX},
        DRAFT_MODEL_FLAG(f->lead),
        LEAD_FLAGS(f->lead),
        BACKEND_FLAGS(f->lead.backend),
        CONTEXT_FLAG(f->lead),
        {0},
    };
    const struct verb_usage usage = {
        "run",
        "MODEL -p TEXT [flags]",
        "Generates a completion of the prompt on stdout. MODEL is a GGUF file or a Hugging Face "
        "folder.",
        table,
        1,
        1};
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, model, &n_args, e);
    if (err == OK && f->prompt == NULL)
        return error_set(e, ERR_USAGE, "expected a prompt: -p TEXT");
    return err;
}

enum err verb_run(int argc, char **argv, struct error *e)
{
    struct run_flags f = {.n = -1, .draft = RUN_DRAFT, .sampling = SAMPLING_GREEDY};
    const char *model;
    enum err err = parse(argc, argv, &f, &model, e);
    if (err != OK)
        return err;
    if (!f.seed_given)
        err = random_bytes(&f.sampling.seed, sizeof f.sampling.seed, e);
    if (err != OK)
        return err;
    struct modelfile *file;
    struct tokenizer *tokenizer;
    err = open_model_and_tokenizer(model, &file, &tokenizer, e);
    if (err != OK)
        return err;
    struct token_list prompt = {0};
    err = tokenizer_encode(tokenizer, f.prompt, strlen(f.prompt),
                           TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &prompt, e);
    if (err == OK)
        err = run_prompt(&f, file, tokenizer, &prompt, e);
    token_list_release(&prompt);
    tokenizer_close(tokenizer);
    modelfile_close(file);
    return err;
}
