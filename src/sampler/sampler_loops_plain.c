#include "sampler/sampler_loops_body.h"

static int keep_plain(const uint32_t *keys, int n, struct key_range r, const float *a, float *a_out,
                      const uint32_t *b, uint32_t first, uint32_t *b_out)
{
    return keep_rest(keys, 0, n, r, a, a_out, b, first, b_out, 0);
}

const struct sampler_loops sampler_loops_plain = {"plain", token_weights_plain, block_bests,
                                                  range_of_keys, keep_plain};
