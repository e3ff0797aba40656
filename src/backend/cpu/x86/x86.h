/* The x86 kernels: slots of struct kernels (kernels.h), bit-equal to ref's. Files ending in _avx2.c
 * and _avx512.c are compiled with those instructions and may only be called where the processor has
 * them; isas_x86.c, which asks it, is compiled without. */
#ifndef SHOAL_BACKEND_CPU_X86_X86_H
#define SHOAL_BACKEND_CPU_X86_X86_H

#include "backend/cpu/inline.h"
#include "backend/cpu/kernels.h"


void kernels_avx2(struct kernels *k);
void kernels_avxvnni(struct kernels *k); /* kernels_avx2 and products with 256-bit vpdpbusd, */
void kernels_vnni256(struct kernels *k); /* in the encoding of AVX-VNNI or of AVX-512 */
void kernels_avx512(struct kernels *k);
void kernels_bf16dot(struct kernels *k); /* over kernels_avx512; another numerics_id */

void quantise_avx2(struct quant_group *q, const float *x, size_t n_groups);
void rms_norm_avx2(float *y, const float *x, const float *gain, float eps, int n_cols);
void silu_mul_avx2(float *y, const float *gate, const float *up, size_t n);
void rotate_avx2(float *head, const float *turn, int rope_size, bool halves);
void to_f16_avx2(struct f16 *dst, const float *src, size_t n);
void attention_avx2(const struct attention *a, const struct attention_tile *t, float *scratch);
void attention_chunk_avx2(const struct attention *a, const struct attention_tile *t, int c,
                          float *partial, float *scratch);
void attention_merge_avx2(const struct attention *a, const struct attention_tile *t,
                          float *partials, size_t stride, int n_chunks);
void matmul_f32_avx2(const struct matmul *m, int panel_begin, int panel_end);
void matmul_f16_avx2(const struct matmul *m, int panel_begin, int panel_end);
void matmul_bf16_avx2(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q8_0_avx2(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_0_avx2(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_k_avx2(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q6_k_avx2(const struct matmul *m, int panel_begin, int panel_end);

void quantise_avx512(struct quant_group *q, const float *x, size_t n_groups);
void rms_norm_avx512(float *y, const float *x, const float *gain, float eps, int n_cols);
void silu_mul_avx512(float *y, const float *gate, const float *up, size_t n);
void rotate_avx512(float *head, const float *turn, int rope_size, bool halves);
void to_f16_avx512(struct f16 *dst, const float *src, size_t n);
void attention_avx512(const struct attention *a, const struct attention_tile *t, float *scratch);
void attention_chunk_avx512(const struct attention *a, const struct attention_tile *t, int c,
                            float *partial, float *scratch);
void attention_merge_avx512(const struct attention *a, const struct attention_tile *t,
                            float *partials, size_t stride, int n_chunks);
void matmul_f32_avx512(const struct matmul *m, int panel_begin, int panel_end);
void matmul_f16_avx512(const struct matmul *m, int panel_begin, int panel_end);
void matmul_bf16_avx512(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q8_0_avx512(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_0_avx512(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_k_avx512(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q6_k_avx512(const struct matmul *m, int panel_begin, int panel_end);
void gemm_avx512(const struct matmul *m, int panel_begin, int panel_end); /* any quantised format */

#endif
