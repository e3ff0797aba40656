/* Sequences stand in exactly one of four lists, each in the order in which it is served: waiting
 * (arrival), prompt (admission), decoding (least recently scheduled first), draining (any).
 * Flights are a circle of records of what each step carried, so that its return can be settled. */
#include "engine/schedule.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "kv/slot_book.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MIN_CHUNK = 32 };

enum list_kind { LIST_NONE, LIST_WAITING, LIST_PROMPT, LIST_DECODING, LIST_DRAINING, N_LISTS };

struct sequence {
    int32_t *tokens; /* [limit] */
    int n_tokens, n_prompt;
    int limit;       /* most tokens, prompt included */
    int n_sent;      /* tokens whose rows were scheduled: positions 0 … n_sent - 1 */
    int n_in_flight; /* steps on their way that carry rows of it */
    int slot;        /* -1 while waiting */
    enum list_kind list;
    int before, after; /* neighbours in the list, -1 at its ends */
};

struct list {
    int first, last, length;
};

/* Part of a step: n_rows of one sequence. */
struct share {
    int sequence;
    bool wants; /* logits of its last row */
};

struct flight {
    struct share *shares; /* [max_rows] */
    int n_shares;
};

struct schedule {
    struct schedule_options options;
    struct slot_book *book;
    struct sequence *sequences;
    int n_sequences;
    int *unused; /* stack of sequence names */
    int n_unused;
    struct list lists[N_LISTS];
    struct flight *flights; /* circle */
    int oldest_flight, n_in_flight;
    struct step_row *rows; /* of the step at hand */
    int n_rows;
    struct step_update *updates; /* what the next step must tell the stages */
    int n_updates;
    bool updates_taken; /* they went out with the last step */
    int *admitted, n_admitted;
    int *returned;
};

/* ---- lists ---- */

static void list_remove(struct schedule *s, int i)
{
    struct sequence *q = &s->sequences[i];
    struct list *l = &s->lists[q->list];
    if (q->list == LIST_NONE)
        return;
    *(q->before >= 0 ? &s->sequences[q->before].after : &l->first) = q->after;
    *(q->after >= 0 ? &s->sequences[q->after].before : &l->last) = q->before;
    l->length--;
    q->list = LIST_NONE;
}

static void list_append(struct schedule *s, int i, enum list_kind kind)
{
    list_remove(s, i);
    struct sequence *q = &s->sequences[i];
    struct list *l = &s->lists[kind];
    q->list = kind;
    q->before = l->last;
    q->after = -1;
    *(l->last >= 0 ? &s->sequences[l->last].after : &l->first) = i;
    l->last = i;
    l->length++;
}

static struct sequence *live(const struct schedule *s, int sequence)
{
    ASSERT(sequence >= 0 && sequence < s->n_sequences);
    struct sequence *q = &s->sequences[sequence];
    ASSERT(q->list != LIST_NONE && q->list != LIST_DRAINING);
    return q;
}

/* ---- life of the schedule ---- */

struct schedule *schedule_new(const struct schedule_options *o)
{
    ASSERT(o->max_context >= 1 && o->n_blocks >= 1 && o->max_sequences >= 1);
    ASSERT(o->n_slots >= 1 && o->n_slots <= SLOT_MAX);
    ASSERT(o->max_rows >= 1 && o->max_rows <= STEP_MAX_ROWS && o->n_flights >= 1);
    struct schedule *s = xcalloc(1, sizeof(*s));
    s->options = *o;
    if (o->min_chunk <= 0)
        s->options.min_chunk = DEFAULT_MIN_CHUNK;
    s->book = slot_book_new(o->n_slots, o->n_blocks, o->max_context);
    s->n_sequences = s->n_unused = o->max_sequences + o->n_slots; /* draining ones hold slots */
    s->sequences = xcalloc((size_t)s->n_sequences, sizeof(s->sequences[0]));
    s->unused = xcalloc((size_t)s->n_sequences, sizeof(s->unused[0]));
    for (int i = 0; i < s->n_sequences; i++)
        s->unused[i] = s->n_sequences - 1 - i;
    for (int i = 0; i < N_LISTS; i++)
        s->lists[i] = (struct list){.first = -1, .last = -1};
    s->flights = xcalloc((size_t)o->n_flights, sizeof(s->flights[0]));
    for (int i = 0; i < o->n_flights; i++)
        s->flights[i].shares = xcalloc((size_t)o->max_rows, sizeof(s->flights[i].shares[0]));
    s->rows = xcalloc((size_t)o->max_rows, sizeof(s->rows[0]));
    s->updates = xcalloc(STEP_MAX_UPDATES, sizeof(s->updates[0]));
    s->admitted = xcalloc((size_t)o->n_slots, sizeof(s->admitted[0]));
    s->returned = xcalloc((size_t)o->max_rows, sizeof(s->returned[0]));
    return s;
}

