/* The sequences of a schedule: named places, each in one of three lists, and their rank.
 *
 * Waiting and prompt stand in order of rank (priority, then arrival), decoding in the order in
 * which it is served, least recently scheduled first. Knows nothing of steps. One thread at a time.
 */
#ifndef SHOAL_ENGINE_SEQUENCE_IMPL_H
#define SHOAL_ENGINE_SEQUENCE_IMPL_H

#include "engine/acceptance.h"
#include "engine/draft.h"
#include "engine/schedule.h"

#include <stdbool.h>
#include <stdint.h>

enum { MOST_ASSUMED = 128 /* guesses of one sequence that wait for their answer */ };

enum list_kind { LIST_NONE, LIST_WAITING, LIST_PROMPT, LIST_DECODING, N_LISTS };

/* tokens[0 … n_tokens) are those of the sequence. Behind them, up to n_assumed, stand guesses: what
 * is thought to follow. Tokens up to n_sent are in steps, and guesses may be among these; so what
 * is known to be computed ends at the smaller of n_sent and n_tokens. */
struct sequence {
    int32_t *tokens; /* [limit] */
    int n_tokens, n_prompt, n_assumed;
    int limit;     /* most tokens, prompt included */
    int n_sent;    /* tokens whose keys and values are in the steps made so far */
    int slot;      /* -1 while waiting */
    uint64_t life; /* rows of another life count for nothing: preempted, or behind a wrong guess */
    int priority;  /* higher is served first */
    uint64_t arrival;
    uint64_t in_step; /* the last step with rows of it, + 1 */
    int n_flying;     /* steps on their way with rows of this life */

    bool guesses;        /* are welcome */
    struct draft *draft; /* NULL: no look-up */
    struct acceptance accepted[N_GUESS_SOURCES];
    uint8_t source[MOST_ASSUMED]; /* of the guess at position i % MOST_ASSUMED */

    int64_t waiting_since;
    struct sequence_account account;

    enum list_kind list;
    int before, after; /* neighbours in the list, -1 at its ends */
};

struct list {
    int first, last, length;
};

struct sequences {
    struct sequence *all;
    int n_all;
    int *unused; /* stack of names */
    int n_unused;
    uint64_t n_lives, n_arrived;
    struct list lists[N_LISTS];
};

void sequences_init(struct sequences *s, int n);
void sequences_release(struct sequences *s);

/* A name with an empty sequence, in no list; -1 when all are in use. */
int sequences_take(struct sequences *s);
void sequences_give_back(struct sequences *s, int i); /* out of its list, memory freed */

struct sequence *sequences_live(const struct sequences *s, int i); /* ASSERTs that it is */

/* Is a served before b? */
bool sequence_before(const struct sequence *a, const struct sequence *b);

/* Move to the end of a list, or to where its rank puts it. */
void list_append(struct sequences *s, int i, enum list_kind kind);
void list_insert(struct sequences *s, int i, enum list_kind kind);

#endif
