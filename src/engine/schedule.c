/* How a step is put together. Who has slots and blocks is decided in admission.c; sequences and
 * their lists are in sequences.c, guesses in guessing.c, times in pace.c. Flights are a circle of
 * records of what each step carried, so that its return can be settled. */
#include "engine/schedule_impl.h"

#include "base/panic.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MIN_CHUNK = 32 };

static struct list *list_of(struct schedule *s, enum list_kind kind)
{
    return &s->sequences.lists[kind];
}

/* ---- life of the schedule ---- */

struct schedule *schedule_new(const struct schedule_options *o)
{
    ASSERT(o->max_context >= 1 && o->n_blocks >= 1 && o->max_sequences >= 1);
    ASSERT(o->n_slots >= 1 && o->n_slots <= SLOT_MAX);
    ASSERT(o->max_rows >= 1 && o->max_rows <= STEP_MAX_ROWS && o->n_flights >= 1);
    ASSERT(o->max_draft >= 0 && o->max_draft <= DRAFT_MAX);
    struct schedule *s = xcalloc(1, sizeof(*s));
    s->options = *o;
    if (o->min_chunk <= 0)
        s->options.min_chunk = DEFAULT_MIN_CHUNK;
    if (o->n_stages <= 0)
        s->options.n_stages = most_of(o->n_flights - 1, 1);
    s->model_accepted = acceptance_begin(GUESS_MODEL);
    update_list_init(&s->updates);
    s->book = slot_book_new(&(struct slot_book_options){.n_slots = o->n_slots,
                                                        .n_blocks = o->n_blocks,
                                                        .max_positions = o->max_context,
                                                        .window = o->window,
                                                        .cache_key = o->cache_key,
                                                        .no_reuse = o->no_reuse,
                                                        .change = update_list_note,
                                                        .context = &s->updates});
    sequences_init(&s->sequences, o->max_sequences);
    s->flights = xcalloc((size_t)o->n_flights, sizeof(s->flights[0]));
    for (int i = 0; i < o->n_flights; i++)
        s->flights[i].shares = xcalloc((size_t)o->max_rows, sizeof(s->flights[i].shares[0]));
    s->rows = xcalloc((size_t)o->max_rows, sizeof(s->rows[0]));
    s->wanted = xcalloc((size_t)o->max_rows, sizeof(s->wanted[0]));
    return s;
}

void schedule_free(struct schedule *s)
{
    if (s == NULL)
        return;
    sequences_release(&s->sequences);
    for (int i = 0; i < s->options.n_flights; i++)
        free(s->flights[i].shares);
    slot_book_free(s->book);
    free(s->flights);
    free(s->rows);
    update_list_release(&s->updates);
    free(s->wanted);
    free(s);
}

void schedule_clock(struct schedule *s, int64_t now_us)
{
    ASSERT(now_us >= s->now_us);
    s->now_us = now_us;
}

/* ---- sequences ---- */

/* Tokens that all blocks together hold, going by one sequence: with a window, which gives blocks
 * back as it moves on, any number. */
static int64_t tokens_in_blocks(const struct schedule *s)
{
    const struct schedule_options *o = &s->options;
    bool any_length = o->window > 0 && slot_book_blocks_at_once(s->book, 1) <= o->n_blocks;
    return any_length ? INT64_MAX : (int64_t)o->n_blocks * KV_BLOCK_TOKENS;
}

int schedule_most(const struct schedule *s)
{
    int64_t held = tokens_in_blocks(s);
    return held < s->options.max_context ? (int)held : s->options.max_context;
}

enum err schedule_room(const struct schedule *s, int n_prompt, int max_tokens, int *room,
                       struct error *e)
{
    int64_t held = tokens_in_blocks(s);
    ASSERT(n_prompt >= 1);
    *room = 0;
    if (n_prompt > s->options.max_context)
        return error_set(e, ERR_LIMIT,
                         "the prompt has %d tokens, but the context is only %d tokens long",
                         n_prompt, s->options.max_context);
    if (n_prompt > held)
        return error_set(e, ERR_LIMIT,
                         "the prompt has %d tokens, but all key-value blocks hold only %lld",
                         n_prompt, (long long)held);
    *room = schedule_most(s) - n_prompt;
    if (max_tokens >= 0 && max_tokens < *room)
        *room = max_tokens;
    return OK;
}

