/* Handles for the tests of a backend, filled with random values. */
#ifndef SHOAL_BACKEND_CPU_CHECK_HANDLES_H
#define SHOAL_BACKEND_CPU_CHECK_HANDLES_H

#include "backend/backend.h"
#include "backend/cpu/check_data.h"

#include <stdlib.h>

static inline struct tensor *new_tensor(struct backend *b, int rows, int cols)
{
    struct tensor *t;
    ASSERT(b->ops->tensor_new(b, rows, cols, &t, NULL) == OK);
    return t;
}

static inline struct tensor *random_tensor(struct backend *b, struct random *r, int rows, int cols)
{
    struct tensor *t = new_tensor(b, rows, cols);
    float *x = malloc((size_t)rows * cols * sizeof *x);
    ASSERT(x != NULL);
    for (int i = 0; i < rows * cols; i++)
        x[i] = random_unit(r);
    b->ops->write(b, t, 0, rows, x);
    free(x);
    return t;
}

static inline struct weight *random_weight(struct backend *b, struct random *r, enum dtype type,
                                           int n_rows, int n_cols)
{
    uint64_t row_bytes;
    struct weight *w;
    ASSERT(dtype_row_bytes(type, (uint64_t)n_cols, &row_bytes));
    uint8_t *file = malloc(row_bytes * n_rows);
    ASSERT(file != NULL);
    fill_weights(r, FILL_RANDOM, type, (size_t)n_rows * n_cols, file);
    ASSERT(b->ops->weight_new(b, type, n_rows, n_cols, file, &w, NULL) == OK);
    free(file);
    return w;
}

#endif
