/* Products of F32, F16 and BF16 weights with AVX-512: matmul_float.h with vectors of 16 rows. */
#include "backend/cpu/x86/avx512_impl.h"

typedef __m512 vec;

enum { VECTORS = 1, TILE = 6, PANELS = 4, ONE_PANELS = 2, ONE_TOKENS = 1 };

FORCE_INLINE vec vec_zero(void)
{
    return _mm512_setzero_ps();
}

FORCE_INLINE vec vec_all(float x)
{
    return _mm512_set1_ps(x);
}

FORCE_INLINE vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

FORCE_INLINE vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

FORCE_INLINE vec vec_load(const float *at)
{
    return _mm512_loadu_ps(at);
}

FORCE_INLINE void vec_store(float *at, vec v)
{
    _mm512_storeu_ps(at, v);
}

FORCE_INLINE vec weights_at(const uint8_t *panel, size_t k, int v, const enum pack_format format)
{
    (void)v;
    if (format == PACK_F32)
        return _mm512_load_ps(panel + k * 64);
    __m256i halves = _mm256_load_si256((const __m256i *)(panel + k * 32));
    if (format == PACK_F16)
        return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

FORCE_INLINE void store_sums(const struct matmul *m, int panel_i, int v, int t, vec sum)
{
    (void)v;
    __mmask16 rows = first_lanes(m->w->n_rows - (long)panel_i * PANEL_ROWS);
    float *at = m->y + (size_t)t * m->y_stride + panel_i * PANEL_ROWS - m->first_row;
    if (m->add)
        sum = _mm512_add_ps(_mm512_maskz_loadu_ps(rows, at), sum);
    _mm512_mask_storeu_ps(at, rows, sum);
}

#include "backend/cpu/matmul_float.h"

void matmul_f32_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_float(m, panel_begin, panel_end, PACK_F32);
}

void matmul_f16_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_float(m, panel_begin, panel_end, PACK_F16);
}

void matmul_bf16_avx512(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_float(m, panel_begin, panel_end, PACK_BF16);
}
