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

void quantise_avx2(const struct quant_rows *to, size_t row, size_t group, const float *x,
                   size_t n_rows, size_t n_groups);
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

void quantise_avx512(const struct quant_rows *to, size_t row, size_t group, const float *x,
                     size_t n_rows, size_t n_groups);
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

/* From so many tokens on, decoding a group once for all of them into the first-level cache
 * (gemm_avx512.c) is about as fast as once for each tile of 8, while the panel is in the
 * second-level cache (matmul_avx512.c). (A Zen 5, weights in the third-level cache: from 28 tokens
 * for Q4_0, 32 for Q8_0, 40 for Q4_K, 48 for Q6_K; where they come from memory, sooner.) */
enum { INTERLEAVE_FROM = 25 };

#endif
