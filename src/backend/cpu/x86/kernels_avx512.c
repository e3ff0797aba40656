/* The AVX-512 (F, BW, VL, DQ, VNNI) kernels as a table. */
#include "backend/cpu/x86/x86.h"

void kernels_avx512(struct kernels *k)
{
    k->quantise = quantise_avx512;
    k->interleave_from = INTERLEAVE_FROM;
    k->matmul[PACK_F32] = matmul_f32_avx512;
    k->matmul[PACK_F16] = matmul_f16_avx512;
    k->matmul[PACK_BF16] = matmul_bf16_avx512;
    k->matmul[PACK_Q8_0] = matmul_q8_0_avx512;
    k->matmul[PACK_Q4_0] = matmul_q4_0_avx512;
    k->matmul[PACK_Q4_K] = matmul_q4_k_avx512;
    k->matmul[PACK_Q6_K] = matmul_q6_k_avx512;
    k->rms_norm = rms_norm_avx512;
    k->silu_mul = silu_mul_avx512;
    k->rotate = rotate_avx512;
    k->to_f16 = to_f16_avx512;
    k->attention = attention_avx512;
    k->attention_chunk = attention_chunk_avx512;
    k->attention_merge = attention_merge_avx512;
}
