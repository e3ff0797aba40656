/* Who has slots and blocks: admission of those who wait, and who gives way when blocks run out. */
#include "engine/schedule_impl.h"

#include "base/panic.h"

/* ---- blocks ---- */

/* Its blocks are needed: back into the line, with its tokens, to be computed again. */
static void preempt(struct schedule *s, int i)
{
    struct sequence *q = &s->sequences.all[i];
    slot_book_close(s->book, q->slot);
    q->slot = -1;
    q->life = ++s->sequences.n_lives;
    q->n_sent = q->n_flying = 0;
    q->n_assumed = q->n_tokens;
    q->waiting_since = s->now_us;
    q->account.n_preempted++;
    s->totals.preempted++;
    list_insert(&s->sequences, i, LIST_WAITING);
}

/* The last in rank behind i that holds blocks and has no rows in this step; -1: nobody. */
static int find_victim(const struct schedule *s, int i)
{
    const struct sequence *all = s->sequences.all;
    int victim = -1;
    for (enum list_kind kind = LIST_PROMPT; kind <= LIST_DECODING; kind++)
        for (int j = s->sequences.lists[kind].first; j >= 0; j = all[j].after)
            if (sequence_before(&all[i], &all[j]) && all[j].in_step != s->n_steps + 1 &&
                slot_book_n_held(s->book, all[j].slot) > 0 &&
                (victim < 0 || sequence_before(&all[victim], &all[j])))
                victim = j;
    return victim;
}

void schedule_trim(struct schedule *s)
{
    if (s->options.window == 0)
        return;
    const struct sequence *all = s->sequences.all;
    for (enum list_kind kind = LIST_PROMPT; kind <= LIST_DECODING; kind++)
        for (int i = s->sequences.lists[kind].first; i >= 0; i = all[i].after)
            slot_book_trim(s->book, all[i].slot, least_of(all[i].n_sent, all[i].n_tokens));
}

int schedule_cover(struct schedule *s, int i, int n)
{
    const struct sequence *q = &s->sequences.all[i];
    for (;;) {
        int covered = slot_book_extend(s->book, q->slot, n);
        int victim = covered < n ? find_victim(s, i) : -1;
        if (victim < 0)
            return covered < n ? covered : n;
        preempt(s, victim);
    }
}

/* ---- admission ---- */

int schedule_n_running(const struct schedule *s)
{
    return s->sequences.lists[LIST_PROMPT].length + s->sequences.lists[LIST_DECODING].length;
}

/* Blocks that a sequence holds at once at most, if so many would hold what is left of it. */
static int64_t most_at_once(const struct schedule *s, int n_blocks)
{
    int most = slot_book_blocks_at_once(s->book, s->options.max_rows);
    return n_blocks < most ? n_blocks : most;
}

/* Blocks that running sequences will ask for soon: the rest of their prompts, and one each. */
static int64_t blocks_spoken_for(const struct schedule *s)
{
    int64_t n = schedule_n_running(s);
    for (int i = s->sequences.lists[LIST_PROMPT].first; i >= 0; i = s->sequences.all[i].after) {
        const struct sequence *q = &s->sequences.all[i];
        int n_held = slot_book_n_held(s->book, q->slot);
        int missing = slot_book_blocks_for(q->n_tokens) -
                      slot_book_covers(s->book, q->slot) / KV_BLOCK_TOKENS;
        int64_t asked = most_at_once(s, n_held + missing) - n_held;
        n += asked > 0 ? asked : 0;
    }
    return n;
}

int schedule_spare_blocks(const struct schedule *s)
{
    int64_t n = block_pool_available(slot_book_pool(s->book)) - blocks_spoken_for(s);
    int first = s->sequences.lists[LIST_WAITING].first;
    if (first >= 0)
        n -= most_at_once(s, slot_book_blocks_for(s->sequences.all[first].n_tokens));
    return n > 0 ? (int)n : 0;
}

/* Is there room for q, if so many more blocks were available? Alone it always fits. */
static bool fits(const struct schedule *s, const struct sequence *q, int64_t n_more)
{
    if (schedule_n_running(s) == 0)
        return true;
    int64_t available =
        block_pool_available(slot_book_pool(s->book)) + n_more - blocks_spoken_for(s);
    int needed = slot_book_blocks_for(q->n_tokens);
    if (most_at_once(s, needed) <= available)
        return true;
    needed -= slot_book_n_shareable(s->book, q->tokens, q->n_tokens - 1);
    return most_at_once(s, needed) <= available;
}

/* Can running sequences of lower priority make room for q? The last of them, or -1. */
static int find_lower(const struct schedule *s, const struct sequence *q)
{
    const struct sequence *all = s->sequences.all;
    int last = -1;
    int64_t n_blocks = 0;
    for (enum list_kind kind = LIST_PROMPT; kind <= LIST_DECODING; kind++)
        for (int j = s->sequences.lists[kind].first; j >= 0; j = all[j].after)
            if (all[j].priority < q->priority) {
                n_blocks += slot_book_n_held(s->book, all[j].slot);
                last = last < 0 || sequence_before(&all[last], &all[j]) ? j : last;
            }
    return last >= 0 && fits(s, q, n_blocks) ? last : -1;
}

static void start(struct schedule *s, int i)
{
    struct sequence *q = &s->sequences.all[i];
    q->slot = slot_book_open(s->book);
    ASSERT(q->slot >= 0);
    int64_t waited = s->now_us - q->waiting_since;
    *(q->account.started ? &q->account.stalled_us : &q->account.queued_us) += waited;
    if (!q->account.started)
        s->totals.prompt_tokens += (uint64_t)q->n_prompt;
    q->account.started = true;
    list_insert(&s->sequences, i, LIST_PROMPT);
}

void schedule_admit(struct schedule *s)
{
    const struct list *waiting = &s->sequences.lists[LIST_WAITING];
    while (waiting->length > 0 && s->updates.n < MANY_UPDATES) {
        int i = waiting->first;
        const struct sequence *q = &s->sequences.all[i];
        if (schedule_n_running(s) < s->options.n_slots && fits(s, q, 0)) {
            start(s, i);
            continue;
        }
        int lower = find_lower(s, q);
        if (lower < 0)
            return;
        preempt(s, lower);
    }
}
