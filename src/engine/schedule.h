/* The scheduler: which tokens of which sequences go into the next step. Pure: sequences, tokens,
 * returned steps and the time go in; rows and table updates come out; no clock, no thread, no
 * random source.
 *
 * A sequence is the tokens of one request: its prompt, then one token at a time. Life:
 *
 *   schedule_add ──▶ waiting ──▶ prompt ──▶ decoding ──▶ schedule_end
 *                       ▲           │           │
 *                       └───────────┴───────────┘ preempted: its blocks are needed
 *
 * Rules:
 *  - Rank: higher priority first, then first come, first served. Nobody waiting overtakes the first
 *    in line, who is admitted when a slot is free and enough blocks for its tokens so far; or
 *    when running sequences of lower priority can make room.
 *  - Blocks are taken as tokens come. When none is left, the last in rank gives up all of its own,
 *    keeps its tokens, and waits; they are computed again later. Those with rows in the step at
 *    hand are spared, and nobody gives way to one behind it. So the first in rank always goes on.
 *  - Where attention has a window, blocks that no row still to come reads go back before each step;
 *    only tokens that the sampler has chosen push a window on. So a sequence needs blocks for its
 *    window and a chunk of its prompt at most, however long it is.
 *  - What was computed before is not computed again while its blocks are there: full blocks with
 *    the same tokens from the beginning are shared, the beginning of one is copied
 *    (kv/slot_book.h). The last token of a prompt is always computed: its logits are wanted.
 *  - A step takes decode rows first, then chunks of prompts in rank, up to max_rows. Chunks
 *    of one prompt may follow each other in several flights; only its last row wants logits.
 *  - Behind the last token of a sequence go rows of guesses at what follows, by look-up
 *    (engine/draft.h) or from a draft model (schedule_wishes), which count as far as they turn out
 *    right. While stages would have nothing to do, further guesses go out before the first are
 *    answered, so that one stream too fills the ring; at the first wrong one, all rows behind it
 *    count for nothing. How many follows from how many were right and what a row costs: none where
 *    it does not pay. docs/speculation.md.
 *  - With several flights, decoding sequences are spread over them, least recently scheduled first,
 *    so that all stages have work; over as many as give the most tokens. Prompts are cut into equal
 * chunks, small enough that stages wait little for the first and behind the last, and not so small
 * that their number costs more.
 *  - Beside running streams, prompt chunks are as large as the bounds on a step's time allow,
 *    going by the times of the steps before (engine/pace.h).
 *  - schedule_end may come at any time; slot and blocks are free at once, because stages do steps
 *    in order. Rows on their way count for nothing then.
 *
 * What a sequence gets computed depends on its own tokens only (DESIGN, promise 1): everything
 * above decides when, and what need not be done twice, never what. One thread at a time. */
#ifndef SHOAL_ENGINE_SCHEDULE_H
#define SHOAL_ENGINE_SCHEDULE_H

#include "base/error.h"
#include "engine/acceptance.h"
#include "stage/step.h"

#include <stdbool.h>
#include <stdint.h>

struct schedule;

struct schedule_options {
    int max_context; /* positions of one sequence */
    int n_blocks;
    int window; /* of attention, in every layer; 0: none */
    int n_slots;
    int max_rows;
    int n_flights;      /* steps on their way at once, >= 1 */
    bool fit_flights;   /* decoding may do with fewer, where that is faster (engine/spread.h) */
    int n_stages;       /* of the ring; 0: flights - 1 */
    int max_sequences;  /* waiting and running together, >= 1 */
    int min_chunk;      /* fewer prompt rows than this are not cut to fill flights; 0: 32 */
    int max_draft;      /* guesses of one sequence in a step, <= DRAFT_MAX; 0: no guessing */
    int64_t max_itl_us; /* between two tokens of a stream while prompts are computed; 0: any */
    float max_stretch;  /* times the step without prompt rows; 0: any */
    uint64_t cache_key; /* stands for all but tokens that keys and values depend on */
    bool no_reuse;      /* compute everything, always */
};

struct schedule *schedule_new(const struct schedule_options *o);
void schedule_free(struct schedule *s); /* NULL allowed */

/* Most tokens of a sequence: the context, or what all blocks together hold (with a window that
 * gives them back, any number). Reads constants. */
int schedule_most(const struct schedule *s);

/* How many tokens a prompt of n_prompt may be followed by: max_tokens (< 0: no limit), held down
 * by the context and by all blocks together (unless these hold a window). ERR_LIMIT when the prompt
 * itself does not fit. Reads constants: any thread. */
