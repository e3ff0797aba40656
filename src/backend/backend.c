/* What every backend shares: the size of stored keys and values, and the decompositions of optional
 * operations. */
#include "backend/backend.h"

#include "backend/cpu/attention.h"

uint64_t kv_block_bytes(enum kv_type type, int n_kv_heads, int head_size)
{
    return kv_layout(type, n_kv_heads, head_size).block_bytes;
}

void backend_matmul_many(struct backend *b, struct tensor *const y[],
                         const struct weight *const W[], int n_weights, const struct tensor *x,
                         int n)
{
    if (b->ops->matmul_many != NULL) {
        b->ops->matmul_many(b, y, W, n_weights, x, n);
        return;
    }
    for (int i = 0; i < n_weights; i++)
        b->ops->matmul(b, y[i], W[i], x, n);
}
