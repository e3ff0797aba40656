/* What is guessed, how far, and what becomes of it.
 *
 * Guesses stand behind the tokens of their sequence (sequence_impl.h), wherever they come from, and
 * go into steps like tokens. With a ring of S stages and few streams, several steps of one
 * sequence are on their way, each of guesses that follow those in the step before:
 *
 *   tokens   … 41 42 │ 43 44 45 │ 46 47 48 │ 49 50 …     │ the first that came of a wrong guess
 *   steps      (42, 43 44 45) (46 47 48)  not sent yet    voids all behind it
 *
 * The guesses that pay altogether (acceptance.h) are shared out over the steps that a sequence may
 * have on their way, because those in a later step cost the stages no time that they had use
 * for. With as many streams as stages there is one step each, with all of the guesses in it. */
#include "engine/schedule_impl.h"

#include "base/panic.h"

#include <string.h>

enum {
    MAX_STEP_GUESSES = 64, /* of all sequences in a step: bounds the lead's logits */
    FIRST_TIMES = 3,       /* of a draft model's guesses: the shortest is taken, until then none */
};

static const double NEWNESS = 0.5;       /* of the last measured time, which at most doubles it */
static const double FORGETTING = 0.9997; /* a token, while they take too long to be tried */

/* ---- how many ---- */

static int n_decoding(const struct schedule *s)
{
    return most_of(s->sequences.lists[LIST_DECODING].length, 1);
}

/* Steps that can be at work at once: a stage has one at a time. */
static int n_at_work(const struct schedule *s)
{
    return least_of(s->options.n_stages, s->options.n_flights);
}

/* Steps of one sequence on their way, so that all stages have work and none has to wait. */
static int steps_each(const struct schedule *s)
{
    return most_of(n_at_work(s) / n_decoding(s), 1);
}

/* What a guess costs, in tokens. A ring that is not full gives a stream its tokens more slowly than
 * the slowest stage takes steps: a way is a step in each stage, and the hops between them. So time
 * on the lead costs the less, and a row likewise. */
static float least_rate(const struct schedule *s, enum guess_source source)
{
    bool is_known = source == GUESS_MODEL && s->n_guess_times >= FIRST_TIMES;
    double guess_us = is_known ? s->model_guess_us : 0, idle_us = 0;
    int n = n_decoding(s);
    if (n < n_at_work(s)) {
        guess_us *= (double)n / n_at_work(s);
        idle_us = s->spread.gap_us / n_at_work(s);
    }
    return pace_least_rate(&s->pace, schedule_decoding_share(s, n), guess_us, idle_us);
}

/* The first guess that is in no step yet. */
static int first_unsent(const struct sequence *q)
{
    return most_of(q->n_sent, q->n_tokens);
}

/* How many more guesses of this source the next step has use for. The last token that there is room
 * for needs no row: nothing follows it. */
static int n_missing(const struct schedule *s, const struct sequence *q, enum guess_source source)
{
    int most = least_of(MOST_ASSUMED, q->limit - 1 - q->n_tokens);
    int reach = acceptance_reach(&q->accepted[source], least_rate(s, source), most);
    int each = (reach + steps_each(s) - 1) / steps_each(s);
    return least_of(least_of(each, s->options.max_draft) - (q->n_assumed - first_unsent(q)),
                    reach - (q->n_assumed - q->n_tokens));
}

bool guess_may_go_ahead(const struct schedule *s, const struct sequence *q)
{
    return q->guesses && q->n_sent >= q->n_tokens && q->in_step != s->n_steps + 1 &&
           q->n_flying < steps_each(s) && s->n_in_flight < n_at_work(s);
}

/* ---- where they come from ---- */

/* n guesses have been put behind those of q. */
static void count_in(struct sequence *q, int n, enum guess_source source)
{
    for (int i = 0; i < n; i++)
        q->source[q->n_assumed++ % MOST_ASSUMED] = (uint8_t)source;
    ASSERT(q->n_assumed < q->limit && q->n_assumed - q->n_tokens <= MOST_ASSUMED);
}

int guess_look_up(struct schedule *s, struct sequence *q)
{
    int n = q->draft != NULL ? n_missing(s, q, GUESS_LOOKUP) : 0;
    if (n > 0)
        n = draft_extend(q->draft, q->tokens, q->n_assumed, n);
    count_in(q, n, GUESS_LOOKUP);
    return n;
}

