/* The reference kernels: the slots of struct kernels (kernels.h) in plain C. They define the bits,
 * so they are written to be read beside docs/numerics.md; every other kernel is compared with them.
 */
#ifndef SHOAL_BACKEND_CPU_REF_REF_H
#define SHOAL_BACKEND_CPU_REF_REF_H

#include "backend/cpu/kernels.h"

#define F32_INFINITY_BITS 0x7f800000u
#define F32_NAN_BITS 0x7fc00000u

void quantise_ref(const struct quant_rows *to, size_t row, size_t group, const float *x,
                  size_t n_rows, size_t n_groups);
void matmul_bf16dot_ref(const struct matmul *m, int panel_begin, int panel_end);
void matmul_float_ref(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q8_0_ref(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_0_ref(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_k_ref(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q6_k_ref(const struct matmul *m, int panel_begin, int panel_end);
void rms_norm_ref(float *y, const float *x, const float *gain, float eps, int n_cols);
void silu_mul_ref(float *y, const float *gate, const float *up, size_t n);
void add_ref(float *x, const float *y, size_t n);
void rotate_ref(float *head, const float *turn, int rope_size, bool halves);
void to_f16_ref(struct f16 *dst, const float *src, size_t n);
void attention_ref(const struct attention *a, const struct attention_tile *t, float *scratch);
void attention_chunk_ref(const struct attention *a, const struct attention_tile *t, int c,
                         float *partial, float *scratch);
void attention_merge_ref(const struct attention *a, const struct attention_tile *t, float *partials,
                         size_t stride, int n_chunks);

#endif