enum err schedule_add(struct schedule *s, const struct sequence_options *o, int *sequence,
                      struct error *e)
{
    ASSERT(o->n_prompt >= 1 && o->room >= 1);
    ASSERT(o->room <= s->options.max_context - o->n_prompt);
    *sequence = -1;
    int limit = o->n_prompt + o->room, i = sequences_take(&s->sequences);
    if (i < 0)
        return error_set(e, ERR_FULL, "there are %d sequences already", s->options.max_sequences);
    struct sequence *q = &s->sequences.all[i];
    q->tokens = malloc((size_t)limit * sizeof(q->tokens[0]));
    q->guesses = s->options.max_draft > 0 && !o->no_draft;
    if (q->guesses)
        q->draft = draft_new(limit);
    q->accepted[GUESS_LOOKUP] = acceptance_begin(GUESS_LOOKUP);
    q->accepted[GUESS_MODEL] = s->model_accepted;
    if (q->tokens == NULL) {
        sequences_give_back(&s->sequences, i);
        return error_set(e, ERR_MEMORY, "no memory for a sequence of %d tokens", limit);
    }
    memcpy(q->tokens, o->prompt, (size_t)o->n_prompt * sizeof(q->tokens[0]));
    q->n_tokens = q->n_assumed = q->n_prompt = o->n_prompt;
    q->limit = limit;
    q->priority = o->priority;
    q->waiting_since = s->now_us;
    if (q->draft != NULL)
        draft_note(q->draft, q->tokens, q->n_tokens);
    list_insert(&s->sequences, i, LIST_WAITING);
    *sequence = i;
    return OK;
}

const int32_t *schedule_tokens(const struct schedule *s, int sequence, int *n_tokens)
{
    const struct sequence *q = sequences_live(&s->sequences, sequence);
    *n_tokens = q->n_tokens;
    return q->tokens;
}

void schedule_end(struct schedule *s, int sequence)
{
    struct sequence *q = sequences_live(&s->sequences, sequence);
    if (q->slot >= 0)
        slot_book_close(s->book, q->slot);
    sequences_give_back(&s->sequences, sequence);
}

/* ---- rows ---- */

/* Put the next n tokens of a sequence into the step, guesses that follow them included. Its table
 * covers them. The row of its last token wants logits, and that of each guess. */
static void put_rows(struct schedule *s, struct flight *flight, int i, int n)
{
    struct sequence *q = &s->sequences.all[i];
    struct share share = {.sequence = i, .life = q->life, .n_rows = n};
    ASSERT(n >= 1 && q->n_sent + n <= q->n_assumed);
    ASSERT(s->n_rows + n <= s->options.max_rows);
    for (int j = 0; j < n; j++, q->n_sent++) {
        bool wants = q->n_sent >= q->n_tokens - 1;
        s->rows[s->n_rows++] = (struct step_row){.token = (uint32_t)q->tokens[q->n_sent],
                                                 .position = (uint32_t)q->n_sent,
                                                 .slot = (uint32_t)q->slot,
                                                 .want = wants ? WANT_LOGITS : WANT_NONE};
        share.n_wanted += wants;
    }
    slot_book_fill(s->book, q->slot, q->tokens, least_of(q->n_sent, q->n_tokens), s->n_steps);
    flight->shares[flight->n_shares++] = share;
    q->in_step = s->n_steps + 1;
    q->n_flying++;
}

/* How many flights decoding sequences are spread over. */
static int decode_flights(const struct schedule *s)
{
    const struct schedule_options *o = &s->options;
    bool all = !o->fit_flights || s->spread.is_wide || o->n_flights <= o->n_stages;
    return all ? o->n_flights : o->n_stages;
}

static int64_t share(int64_t n, int flights)
{
    return (n + flights - 1) / flights;
}

