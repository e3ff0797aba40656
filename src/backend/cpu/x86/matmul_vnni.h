/* Products of quantised weights with 256-bit vpdpbusd, which adds four products of unsigned by
 * signed bytes into each 32-bit lane, exactly. The unsigned side is the weight code plus an offset,
 * which the start of the sum takes off again through the activations' sums.
 *
 * Two files include this, because the instruction has two encodings: matmul_avxvnni.c (AVX-VNNI,
 * processors without AVX-512) and matmul_vnni256.c (AVX-512 VNNI and VL). They define dpbusd. */
#include "backend/cpu/x86/panel_avx2.h"

enum { TILE = 4, CODES = 8 };

FORCE_INLINE __m256i unsigned_code(const struct source *w, int step, int v,
                                   const enum pack_format format)
{
    __m256i code = code_of(w, step, v, format);
    bool is_signed = format == PACK_Q8_0 && w->code == NULL;
    return is_signed ? _mm256_xor_si256(code, _mm256_set1_epi8((char)0x80)) : code;
}

FORCE_INLINE void decode_codes(__m256i code[CODES][HALVES], const struct group *g,
                               const enum pack_format format)
{
    struct source panel = {NULL, *g};
    UNROLL
    for (int step = 0; step < 8; step++) {
        UNROLL
        for (int v = 0; v < HALVES; v++)
            code[step][v] = unsigned_code(&panel, step, v, format);
    }
}

FORCE_INLINE void step_sums(__m256i sum[TILE][HALVES], const struct source *w, int step,
                            const struct tile_x *x, const int n, const enum pack_format format)
{
    __m256i code[HALVES];
    UNROLL
    for (int v = 0; v < HALVES; v++)
        code[v] = unsigned_code(w, step, v, format);
    UNROLL
    for (int t = 0; t < n; t++) {
        __m256i four = broadcast4(x->q[t * x->stride].codes + 4 * step);
        UNROLL
        for (int v = 0; v < HALVES; v++)
            sum[t][v] = dpbusd(sum[t][v], code[v], four);
    }
}

FORCE_INLINE void tile_sums(__m256i sum[TILE][HALVES], const struct source *w, int half,
                            const struct tile_x *x, const int n, const enum pack_format format)
{
    UNROLL
    for (int t = 0; t < n; t++)
        sum[t][0] = sum[t][1] = offset_start(x->q + t * x->stride, half, format);
    UNROLL
    for (int step = 0; step < 4; step++)
        step_sums(sum, w, step + 4 * half, x, n, format);
    if (format == PACK_Q6_K)
        return;
    UNROLL
    for (int step = 4; step < 8; step++)
        step_sums(sum, w, step, x, n, format);
}

#include "backend/cpu/x86/matmul_256.h"
