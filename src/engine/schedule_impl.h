/* The state of a schedule, and what its two files need of each other: schedule.c puts steps
 * together, admission.c decides who has slots and blocks. */
#ifndef SHOAL_ENGINE_SCHEDULE_IMPL_H
#define SHOAL_ENGINE_SCHEDULE_IMPL_H

#include "base/bounds.h"
#include "engine/pace.h"
#include "engine/schedule.h"
#include "engine/sequence_impl.h"
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
};

/* A row that wanted logits, of the step that returned last. */
struct wanted {
    int sequence;
    uint64_t life;
    int n_right_before; /* it counts when so many guesses in front of it were right */
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
    struct step_update *updates; /* what the next step must tell the stages */
    int n_updates;
    bool updates_taken; /* they went out with the last step */
    struct wanted *wanted;
    int n_wanted;
    struct pace pace;
    int64_t now_us, returned_us;
    struct schedule_counts totals;
};

/* Waiting sequences get slots, in rank, as long as slots and blocks last. */
void schedule_admit(struct schedule *s);

/* Make the table of sequence i cover n positions, at the cost of those behind it in rank. Answers
 * how many it covers of them. */
int schedule_cover(struct schedule *s, int i, int n);

int schedule_n_running(const struct schedule *s);

#endif
