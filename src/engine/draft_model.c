/* A call makes passes. The first takes, for each sequence, the rows that the draft model has not
 * computed yet, and the last of them gives the first guess; each further pass takes one row of
 * every sequence that wants more. */
#include "engine/draft_model.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "engine/draft.h"
#include "engine/update_list.h"

#include <stdlib.h>
#include <string.h>

enum {
    MANY_UPDATES = STEP_MAX_UPDATES / 2, /* no new sequence beyond: there must be room for blocks */
    FEW_ROWS = 4, /* of a sequence in a first pass: not more than usual, whatever was guessed */
};

/* What was computed of a sequence, in a slot of the stage. */
struct line {
    uint64_t arrival; /* of the sequence; 0: none, and then no slot */
    int slot;
    uint64_t asked;  /* in which call last */
    int32_t *tokens; /* [max_context], of which so many … */
    int n_done;      /* … have keys and values */
};

struct job {
    struct guess_wish wish;
    struct line *line;
    int32_t guesses[DRAFT_MAX];
    int n_guesses;
    int n_rows; /* in the pass at hand */
};

struct draft_model {
    struct draft_model_options options;
    struct slot_book *book;
    struct update_list updates;
    struct line *lines; /* [n_slots] */
    struct guess_wish *wishes;
    struct job *jobs; /* [n_slots] */
    int n_jobs;
    struct step_row *rows; /* of the pass at hand */
    int n_rows;
    float *logits; /* [n_slots][vocab] */
    uint64_t n_steps, n_calls;
};

struct draft_model *draft_model_new(const struct draft_model_options *o)
{
    ASSERT(o->n_slots >= 1 && o->max_rows >= 1 && o->vocab >= 1);
    struct draft_model *d = xcalloc(1, sizeof(*d));
    size_t n = (size_t)o->n_slots;
    d->options = *o;
    if (o->max_context > (int64_t)o->n_blocks * KV_BLOCK_TOKENS)
        d->options.max_context = o->n_blocks * KV_BLOCK_TOKENS;
    update_list_init(&d->updates);
    d->book = slot_book_new(&(struct slot_book_options){.n_slots = o->n_slots,
                                                        .n_blocks = o->n_blocks,
                                                        .max_positions = d->options.max_context,
                                                        .change = update_list_note,
                                                        .context = &d->updates});
    d->lines = xcalloc(n, sizeof(d->lines[0]));
    for (size_t i = 0; i < n; i++)
        d->lines[i].tokens = xcalloc((size_t)d->options.max_context, sizeof(int32_t));
    d->wishes = xcalloc(n, sizeof(d->wishes[0]));
    d->jobs = xcalloc(n, sizeof(d->jobs[0]));
    d->rows = xcalloc((size_t)o->max_rows, sizeof(d->rows[0]));
    d->logits = xcalloc(n * (size_t)o->vocab, sizeof(d->logits[0]));
    return d;
}

void draft_model_free(struct draft_model *d)
{
    if (d == NULL)
        return;
    for (int i = 0; i < d->options.n_slots; i++)
        free(d->lines[i].tokens);
    slot_book_free(d->book);
    update_list_release(&d->updates);
    free(d->lines);
    free(d->wishes);
    free(d->jobs);
    free(d->rows);
    free(d->logits);
    free(d);
}

/* ---- lines ---- */

static void drop_line(struct draft_model *d, struct line *l)
{
    slot_book_close(d->book, l->slot);
    l->arrival = 0;
    l->n_done = 0;
}

/* The line that was asked for longest ago, and not in this call; NULL: none. */
static struct line *idlest(struct draft_model *d)
{
    struct line *found = NULL;
    for (int i = 0; i < d->options.n_slots; i++) {
        struct line *l = &d->lines[i];
        if (l->arrival != 0 && l->asked < d->n_calls && (found == NULL || l->asked < found->asked))
            found = l;
    }
    return found;
}