/* Fewer flights than there may be come about only if decoding sequences wait for each other. */
bool schedule_may_decode(const struct schedule *s)
{
    int n = 0;
    for (int i = 0; i < s->n_in_flight; i++) {
        const struct flight *f = &s->flights[(s->oldest_flight + i) % s->options.n_flights];
        n += f->n_rows > f->n_prompt;
    }
    return n < decode_flights(s);
}

int schedule_decoding_share(const struct schedule *s, int n)
{
    return (int)share(n, decode_flights(s));
}

/* The last token of each decoding sequence that is not in flight, with guesses at what follows, for
 * as many as are this flight's share. The scheduled ones go to the end of the list, which is how
 * the others come next. */
static void schedule_known(struct schedule *s, struct flight *flight, int most)
{
    int left = list_of(s, LIST_DECODING)->length;
    for (int i = list_of(s, LIST_DECODING)->first; left > 0 && i >= 0; left--) {
        struct sequence *q = &s->sequences.all[i];
        if (flight->n_shares == most || s->n_rows == s->options.max_rows)
            return;
        bool ready = q->n_sent < q->n_tokens && schedule_cover(s, i, q->n_tokens) == q->n_tokens;
        int next = q->after; /* who it was before may have been preempted */
        if (ready) {
            int others = least_of(left, most - flight->n_shares) - 1;
            guess_look_up(s, q);
            int n = guess_rows(s, q, s->options.max_rows - s->n_rows - 1 - others);
            if (n == 0)
                guess_none(s, q);
            put_rows(s, flight, i, 1 + n);
            list_append(&s->sequences, i, LIST_DECODING);
        }
        i = next;
    }
}

/* Guesses that follow guesses on their way. Their sequences keep their places in the list: what is
 * known goes first, now and later. */
static void schedule_ahead(struct schedule *s, struct flight *flight, int most)
{
    int i = list_of(s, LIST_DECODING)->first;
    for (; i >= 0 && flight->n_shares < most; i = s->sequences.all[i].after) {
        struct sequence *q = &s->sequences.all[i];
        if (!guess_may_go_ahead(s, q))
            continue;
        guess_look_up(s, q);
        int n = guess_rows(s, q, s->options.max_rows - s->n_rows);
        if (n == 0)
            continue;
        put_rows(s, flight, i, n);
        s->totals.shares_ahead++;
    }
}

static void schedule_decoding(struct schedule *s, struct flight *flight)
{
    int most = schedule_decoding_share(s, list_of(s, LIST_DECODING)->length);
    schedule_known(s, flight, most);
    schedule_ahead(s, flight, most);
}

/* How large the chunks of `total` prompt rows should be, that a ring is filled with and empties
 * behind. In N stages of equal speed, chunk behind chunk, the last one is through after the time of
 * all rows in one stage and N - 1 times that of the largest chunk, whatever the others are: so all
 * are alike. Smaller ones let stages idle for less, but each costs `own` rows by itself:
 * (total / c) * own + (N - 1) * c is least for c = sqrt(total * own / (N - 1)). */
static int chunk_for(const struct schedule *s, int64_t total)
{
    int chunk = (int)share(total, s->options.n_flights), n_behind = s->options.n_flights - 2;
    if (n_behind <= 0)
        return chunk;
    double rows = sqrt((double)total * pace_step_cost_rows(&s->pace) / n_behind);
    return rows < chunk ? (int)rows : chunk;
}

/* How many prompt rows this step should take: a chunk, as far as the budget goes and the time that
 * running streams grant. As prompts are done what is left gets less, but not so the chunk: the
 * stages have idled for it already. */
static int prompt_rows(struct schedule *s)
{
    int64_t total = 0;
    for (int i = list_of(s, LIST_PROMPT)->first; i >= 0; i = s->sequences.all[i].after)
        total += s->sequences.all[i].n_tokens;
    int rows = chunk_for(s, total);
    if (rows < s->options.min_chunk)
        rows = s->options.min_chunk;
    s->chunk = total == 0 ? 0 : rows > s->chunk ? rows : s->chunk;
    rows = least_of(s->chunk, s->options.max_rows - s->n_rows);
    if (list_of(s, LIST_DECODING)->length == 0)
        return rows;
    struct pace_bound bound = {.max_step_us = s->options.max_itl_us / s->options.n_flights,
                               .max_stretch = s->options.max_stretch};
    int n_decoding = schedule_decoding_share(s, list_of(s, LIST_DECODING)->length);
    return least_of(rows, pace_prompt_rows(&s->pace, &bound, n_decoding));
}

