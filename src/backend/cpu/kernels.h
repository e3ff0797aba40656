/* The table of CPU kernels: what the backend calls, for the instruction set that was chosen.
 *
 * kernels_select fills the table with the plain-C kernels of ref/, which define the bits
 * (docs/numerics.md), and then lets each instruction set that the processor has, and the mask
 * allows, overwrite what it improves. Every kernel of a slot gives the same bits as ref's, except
 * that the payload and sign of a NaN are not specified; kernels_check.c holds them to it.
 *
 * Kernels work on the part they are given, know nothing of threads, allocate nothing and read no
 * global state but the default floating-point environment (round to nearest even, denormals kept).
 * Pointers need no alignment beyond their type's, except packed weights (64 bytes, pack.h). */
#ifndef SHOAL_BACKEND_CPU_KERNELS_H
#define SHOAL_BACKEND_CPU_KERNELS_H

#include "backend/backend.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/pack.h"
#include "base/bounds.h"
#include "base/panic.h"
#include "tensor/float16.h"

#include <stddef.h>
#include <stdint.h>

enum {
    STRIPES = 16, /* accumulators of a reduction: element i goes to i % STRIPES */
};

/* GROUP consecutive activations of a row as int8 codes. One struct, because a tile of tokens then
 * needs one pointer per token. */
struct quant_group {
    int8_t codes[GROUP]; /* -127 … 127 */
    float scale;
    float scaled_sum;   /* f32(sum of the codes) * scale, for formats with a minimum */
    int32_t less_sum;   /* minus the sum of the codes, and of the first half of them, */
    int32_t less_first; /* for kernels that offset weights to unsigned */
};

/* Quantised rows of activations. Mostly one row behind the other. Interleaved, QUANT_TILE rows have
 * their groups side by side: a kernel that takes so many tokens at a time reads one stream, and
 * where few groups of many rows are stored, they fill cache lines. */
struct quant_rows {
    struct quant_group *groups; /* [quant_rows_room] */
    size_t n_groups;            /* of a row */
    bool interleaved;
};

enum { QUANT_TILE = 4 };

/* Group g of a row. */
static inline struct quant_group *quant_at(const struct quant_rows *r, size_t row, size_t g)
{
    if (!r->interleaved)
        return r->groups + row * r->n_groups + g;
    return r->groups + (row / QUANT_TILE * r->n_groups + g) * QUANT_TILE + row % QUANT_TILE;
}

/* A row of those that are one behind the other. */
static inline const struct quant_group *quant_row(const struct quant_rows *r, size_t row)
{
    ASSERT(!r->interleaved);
    return r->groups + row * r->n_groups;
}

/* Groups that n rows take at most: the last tile counts as full. */
static inline size_t quant_rows_room(size_t n, size_t n_groups)
{
    return (n + QUANT_TILE - 1) / QUANT_TILE * QUANT_TILE * n_groups;
}

/* y[t][r - first_row] = sum over k of W[r][k] x[t][k], for the rows r of some panels and all n
 * tokens t; with `add`, the sum is added to what stands there: y + sum, one rounding. */
struct matmul {
    const struct packed *w;
    const float *x;      /* [n][n_cols]; float formats read it */
    struct quant_rows q; /* x quantised; quantised formats read it */
    float *y;            /* [n][y_stride]; only columns of rows in range are written */
    size_t y_stride;
    int n;
    int first_row;
    bool add;
};

#define NUMERICS_EXACT "exact-2" /* docs/numerics.md */

struct kernels {
    const char *variant;     /* "ref", "avx2", … */
    const char *numerics_id; /* which definition of the bits they keep */
    int interleave_from;     /* products of so many tokens and more read interleaved rows, of fewer
                                rows one behind the other; 0: always those */

    /* Quantise n_rows rows of n_groups groups of GROUP values, one behind the other in x, to the
     * groups from `group` on of the rows from `row` on. */
    void (*quantise)(const struct quant_rows *to, size_t row, size_t group, const float *x,
                     size_t n_rows, size_t n_groups);

    void (*matmul[N_PACK_FORMATS])(const struct matmul *m, int panel_begin, int panel_end);

    /* One row. y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *gain, float eps, int n_cols);

    /* Elementwise. y may be gate or up. */
    void (*silu_mul)(float *y, const float *gate, const float *up, size_t n);
    void (*add)(float *x, const float *y, size_t n);

    /* Rotate one head in place; `turn` holds rope_size / 2 cosines, then as many sines. */
    void (*rotate)(float *head, const float *turn, int rope_size, bool halves);

    void (*to_f16)(struct f16 *dst, const float *src, size_t n);

    /* A tile, all of its positions, to y. Scratch: attention_scratch_floats, on 64 bytes. */
    void (*attention)(const struct attention *a, const struct attention_tile *t, float *scratch);
    /* The same in pieces, so that threads can share a long sequence: chunk c (positions from
     * c * ATTENTION_CHUNK, seen by every query of the tile) as a partial; then the partials of all
     * chunks in order, `stride` floats apart, to y. The first of them is overwritten. */
    void (*attention_chunk)(const struct attention *a, const struct attention_tile *t, int c,
                            float *partial, float *scratch);
    void (*attention_merge)(const struct attention *a, const struct attention_tile *t,
                            float *partials, size_t stride, int n_chunks);
};

/* `isa` as SHOAL_CPU: NULL or "" takes the best exact ones there are, else ref, on x86 avx2, avxvnni,
 * avx512 or bf16dot, on Arm neon, dotprod or i8mm. Any other word, or one that this processor lacks,
 * is ERR_INVALID naming the expected and the found. */
enum err kernels_select(const char *isa, struct kernels *out, struct error *e);

/* The names that kernels_select takes on this processor, separated by ", ": "ref, avx2". */
void kernels_names(char *text, size_t text_bytes);

/* One instruction set of this architecture above plain C. The list, best last, ended by a NULL
 * name, is in the file that CMake chose: x86/isas_x86.c, arm/isas_arm.c or
 * isas_none.c. One with another arithmetic
 * than the exact one says which, and its reference; it is only taken by name. */
struct isa {
    const char *name;
    bool (*present)(void); /* the processor has it, and the operating system saves its registers */
    void (*fill)(struct kernels *k);
    const char *numerics_id;             /* NULL: NUMERICS_EXACT */
    void (*fill_ref)(struct kernels *k); /* its definition, over kernels_ref; NULL: that alone */
};
extern const struct isa kernels_isas[];

void kernels_ref(struct kernels *k);         /* every slot */
void kernels_ref_bf16dot(struct kernels *k); /* the slots in which "bf16dot-1" differs */

/* s[0 … 15] summed in the order of every striped reduction: halves folded onto each other.
 * s is overwritten. */
static inline float stripe_tree(float s[STRIPES])
{
    for (int width = STRIPES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            s[i] += s[i + width];
    return s[0];
}

/* The sums of the K_SECTIONS in the order of every matrix product. */
static inline float section_tree(const float s[K_SECTIONS])
{
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

/* How many of n tokens to take at a time: at most `max`, about equally many each time, and whole
 * tiles of `tile` but for the last. */
static inline int even_tokens(int n, int max, int tile)
{
    int blocks = (n - 1) / max + 1, each = (n - 1) / blocks + 1;
    int tiles = (each - 1) / tile + 1;
    return tiles * tile < max ? tiles * tile : max;
}

#endif