enum err schedule_room(const struct schedule *s, int n_prompt, int max_tokens, int *room,
                       struct error *e);

/* The time, in microseconds from any moment, never going back. It decides how large prompt chunks
 * are and what the accounts say. A schedule that is never told has no bounds on times. */
void schedule_clock(struct schedule *s, int64_t now_us);

struct sequence_options {
    const int32_t *prompt; /* copied */
    int n_prompt;          /* >= 1 */
    int room;              /* >= 1, at most what schedule_room says */
    int priority;          /* higher first */
    bool no_draft;         /* no guessing */
};

/* A new sequence, waiting; *sequence names it from now on. ERR_FULL (max_sequences), ERR_MEMORY. */
enum err schedule_add(struct schedule *s, const struct sequence_options *o, int *sequence,
                      struct error *e);

/* The tokens so far, valid until the next schedule_push or schedule_end of this sequence. */
const int32_t *schedule_tokens(const struct schedule *s, int sequence, int *n_tokens);

/* Guesses of a draft model, made by the caller between two steps (engine/draft_model.h). */
struct guess_wish {
    int sequence;
    uint64_t arrival;      /* no other sequence has it, names are used again */
    const int32_t *tokens; /* n_tokens chosen ones, behind them guesses up to n_assumed */
    int n_tokens, n_assumed;
    int n_wanted; /* guesses that the next step has use for, 1 … DRAFT_MAX */
};

/* Which sequences of the next step have use for guesses that look-up does not give; at most `most`.
 * None where guesses of a draft model do not pay. Valid until the next call of anything else. */
int schedule_wishes(struct schedule *s, struct guess_wish *wishes, int most);

/* They are fulfilled: n <= n_wanted guesses at what follows tokens[0 … n_assumed). */
void schedule_offer(struct schedule *s, int sequence, const int32_t *guesses, int n);

/* Making n guesses (>= 1) took so long. */
void schedule_offer_time(struct schedule *s, int n, int64_t us);

/* The next step (rows, updates, flight; the pipeline fills in the rest), counted as on its way from
 * now on; its arrays live until the next call. False: all flights are out, or nothing to do. */
bool schedule_next(struct schedule *s, struct step *step);

/* The oldest step on its way has returned; `times` says how long the stages computed on it (NULL:
 * unknown, nothing is learned from it). Answers how many of its rows wanted logits. */
int schedule_returned(struct schedule *s, const struct step_times *times);

/* Whose the i-th of those rows is, or -1: nobody's any more (ended, preempted, a wrong guess). To
 * be asked in order, for each row before the next one: the owner must get schedule_push, or
 * schedule_end, in between. */
int schedule_owner(const struct schedule *s, int i);

/* The token that follows. False: it was the last that there is room for; schedule_end is due. */
bool schedule_push(struct schedule *s, int sequence, int32_t token);

/* No more of this sequence; its name is void. */
void schedule_end(struct schedule *s, int sequence);

/* What became of a sequence so far. */
struct sequence_account {
    bool started;
    int64_t queued_us;  /* before it was first scheduled */
    int64_t stalled_us; /* waiting again, after it was preempted */
    int n_preempted;
    int n_cached; /* prompt tokens that had been computed before it came */
    int n_guessed[N_GUESS_SOURCES], n_right[N_GUESS_SOURCES]; /* guesses sent; of these, right */
    int n_blocks;                                             /* in its table now */
};
void schedule_account(const struct schedule *s, int sequence, struct sequence_account *out);

struct schedule_counts {
    int waiting, running; /* sequences not ended */
    int in_flight;        /* steps */
    int slots_used, blocks_used, blocks_idle;
    int64_t step_us;      /* how long a step of one row is thought to take; 0: unknown */
    int n_decode_flights; /* that decoding sequences are spread over now */
    /* Since the start. */
    uint64_t rows, prompt_rows, preempted; /* rows of prompts, and of what is computed again */
    uint64_t prompt_tokens, cached_tokens; /* of prompts first scheduled; of these, not computed */
    uint64_t guessed[N_GUESS_SOURCES], right[N_GUESS_SOURCES]; /* rows of guesses; right ones */
    uint64_t shares_ahead; /* of steps: guesses sent before those in front of them were answered */
    int64_t way_us, computed_us; /* steps on their way, summed; of that, stages computed on them */
};
void schedule_count(const struct schedule *s, struct schedule_counts *out);

#endif
