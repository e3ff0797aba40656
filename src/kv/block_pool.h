/* Which KV blocks are free, on paper: the lead's book of the blocks that every stage holds.
 *
 * A block is KV_BLOCK_TOKENS positions of every layer; all stages use the same block ids, so one
 * book serves the whole ring. An owner (a sequence slot) first reserves as many blocks as it can
 * ever need, then takes them one by one: a take within the reservation cannot fail, so a running
 * sequence never runs out midway. A block has one reference per owner that holds it (sharing a
 * prefix adds one); it is free again when the last is dropped.
 *
 * Pure and deterministic: the lowest free block is not sought, the one freed last is given first
 * (its memory is the warmest). "Full" is an ordinary answer. One thread at a time. */
#ifndef SHOAL_KV_BLOCK_POOL_H
#define SHOAL_KV_BLOCK_POOL_H

#include <stdbool.h>
#include <stdint.h>

struct block_pool;

/* Both >= 1. Owners are 0 … n_owners - 1 and hold nothing at first. */
struct block_pool *block_pool_new(int n_blocks, int n_owners);
void block_pool_free(struct block_pool *p); /* NULL allowed */

/* Promise `owner` n more blocks; false (nothing changed) when fewer are free and unpromised. */
bool block_pool_reserve(struct block_pool *p, int owner, int n);

/* One block of the owner's reservation, which it then holds with one reference. Asking for more
 * than was reserved is a bug. */
int32_t block_pool_take(struct block_pool *p, int owner);

/* Let `owner` too hold a block that somebody holds. Uses nothing of its reservation. */
void block_pool_share(struct block_pool *p, int owner, int32_t block);

/* The owner no longer holds the block. True when it became free by that. */
bool block_pool_drop(struct block_pool *p, int owner, int32_t block);

/* Give what is left of the owner's reservation back; what it holds it keeps. */
void block_pool_unreserve(struct block_pool *p, int owner);

int block_pool_total(const struct block_pool *p);
int block_pool_used(const struct block_pool *p);      /* blocks with a reference */
int block_pool_available(const struct block_pool *p); /* neither used nor promised */
int block_pool_held(const struct block_pool *p, int owner);
int block_pool_reserved(const struct block_pool *p, int owner); /* promised, not yet taken */
int block_pool_refs(const struct block_pool *p, int32_t block);

#endif
