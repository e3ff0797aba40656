/* Weights as the CPU kernels read them: panels of PANEL_ROWS rows, in which one output row is one
 * SIMD lane. Codes and scales are the file's own, only moved, so a panel holds exactly the values
 * of the file, at the same number of bits.
 *
 * A panel is up to three regions, each starting on 64 bytes, the same for every panel of a matrix:
 *
 *   Q8_0   codes   [k/32 groups][8 steps][16 rows][4 bytes]   step s: values 4s … 4s+3 of the group
 *          scales  [k/32][16] f16
 *   Q4_0   codes   [k/32][4][16][4]    low nibble: step s, high nibble: step s+4; value = code - 8
 *          scales  [k/32][16] f16
 *   Q6_K   codes   [k/32][384]: low    [4][16][4] four low bits, nibbles as Q4_0
 *                               high   [2][16][4] two high bits: bits 2j, 2j+1 of byte h are of
 *                                      step h + 2j; value = (low | high << 4) - 32
 *          scales  [k/256][16] f16
 *          halves  [k/16][16] int8     the scale of each 16 values
 *   F32, F16, BF16                     [k][16] in the file's type; no scales
 *
 * Four consecutive values of a row stand side by side because the int8 dot-product instructions add
 * four products into each 32-bit lane. Rows beyond n_rows in the last panel are zeros. */
#ifndef SHOAL_BACKEND_CPU_PACK_H
#define SHOAL_BACKEND_CPU_PACK_H

#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PANEL_ROWS = 16,
    GROUP = 32,        /* values under one activation scale; Q8_0 and Q4_0: and one weight scale */
    SUPER_BLOCK = 256, /* values under one Q6_K scale */
    K_SECTIONS = 8,

    /* Bytes of the codes of one group of a panel. */
    Q8_GROUP_BYTES = GROUP * PANEL_ROWS,
    Q4_GROUP_BYTES = Q8_GROUP_BYTES / 2,
    Q6_GROUP_BYTES = Q4_GROUP_BYTES + Q4_GROUP_BYTES / 2,
};

enum pack_format { PACK_F32, PACK_F16, PACK_BF16, PACK_Q8_0, PACK_Q4_0, PACK_Q6_K, N_PACK_FORMATS };

struct packed {
    enum pack_format format;
    int n_rows, n_cols;
    int n_panels;
    size_t panel_bytes; /* a multiple of 64 */
    size_t scales_at;   /* offset of the scales region in a panel */
    size_t halves_at;   /* Q6_K: of the halves region */
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
 * section_begin(n, s + 1)) of n. Blocks are SUPER_BLOCK values of Q6_K and 32 values of every other
 * format; the last block of a float format may be shorter. */
static inline int section_begin(int n_blocks, int section)
{
    return (int)((int64_t)n_blocks * section / K_SECTIONS);
}

static inline int packed_block(const struct packed *p)
{
    return p->format == PACK_Q6_K ? SUPER_BLOCK : GROUP;
}

static inline int packed_n_blocks(const struct packed *p)
{
    int block = packed_block(p);
    return (p->n_cols - 1) / block + 1; /* n_cols >= 1 */
}

#endif
