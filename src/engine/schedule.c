/* How a step is put together. Who has slots and blocks is decided in admission.c; sequences and
 * their lists are in sequences.c, guesses in draft.c, times in pace.c. Flights are a circle of
 * records of what each step carried, so that its return can be settled. */
#include "engine/schedule_impl.h"

#include "base/panic.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_MIN_CHUNK = 32,
    MAX_STEP_GUESSES = 64, /* of all sequences in a step: bounds the lead's logits */
};

static struct list *list_of(struct schedule *s, enum list_kind kind)
{
    return &s->sequences.lists[kind];
}

/* ---- life of the schedule ---- */

/* A change of the book becomes an update of the stages' tables. */
static void record_update(void *context, const struct slot_change *change)
{
    static const uint32_t kinds[] = {[SLOT_OPEN] = UPDATE_OPEN,
                                     [SLOT_APPEND] = UPDATE_APPEND,
                                     [SLOT_COPY] = UPDATE_COPY,
                                     [SLOT_CLOSE] = UPDATE_CLOSE};
    struct schedule *s = context;
    if (s->updates_taken) {
        s->n_updates = 0;
        s->updates_taken = false;
    }
    ASSERT(s->n_updates < STEP_MAX_UPDATES);
    s->updates[s->n_updates++] = (struct step_update){.kind = kinds[change->kind],
                                                      .slot = (uint32_t)change->slot,
                                                      .block = (uint32_t)change->block,
                                                      .from = (uint32_t)change->from};
}

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
    s->book = slot_book_new(&(struct slot_book_options){.n_slots = o->n_slots,
                                                        .n_blocks = o->n_blocks,
                                                        .max_positions = o->max_context,
                                                        .cache_key = o->cache_key,
                                                        .no_reuse = o->no_reuse,
                                                        .change = record_update,
                                                        .context = s});
    sequences_init(&s->sequences, o->max_sequences);
    s->flights = xcalloc((size_t)o->n_flights, sizeof(s->flights[0]));
    for (int i = 0; i < o->n_flights; i++)
        s->flights[i].shares = xcalloc((size_t)o->max_rows, sizeof(s->flights[i].shares[0]));
    s->rows = xcalloc((size_t)o->max_rows, sizeof(s->rows[0]));
    s->updates = xcalloc(STEP_MAX_UPDATES, sizeof(s->updates[0]));
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
    free(s->updates);
    free(s->wanted);
    free(s);
}

void schedule_clock(struct schedule *s, int64_t now_us)
{
    ASSERT(now_us >= s->now_us);
    s->now_us = now_us;
}

/* ---- sequences ---- */

