/* Element types of tensors in model files, and the block layouts of the quantised ones.
 *
 * A type packs `block_elems` consecutive elements of a row into `block_bytes` bytes; plain types
 * have blocks of one element. Rows are whole blocks: the row width is a multiple of block_elems.
 * The table knows every GGUF type and every safetensors type by name, so that one we cannot
 * compute with is listed and refused by name; `computable` tells which we can. Types that only
 * safetensors have carry numbers from DTYPE_BOOL up, which no GGUF file may use.
 * Everything here is pure; any thread. Layouts: docs/formats/gguf.md, safetensors.md. */
#ifndef SHOAL_TENSOR_DTYPE_H
#define SHOAL_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Values below N_GGUF_DTYPES are GGUF's numbers; they stand in files and frames. */
enum dtype {
    DTYPE_F32 = 0,
    DTYPE_F16 = 1,
    DTYPE_Q4_0 = 2,
    DTYPE_Q4_1 = 3,
    DTYPE_Q5_0 = 6,
    DTYPE_Q5_1 = 7,
    DTYPE_Q8_0 = 8,
    DTYPE_Q8_1 = 9,
    DTYPE_Q2_K = 10,
    DTYPE_Q3_K = 11,
    DTYPE_Q4_K = 12,
    DTYPE_Q5_K = 13,
    DTYPE_Q6_K = 14,
    DTYPE_Q8_K = 15,
    DTYPE_IQ2_XXS = 16,
    DTYPE_IQ2_XS = 17,
    DTYPE_IQ3_XXS = 18,
    DTYPE_IQ1_S = 19,
    DTYPE_IQ4_NL = 20,
    DTYPE_IQ3_S = 21,
    DTYPE_IQ2_S = 22,
    DTYPE_IQ4_XS = 23,
    DTYPE_I8 = 24,
    DTYPE_I16 = 25,
    DTYPE_I32 = 26,
    DTYPE_I64 = 27,
    DTYPE_F64 = 28,
    DTYPE_IQ1_M = 29,
    DTYPE_BF16 = 30,
    DTYPE_TQ1_0 = 34,
    DTYPE_TQ2_0 = 35,
    DTYPE_MXFP4 = 39,
    DTYPE_NVFP4 = 40,
    DTYPE_Q1_0 = 41,
    DTYPE_Q2_0 = 42,
    N_GGUF_DTYPES = 43,

    /* Safetensors only. */
    DTYPE_BOOL = 256,
    DTYPE_U8 = 257,
    DTYPE_U16 = 258,
    DTYPE_U32 = 259,
    DTYPE_U64 = 260,
    DTYPE_F8_E4M3 = 261,
    DTYPE_F8_E5M2 = 262,
    DTYPE_F8_E8M0 = 263,
    DTYPE_C64 = 264,
    DTYPE_F4 = 265,
    DTYPE_F6_E2M3 = 266,
    DTYPE_F6_E3M2 = 267,
    N_DTYPES = 268
};

struct dtype_info {
    const char *name; /* "Q8_0"; NULL where the number stands for no type */
    int block_elems;
    int block_bytes;
    bool computable; /* the backends multiply with it */
};

/* The description of a type; NULL for a number that names none. */
const struct dtype_info *dtype_info(uint32_t type);

/* The type of that name ("BF16", "Q8_0", case as printed); false if there is none. */
bool dtype_from_name(const char *name, uint32_t *type);

/* "Q8_0", or "type 77" style text for unknown numbers (static, thread-local buffer). */
const char *dtype_name(uint32_t type);

/* Bytes of one row of `n_elems` elements; false if the type is unknown, n_elems is no multiple of
 * the block, or the product overflows. */
bool dtype_row_bytes(uint32_t type, uint64_t n_elems, uint64_t *row_bytes);

#endif
