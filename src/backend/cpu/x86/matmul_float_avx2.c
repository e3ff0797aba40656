/* Products of F32, F16 and BF16 weights with AVX2: matmul_float.h with vectors of 8 rows. */
#include "backend/cpu/x86/avx2_impl.h"

typedef __m256 vec;

enum { VECTORS = 2, TILE = 6, PANELS = 1, ONE_PANELS = 2, ONE_TOKENS = 3 };

FORCE_INLINE vec vec_zero(void)
{
    return _mm256_setzero_ps();
}

FORCE_INLINE vec vec_all(float x)
{
    return _mm256_set1_ps(x);
}

FORCE_INLINE vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

FORCE_INLINE vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}

FORCE_INLINE vec vec_load(const float *at)
{
    return _mm256_loadu_ps(at);
}

FORCE_INLINE void vec_store(float *at, vec v)
{
    _mm256_storeu_ps(at, v);
}

FORCE_INLINE vec weights_at(const uint8_t *panel, size_t k, int v, const enum pack_format format)
{
    if (format == PACK_F32)
        return _mm256_load_ps((const float *)(panel + k * 64) + 8 * v);
    __m128i halves = _mm_load_si128((const __m128i *)(panel + k * 32 + 16 * v));
    if (format == PACK_F16)
        return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

FORCE_INLINE void store_sums(const struct matmul *m, int panel_i, int v, int t, vec sum)
{
    int row = panel_i * PANEL_ROWS + 8 * v;
    if (row < m->w->n_rows)
        store_rows_avx2(m, row, t, sum);
}

#include "backend/cpu/matmul_float.h"

void matmul_f32_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_float(m, panel_begin, panel_end, PACK_F32);
}

void matmul_f16_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_float(m, panel_begin, panel_end, PACK_F16);
}

void matmul_bf16_avx2(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_float(m, panel_begin, panel_end, PACK_BF16);
}
