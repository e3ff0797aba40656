/* shoal eval: perplexity of a text, or the most likely next tokens of one. */
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lead_flags.h"
#include "cli/lone_sequences.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVAL_ROWS = 64, EVAL_TEXT_BYTES = 64 << 20 };

struct eval_flags {
    struct lead_flags lead;
    const char *ppl, *next;
    int block, top;
    bool json;
};

struct eval {
    const struct eval_flags *flags;
    struct modelfile *file;
    struct tokenizer *tokenizer;
    struct lead lead;
    struct lone_sequences sequence;
    const int32_t *ids; /* of the block under way, BOS first */
    int n_ids;
    double nll; /* nats, summed */
    uint64_t n_scored;
};

/* -log softmax(logits)[id], in double precision. */
static double surprise(const float *logits, int vocab, int32_t id)
{
    double largest = logits[0], sum = 0;
    for (int i = 1; i < vocab; i++)
        largest = logits[i] > largest ? (double)logits[i] : largest;
    for (int i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - largest);
    return largest + log(sum) - (double)logits[id];
}

static void score(int sequence, int position, float *logits, void *context)
{
    (void)sequence;
    struct eval *v = context;
    if (position + 1 >= v->n_ids)
        return; /* what would follow the block is not part of it */
    v->nll += surprise(logits, v->lead.params.vocab, v->ids[position + 1]);
    v->n_scored++;
}

static enum err open_eval(struct eval *v, int context, struct error *e)
{
    struct lead_options o = lead_options_from(&v->flags->lead);
    o.file = v->file;
    o.n_slots = 1;
    o.max_rows = EVAL_ROWS;
    o.no_engine = true;
    o.context = context;
    o.progress = show_progress;
    o.progress_context = "loading";
    enum err err = lead_open(&o, &v->lead, e);
    if (err != OK)
        return err;
    err = lone_sequences_init(&v->sequence, &v->lead, 1, EVAL_ROWS, e);
    if (err != OK)
        lead_close(&v->lead);
    return err;
}

/* Blocks of n ids, each from an empty cache with BOS in front; a short last one is dropped. */
static enum err score_blocks(struct eval *v, const struct token_list *text, int n, struct error *e)
{
    int32_t *ids = malloc((size_t)(n + 1) * sizeof *ids);
    if (ids == NULL)
        return error_set(e, ERR_MEMORY, "no memory for blocks of %d ids", n);
    enum err err = OK;
    ids[0] = (int32_t)tokenizer_bos(v->tokenizer);
    v->ids = ids;
    v->n_ids = n + 1;
    for (size_t at = 0; at + (size_t)n <= text->n && err == OK; at += (size_t)n) {
        for (int i = 0; i < n; i++)
            ids[i + 1] = (int32_t)text->ids[at + (size_t)i];
        lone_sequences_restart(&v->sequence, 1);
        err = lone_sequences_append(&v->sequence, (const int32_t *const[]){ids}, n + 1, true, score,
                                    v, e);
    }
    free(ids);
    return err;
}

static enum err print_perplexity(const struct eval *v, size_t n_tokens, struct error *e)
{
    double mean = v->nll / (double)v->n_scored;
    if (!isfinite(exp(mean)))
        return error_set(e, ERR_INVALID, "no perplexity: the mean over %llu tokens is %g nats",
                         (unsigned long long)v->n_scored, mean);
    if (v->flags->json)
        return print_json(json_pack("{s:f, s:f, s:I, s:I, s:i}", "ppl", exp(mean), "mean_nll", mean,
                                    "scored_tokens", (json_int_t)v->n_scored, "tokens",
                                    (json_int_t)n_tokens, "block", v->flags->block),
                          e);
    printf("ppl %.5f\nmean_nll %.6f\nscored_tokens %llu\n", exp(mean), mean,
           (unsigned long long)v->n_scored);
    return OK;
}

static enum err perplexity(struct eval *v, struct error *e)
{
    struct strbuf text;
    struct token_list ids = {0};
    int n = v->flags->block - 1;
    if (tokenizer_bos(v->tokenizer) == TOKEN_NONE)
        return error_set(e, ERR_UNSUPPORTED, "--ppl: the model has no BOS token to begin a block");
    enum err err = read_whole_file(v->flags->ppl, EVAL_TEXT_BYTES, &text, e);
    if (err != OK)
        return err;
    err = tokenizer_encode(v->tokenizer, text.data, text.bytes, 0, &ids, e);
    if (err == OK && ids.n < (size_t)n)
        err = error_set(e, ERR_INVALID, "%s: expected at least %d tokens (--block), found %zu",
                        v->flags->ppl, n, ids.n);
    if (err == OK)
        err = open_eval(v, v->flags->block, e);
    if (err == OK) {
        err = score_blocks(v, &ids, n, e);
        if (err == OK)
            err = print_perplexity(v, ids.n, e);
        lone_sequences_release(&v->sequence);
        lead_close(&v->lead);
    }
    token_list_release(&ids);
    strbuf_release(&text);
    return err;
}

/* The best `top` of the logits, best first; ties: the lower id. */
struct best {
    int top, vocab, n;
    int32_t *ids;
    float *logits;
};