/* Take over what was computed before. False: more of it can be had in the next step. */
static bool reuse(struct schedule *s, struct sequence *q)
{
    if (s->updates.n >= MANY_UPDATES)
        return true;
    struct slot_reuse r =
        slot_book_reuse(s->book, q->slot, q->tokens, q->n_sent, q->n_tokens - 1, s->n_steps);
    int n = least_of(r.n_done, q->n_prompt) - least_of(q->n_sent, q->n_prompt);
    if (q->account.n_preempted == 0) { /* what it finds later is its own */
        q->account.n_cached += n;
        s->totals.cached_tokens += (uint64_t)n;
    }
    q->n_sent = r.n_done;
    return !r.wait;
}

static void schedule_prompts(struct schedule *s, struct flight *flight)
{
    int left = prompt_rows(s);
    for (int i = list_of(s, LIST_PROMPT)->first; i >= 0 && left > 0;) {
        struct sequence *q = &s->sequences.all[i];
        bool now = reuse(s, q);
        int n = now ? least_of(q->n_tokens - q->n_sent, left) : 0;
        if (n > 0)
            n = schedule_cover(s, i, q->n_sent + n) - q->n_sent;
        if (now && n <= 0)
            return; /* no blocks: and nobody overtakes */
        int next = q->after;
        bool last = n > 0 && q->n_sent + n == q->n_tokens;
        if (last) {
            guess_look_up(s, q);
            n += guess_rows(s, q, left - n);
        }
        if (n > 0)
            put_rows(s, flight, i, n);
        left -= n;
        if (last)
            list_append(&s->sequences, i, LIST_DECODING);
        i = next;
    }
}

/* The first in rank, if it has a prompt to compute, has its blocks before the others take any. */
static void serve_first(struct schedule *s)
{
    const struct sequence *all = s->sequences.all;
    int i = list_of(s, LIST_PROMPT)->first;
    if (i < 0)
        return;
    for (int j = list_of(s, LIST_DECODING)->first; j >= 0; j = all[j].after)
        if (sequence_before(&all[j], &all[i]))
            return;
    struct sequence *q = &s->sequences.all[i];
    int n = least_of(q->n_tokens, q->n_sent + s->options.max_rows);
    int missing = slot_book_blocks_for(n) - slot_book_covers(s->book, q->slot) / KV_BLOCK_TOKENS;
    if (missing > block_pool_available(slot_book_pool(s->book)) - schedule_n_running(s) &&
        reuse(s, q))
        schedule_cover(s, i, least_of(q->n_tokens, q->n_sent + s->options.max_rows));
}

/* Is no step on its way that could hold up the next one? With fewer than there are stages, all of
 * which take the same time, each has left a stage when the one behind it comes. */
static bool ring_is_free(const struct schedule *s)
{
    for (int i = 0; i < s->n_in_flight; i++)
        if (s->flights[(s->oldest_flight + i) % s->options.n_flights].n_prompt > 0)
            return false;
    return s->n_in_flight < s->options.n_stages;
}

bool schedule_next(struct schedule *s, struct step *step)
{
    if (s->n_in_flight == s->options.n_flights)
        return false;
    update_list_begin(&s->updates);
    int flight_i = (s->oldest_flight + s->n_in_flight) % s->options.n_flights;
    struct flight *flight = &s->flights[flight_i];
    s->n_rows = s->n_step_guesses = flight->n_shares = 0;
    schedule_trim(s);
    schedule_admit(s);
    serve_first(s);
    if (schedule_may_decode(s))
        schedule_decoding(s, flight);
    int n_decoding = s->n_rows;
    schedule_prompts(s, flight);
    if (s->n_rows == 0)
        return false; /* what the tables have to be told goes with a later step */
    flight->n_rows = s->n_rows;
    flight->n_prompt = s->n_rows - n_decoding;
    flight->sent_us = s->now_us;
    flight->is_free = ring_is_free(s);
    s->n_in_flight++;
    s->n_steps++;
    s->totals.rows += (uint64_t)s->n_rows;
    s->totals.prompt_rows += (uint64_t)flight->n_prompt;
    *step =
        (struct step){.flight = (uint32_t)flight_i, .n_rows = (uint32_t)s->n_rows, .rows = s->rows};
    update_list_take(&s->updates, step);
    return true;
}

