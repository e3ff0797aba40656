/* Driving a pipeline by hand, without the engine: a few sequences of equal length, side by side,
 * for evaluation and measurement, where every row's logits or every microsecond counts.
 *
 * Sequences are numbered from 0 within their struct, whatever their slots. */
#ifndef SHOAL_CLI_LONE_SEQUENCES_H
#define SHOAL_CLI_LONE_SEQUENCES_H

#include "lead/lead.h"

struct lone_sequences {
    struct lead *lead; /* opened with no_engine and at least n slots */
    int first, n;      /* sequences: slots first … first+n-1 */
    int most;          /* n of init */
    int first_block;   /* of the first sequence's KV blocks … */
    int n_blocks;      /* … of which each has so many */
    int max_rows;      /* of one step */
    int length;        /* positions filled in each */
    int n_open;        /* slots that the stages hold open */
    uint32_t n_holes;  /* at the beginning of each table */
    struct step_update *updates;
    struct step_row *rows;
};

/* ERR_LIMIT when the KV blocks do not hold n sequences of the lead's context. n <= max_rows, which
 * is at most the lead's. Nothing to release after a failure. */
enum err lone_sequences_init(struct lone_sequences *s, struct lead *lead, int n, int max_rows,
                             struct error *e);

/* One sequence of at most `positions`, in a slot of its own and in KV blocks from first_block on,
 * s->n_blocks of them. With others it may take turns, step by step. ERR_LIMIT where the lead has
 * fewer. */
enum err lone_sequences_init_one(struct lone_sequences *s, struct lead *lead, int slot,
                                 int first_block, int positions, int max_rows, struct error *e);
void lone_sequences_release(struct lone_sequences *s);

/* Begin anew: n sequences, 1 to as many as init was told, all empty. */
void lone_sequences_restart(struct lone_sequences *s, int n);

/* Called for every row with logits, in row order: its sequence, its position, its logits [vocab].
 */
typedef void (*lone_logits)(int sequence, int position, float *logits, void *context);

/* Append ids[sequence][0 … n_ids) to every sequence in steps of max_rows rows. Logits of all
 * rows, or of the last of each sequence, go to `visit` (NULL: none are computed). Together no more
 * than the lead's context. ERR_MISMATCH for an id outside the model's vocabulary, before any step;
 * other errors are the pipeline's and final. */
enum err lone_sequences_append(struct lone_sequences *s, const int32_t *const *ids, int n_ids,
                               bool all_logits, lone_logits visit, void *context, struct error *e);

#endif
