/* The sequence slots of the ring, on paper: which are open, which blocks stand in their tables, and
 * what those blocks hold.
 *
 * The lead's mirror of the tables that every stage keeps. Each change here is also told to
 * a sink, which writes it as the step update that makes the stages do the same, in order, in front
 * of the caller's next step: so book and stages cannot drift apart.
 *
 * Closing a slot gives its blocks back at once, also while steps that use them are on their way:
 * every stage handles steps in order, and the close stands before anything that could use them
 * again. For the same reason a block may be shared as soon as the step that fills it was
 * made (prefix_index.h). Blocks that are full outlive their slot as long as nobody needs the room.
 *
 * Where attention has a window (base/window.h), a table begins with holes: blocks that no row still
 * to come reads were given back, and live on like those of a closed slot. A sequence that begins
 * alike takes over what the row after its last known token reads, and nothing before: so it may
 * go on at a place whose beginning is forgotten long since.
 *
 * Pure; one thread at a time. */
#ifndef SHOAL_KV_SLOT_BOOK_H
#define SHOAL_KV_SLOT_BOOK_H

#include "kv/block_pool.h"

struct slot_book;

/* The sink of updates. The kinds mean what UPDATE_OPEN, _APPEND, _COPY, _CLOSE and _TRIM of
 * stage/step.h mean (this module knows no steps). */
enum slot_change_kind { SLOT_OPEN, SLOT_APPEND, SLOT_COPY, SLOT_CLOSE, SLOT_TRIM };
struct slot_change {
    enum slot_change_kind kind;
    int slot;      /* not SLOT_COPY */
    int32_t block; /* SLOT_APPEND; SLOT_COPY: written; SLOT_TRIM: how many entries are holes now */
    int32_t from;  /* SLOT_COPY: read */
};
typedef void (*slot_change_fn)(void *context, const struct slot_change *change);

struct slot_book_options {
    int n_slots, n_blocks; /* >= 1 */
    int max_positions;     /* of one slot: bounds its table */
    int window;            /* of attention, in every layer; 0: none */
    uint64_t cache_key;    /* stands for everything but tokens that keys and values depend on */
    bool no_reuse;         /* nothing is ever shared or kept */
    slot_change_fn change;
    void *context;
};

struct slot_book *slot_book_new(const struct slot_book_options *o);
void slot_book_free(struct slot_book *b); /* NULL allowed */

int slot_book_blocks_for(int n_positions); /* blocks that hold them */
/* Blocks that n_rows following rows read and write together at most: alone enough for any length of
 * a sequence. Without a window as many as positions need. */
int slot_book_blocks_at_once(const struct slot_book *b, int n_rows);

/* A slot with an empty table; -1 when none is free. */
int slot_book_open(struct slot_book *b);

/* Append blocks until the table covers n_positions, or as far as there are blocks: the positions
 * that it covers (up to n_positions). */
int slot_book_extend(struct slot_book *b, int slot, int n_positions);

/* The slot is to hold `tokens`, and the first n_done of them are in the steps made so far. If the
 * next ones stand in blocks that were computed before, take those over. */
struct slot_reuse {
    int n_done; /* the new count, <= most */
    bool wait;  /* more can be taken over in the next step than in this one */
};
struct slot_reuse slot_book_reuse(struct slot_book *b, int slot, const int32_t *tokens, int n_done,
                                  int most, uint64_t step);

/* Step `step` (or an earlier one) computes tokens[0 … n) of the slot: its blocks can be found. */
void slot_book_fill(struct slot_book *b, int slot, const int32_t *tokens, int n, uint64_t step);

/* The rows of the slot still to come begin at `position`, whatever becomes of guesses: blocks
 * before what it reads are given back. */
void slot_book_trim(struct slot_book *b, int slot, int position);

void slot_book_close(struct slot_book *b, int slot);

/* A sequence that begins with these n tokens needs so many fewer blocks than they fill: what would
 * be found for it that somebody holds right now, and holes. */
int slot_book_n_shareable(struct slot_book *b, const int32_t *tokens, int n);

int slot_book_n_open(const struct slot_book *b);
int slot_book_covers(const struct slot_book *b, int slot); /* positions inside its table */
int slot_book_n_held(const struct slot_book *b, int slot); /* blocks in it: holes do not count */
int slot_book_table(const struct slot_book *b, int slot, const int32_t **blocks); /* its length */
const struct block_pool *slot_book_pool(const struct slot_book *b);

#endif
