/* The table of element types. Sizes come from the block layouts (docs/formats/gguf.md): a block
 * of n elements at b bits plus its scales. Numbers that once meant a type and were withdrawn from
 * the format (4, 5, 31-33, 36-38) keep their names, so that an old file is refused by name. */
#include "tensor/dtype.h"

#include "base/size.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define CAN true
#define NOT false
static const struct dtype_info table[] = {
    [DTYPE_F32] = {"F32", 1, 4, CAN},
    [DTYPE_F16] = {"F16", 1, 2, CAN},
    [DTYPE_Q4_0] = {"Q4_0", 32, 18, CAN},
    [DTYPE_Q4_1] = {"Q4_1", 32, 20, NOT},
    [4] = {"Q4_2", 16, 10, NOT},
    [5] = {"Q4_3", 16, 12, NOT},
    [DTYPE_Q5_0] = {"Q5_0", 32, 22, NOT},
    [DTYPE_Q5_1] = {"Q5_1", 32, 24, NOT},
    [DTYPE_Q8_0] = {"Q8_0", 32, 34, CAN},
    [DTYPE_Q8_1] = {"Q8_1", 32, 36, NOT},
    [DTYPE_Q2_K] = {"Q2_K", 256, 84, NOT},
    [DTYPE_Q3_K] = {"Q3_K", 256, 110, NOT},
    [DTYPE_Q4_K] = {"Q4_K", 256, 144, CAN},
    [DTYPE_Q5_K] = {"Q5_K", 256, 176, NOT},
    [DTYPE_Q6_K] = {"Q6_K", 256, 210, CAN},
    [DTYPE_Q8_K] = {"Q8_K", 256, 292, NOT},
    [DTYPE_IQ2_XXS] = {"IQ2_XXS", 256, 66, NOT},
    [DTYPE_IQ2_XS] = {"IQ2_XS", 256, 74, NOT},
    [DTYPE_IQ3_XXS] = {"IQ3_XXS", 256, 98, NOT},
    [DTYPE_IQ1_S] = {"IQ1_S", 256, 50, NOT},
    [DTYPE_IQ4_NL] = {"IQ4_NL", 32, 18, NOT},
    [DTYPE_IQ3_S] = {"IQ3_S", 256, 110, NOT},
    [DTYPE_IQ2_S] = {"IQ2_S", 256, 82, NOT},
    [DTYPE_IQ4_XS] = {"IQ4_XS", 256, 136, NOT},
    [DTYPE_I8] = {"I8", 1, 1, NOT},
    [DTYPE_I16] = {"I16", 1, 2, NOT},
    [DTYPE_I32] = {"I32", 1, 4, NOT},
    [DTYPE_I64] = {"I64", 1, 8, NOT},
    [DTYPE_F64] = {"F64", 1, 8, NOT},
    [DTYPE_IQ1_M] = {"IQ1_M", 256, 56, NOT},
    [DTYPE_BF16] = {"BF16", 1, 2, CAN},
    [31] = {"Q4_0_4_4", 32, 18, NOT},
    [32] = {"Q4_0_4_8", 32, 18, NOT},
    [33] = {"Q4_0_8_8", 32, 18, NOT},
    [DTYPE_TQ1_0] = {"TQ1_0", 256, 54, NOT},
    [DTYPE_TQ2_0] = {"TQ2_0", 256, 66, NOT},
    [36] = {"IQ4_NL_4_4", 32, 18, NOT},
    [37] = {"IQ4_NL_4_8", 32, 18, NOT},
    [38] = {"IQ4_NL_8_8", 32, 18, NOT},
    [DTYPE_MXFP4] = {"MXFP4", 32, 17, NOT},
    [DTYPE_NVFP4] = {"NVFP4", 64, 36, NOT},
    [DTYPE_Q1_0] = {"Q1_0", 128, 18, NOT},
    [DTYPE_Q2_0] = {"Q2_0", 64, 18, NOT},
    [DTYPE_BOOL] = {"BOOL", 1, 1, NOT},
    [DTYPE_U8] = {"U8", 1, 1, NOT},
    [DTYPE_U16] = {"U16", 1, 2, NOT},
    [DTYPE_U32] = {"U32", 1, 4, NOT},
    [DTYPE_U64] = {"U64", 1, 8, NOT},
    [DTYPE_F8_E4M3] = {"F8_E4M3", 1, 1, NOT},
    [DTYPE_F8_E5M2] = {"F8_E5M2", 1, 1, NOT},
    [DTYPE_F8_E8M0] = {"F8_E8M0", 1, 1, NOT},
    [DTYPE_C64] = {"C64", 1, 8, NOT},
    [DTYPE_F4] = {"F4", 2, 1, NOT},
    [DTYPE_F6_E2M3] = {"F6_E2M3", 4, 3, NOT},
    [DTYPE_F6_E3M2] = {"F6_E3M2", 4, 3, NOT},
};
static_assert(sizeof(table) / sizeof(table[0]) == N_DTYPES, "every type has its row");

const struct dtype_info *dtype_info(uint32_t type)
{
    if (type >= N_DTYPES || table[type].name == NULL)
        return NULL;
    return &table[type];
}

bool dtype_from_name(const char *name, uint32_t *type)
{
    for (uint32_t i = 0; i < N_DTYPES; i++) {
        if (table[i].name != NULL && strcmp(table[i].name, name) == 0) {
            *type = i;
            return true;
        }
    }
    return false;
}

const char *dtype_name(uint32_t type)
{
    static _Thread_local char unknown[24];
    const struct dtype_info *info = dtype_info(type);
    if (info != NULL)
        return info->name;
    snprintf(unknown, sizeof(unknown), "type %u", type);
    return unknown;
}

bool dtype_row_bytes(uint32_t type, uint64_t n_elems, uint64_t *row_bytes)
{
    const struct dtype_info *info = dtype_info(type);
    if (info == NULL || n_elems % (uint64_t)info->block_elems != 0)
        return false;
    return size_mul(n_elems / (uint64_t)info->block_elems, (uint64_t)info->block_bytes, row_bytes);
}
