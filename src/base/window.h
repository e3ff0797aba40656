/* Sliding windows: a row at position p attends to the last `window` positions up to its own,
 * p - window + 1 … p as far as they are there, and with window 0 to all. */
#ifndef SHOAL_BASE_WINDOW_H
#define SHOAL_BASE_WINDOW_H

#include "base/bounds.h"

#include <stdint.h>

/* The first of them. */
static inline int window_first(int window, int p)
{
    return window > 0 && p >= window ? p - window + 1 : 0;
}

/* KV blocks that n_rows rows at following positions read and write together, at most; window and
 * n_rows >= 1. The first of their positions may be the last of its block. */
static inline int window_blocks(int window, int n_rows)
{
    int64_t positions = (int64_t)window - 1 + n_rows;
    return (int)((positions - 2 + KV_BLOCK_TOKENS) / KV_BLOCK_TOKENS + 1);
}

#endif
