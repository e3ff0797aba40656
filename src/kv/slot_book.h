/* The sequence slots of the ring, on paper: which are open and which blocks stand in their tables.
 *
 * The lead's mirror of the tables that every stage keeps. Each change here is also written
 * as the step update that makes the stages do the same, into a list that the caller puts in
 * front of its next step: so book and stages cannot drift apart. A slot is an owner in the book
 * of blocks (block_pool.h) that the slot book owns.
 *
 * Closing gives the blocks back at once: every stage handles steps in order, and the close stands
 * before anything that could use them again. Pure; one thread at a time. */
#ifndef SHOAL_KV_SLOT_BOOK_H
#define SHOAL_KV_SLOT_BOOK_H

#include "kv/block_pool.h"

struct slot_book;

/* The sink of updates: called in order, once for each. `block` only with SLOT_APPEND. The kinds
 * mean what UPDATE_OPEN, _APPEND and _CLOSE of stage/step.h mean (this module knows no steps). */
enum slot_change { SLOT_OPEN, SLOT_APPEND, SLOT_CLOSE };
typedef void (*slot_change_fn)(void *context, enum slot_change change, int slot, int32_t block);

/* All >= 1; `max_positions` bounds the table of one slot. */
struct slot_book *slot_book_new(int n_slots, int n_blocks, int max_positions);
void slot_book_free(struct slot_book *b); /* NULL allowed */

int slot_book_blocks_for(int n_positions); /* blocks that hold them */

/* Open a slot that will never hold more than n_positions; -1 when no slot is free or the blocks
 * are not. */
int slot_book_open(struct slot_book *b, int n_positions, slot_change_fn change, void *context);

/* Append blocks until the slot's table covers n_positions (within what was opened for). */
void slot_book_extend(struct slot_book *b, int slot, int n_positions, slot_change_fn change,
                      void *context);

void slot_book_close(struct slot_book *b, int slot, slot_change_fn change, void *context);

int slot_book_n_open(const struct slot_book *b);
int slot_book_table(const struct slot_book *b, int slot, const int32_t **blocks); /* its length */
const struct block_pool *slot_book_pool(const struct slot_book *b);

#endif