/* In the order in which schedule_next will serve them: the known ones, then those that go ahead. */
int schedule_wishes(struct schedule *s, struct guess_wish *wishes, int most)
{
    int left = schedule_decoding_share(s, s->sequences.lists[LIST_DECODING].length), n = 0;
    if (!schedule_may_decode(s))
        return 0;
    for (int ahead = 0; ahead <= 1; ahead++) {
        int i = s->sequences.lists[LIST_DECODING].first;
        for (; i >= 0 && left > 0 && n < most; i = s->sequences.all[i].after) {
            struct sequence *q = &s->sequences.all[i];
            bool goes = ahead ? guess_may_go_ahead(s, q) : q->n_sent < q->n_tokens;
            left -= goes;
            if (!goes || !q->guesses || guess_look_up(s, q) > 0)
                continue;
            int n_wanted = n_missing(s, q, GUESS_MODEL);
            if (n_wanted > 0)
                wishes[n++] = (struct guess_wish){.sequence = i,
                                                  .arrival = q->arrival,
                                                  .tokens = q->tokens,
                                                  .n_tokens = q->n_tokens,
                                                  .n_assumed = q->n_assumed,
                                                  .n_wanted = n_wanted};
        }
    }
    return n;
}

void schedule_offer(struct schedule *s, int sequence, const int32_t *guesses, int n)
{
    struct sequence *q = sequences_live(&s->sequences, sequence);
    ASSERT(n >= 0 && n <= q->limit - 1 - q->n_assumed);
    memcpy(q->tokens + q->n_assumed, guesses, (size_t)n * sizeof(guesses[0]));
    count_in(q, n, GUESS_MODEL);
}

void schedule_offer_time(struct schedule *s, int n, int64_t us)
{
    ASSERT(n >= 1 && us >= 0);
    double each = (double)us / n, before = s->model_guess_us;
    if (s->n_guess_times++ == 0 || (s->n_guess_times <= FIRST_TIMES && each < before)) {
        s->model_guess_us = each;
    } else if (s->n_guess_times > FIRST_TIMES) {
        double most = 3 * before; /* a thread that had to wait says nothing */
        s->model_guess_us += NEWNESS * ((each < most ? each : most) - before);
    }
}

/* ---- into steps ---- */

/* Guesses get the blocks that nobody else will ask for soon. If they turn out wrong, the tokens
 * that take their place have use for them. */
static int cover_guesses(struct schedule *s, const struct sequence *q, int n)
{
    int covered = slot_book_covers(s->book, q->slot);
    int missing = slot_book_blocks_for(n) - covered / KV_BLOCK_TOKENS;
    if (missing <= 0)
        return n;
    int there = covered + least_of(missing, schedule_spare_blocks(s)) * KV_BLOCK_TOKENS;
    return there > covered ? slot_book_extend(s->book, q->slot, least_of(n, there)) : covered;
}

int guess_rows(struct schedule *s, struct sequence *q, int most)
{
    int first = first_unsent(q);
    int n = least_of(q->n_assumed - first, least_of(most, s->options.max_draft));
    n = least_of(n, MAX_STEP_GUESSES - s->n_step_guesses);
    if (n < 1)
        return 0;
    n = least_of(cover_guesses(s, q, first + n) - first, n);
    for (int i = first; i < first + n; i++) {
        enum guess_source source = q->source[i % MOST_ASSUMED];
        q->account.n_guessed[source]++;
        s->totals.guessed[source]++;
    }
    s->n_step_guesses += most_of(n, 0);
    return most_of(n, 0);
}

void guess_none(struct schedule *s, struct sequence *q)
{
    for (enum guess_source source = 0; source < N_GUESS_SOURCES; source++)
        acceptance_forget(&q->accepted[source], least_rate(s, source));
    s->model_guess_us *= FORGETTING;
}

/* ---- what becomes of them ---- */

static void note_answer(struct schedule *s, struct sequence *q, bool right)
{
    enum guess_source source = q->source[q->n_tokens % MOST_ASSUMED];
    acceptance_note(&q->accepted[source], right);
    if (source == GUESS_MODEL)
        acceptance_note(&s->model_accepted, right);
    q->account.n_right[source] += right;
    s->totals.right[source] += right;
}

/* A right one is computed already, or will be in the step that it is in; with a wrong one, rows of
 * it and all behind it have been sent for nothing, and what stands in their cells will be written
 * anew before anybody looks at it: stages do steps in order, and no row sees cells behind it. */
void guess_check(struct schedule *s, struct sequence *q, int32_t token)
{
    int at = q->n_tokens;
    bool was_sent = q->n_sent > at; /* then it was guessed */
    bool right = q->n_assumed > at && q->tokens[at] == token;
    if (was_sent)
        note_answer(s, q, right);
    if (right)
        return;
    q->n_assumed = at + 1;
    if (was_sent) {
        q->n_sent = at;
        q->n_flying = 0;
        q->life = ++s->sequences.n_lives;
    }
}
