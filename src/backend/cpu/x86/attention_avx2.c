/* Attention with AVX2. */
#include "backend/cpu/attention_body.h"
#include "backend/cpu/x86/x86.h"

void attention_avx2(const struct attention *a, const struct attention_tile *t, float *scratch)
{
    attend(a, t, scratch);
}

void attention_chunk_avx2(const struct attention *a, const struct attention_tile *t, int c,
                          float *partial, float *scratch)
{
    attend_chunk_alone(a, t, c, partial, scratch);
}

void attention_merge_avx2(const struct attention *a, const struct attention_tile *t,
                          float *partials, size_t stride, int n_chunks)
{
    merge_chunks(a, t, partials, stride, n_chunks);
}
