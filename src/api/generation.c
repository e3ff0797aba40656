#include "api/generation_impl.h"

#include "api/token_logprobs_impl.h"
#include "base/bounds.h"
#include "base/panic.h"

#include <stdlib.h>

struct choice {
    struct generation *generation;
    struct choice_state state;
    uint64_t engine_id;
    bool submitted; /* engine_id is known */
    bool wants_logprobs;
    size_t text_bytes, given_bytes; /* text that came, and that was taken */
};

struct generation {
    struct engine *engine;
    struct sleeper sleeper;
    int n_choices;

    pthread_mutex_t lock; /* guards all below */
    int refs;             /* the connection's and one per running choice */
    int n_ended;
    bool news;      /* since the reader last looked */
    bool sleeping;  /* the reader was put to sleep and not yet woken */
    bool gone;      /* nobody will read */
    bool cancelled; /* stop what is submitted, also what is being submitted now */
    struct choice choices[];
};

struct generation *generation_new(struct engine *engine, int n_choices,
                                  const struct sleeper *sleeper)
{
    ASSERT(n_choices >= 1 && n_choices <= REQUEST_MAX_CHOICES);
    struct generation *g = calloc(1, sizeof *g + n_choices * sizeof g->choices[0]);
    if (g == NULL)
        return NULL;
    *g = (struct generation){
        .engine = engine, .sleeper = *sleeper, .n_choices = n_choices, .refs = 1};
    pthread_mutex_init(&g->lock, NULL);
    for (int i = 0; i < n_choices; i++) {
        g->choices[i].generation = g;
        strbuf_init(&g->choices[i].state.text, REQUEST_MAX_TEXT_BYTES);
        strbuf_init(&g->choices[i].state.logprobs, REQUEST_MAX_TEXT_BYTES);
    }
    return g;
}

/* Give one reference back and the lock with it. */
static void unlock_and_drop(struct generation *g)
{
    bool last = --g->refs == 0;
    pthread_mutex_unlock(&g->lock);
    if (!last)
        return;
    for (int i = 0; i < g->n_choices; i++)
        choice_state_release(&g->choices[i].state);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static void wake_reader(struct generation *g)
{
    if (g->sleeping)
        g->sleeper.wake(g->sleeper.context);
    g->sleeping = false;
}

static void end_choice(struct choice *c, const struct request_event *event)
{
    struct choice_state *s = &c->state;
    s->finish = event->finish;
    if (event->timings != NULL)
        s->timings = *event->timings;
    if (event->error != NULL)
        s->error = *event->error;
    else
        error_set(&s->error, ERR_INTERNAL, "the engine gave no reason");
    if (s->text.failed || s->logprobs.failed) {
        s->finish = FINISH_ERROR;
        error_set(&s->error, ERR_LIMIT, "more than %d bytes of %s waited for the client",
                  REQUEST_MAX_TEXT_BYTES, s->text.failed ? "text" : "log-probabilities");
    }
    token_logprobs_end(&s->logprobs, event, c->text_bytes);
    c->generation->n_ended++;
}

/* The engine's thread. */
static void on_event(void *context, const struct request_event *event)
{
    struct choice *c = context;
    struct generation *g = c->generation;
    bool last = event->finish != FINISH_NONE;
    pthread_mutex_lock(&g->lock);
    if (!g->gone) {
        strbuf_append(&c->state.text, event->text, event->text_bytes);
        c->text_bytes += event->text_bytes;
        token_logprobs_add(&c->state.logprobs, event);
    }
    if (last)
        end_choice(c, event);
    if (last || event->text_bytes > 0) {
        g->news = true;
        wake_reader(g);
    }
    if (last)
        unlock_and_drop(g);
    else
        pthread_mutex_unlock(&g->lock);
}

enum err generation_submit(struct generation *g, int choice_i, const struct request_options *o,
                           struct error *e)
{
    ASSERT(choice_i >= 0 && choice_i < g->n_choices);
    struct choice *c = &g->choices[choice_i];
    struct request_options mine = *o;
    mine.on_event = on_event;
    mine.context = c;
    c->wants_logprobs = o->logprobs;
    pthread_mutex_lock(&g->lock);
    g->refs++; /* before the first event can come */
    pthread_mutex_unlock(&g->lock);

    uint64_t id;
    enum err err = engine_submit(g->engine, &mine, &id, e);
    pthread_mutex_lock(&g->lock);
    if (err != OK) {
        unlock_and_drop(g);
        return err;
    }
    c->engine_id = id;
    c->submitted = true;
    bool cancelled = g->cancelled;
    pthread_mutex_unlock(&g->lock);
    if (cancelled) /* meanwhile */
        engine_cancel(g->engine, id);
    return OK;
}

enum take_result generation_take(struct generation *g, bool whole)
{
    pthread_mutex_lock(&g->lock);
    ASSERT(!g->sleeping);
    enum take_result result = TAKE_NEWS;
    if (g->gone) {
        result = TAKE_GONE;
    } else if (whole ? g->n_ended < g->n_choices : !g->news) {
        result = TAKE_SLEEPING;
        g->sleeping = true;
        g->sleeper.sleep(g->sleeper.context);
    } else {
        g->news = false;
    }
    pthread_mutex_unlock(&g->lock);
    return result;
}

/* Text as far as whole tokens have come, with these; when the choice has ended, all of both. */
static void take_tokens(struct choice *c, struct choice_state *out)
{
    struct choice_state *s = &c->state;
    strbuf_init(&out->text, REQUEST_MAX_TEXT_BYTES);
    strbuf_init(&out->logprobs, REQUEST_MAX_TEXT_BYTES);
    size_t end = token_logprobs_take(&s->logprobs, c->text_bytes, c->given_bytes, &out->logprobs);
    if (s->finish != FINISH_NONE)
        end = c->text_bytes;
    strbuf_append(&out->text, s->text.data, end - c->given_bytes);
    out->text.failed |= s->text.failed;
    strbuf_drop(&s->text, end - c->given_bytes);
    c->given_bytes = end;
}

void generation_read(struct generation *g, int choice_i, struct choice_state *out)
{
    ASSERT(choice_i >= 0 && choice_i < g->n_choices);
    struct choice *c = &g->choices[choice_i];
    pthread_mutex_lock(&g->lock);
    *out = c->state;
    if (c->wants_logprobs)
        take_tokens(c, out);
    else
        strbuf_init(&c->state.text, REQUEST_MAX_TEXT_BYTES);
    pthread_mutex_unlock(&g->lock);
}

void choice_state_release(struct choice_state *c)
{
    strbuf_release(&c->text);
    strbuf_release(&c->logprobs);
}

void generation_cancel(struct generation *g, bool gone)
{
    uint64_t ids[REQUEST_MAX_CHOICES];
    int n = 0;
    pthread_mutex_lock(&g->lock);
    g->cancelled = true;
    for (int i = 0; i < g->n_choices; i++)
        if (g->choices[i].submitted && g->choices[i].state.finish == FINISH_NONE)
            ids[n++] = g->choices[i].engine_id;
    if (gone) {
        g->gone = true;
        wake_reader(g);
    }
    pthread_mutex_unlock(&g->lock);
    /* Not under our lock: the engine may hold its own while it calls on_event. */
    for (int i = 0; i < n; i++)
        engine_cancel(g->engine, ids[i]);
}

void generation_detach(struct generation *g)
{
    generation_cancel(g, true);
    pthread_mutex_lock(&g->lock);
    ASSERT(!g->sleeping);
    unlock_and_drop(g);
}
