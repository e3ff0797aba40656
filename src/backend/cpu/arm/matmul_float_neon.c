/* Products of F32, F16 and BF16 weights with NEON: matmul_float.h with vectors of 4 rows. */
#include "backend/cpu/arm/neon_impl.h"

typedef float32x4_t vec;

enum { VECTORS = QUADS, TILE = 6, PANELS = 1, ONE_PANELS = 2, ONE_TOKENS = 2 };

FORCE_INLINE vec vec_zero(void)
{
    return vdupq_n_f32(0.0f);
}

FORCE_INLINE vec vec_all(float x)
{
    return vdupq_n_f32(x);
}

FORCE_INLINE vec vec_fma(vec a, vec b, vec c)
{
    return vfmaq_f32(c, a, b);
}

FORCE_INLINE vec vec_add(vec a, vec b)
{
    return vaddq_f32(a, b);
}

FORCE_INLINE vec vec_load(const float *at)
{
    return vld1q_f32(at);
}

FORCE_INLINE void vec_store(float *at, vec v)
{
    vst1q_f32(at, v);
}

FORCE_INLINE vec weights_at(const uint8_t *panel, size_t k, int v, const enum pack_format format)
{
    if (format == PACK_F32)
        return vreinterpretq_f32_u8(vld1q_u8(panel + k * 64 + 16 * v));
    uint16x4_t halves = vreinterpret_u16_u8(vld1_u8(panel + k * 32 + 8 * v));
    if (format == PACK_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(halves));
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(halves), 16));
}

FORCE_INLINE void store_sums(const struct matmul *m, int panel_i, int v, int t, vec sum)
{
    store_quad(m, panel_i * PANEL_ROWS + 4 * v, (size_t)t, sum);
}

#include "backend/cpu/matmul_float.h"

void matmul_f32_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_float(m, panel_begin, panel_end, PACK_F32);
}

void matmul_f16_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_float(m, panel_begin, panel_end, PACK_F16);
}

void matmul_bf16_neon(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_float(m, panel_begin, panel_end, PACK_BF16);
}
