/* The state of a schedule, and what its files need of each other: schedule.c puts steps together,
 * admission.c decides who has slots and blocks, guessing.c what is guessed. */
#ifndef SHOAL_ENGINE_SCHEDULE_IMPL_H
#define SHOAL_ENGINE_SCHEDULE_IMPL_H

#include "base/bounds.h"
#include "engine/pace.h"
#include "engine/schedule.h"
#include "engine/sequence_impl.h"
#include "engine/spread.h"
#include "engine/update_list.h"
#include "kv/slot_book.h"

enum {
    MANY_UPDATES =
        STEP_MAX_UPDATES / 2, /* what can wait does so: there must be room for the rest */
};

/* Part of a step: rows of one sequence. */
struct share {
    int sequence;
    uint64_t life;
    int n_rows, n_wanted; /* the last n_wanted rows want logits */
};

struct flight {
    struct share *shares; /* [max_rows] */
    int n_shares, n_rows;
    int n_prompt; /* rows of prompts, among these */
    int64_t sent_us;
    bool is_free; /* when it set off, no other step could hold it up */
};

/* A row that wanted logits, of the step that returned last. */
struct wanted {
    int sequence;
    uint64_t life;
};

struct schedule {
    struct schedule_options options;
    struct slot_book *book;
    struct sequences sequences;
    struct flight *flights; /* circle */
    int oldest_flight, n_in_flight;
    uint64_t n_steps;      /* made so far: the number of the one at hand */
    struct step_row *rows; /* of the step at hand */
    int n_rows, n_step_guesses;
    struct update_list updates;
    struct wanted *wanted;
    int n_wanted;
    struct pace pace;
    struct spread spread;
    struct acceptance model_accepted; /* of all sequences: what a new one begins with */
    double model_guess_us;            /* what a draft model takes for a guess, lately, … */
    int n_guess_times;                /* … going by so many measurements */
    int chunk; /* prompt rows of a step, since the last time that there were none; 0: there are none */
    int64_t now_us;
    struct schedule_counts totals;
};

/* Waiting sequences get slots, in rank, as long as slots and blocks last. */
void schedule_admit(struct schedule *s);

/* Blocks outside the windows of all rows still to come go back. */
void schedule_trim(struct schedule *s);

/* Make the table of sequence i cover n positions, at the cost of those behind it in rank. Answers
 * how many it covers of them. */
int schedule_cover(struct schedule *s, int i, int n);

int schedule_n_running(const struct schedule *s);

/* Blocks that neither running sequences nor the first in line will ask for soon. */
int schedule_spare_blocks(const struct schedule *s);

/* ---- guessing.c ---- */

/* May another step with decode rows set off? */
bool schedule_may_decode(const struct schedule *s);

/* A flight's share of n decoding sequences. */
int schedule_decoding_share(const struct schedule *s, int n);

/* May rows of guesses alone go out, while those in front of them are on their way? */
bool guess_may_go_ahead(const struct schedule *s, const struct sequence *q);

/* Guess by look-up what is still missing for the next step. */
int guess_look_up(struct schedule *s, struct sequence *q);

/* How many guesses go into the step at hand, at most `most`, all known tokens being in it or on
 * their way: its table covers them then. */
int guess_rows(struct schedule *s, struct sequence *q, int most);

/* A step went out without a guess behind its token. */
void guess_none(struct schedule *s, struct sequence *q);

/* `token` is what follows the tokens, and about to become one of them. */
void guess_check(struct schedule *s, struct sequence *q, int32_t token);

static inline int least_of(int a, int b)
{
    return a < b ? a : b;
}

static inline int most_of(int a, int b)
{
    return a > b ? a : b;
}

#endif