enum err schedule_room(const struct schedule *s, int n_prompt, int max_tokens, int *room,
                       struct error *e)
{
    const struct schedule_options *o = &s->options;
    int64_t block_tokens = (int64_t)o->n_blocks * KV_BLOCK_TOKENS;
    ASSERT(n_prompt >= 1);
    *room = 0;
    if (n_prompt > o->max_context)
        return error_set(e, ERR_LIMIT,
                         "the prompt has %d tokens, but the context is only %d tokens long",
                         n_prompt, o->max_context);
    if (n_prompt > block_tokens)
        return error_set(e, ERR_LIMIT,
                         "the prompt has %d tokens, but all key-value blocks hold only %lld",
                         n_prompt, (long long)block_tokens);
    int64_t most = block_tokens < o->max_context ? block_tokens : o->max_context;
    *room = (int)(most - n_prompt);
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
    if (s->options.max_draft > 0 && !o->no_draft)
        q->draft = draft_new(limit);
    if (q->tokens == NULL) {
        sequences_give_back(&s->sequences, i);
        return error_set(e, ERR_MEMORY, "no memory for a sequence of %d tokens", limit);
    }
    memcpy(q->tokens, o->prompt, (size_t)o->n_prompt * sizeof(q->tokens[0]));
    q->n_tokens = q->n_prompt = o->n_prompt;
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

static void put_row(struct schedule *s, const struct sequence *q, int32_t token, int position,
                    bool wants)
{
    ASSERT(s->n_rows < s->options.max_rows);
    s->rows[s->n_rows++] = (struct step_row){.token = (uint32_t)token,
                                             .position = (uint32_t)position,
                                             .slot = (uint32_t)q->slot,
                                             .want = wants ? WANT_LOGITS : WANT_NONE};
}

/* Put the next n tokens of a sequence into the step, and its guesses behind the last. Its table
 * covers them. */
static void put_rows(struct schedule *s, struct flight *flight, int i, int n)
{
    struct sequence *q = &s->sequences.all[i];
    ASSERT(n >= 1 && q->n_sent + n <= q->n_tokens);
    for (int j = 0; j < n; j++, q->n_sent++)
        put_row(s, q, q->tokens[q->n_sent], q->n_sent, q->n_sent == q->n_tokens - 1);
    bool wants = q->n_sent == q->n_tokens;
    ASSERT(wants || q->n_guesses == 0);
    for (int j = 0; j < q->n_guesses; j++)
        put_row(s, q, q->guesses[j], q->n_sent + j, true);
    slot_book_fill(s->book, q->slot, q->tokens, q->n_sent, s->n_steps);
    flight->shares[flight->n_shares++] = (struct share){.sequence = i,
                                                        .life = q->life,
                                                        .n_rows = n + q->n_guesses,
                                                        .n_wanted = wants ? 1 + q->n_guesses : 0};
    q->in_step = s->n_steps + 1;
}

static int per_flight(const struct schedule *s, int64_t n)
{
    return (int)((n + s->options.n_flights - 1) / s->options.n_flights);
}

static int least_of(int a, int b)
{
    return a < b ? a : b;
}

/* Guess what follows the last token of a decoding sequence: at most `most` rows, in blocks that are
 * there for the taking. */
static void guess(struct schedule *s, struct sequence *q, int most, int n_decoding)
{
    q->n_guesses = q->n_right = 0;
    if (q->draft == NULL)
        return;
    most = least_of(most, s->options.max_draft);
    most = least_of(most, MAX_STEP_GUESSES - s->n_step_guesses);
    most = least_of(most, q->limit - q->n_tokens - 1);
    int n =
        draft_guess(q->draft, q->tokens, most, pace_least_rate(&s->pace, n_decoding), q->guesses);
    if (n < 1)
        return;
    int covered = slot_book_extend(s->book, q->slot, q->n_tokens + n);
    q->n_guesses = least_of(covered, q->n_tokens + n) - q->n_tokens;
    s->n_step_guesses += q->n_guesses;
    q->account.n_guessed += q->n_guesses;
    s->totals.guessed += (uint64_t)q->n_guesses;
}

/* One row of each decoding sequence that is not in flight, as many as are this flight's share.
 * The scheduled ones go to the end of the list, which is how the others come next. */
static void schedule_decoding(struct schedule *s, struct flight *flight)
{
    int left = list_of(s, LIST_DECODING)->length;
    int most = per_flight(s, left);
    for (int i = list_of(s, LIST_DECODING)->first; left > 0 && i >= 0; left--) {
        struct sequence *q = &s->sequences.all[i];
        if (flight->n_shares == most || s->n_rows == s->options.max_rows)
            return;
        bool ready = q->n_sent < q->n_tokens && schedule_cover(s, i, q->n_tokens) == q->n_tokens;
        int next = q->after; /* who it was before may have been preempted */
        if (ready) {
            int others = least_of(left, most - flight->n_shares) - 1;
            guess(s, q, s->options.max_rows - s->n_rows - 1 - others, most);
            put_rows(s, flight, i, 1);
            list_append(&s->sequences, i, LIST_DECODING);
        }
        i = next;
    }
}

/* How many prompt rows this step should take: what is left of the budget and of the time that
 * running streams grant, but with several flights only a share of the prompts at hand, so that the
 * chunks follow each other. */
static int prompt_rows(struct schedule *s)
{
    int64_t total = 0;
    for (int i = list_of(s, LIST_PROMPT)->first; i >= 0; i = s->sequences.all[i].after)
        total += s->sequences.all[i].n_tokens;
    int rows = per_flight(s, total);
    if (rows < s->options.min_chunk)
        rows = s->options.min_chunk;
    rows = least_of(rows, s->options.max_rows - s->n_rows);
    if (list_of(s, LIST_DECODING)->length == 0)
        return rows;
    struct pace_bound bound = {.max_step_us = s->options.max_itl_us / s->options.n_flights,
                               .max_stretch = s->options.max_stretch};
    int n_decoding = per_flight(s, list_of(s, LIST_DECODING)->length);
    return least_of(rows, pace_prompt_rows(&s->pace, &bound, n_decoding));
}

/* Take over what was computed before. False: more of it can be had in the next step. */
static bool reuse(struct schedule *s, struct sequence *q)
{
    if (s->n_updates >= MANY_UPDATES)
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
        if (n > 0)
            put_rows(s, flight, i, n);
        left -= n;
        if (q->n_sent == q->n_tokens)
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

bool schedule_next(struct schedule *s, struct step *step)
{
    if (s->n_in_flight == s->options.n_flights)
        return false;
    if (s->updates_taken) {
        s->n_updates = 0;
        s->updates_taken = false;
    }
    int flight_i = (s->oldest_flight + s->n_in_flight) % s->options.n_flights;
    struct flight *flight = &s->flights[flight_i];
    s->n_rows = s->n_step_guesses = flight->n_shares = 0;
    schedule_admit(s);
    serve_first(s);
    schedule_decoding(s, flight);
    int n_decoding = s->n_rows;
    schedule_prompts(s, flight);
    if (s->n_rows == 0)
        return false; /* what the tables have to be told goes with a later step */
    flight->n_rows = s->n_rows;
    flight->n_prompt = s->n_rows - n_decoding;
    flight->sent_us = s->now_us;
    s->n_in_flight++;
    s->n_steps++;
    s->totals.rows += (uint64_t)s->n_rows;
    s->updates_taken = true;
    *step = (struct step){.flight = (uint32_t)flight_i,
                          .n_updates = (uint32_t)s->n_updates,
                          .n_rows = (uint32_t)s->n_rows,
                          .updates = s->updates,
                          .rows = s->rows};
    return true;
}

/* ---- returned steps ---- */

/* How long the slowest stage had the step: with a full ring, as long as it came behind the one
 * before it; otherwise a stage's share of its whole way. */
static void note_time(struct schedule *s, const struct flight *flight)
{
    bool was_behind = flight->sent_us < s->returned_us;
    int n_stages = s->options.n_flights > 1 ? s->options.n_flights - 1 : 1;
    int64_t us = was_behind ? s->now_us - s->returned_us : (s->now_us - flight->sent_us) / n_stages;
    if (s->now_us > 0)
        pace_note(&s->pace, flight->n_rows - flight->n_prompt, flight->n_prompt, us);
    s->returned_us = s->now_us;
}

int schedule_returned(struct schedule *s)
{
    ASSERT(s->n_in_flight > 0);
    struct flight *flight = &s->flights[s->oldest_flight];
    s->n_wanted = 0;
    for (int i = 0; i < flight->n_shares; i++) {
        const struct share *share = &flight->shares[i];
        for (int j = 0; j < share->n_wanted; j++)
            s->wanted[s->n_wanted++] = (struct wanted){
                .sequence = share->sequence, .life = share->life, .n_right_before = j};
    }
    note_time(s, flight);
    flight->n_shares = 0;
    s->oldest_flight = (s->oldest_flight + 1) % s->options.n_flights;
    s->n_in_flight--;
    return s->n_wanted;
}

int schedule_owner(const struct schedule *s, int i)
{
    ASSERT(i >= 0 && i < s->n_wanted);
    const struct wanted *w = &s->wanted[i];
    const struct sequence *q = &s->sequences.all[w->sequence];
    return q->life == w->life && q->n_right == w->n_right_before ? w->sequence : -1;
}

/* Was the token guessed? Then its row is computed already, and the one behind it counts. */
static void compare_guess(struct schedule *s, struct sequence *q, int32_t token)
{
    if (q->n_guesses == 0)
        return;
    bool right = q->n_right < q->n_guesses && q->guesses[q->n_right] == token;
    bool last = q->n_right == q->n_guesses;
    if (right) {
        q->n_right++;
        q->n_sent++;
        q->account.n_right++;
        s->totals.right++;
        slot_book_fill(s->book, q->slot, q->tokens, q->n_sent, s->n_steps - 1);
    }
    if (!right) {
        draft_answer(q->draft, q->n_guesses, q->n_right);
        q->n_guesses = 0;
        q->n_right = last ? q->n_right : INT_MAX; /* no row behind it counts */
    }
}

bool schedule_push(struct schedule *s, int sequence, int32_t token)
{
    struct sequence *q = sequences_live(&s->sequences, sequence);
    ASSERT(q->list == LIST_DECODING && q->n_sent == q->n_tokens && q->n_tokens < q->limit);
    q->tokens[q->n_tokens++] = token;
    compare_guess(s, q, token);
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
        out->n_blocks = slot_book_covers(s->book, q->slot) / KV_BLOCK_TOKENS;
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
}
