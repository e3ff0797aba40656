/* Norm, activation, rotation and conversion of rows: the definition (docs/numerics.md, "Rows"). */
#include "backend/cpu/ref/ref.h"

#include "tensor/exact_math.h"

#include <math.h>

void rms_norm_ref(float *y, const float *x, const float *gain, float eps, int n_cols)
{
    float sums[STRIPES] = {0};
    for (int i = 0; i < n_cols; i++)
        sums[i % STRIPES] = fmaf(x[i], x[i], sums[i % STRIPES]);
    float mean = stripe_tree(sums) / (float)n_cols;
    float scale = 1.0f / sqrtf(mean + eps);
    for (int i = 0; i < n_cols; i++)
        y[i] = (x[i] * scale) * gain[i];
}

void silu_mul_ref(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (gate[i] / (1.0f + exact_expf(-gate[i]))) * up[i];
}

void add_ref(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

void rotate_ref(float *head, const float *turn, int rope_size, bool halves)
{
    int n_pairs = rope_size / 2;
    for (int i = 0; i < n_pairs; i++) {
        float *a = head + (halves ? i : 2 * i);
        float *b = head + (halves ? i + n_pairs : 2 * i + 1);
        float c = turn[i], s = turn[n_pairs + i], x0 = *a, x1 = *b;
        *a = fmaf(x0, c, -(x1 * s));
        *b = fmaf(x1, c, x0 * s);
    }
}

void to_f16_ref(struct f16 *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = f16_from_f32(src[i]);
}
