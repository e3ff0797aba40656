/* The Arm instruction sets and their tables. */
#include "backend/cpu/arm/arm.h"

static bool always(void)
{
    return true;
}

static bool has_i8mm(void)
{
    return arm_has_dotprod() && arm_has_i8mm(); /* its kernels leave single tokens to SDOT */
}

void kernels_neon(struct kernels *k)
{
    k->quantise = quantise_neon;
    k->matmul[PACK_F32] = matmul_f32_neon;
    k->matmul[PACK_F16] = matmul_f16_neon;
    k->matmul[PACK_BF16] = matmul_bf16_neon;
    k->matmul[PACK_Q8_0] = matmul_q8_0_neon;
    k->matmul[PACK_Q4_0] = matmul_q4_0_neon;
    k->matmul[PACK_Q4_K] = matmul_q4_k_neon;
    k->matmul[PACK_Q6_K] = matmul_q6_k_neon;
    k->rms_norm = rms_norm_neon;
    k->silu_mul = silu_mul_neon;
    k->add = add_neon;
    k->rotate = rotate_neon;
    k->to_f16 = to_f16_neon;
    k->attention = attention_neon;
    k->attention_chunk = attention_chunk_neon;
    k->attention_merge = attention_merge_neon;
}

void kernels_dotprod(struct kernels *k)
{
    k->matmul[PACK_Q8_0] = matmul_q8_0_dotprod;
    k->matmul[PACK_Q4_0] = matmul_q4_0_dotprod;
    k->matmul[PACK_Q4_K] = matmul_q4_k_dotprod;
    k->matmul[PACK_Q6_K] = matmul_q6_k_dotprod;
}

void kernels_i8mm(struct kernels *k)
{
    k->matmul[PACK_Q8_0] = matmul_q8_0_i8mm;
    k->matmul[PACK_Q4_0] = matmul_q4_0_i8mm;
    k->matmul[PACK_Q4_K] = matmul_q4_k_i8mm;
    k->matmul[PACK_Q6_K] = matmul_q6_k_i8mm;
}

const struct isa kernels_isas[] = {
    {"neon", always, kernels_neon, NULL, NULL},
    {"dotprod", arm_has_dotprod, kernels_dotprod, NULL, NULL},
    {"i8mm", has_i8mm, kernels_i8mm, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
