/* What every backend shares: the decompositions of optional operations. */
#include "backend/backend.h"

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
