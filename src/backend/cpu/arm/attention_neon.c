/* Attention with NEON. */
#include "backend/cpu/arm/arm.h"
#include "backend/cpu/attention_body.h"

void attention_neon(const struct attention *a, const struct attention_tile *t, float *scratch)
{
    attend(a, t, scratch);
}

void attention_chunk_neon(const struct attention *a, const struct attention_tile *t, int c,
                          float *partial, float *scratch)
{
    attend_chunk_alone(a, t, c, partial, scratch);
}

void attention_merge_neon(const struct attention *a, const struct attention_tile *t,
                          float *partials, size_t stride, int n_chunks)
{
    merge_chunks(a, t, partials, stride, n_chunks);
}
