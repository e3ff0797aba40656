/* Products of quantised weights with AVX-512 VNNI and VL, on 256 bits: matmul_vnni.h. */
#include "backend/cpu/x86/x86.h"

#include <immintrin.h>

FORCE_INLINE __m256i dpbusd(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes)
{
    return _mm256_dpbusd_epi32(sum, unsigned_bytes, signed_bytes);
}

#include "backend/cpu/x86/matmul_vnni.h"

static void matmul_q8_0(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_256(m, panel_begin, panel_end, PACK_Q8_0);
}

static void matmul_q4_0(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_256(m, panel_begin, panel_end, PACK_Q4_0);
}

static void matmul_q4_k(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_256(m, panel_begin, panel_end, PACK_Q4_K);
}

static void matmul_q6_k(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul_256(m, panel_begin, panel_end, PACK_Q6_K);
}

void kernels_vnni256(struct kernels *k)
{
    kernels_avx2(k);
    k->matmul[PACK_Q8_0] = matmul_q8_0;
    k->matmul[PACK_Q4_0] = matmul_q4_0;
    k->matmul[PACK_Q4_K] = matmul_q4_k;
    k->matmul[PACK_Q6_K] = matmul_q6_k;
}
