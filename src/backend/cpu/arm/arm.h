/* The Arm kernels: slots of struct kernels (kernels.h), bit-equal to ref's. Three instruction sets
 * of 64-bit little-endian Arm, each of which fills in what it improves upon the one before:
 *
 *   neon      what every such processor has (Armv8.0 Advanced SIMD): all slots
 *   dotprod   SDOT, four products of bytes in each 32-bit lane: quantised products
 *   i8mm      SMMLA, 2 rows x 8 by 8 x 2 tokens: quantised products of several tokens
 *
 * Files ending in _dotprod.c and _i8mm.c are compiled with those instructions and may only be
 * called where the processor has them; everything else is built for the baseline. How fast these
 * kernels are has not been measured: they are checked under emulation (tests/cross). */
#ifndef SHOAL_BACKEND_CPU_ARM_ARM_H
#define SHOAL_BACKEND_CPU_ARM_ARM_H

#include "backend/cpu/inline.h"
#include "backend/cpu/kernels.h"

/* Whether the processor has an extension (features_linux.c, features_darwin.c). */
bool arm_has_dotprod(void);
bool arm_has_i8mm(void);

void kernels_neon(struct kernels *k);
void kernels_dotprod(struct kernels *k);
void kernels_i8mm(struct kernels *k);

void quantise_neon(const struct quant_rows *to, size_t row, size_t group, const float *x,
                   size_t n_rows, size_t n_groups);
void rms_norm_neon(float *y, const float *x, const float *gain, float eps, int n_cols);
void silu_mul_neon(float *y, const float *gate, const float *up, size_t n);
void add_neon(float *x, const float *y, size_t n);
void rotate_neon(float *head, const float *turn, int rope_size, bool halves);
void to_f16_neon(struct f16 *dst, const float *src, size_t n);
void attention_neon(const struct attention *a, const struct attention_tile *t, float *scratch);
void attention_chunk_neon(const struct attention *a, const struct attention_tile *t, int c,
                          float *partial, float *scratch);
void attention_merge_neon(const struct attention *a, const struct attention_tile *t,
                          float *partials, size_t stride, int n_chunks);
void matmul_f32_neon(const struct matmul *m, int panel_begin, int panel_end);
void matmul_f16_neon(const struct matmul *m, int panel_begin, int panel_end);
void matmul_bf16_neon(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q8_0_neon(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_0_neon(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_k_neon(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q6_k_neon(const struct matmul *m, int panel_begin, int panel_end);

void matmul_q8_0_dotprod(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_0_dotprod(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_k_dotprod(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q6_k_dotprod(const struct matmul *m, int panel_begin, int panel_end);

void matmul_q8_0_i8mm(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_0_i8mm(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q4_k_i8mm(const struct matmul *m, int panel_begin, int panel_end);
void matmul_q6_k_i8mm(const struct matmul *m, int panel_begin, int panel_end);

#endif
