#include "cli/bench_guessing.h"

#include "base/panic.h"
#include "cli/bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* Requests that run together; the engine's thread counts, ours waits. */
struct crowd {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    int n_running;
    int64_t n_decoded; /* tokens after the first of each */
    time_us decode_us; /* of the slowest */
    int64_t guessed[N_GUESS_SOURCES], right[N_GUESS_SOURCES];
    struct error error;
};

static void note_end(struct crowd *c, const struct request_event *event)
{
    const struct request_timings *t = event->timings;
    c->n_running--;
    c->n_decoded += t->n_output > 1 ? t->n_output - 1 : 0;
    c->decode_us = t->decode_us > c->decode_us ? t->decode_us : c->decode_us;
    for (int i = 0; i < N_GUESS_SOURCES; i++) {
        c->guessed[i] += t->n_guessed[i];
        c->right[i] += t->n_right[i];
    }
    if (event->error != NULL)
        c->error = *event->error;
}

static void on_event(void *context, const struct request_event *event)
{
    struct crowd *c = context;
    if (event->finish == FINISH_NONE)
        return;
    pthread_mutex_lock(&c->lock);
    note_end(c, event);
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* A prompt that no other repetition has. */
static void fill_prompt(int32_t *ids, int n, int vocab, uint32_t which)
{
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)((((uint32_t)i + 7919 * which) * 2654435761u >> 8) % (uint32_t)vocab);
}

static enum err submit(struct lead *lead, const struct bench_guessing_options *o, uint32_t which,
                       bool no_draft, struct crowd *c, struct error *e)
{
    int32_t *ids = xcalloc((size_t)o->n_prompt, sizeof *ids);
    fill_prompt(ids, o->n_prompt, lead->params.vocab, which);
    struct request_options request = {.prompt = ids,
                                      .n_prompt = o->n_prompt,
                                      .max_tokens = o->n_decode,
                                      .sampling = SAMPLING_GREEDY,
                                      .ignore_eos = true,
                                      .no_draft = no_draft,
                                      .on_event = on_event,
                                      .context = c};
    uint64_t id;
    pthread_mutex_lock(&c->lock);
    enum err err = engine_submit(lead->engine, &request, &id, e);
    c->n_running += err == OK;
    pthread_mutex_unlock(&c->lock);
    free(ids);
    return err;
}

/* The same requests, with guesses or without; *c says what came of it. */
static enum err run(struct lead *lead, const struct bench_guessing_options *o, int batch,
                    uint32_t first, bool no_draft, struct crowd *c, struct error *e)
{
    *c = (struct crowd){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    enum err err = OK;
    for (int i = 0; i < batch && err == OK; i++)
        err = submit(lead, o, first + (uint32_t)i, no_draft, c, e);
    pthread_mutex_lock(&c->lock);
    while (c->n_running > 0)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
    if (err == OK && c->error.code != OK)
        err = error_set(e, c->error.code, "%s", c->error.text);
    return err;
}

static double tok_s_of(const struct crowd *c)
{
    return (double)c->n_decoded * 1e6 / (double)(c->decode_us + 1);
}

static enum err measure(struct lead *lead, const struct bench_guessing_options *o,
                        struct bench_guessing *r, uint32_t *next, struct error *e)
{
    enum err err = OK;
    for (int i = -1; i < o->repeats && err == OK; i++) { /* once to warm up */
        struct crowd with, without;
        err = run(lead, o, r->batch, *next, false, &with, e);
        if (err == OK)
            err = run(lead, o, r->batch, *next, true, &without, e);
        *next += (uint32_t)r->batch;
        if (err != OK || i < 0)
            continue;
        r->tok_s[r->n] = tok_s_of(&with);
        r->plain_tok_s[r->n++] = tok_s_of(&without);
        for (int j = 0; j < N_GUESS_SOURCES; j++) {
            r->guessed[j] += with.guessed[j];
            r->right[j] += with.right[j];
        }
    }
    return err;
}

enum err bench_guessing(const struct bench_guessing_options *o, struct bench_guessing *results,
                        struct error *e)
{
    ASSERT(o->n_prompt >= 1 && o->n_decode >= 2);
    for (int i = 0; i < o->n_batches; i++)
        results[i] =
            (struct bench_guessing){.batch = o->batches[i],
                                    .tok_s = xcalloc((size_t)o->repeats, sizeof(double)),
                                    .plain_tok_s = xcalloc((size_t)o->repeats, sizeof(double))};
    struct lead lead;
    enum err err = lead_open(o->lead, &lead, e);
    if (err != OK)
        return err;
    uint32_t next = 1;
    for (int i = 0; i < o->n_batches && err == OK; i++)
        err = measure(&lead, o, &results[i], &next, e);
    lead_close(&lead);
    return err;
}

void bench_guessing_release(struct bench_guessing *results, int n_batches)
{
    for (int i = 0; i < n_batches; i++) {
        free(results[i].tok_s);
        free(results[i].plain_tok_s);
    }
}

/* ---- reporting ---- */

void bench_guessing_print(struct bench_guessing *r)
{
    double with = bench_median(r->tok_s, r->n), without = bench_median(r->plain_tok_s, r->n);
    printf("guessing, %d seqs: %.2f tok/s (%.2f … %.2f), without %.2f (%.2f … %.2f)\n", r->batch,
           with, r->tok_s[0], r->tok_s[r->n - 1], without, r->plain_tok_s[0],
           r->plain_tok_s[r->n - 1]);
    printf("  by look-up %lld, of them %lld right; by the draft model %lld, %lld\n",
           (long long)r->guessed[GUESS_LOOKUP], (long long)r->right[GUESS_LOOKUP],
           (long long)r->guessed[GUESS_MODEL], (long long)r->right[GUESS_MODEL]);
}

json_t *bench_guessing_json(struct bench_guessing *r)
{
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I}", "tok_s", bench_spread_json(r->tok_s, r->n),
                     "plain_tok_s", bench_spread_json(r->plain_tok_s, r->n), "lookup_tokens",
                     (json_int_t)r->guessed[GUESS_LOOKUP], "lookup_accepted_tokens",
                     (json_int_t)r->right[GUESS_LOOKUP], "model_tokens",
                     (json_int_t)r->guessed[GUESS_MODEL], "model_accepted_tokens",
                     (json_int_t)r->right[GUESS_MODEL]);
}
