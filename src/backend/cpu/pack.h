/* Weights as the CPU kernels read them: panels of PANEL_ROWS rows, in which one output row is one
 * SIMD lane. Codes and scales are the file's own, only moved, so a panel holds exactly the values
 * of the file, at the same number of bits.
 *
 * A panel is its blocks of k one after the other, each starting on 64 bytes, scales before codes:
 * a kernel reads a panel as one stream from end to end, which is what the processor's prefetcher
 * follows best (two streams, codes and scales apart, were measured at half the bandwidth).
 *
 *   Q8_0   64 values    scales  [2 groups][16 rows] f16
 *                       codes   [2][8 steps][16][4 bytes]     step s: values 4s … 4s+3 of the group
 *   Q4_0   64 values    scales  [2][16] f16
 *                       codes   [2][4][16][4]   low nibble: step s, high: step s + 4;
 *                                               value = scale (code - 8)
 *   Q4_K   256 values   d, dmin [2][16] f16
 *                       low     [8 groups][16]  low nibble: scale & 15, high nibble: min & 15
 *                       high    [4][16]         group g: nibble g & 1 of byte g / 2; its bits
 *                                               0, 1: scale >> 4, bits 2, 3: min >> 4
 *                       codes   [8][4][16][4]   nibbles as Q4_0; value = d scale code - dmin min
 *   Q6_K   256 values   d       [16] f16, 32 bytes of zeros
 *                       then four times, for two groups each:
 *                       scales  [4 halves of groups][16] int8
 *                       codes   [4][3][16][4]   six low bits of byte j: step j of the half; the
 *                                               high two: of its step 3, the highest first;
 *                                               value = d scale (code - 32)
 *
 *   F32, F16, BF16      [k][16] in the file's type
 *
 * Four consecutive values of a row stand side by side because the int8 dot-product instructions add
 * four products into each 32-bit lane. Rows beyond n_rows in the last panel are zeros, and so is
 * the second group of the last block where Q8_0 or Q4_0 have an odd number of groups. */
#ifndef SHOAL_BACKEND_CPU_PACK_H
#define SHOAL_BACKEND_CPU_PACK_H

#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PANEL_ROWS = 16,
    GROUP = 32,        /* values under one activation scale */
    SUPER_BLOCK = 256, /* values of a block of Q4_K and Q6_K */
    K_SECTIONS = 8,

    /* Bytes of the codes of one group of a panel. */
    Q8_GROUP_BYTES = GROUP * PANEL_ROWS,
    Q4_GROUP_BYTES = Q8_GROUP_BYTES / 2,
    Q6_HALF_BYTES = 3 * 4 * PANEL_ROWS,
    Q6_GROUP_BYTES = 2 * Q6_HALF_BYTES,

    /* Where things are in a block of a panel. */
    PAIR_CODES_AT = 2 * PANEL_ROWS * 2, /* Q8_0, Q4_0 */
    Q4_K_LOW_AT = 2 * PANEL_ROWS * 2,
    Q4_K_HIGH_AT = Q4_K_LOW_AT + 8 * PANEL_ROWS,
    Q4_K_CODES_AT = Q4_K_HIGH_AT + 4 * PANEL_ROWS,
    Q6_K_PAIRS_AT = 64,
    Q6_K_PAIR_CODES_AT = 4 * PANEL_ROWS,
    Q6_K_PAIR_BYTES = Q6_K_PAIR_CODES_AT + 2 * Q6_GROUP_BYTES,
};

enum pack_format {
    PACK_F32,
    PACK_F16,
    PACK_BF16,
    PACK_Q8_0,
    PACK_Q4_0,
    PACK_Q4_K,
    PACK_Q6_K,
    N_PACK_FORMATS
};

struct packed {
    enum pack_format format;
    int n_rows, n_cols;
    int n_panels;
    size_t block_bytes; /* quantised formats: of one block of a panel, a multiple of 64 */
    size_t panel_bytes; /* a multiple of 64 */
    uint8_t *data;      /* 64-byte aligned, n_panels * panel_bytes */
};

/* The layout of a matrix of n_rows x n_cols, `data` NULL. False: no such format for the type, or
 * n_cols no whole number of its blocks, or a size that overflows. */
bool pack_layout(enum dtype type, int n_rows, int n_cols, struct packed *p);

/* Fill panels [begin, end) of p->data from rows in file layout, `row_bytes` apart, any alignment.
 * Panels are independent: threads may share the work. */
void pack_panels(const struct packed *p, const uint8_t *rows, size_t row_bytes, int begin, int end);

/* y[0 … n_cols) = the values of one row: (float)code * scale, rounded once. */
void unpack_row(const struct packed *p, int row, float *y);

/* Where in a block of Q6_K the scales of both halves of group g begin, and where its codes. */
static inline size_t q6_k_scales_at(int g)
{
    return Q6_K_PAIRS_AT + g / 2 * Q6_K_PAIR_BYTES + g % 2 * 2 * PANEL_ROWS;
}

static inline size_t q6_k_codes_at(int g)
{
    return Q6_K_PAIRS_AT + g / 2 * Q6_K_PAIR_BYTES + Q6_K_PAIR_CODES_AT + g % 2 * Q6_GROUP_BYTES;
}

/* A code of Q6_K, of step 0 … 3 of half a group: `at` is its lane and value in the first of three
 * vectors of 64 bytes. */
static inline int six_bits_at(const uint8_t *at, int step)
{
    return step < 3 ? at[64 * step] & 63 : at[0] >> 6 << 4 | at[64] >> 6 << 2 | at[128] >> 6;
}

/* Whether activations must be quantised for this format. */
static inline bool pack_is_quantised(enum pack_format format)
{
    return format >= PACK_Q8_0;
}

static inline const uint8_t *packed_panel(const struct packed *p, int panel_i)
{
    return p->data + (size_t)panel_i * p->panel_bytes;
}

/* k is cut into K_SECTIONS at block boundaries: section s is blocks [section_begin(n, s),
 * section_begin(n, s + 1)) of n. */
static inline int section_begin(int n_blocks, int section)
{
    return (int)((int64_t)n_blocks * section / K_SECTIONS);
}

/* Values of a block; the last one of Q8_0 and Q4_0 may be half, that of a float format any part. */
static inline int pack_block(enum pack_format format)
{
    return format >= PACK_Q4_K ? SUPER_BLOCK : format >= PACK_Q8_0 ? 2 * GROUP : GROUP;
}

static inline int packed_n_blocks(const struct packed *p)
{
    return (p->n_cols - 1) / pack_block(p->format) + 1; /* n_cols >= 1 */
}

#endif
