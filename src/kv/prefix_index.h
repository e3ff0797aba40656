/* Which blocks hold the keys and values of which tokens: how a prompt finds what was computed
 * before.
 *
 * Keys and values at a position are a function of all tokens up to it, where attention has a window
 * too: what lies before it comes through the layers (and of the model and the type in which they
 * are stored). So a block is named by a chain of hashes: that of its own tokens
 * together with the name of the block before it; the root is made of a key that stands for
 * everything else that matters, so that nothing of another model is ever found. Hashes are 128 bits
 * (xxh3) under a root that the outside does not know, and the tokens themselves are compared too.
 *
 * A block that is full is found by its name: it can be shared. One that is still being filled, or
 * full but for the tokens at its end different from what is looked for, is found by its parent's
 * name: its beginning can be copied.
 *
 * Everything here is about what *steps* have written: stages do steps in order, so whatever was put
 * into a step is there for every later one (and, since a layer stores all rows of a step before any
 * of them is attended to, for the later rows of the same). A copy is made before the rows of its
 * step run, so a copy only sees what earlier steps wrote. If a step is lost, so is the ring
 * and all that this index knows. Pure; one thread at a time. */
#ifndef SHOAL_KV_PREFIX_INDEX_H
#define SHOAL_KV_PREFIX_INDEX_H

#include <stdbool.h>
#include <stdint.h>

struct prefix_hash {
    uint64_t low, high;
};

struct prefix_hash prefix_hash_root(uint64_t key);
/* The name of a full block: KV_BLOCK_TOKENS tokens after `parent`. */
struct prefix_hash prefix_hash_next(struct prefix_hash parent, const int32_t *tokens);

struct prefix_index;
struct prefix_index *prefix_index_new(int n_blocks);
void prefix_index_free(struct prefix_index *x); /* NULL allowed */

/* Step number `step` puts token n (so that `block`, after `parent`, holds tokens[0 … n)); n only
 * grows for a block until it is forgotten. True when the block is full and found by its name from
 * now on; false also when another block has that name already. */
bool prefix_index_fill(struct prefix_index *x, int32_t block, struct prefix_hash parent,
                       const int32_t *tokens, int n, uint64_t step);

/* The block with this name and these tokens, or -1. */
int32_t prefix_index_find(const struct prefix_index *x, struct prefix_hash name,
                          const int32_t *tokens);

/* The block after `parent` that begins with most of the n tokens. */
struct prefix_part {
    int32_t block; /* -1: none */
    int n_now;     /* tokens that can be copied in step `step` */
    int n_soon;    /* and in the next one, if more */
};
struct prefix_part prefix_index_find_part(const struct prefix_index *x, struct prefix_hash parent,
                                          const int32_t *tokens, int n, uint64_t step);

/* The block's contents are gone. Blocks that it does not know are allowed. */
void prefix_index_forget(struct prefix_index *x, int32_t block);

#endif