void schedule_free(struct schedule *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < s->n_sequences; i++)
        free(s->sequences[i].tokens);
    for (int i = 0; i < s->options.n_flights; i++)
        free(s->flights[i].shares);
    slot_book_free(s->book);
    free(s->sequences);
    free(s->unused);
    free(s->flights);
    free(s->rows);
    free(s->updates);
    free(s->admitted);
    free(s->returned);
    free(s);
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

enum err schedule_add(struct schedule *s, const int32_t *prompt, int n_prompt, int room,
                      int *sequence, struct error *e)
{
    ASSERT(n_prompt >= 1 && room >= 1 && room <= s->options.max_context - n_prompt);
    *sequence = -1;
    int n_live = s->lists[LIST_WAITING].length + s->lists[LIST_PROMPT].length +
                 s->lists[LIST_DECODING].length;
    if (n_live >= s->options.max_sequences)
        return error_set(e, ERR_FULL, "there are %d sequences already", n_live);
    ASSERT(s->n_unused > 0);
    int limit = n_prompt + room;
    int32_t *tokens = malloc((size_t)limit * sizeof(tokens[0]));
    if (tokens == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a sequence of %d tokens", limit);
    memcpy(tokens, prompt, (size_t)n_prompt * sizeof(tokens[0]));
    *sequence = s->unused[--s->n_unused];
    s->sequences[*sequence] = (struct sequence){.tokens = tokens,
                                                .n_tokens = n_prompt,
                                                .n_prompt = n_prompt,
                                                .limit = limit,
                                                .slot = -1};
    list_append(s, *sequence, LIST_WAITING);
    return OK;
}

const int32_t *schedule_tokens(const struct schedule *s, int sequence, int *n_tokens)
{
    const struct sequence *q = live(s, sequence);
    *n_tokens = q->n_tokens;
    return q->tokens;
}

bool schedule_push(struct schedule *s, int sequence, int32_t token)
{
    struct sequence *q = live(s, sequence);
    ASSERT(q->list == LIST_DECODING && q->n_sent == q->n_tokens && q->n_in_flight == 0);
    ASSERT(q->n_tokens < q->limit);
    q->tokens[q->n_tokens++] = token;
    return q->n_tokens < q->limit;
}

/* ---- updates to the stages' tables ---- */

static void record_update(void *context, enum slot_change change, int slot, int32_t block)
{
    static const uint32_t kinds[] = {
        [SLOT_OPEN] = UPDATE_OPEN, [SLOT_APPEND] = UPDATE_APPEND, [SLOT_CLOSE] = UPDATE_CLOSE};
    struct schedule *s = context;
    if (s->updates_taken) {
        s->n_updates = 0;
        s->updates_taken = false;
    }
    ASSERT(s->n_updates < STEP_MAX_UPDATES);
    s->updates[s->n_updates++] = (struct step_update){
        .kind = kinds[change], .slot = (uint32_t)slot, .block = (uint32_t)block};
}

/* Everything of an ended sequence goes back. */
static void release(struct schedule *s, int sequence)
{
    struct sequence *q = &s->sequences[sequence];
    list_remove(s, sequence);
    if (q->slot >= 0)
        slot_book_close(s->book, q->slot, record_update, s);
    free(q->tokens);
    *q = (struct sequence){.slot = -1};
    s->unused[s->n_unused++] = sequence;
}

void schedule_end(struct schedule *s, int sequence)
{
    struct sequence *q = live(s, sequence);
    if (q->n_in_flight > 0)
        list_append(s, sequence, LIST_DRAINING);
    else
        release(s, sequence);
}

/* ---- the next step ---- */

/* Waiting sequences get slots, in order, as long as slots and blocks last. The last token of a
 * sequence is never computed with, so it needs no position. */
static void admit(struct schedule *s)
{
    s->n_admitted = 0;
    while (s->lists[LIST_WAITING].length > 0) {
        int i = s->lists[LIST_WAITING].first;
        struct sequence *q = &s->sequences[i];
        q->slot = slot_book_open(s->book, q->limit - 1, record_update, s);
        if (q->slot < 0)
            return;
        list_append(s, i, LIST_PROMPT);
        s->admitted[s->n_admitted++] = i;
    }
}

/* Put the next n rows of a sequence into the step. */
static void schedule_rows(struct schedule *s, struct flight *flight, int sequence, int n)
{
    struct sequence *q = &s->sequences[sequence];
    ASSERT(n >= 1 && q->n_sent + n <= q->n_tokens && s->n_rows + n <= s->options.max_rows);
    slot_book_extend(s->book, q->slot, q->n_sent + n, record_update, s);
    for (int i = 0; i < n; i++, q->n_sent++)
        s->rows[s->n_rows++] = (struct step_row){
            .token = (uint32_t)q->tokens[q->n_sent],
            .position = (uint32_t)q->n_sent,
            .slot = (uint32_t)q->slot,
            .want = q->n_sent == q->n_tokens - 1 ? WANT_LOGITS : WANT_NONE};
    flight->shares[flight->n_shares++] =
        (struct share){.sequence = sequence, .wants = q->n_sent == q->n_tokens};
    q->n_in_flight++;
}

static int per_flight(const struct schedule *s, int64_t n)
{
    return (int)((n + s->options.n_flights - 1) / s->options.n_flights);
}

/* One row of each decoding sequence that is not in flight, as many as are this flight's share.
 * The scheduled ones go to the end of the list, which is how the others come next. */
static void schedule_decoding(struct schedule *s, struct flight *flight)
{
    int most = per_flight(s, s->lists[LIST_DECODING].length);
    int left = s->lists[LIST_DECODING].length;
    for (int i = s->lists[LIST_DECODING].first; left > 0; left--) {
        int next = s->sequences[i].after;
        if (flight->n_shares == most || s->n_rows == s->options.max_rows)
            return;
        if (s->sequences[i].n_sent < s->sequences[i].n_tokens) {
            schedule_rows(s, flight, i, 1);
            list_append(s, i, LIST_DECODING);
        }
        i = next;
    }
}

/* How many prompt rows this step should take: what is left of the budget, but with several
 * flights only a share of the prompts at hand, so that the chunks follow each other. */
static int prompt_rows(const struct schedule *s)
{
    int budget = s->options.max_rows - s->n_rows;
    int64_t total = 0;
    for (int i = s->lists[LIST_PROMPT].first; i >= 0; i = s->sequences[i].after)
        total += s->sequences[i].n_prompt;
    int share = per_flight(s, total);
    if (share < s->options.min_chunk)
        share = s->options.min_chunk;
    return share < budget ? share : budget;
}

static void schedule_prompts(struct schedule *s, struct flight *flight)
{
    int left = prompt_rows(s);
    while (left > 0 && s->lists[LIST_PROMPT].length > 0) {
        int i = s->lists[LIST_PROMPT].first;
        struct sequence *q = &s->sequences[i];
        int n = q->n_tokens - q->n_sent < left ? q->n_tokens - q->n_sent : left;
        schedule_rows(s, flight, i, n);
        left -= n;
        if (q->n_sent == q->n_tokens)
            list_append(s, i, LIST_DECODING);
    }
}

bool schedule_next(struct schedule *s, struct step *step)
{
    s->n_admitted = 0;
    if (s->n_in_flight == s->options.n_flights)
        return false;
    if (s->updates_taken) {
        s->n_updates = 0;
        s->updates_taken = false;
    }
    int flight_i = (s->oldest_flight + s->n_in_flight) % s->options.n_flights;
    struct flight *flight = &s->flights[flight_i];
    s->n_rows = flight->n_shares = 0;
    admit(s);
    schedule_decoding(s, flight);
    schedule_prompts(s, flight);
    if (s->n_rows == 0) {
        ASSERT(s->n_admitted == 0); /* whoever was admitted has rows to compute */
        return false;
    }
    s->n_in_flight++;
    s->updates_taken = true;
    *step = (struct step){.flight = (uint32_t)flight_i,
                          .n_updates = (uint32_t)s->n_updates,
                          .n_rows = (uint32_t)s->n_rows,
                          .updates = s->updates,
                          .rows = s->rows};
    return true;
}

int schedule_admitted(const struct schedule *s, const int **sequences)
{
    *sequences = s->admitted;
    return s->n_admitted;
}

int schedule_returned(struct schedule *s, const int **sequences)
{
    ASSERT(s->n_in_flight > 0);
    struct flight *flight = &s->flights[s->oldest_flight];
    int n_wanted = 0;
    for (int i = 0; i < flight->n_shares; i++) {
        struct share share = flight->shares[i];
        struct sequence *q = &s->sequences[share.sequence];
        ASSERT(q->n_in_flight > 0);
        q->n_in_flight--;
        bool ended = q->list == LIST_DRAINING;
        if (share.wants)
            s->returned[n_wanted++] = ended ? -1 : share.sequence;
        if (ended && q->n_in_flight == 0)
            release(s, share.sequence);
    }
    flight->n_shares = 0;
    s->oldest_flight = (s->oldest_flight + 1) % s->options.n_flights;
    s->n_in_flight--;
    *sequences = s->returned;
    return n_wanted;
}

void schedule_count(const struct schedule *s, struct schedule_counts *out)
{
    const struct block_pool *pool = slot_book_pool(s->book);
    int used = block_pool_used(pool);
    *out = (struct schedule_counts){
        .waiting = s->lists[LIST_WAITING].length,
        .running = s->lists[LIST_PROMPT].length + s->lists[LIST_DECODING].length,
        .draining = s->lists[LIST_DRAINING].length,
        .in_flight = s->n_in_flight,
        .slots_used = slot_book_n_open(s->book),
        .blocks_used = used,
        .blocks_promised = block_pool_total(pool) - used - block_pool_available(pool),
    };
}