static void keep_best(int sequence, int position, float *logits, void *context)
{
    (void)sequence;
    (void)position;
    struct best *b = context;
    b->n = 0;
    for (int32_t id = 0; id < b->vocab; id++) {
        int at = b->n;
        while (at > 0 && logits[id] > b->logits[at - 1])
            at--;
        if (at == b->top)
            continue;
        int last = b->n < b->top ? b->n++ : b->top - 1;
        for (int i = last; i > at; i--) {
            b->ids[i] = b->ids[i - 1];
            b->logits[i] = b->logits[i - 1];
        }
        b->ids[at] = id;
        b->logits[at] = logits[id];
    }
}

static enum err print_best(const struct eval *v, const struct best *b, struct error *e)
{
    for (int i = 0; i < b->n; i++)
        if (!isfinite(b->logits[i]))
            return error_set(e, ERR_INVALID, "the model's logits are not finite: token %d has %g",
                             b->ids[i], (double)b->logits[i]);
    json_t *list = json_array();
    for (int i = 0; i < b->n; i++) {
        struct strbuf text;
        strbuf_init(&text, 1 << 12);
        /* A token that only the model knows (a padded vocabulary) has no text. */
        tokenizer_decode(v->tokenizer, &(uint32_t){(uint32_t)b->ids[i]}, 1, 0, &text, NULL);
        if (v->flags->json)
            json_array_append_new(list,
                                  json_pack("{s:i, s:f, s:s%}", "id", (int)b->ids[i], "logit",
                                            (double)b->logits[i], "text", text.data, text.bytes));
        else
            printf("%d %.5f\n", b->ids[i], (double)b->logits[i]);
        strbuf_release(&text);
    }
    if (v->flags->json)
        return print_json(json_pack("{s:o}", "next", list), e);
    json_decref(list);
    return OK;
}

static enum err run_next(struct eval *v, const struct token_list *ids, struct error *e)
{
    int vocab = v->lead.params.vocab;
    struct best b = {.top = v->flags->top < vocab ? v->flags->top : vocab, .vocab = vocab};
    b.ids = calloc((size_t)b.top, sizeof *b.ids);
    b.logits = calloc((size_t)b.top, sizeof *b.logits);
    enum err err = OK;
    if (b.ids == NULL || b.logits == NULL)
        err = error_set(e, ERR_MEMORY, "no memory for the best %d tokens", b.top);
    if (err == OK)
        err = lone_sequences_append(&v->sequence, (const int32_t *const[]){(int32_t *)ids->ids},
                                    (int)ids->n, false, keep_best, &b, e);
    if (err == OK)
        err = print_best(v, &b, e);
    free(b.ids);
    free(b.logits);
    return err;
}

static enum err next_tokens(struct eval *v, struct error *e)
{
    struct token_list ids = {0};
    struct model_params p;
    enum err err = tokenizer_encode(v->tokenizer, v->flags->next, strlen(v->flags->next),
                                    TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &ids, e);
    if (err == OK)
        err = modelfile_params(v->file, &p, e);
    if (err == OK && (ids.n == 0 || ids.n > (size_t)p.context))
        err =
            error_set(e, ERR_LIMIT, "--next: expected 1 to %d tokens, found %zu", p.context, ids.n);
    if (err == OK)
        err = open_eval(v, (int)ids.n, e);
    if (err == OK) {
        err = run_next(v, &ids, e);
        lone_sequences_release(&v->sequence);
        lead_close(&v->lead);
    }
    token_list_release(&ids);
    return err;
}

static enum err parse(int argc, char **argv, struct eval_flags *f, const char **model,
                      struct error *e)
{
    const struct flag table[] = {
        {"ppl", FLAG_STRING, &f->ppl, "FILE", "perplexity of this text"},
        {"block", FLAG_INT, &f->block, "N", "positions of a block, BOS included (default 256)",
         .min = 2, .max = SHAPE_MAX_CONTEXT},
        {"next", FLAG_STRING, &f->next, "TEXT", "the most likely tokens after this text"},
        {"top", FLAG_INT, &f->top, "K", "how many of them (default 5)", .min = 1, .max = 10000},
        {"json", FLAG_BOOL, &f->json, NULL, "print JSON"},
        LEAD_FLAGS(f->lead),
        BACKEND_FLAGS(f->lead.backend),
        {0},
    };
    const struct verb_usage usage = {
        "eval",
        "MODEL --ppl FILE | --next TEXT [flags]",
        "Perplexity: the text's tokens are cut into blocks of N-1, each is run from an empty "
        "cache\n"
        "after BOS and every token is scored; a short last block is dropped.",
        table,
        1,
        1};
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, model, &n_args, e);
    if (err == OK && (f->ppl != NULL) == (f->next != NULL))
        return error_set(e, ERR_USAGE, "expected either --ppl FILE or --next TEXT");
    return err;
}

enum err verb_eval(int argc, char **argv, struct error *e)
{
    struct eval_flags f = {.block = 256, .top = 5};
    struct eval v = {.flags = &f};
    const char *model;
    enum err err = parse(argc, argv, &f, &model, e);
    if (err == OK)
        err = open_model_and_tokenizer(model, &v.file, &v.tokenizer, e);
    if (err != OK)
        return err;
    err = f.ppl != NULL ? perplexity(&v, e) : next_tokens(&v, e);
    tokenizer_close(v.tokenizer);
    modelfile_close(v.file);
    return err;
}