/* ---- returned steps ---- */

/* What the times of a step teach. */
static void note_times(struct schedule *s, const struct flight *flight, const struct step_times *t)
{
    int64_t way = s->now_us - flight->sent_us;
    pace_note(&s->pace, flight->n_rows - flight->n_prompt, flight->n_prompt, t->slowest_us);
    s->totals.way_us += way;
    s->totals.computed_us += t->busy_us;
    if (flight->n_prompt > 0)
        return;
    if (flight->is_free)
        spread_note_gap(&s->spread, way - (int64_t)s->options.n_stages * t->slowest_us);
    spread_decide(&s->spread, pace_own_us(&s->pace, flight->n_rows));
}

int schedule_returned(struct schedule *s, const struct step_times *times)
{
    ASSERT(s->n_in_flight > 0);
    struct flight *flight = &s->flights[s->oldest_flight];
    s->n_wanted = 0;
    for (int i = 0; i < flight->n_shares; i++) {
        const struct share *share = &flight->shares[i];
        struct sequence *q = &s->sequences.all[share->sequence];
        if (q->life == share->life)
            q->n_flying--;
        for (int j = 0; j < share->n_wanted; j++)
            s->wanted[s->n_wanted++] =
                (struct wanted){.sequence = share->sequence, .life = share->life};
    }
    if (times != NULL)
        note_times(s, flight, times);
    flight->n_shares = 0;
    s->oldest_flight = (s->oldest_flight + 1) % s->options.n_flights;
    s->n_in_flight--;
    return s->n_wanted;
}

/* Of the rows of one life, each wants the token behind the one that the row before it asked for:
 * with a guess that was wrong the life ends (guess_check). */
int schedule_owner(const struct schedule *s, int i)
{
    ASSERT(i >= 0 && i < s->n_wanted);
    const struct wanted *w = &s->wanted[i];
    return s->sequences.all[w->sequence].life == w->life ? w->sequence : -1;
}

bool schedule_push(struct schedule *s, int sequence, int32_t token)
{
    struct sequence *q = sequences_live(&s->sequences, sequence);
    ASSERT(q->list == LIST_DECODING && q->n_sent >= q->n_tokens && q->n_tokens < q->limit);
    guess_check(s, q, token);
    q->tokens[q->n_tokens++] = token;
    if (q->n_sent >= q->n_tokens) /* it was guessed: its row is in a step already */
        slot_book_fill(s->book, q->slot, q->tokens, q->n_tokens, s->n_steps - 1);
    if (q->draft != NULL)
        draft_note(q->draft, q->tokens, q->n_tokens);
    return q->n_tokens < q->limit;
}

/* ---- accounts ---- */

void schedule_account(const struct schedule *s, int sequence, struct sequence_account *out)
{
    const struct sequence *q = sequences_live(&s->sequences, sequence);
    *out = q->account;
    if (q->list == LIST_WAITING)
        *(q->account.started ? &out->stalled_us : &out->queued_us) += s->now_us - q->waiting_since;
    else
        out->n_blocks = slot_book_n_held(s->book, q->slot);
}

void schedule_count(const struct schedule *s, struct schedule_counts *out)
{
    const struct block_pool *pool = slot_book_pool(s->book);
    *out = s->totals;
    out->waiting = s->sequences.lists[LIST_WAITING].length;
    out->running = schedule_n_running(s);
    out->in_flight = s->n_in_flight;
    out->slots_used = slot_book_n_open(s->book);
    out->blocks_used = block_pool_used(pool);
    out->blocks_idle = block_pool_idle(pool);
    out->step_us = (int64_t)pace_step_us(&s->pace, 1);
    out->n_decode_flights = decode_flights(s);
}
