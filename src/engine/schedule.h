/* The scheduler: which tokens of which sequences go into the next step. Pure: sequences, tokens and
 * returned steps go in; rows and table updates come out; no clock, no thread, no random source.
 *
 * A sequence is the tokens of one request: its prompt, then one token at a time. Life:
 *
 *   schedule_add ──▶ waiting ──(slot and blocks free)──▶ prompt ──▶ decoding ──▶ schedule_end
 *
 * Rules:
 *  - Admission is first come, first served: the head of the line waits until a slot is free and all the
 *    blocks that it can ever need; nobody overtakes it. So a running sequence never runs out.
 *  - A step takes decode rows first, then chunks of prompts in order of admission, up to max_rows. Chunks
 *    of one prompt may follow each other in several flights; only its last row wants logits. A
 *    decoding sequence has one row in flight at most.
 *  - With several flights, decoding sequences and prompt rows are spread over them, least recently
 *    scheduled first, so that all stages have work.
 *  - schedule_end may come at any time. Rows in flight then count for nothing; slot and blocks are free
 *    again when the last step that uses them has returned, and the next step closes the slot
 *    on the stages.
 * What a sequence gets computed depends on its own tokens only (DESIGN, promise 1): everything
 * above decides when, never what. One thread at a time. */
#ifndef SHOAL_ENGINE_SCHEDULE_H
#define SHOAL_ENGINE_SCHEDULE_H

#include "base/error.h"
#include "stage/step.h"

#include <stdbool.h>
#include <stdint.h>

struct schedule;

struct schedule_options {
    int max_context; /* positions of one sequence */
    int n_blocks;
    int n_slots;
    int max_rows;
    int n_flights;   /* steps on their way at once, >= 1 */
    int max_sequences; /* waiting and running together, >= 1 */
    int min_chunk;   /* fewer prompt rows than this are not cut to fill flights; 0: 32 */
};

struct schedule *schedule_new(const struct schedule_options *o);
void schedule_free(struct schedule *s); /* NULL allowed */

/* How many tokens a prompt of n_prompt may be followed by: max_tokens (< 0: no limit), held down
 * by the context and by all blocks together. ERR_LIMIT when the prompt itself does not fit. */
enum err schedule_room(const struct schedule *s, int n_prompt, int max_tokens, int *room,
                       struct error *e);

/* A new sequence, waiting: the tokens are copied, *sequence names it from now on. `room` >= 1 is at
 * most what schedule_room says. ERR_FULL (max_sequences), ERR_MEMORY. */
enum err schedule_add(struct schedule *s, const int32_t *prompt, int n_prompt, int room,
                      int *sequence, struct error *e);

/* The tokens so far, valid until the next schedule_push or schedule_end of this sequence. */
const int32_t *schedule_tokens(const struct schedule *s, int sequence, int *n_tokens);

/* The next step (rows, updates, flight; the pipeline fills in the rest), counted as on its way from
 * now on; its arrays live until the next call. False: all flights are out, or nothing to do. */
bool schedule_next(struct schedule *s, struct step *step);

/* The sequences that the last schedule_next admitted. */
int schedule_admitted(const struct schedule *s, const int **sequences);

/* The oldest step on its way has returned. Answers how many of its rows wanted logits;
 * (*sequences)[i] is whose the i-th is, or -1 if that sequence has ended meanwhile. Each of them must
 * get schedule_push or schedule_end. The array lives until the next call of schedule_returned. */
int schedule_returned(struct schedule *s, const int **sequences);

/* The token that follows. False: it was the last that there is room for; schedule_end is due. */
bool schedule_push(struct schedule *s, int sequence, int32_t token);

/* No more of this sequence; its name is void. */
void schedule_end(struct schedule *s, int sequence);

struct schedule_counts {
    int waiting, running;      /* sequences not ended */
    int draining;              /* ended, with rows still in flight */
    int in_flight;             /* steps */
    int slots_used, blocks_used, blocks_promised;
};
void schedule_count(const struct schedule *s, struct schedule_counts *out);

#endif
