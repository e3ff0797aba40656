/* Which KV blocks are free, on paper: the lead's book of the blocks that every stage holds.
 *
 * A block is KV_BLOCK_TOKENS positions of every layer; all stages use the same block ids, so one
 * book serves the whole ring. A block has one reference for each table that it stands in (sharing
 * a prefix adds one). When the last is dropped it is free again; or, if its contents are worth
 * keeping, it lies idle: still what it was, to be shared again or, when nothing else is free, taken
 * for something new, the one that lay idle longest first.
 *
 * Blocks of a strip (KV_STRIP_BLOCKS ids from a multiple of that on) lie together in every stage's
 * memory, strips with following ids one behind the other, and attention reads a sequence fastest that
 * fills whole strips in ascending order. So a sequence begins a strip that is free, fills it, and
 * goes on with the next; where there is no such strip it takes what there is.
 *
 * Pure and deterministic. "None left" is an ordinary answer. One thread at a time. */
#ifndef SHOAL_KV_BLOCK_POOL_H
#define SHOAL_KV_BLOCK_POOL_H

#include <stdbool.h>
#include <stdint.h>

struct block_pool;

struct block_pool *block_pool_new(int n_blocks); /* >= 1, all of them free */
void block_pool_free(struct block_pool *p);      /* NULL allowed */

/* A block with one reference, whose old contents are worth nothing from now on, for place `place` of
 * a sequence's table (from 0 on), whose last block is `last` (-1: none yet). Of the free ones: where
 * a strip is begun, the one behind `last`; else the first of which the rest of the strip, as far as
 * the place needs it, is free too, behind `last` or else anywhere; else the first behind `last`;
 * else the first of all. If none is free, the one that lay idle longest, or one of its strip chosen
 * likewise that lay idle about as long; -1 when all are held. */
int32_t block_pool_take(struct block_pool *p, int32_t last, int place);

/* One more reference to a block that is held or idle. */
void block_pool_share(struct block_pool *p, int32_t block);

/* One reference less. True when the block became free by that, and its contents are lost. */
bool block_pool_drop(struct block_pool *p, int32_t block);

/* The contents of a block that is held are worth keeping. */
void block_pool_keep(struct block_pool *p, int32_t block);

int block_pool_total(const struct block_pool *p);
int block_pool_used(const struct block_pool *p);      /* with a reference */
int block_pool_idle(const struct block_pool *p);      /* kept without one */
int block_pool_available(const struct block_pool *p); /* free or idle: what can be taken */
int block_pool_refs(const struct block_pool *p, int32_t block);

#endif
