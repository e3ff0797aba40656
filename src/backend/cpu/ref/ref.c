/* The reference kernels as a table. */
#include "backend/cpu/ref/ref.h"

void kernels_ref(struct kernels *k)
{
    *k = (struct kernels){
        .variant = "ref",
        .numerics_id = NUMERICS_EXACT,
        .quantise = quantise_ref,
        .matmul = {[PACK_F32] = matmul_float_ref,
                   [PACK_F16] = matmul_float_ref,
                   [PACK_BF16] = matmul_float_ref,
                   [PACK_Q8_0] = matmul_q8_0_ref,
                   [PACK_Q4_0] = matmul_q4_0_ref,
                   [PACK_Q4_K] = matmul_q4_k_ref,
                   [PACK_Q6_K] = matmul_q6_k_ref},
        .rms_norm = rms_norm_ref,
        .silu_mul = silu_mul_ref,
        .add = add_ref,
        .rotate = rotate_ref,
        .to_f16 = to_f16_ref,
        .attention = attention_ref,
        .attention_chunk = attention_chunk_ref,
        .attention_merge = attention_merge_ref,
    };
}

void kernels_ref_bf16dot(struct kernels *k)
{
    k->matmul[PACK_BF16] = matmul_bf16dot_ref;
}