/* A line with nothing in it; NULL when each is asked for in this call. */
static struct line *empty_line(struct draft_model *d)
{
    for (int i = 0; i < d->options.n_slots; i++)
        if (d->lines[i].arrival == 0)
            return &d->lines[i];
    struct line *l = idlest(d);
    if (l != NULL)
        drop_line(d, l);
    return l;
}

/* A line for a new sequence: the beginning may be there, from another. */
static struct line *begin_line(struct draft_model *d, const struct guess_wish *w)
{
    struct line *l = d->updates.n < MANY_UPDATES ? empty_line(d) : NULL;
    if (l == NULL)
        return NULL;
    l->arrival = w->arrival;
    l->asked = d->n_calls;
    l->slot = slot_book_open(d->book);
    ASSERT(l->slot >= 0);
    struct slot_reuse r =
        slot_book_reuse(d->book, l->slot, w->tokens, 0, w->n_tokens - 1, d->n_steps);
    l->n_done = r.n_done;
    memcpy(l->tokens, w->tokens, (size_t)r.n_done * sizeof(l->tokens[0]));
    return l;
}

static struct line *line_of(struct draft_model *d, const struct guess_wish *w)
{
    for (int i = 0; i < d->options.n_slots; i++)
        if (d->lines[i].arrival == w->arrival) {
            d->lines[i].asked = d->n_calls;
            return &d->lines[i];
        }
    return begin_line(d, w);
}

/* Go back to where the tokens computed and those of the sequence part. Its last one is computed
 * once more, if need be: what follows it is asked for. */
static void go_back(struct line *l, const struct guess_wish *w)
{
    int most = l->n_done < w->n_assumed - 1 ? l->n_done : w->n_assumed - 1, n = 0;
    while (n < most && l->tokens[n] == w->tokens[n])
        n++;
    l->n_done = n;
}

/* Room for n positions, at the cost of lines that nobody asked for. Answers how many there are. */
static int make_room(struct draft_model *d, struct line *l, int n)
{
    for (;;) {
        int there = slot_book_extend(d->book, l->slot, n);
        struct line *other = there < n ? idlest(d) : NULL;
        if (other == NULL)
            return there < n ? there : n;
        drop_line(d, other);
    }
}

/* ---- passes ---- */

static void put_row(struct draft_model *d, struct job *j, int32_t token, bool wants)
{
    struct line *l = j->line;
    d->rows[d->n_rows++] = (struct step_row){.token = (uint32_t)token,
                                             .position = (uint32_t)l->n_done,
                                             .slot = (uint32_t)l->slot,
                                             .want = wants ? WANT_LOGITS : WANT_NONE};
    l->tokens[l->n_done++] = token;
    j->n_rows++;
}

static enum err run_pass(struct draft_model *d, struct error *e)
{
    struct step step = {.epoch = d->options.epoch,
                        .number = d->n_steps,
                        .n_rows = (uint32_t)d->n_rows,
                        .rows = d->rows};
    update_list_take(&d->updates, &step);
    enum err err = stage_forward(d->options.stage, &step, NULL, d->logits, e);
    d->n_steps += err == OK;
    return err;
}

static int32_t best(const float *logits, int vocab)
{
    int32_t at = 0;
    for (int32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[at])
            at = i;
    return at;
}

/* The guesses of a pass, in the order of its rows. Jobs without a wanted row have none. */
static void take_guesses(struct draft_model *d)
{
    const float *logits = d->logits;
    uint32_t row = 0;
    for (int i = 0; i < d->n_jobs; i++) {
        struct job *j = &d->jobs[i];
        row += (uint32_t)j->n_rows;
        if (j->n_rows == 0 || d->rows[row - 1].want != WANT_LOGITS)
            continue;
        j->guesses[j->n_guesses++] = best(logits, d->options.vocab);
        logits += d->options.vocab;
    }
}

static void begin_pass(struct draft_model *d)
{
    update_list_begin(&d->updates);
    d->n_rows = 0;
    for (int i = 0; i < d->n_jobs; i++)
        d->jobs[i].n_rows = 0;
}

/* What is missing of each, as far as rows go: who comes too late goes on in the next call. */
static enum err first_pass(struct draft_model *d, int *n_behind, struct error *e)
{
    begin_pass(d);
    *n_behind = 0;
    for (int i = 0; i < d->n_jobs; i++) {
        struct job *j = &d->jobs[i];
        const struct guess_wish *w = &j->wish;
        int left = d->options.max_rows - d->n_rows - (d->n_jobs - 1 - i); /* a row for each other */
        int n = w->n_assumed - j->line->n_done;
        *n_behind += n > FEW_ROWS + w->n_wanted ? n : 0;
        for (n = n < left ? n : left; n > 0; n--) {
            int at = j->line->n_done;
            put_row(d, j, w->tokens[at], at == w->n_assumed - 1);
        }
        int known = j->line->n_done < w->n_tokens ? j->line->n_done : w->n_tokens;
        slot_book_fill(d->book, j->line->slot, w->tokens, known, d->n_steps);
    }
    enum err err = run_pass(d, e);
    if (err == OK)
        take_guesses(d);
    return err;
}

/* One more guess for each that has some and wants more. *n_rows: how many that were. */
static enum err next_pass(struct draft_model *d, int *n_rows, struct error *e)
{
    begin_pass(d);
    for (int i = 0; i < d->n_jobs; i++) {
        struct job *j = &d->jobs[i];
        if (j->n_guesses > 0 && j->n_guesses < j->wish.n_wanted)
            put_row(d, j, j->guesses[j->n_guesses - 1], true);
    }
    *n_rows = d->n_rows;
    if (d->n_rows == 0)
        return OK;
    enum err err = run_pass(d, e);
    if (err == OK)
        take_guesses(d);
    return err;
}

/* A job for a wish, if there is room for the rows that can be computed now. The last guess needs
 * none. */
static void take_job(struct draft_model *d, const struct guess_wish *wish)
{
    struct guess_wish w = *wish;
    int fit = d->options.max_context - w.n_assumed + 1;
    if (w.n_wanted > fit)
        w.n_wanted = fit;
    struct line *l = w.n_wanted > 0 ? line_of(d, &w) : NULL;
    if (l == NULL)
        return;
    go_back(l, &w);
    int end = w.n_assumed + w.n_wanted - 1, soon = l->n_done + d->options.max_rows + DRAFT_MAX;
    end = end < soon ? end : soon;
    int there = make_room(d, l, end);
    if (there < end && there < w.n_assumed)
        return;
    if (there < w.n_assumed + w.n_wanted - 1 && there >= w.n_assumed)
        w.n_wanted = there - w.n_assumed + 1;
    d->jobs[d->n_jobs++] = (struct job){.wish = w, .line = l};
}

enum err draft_model_serve(struct draft_model *d, struct schedule *s, int *n_timed, struct error *e)
{
    int most = d->options.n_slots < d->options.max_rows ? d->options.n_slots : d->options.max_rows;
    int n = schedule_wishes(s, d->wishes, most), n_behind = 0, n_guesses = 0;
    *n_timed = 0;
    d->n_calls++;
    d->n_jobs = 0;
    update_list_begin(&d->updates);
    for (int i = 0; i < n; i++)
        take_job(d, &d->wishes[i]);
    if (d->n_jobs == 0)
        return OK;
    enum err err = first_pass(d, &n_behind, e);
    for (int n_rows = 1; err == OK && n_rows > 0;)
        err = next_pass(d, &n_rows, e);
    if (err != OK) {
        error_prefix(e, "the draft model");
        return err;
    }
    for (int i = 0; i < d->n_jobs; i++) {
        schedule_offer(s, d->jobs[i].wish.sequence, d->jobs[i].guesses, d->jobs[i].n_guesses);
        n_guesses += d->jobs[i].n_guesses;
    }
    *n_timed = n_behind == 0 ? n_guesses : 0;
    return OK;
}
