/* How wrong are the reference kernels themselves? Each op against the same sum in double precision,
 * with the bound that its order of roundings gives (u = 2^-24, one rounding of f32):
 *
 *   dot of n terms in accumulators of at most m terms   (m + tree + products) u sum |terms|
 *   int8 activations                                    sum |w| d/2 on top, d the group's scale
 *
 * Products that get smaller than the denormals lose up to TINY each. The bounds are those of
 * docs/numerics.md. */
#include "backend/cpu/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <cmocka.h>

#include "backend/cpu/check_data.h"
#include "tensor/exact_math.h"

#include <math.h>
#include <stdlib.h>

static const double U = 0x1p-24, TINY = 0x1p-148;

static float *new_values(struct random *r, enum fill fill, size_t n)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = fill_value(r, fill);
    return x;
}

static struct quant_group *new_quantised(size_t n)
{
    return malloc((n / GROUP + 1) * sizeof(struct quant_group));
}

/* --- quantised activations --- */

static void quantising_is_off_by_half_a_step(void **state)
{
    (void)state;
    struct kernels k;
    kernels_ref(&k);
    struct random random = {.state = 1};
    for (int fill = 0; fill < N_FILLS; fill++) {
        enum { N = 64 * GROUP };
        float *x = new_values(&random, (enum fill)fill, N);
        struct quant_group *q = new_quantised(N);
        k.quantise(&(struct quant_rows){q, N / GROUP, false}, 0, 0, x, 1, N / GROUP);
        for (int i = 0; i < N; i++) {
            int code = q[i / GROUP].codes[i % GROUP];
            double d = q[i / GROUP].scale, found = code * d;
            assert_true(code >= -127);
            assert_true(fabs(found - x[i]) <= (d > 0 ? d * (0.5 + 0x1p-15) : 0x1p-121));
        }
        for (int g = 0; g < N / GROUP; g++) {
            int sum = 0, first = 0;
            for (int j = 0; j < GROUP; j++) {
                sum += q[g].codes[j];
                first += j < GROUP / 2 ? q[g].codes[j] : 0;
            }
            assert_int_equal(q[g].less_sum, -sum);
            assert_int_equal(q[g].less_first, -first);
            assert_true(q[g].scaled_sum == (float)sum * q[g].scale);
        }
        free(q);
        free(x);
    }
}

static void quantising_rounds_ties_to_even_and_marks_what_is_not_finite(void **state)
{
    (void)state;
    struct kernels k;
    kernels_ref(&k);
    float x[3 * GROUP] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -127.0f};
    x[GROUP + 5] = -INFINITY;
    x[2 * GROUP + 31] = NAN;
    struct quant_group *q = new_quantised(3 * GROUP);
    k.quantise(&(struct quant_rows){q, 3, false}, 0, 0, x, 1, 3);
    static const int8_t expected[] = {127, 0, 2, 2, 0, -2, -127};
    assert_memory_equal(q[0].codes, expected, sizeof expected);
    assert_true(q[0].scale == 1.0f);
    assert_true(isnan(q[1].scale) && isnan(q[2].scale));
    for (int i = GROUP; i < 3 * GROUP; i++)
        assert_int_equal(q[i / GROUP].codes[i % GROUP], 0);
    free(q);
}

/* --- matrix products --- */

struct product {
    struct packed w;
    size_t file_bytes;
    float *x, *y;
    struct quant_rows q;
    int n;
};

static void product_new(struct product *p, enum dtype type, enum fill fill, int n_rows, int n_cols,
                        int n)
{
    struct random random = {.state = (uint64_t)n_cols};
    uint64_t row_bytes;
    assert_true(pack_layout(type, n_rows, n_cols, &p->w));
    assert_true(dtype_row_bytes(type, (uint64_t)n_cols, &row_bytes));
    uint8_t *file = malloc(row_bytes * n_rows);
    fill_weights(&random, fill, type, (size_t)n_rows * n_cols, file);
    p->w.data = aligned_alloc(64, p->w.panel_bytes * (size_t)p->w.n_panels);
    pack_panels(&p->w, file, row_bytes, 0, p->w.n_panels);
    free(file);
    p->n = n;
    p->x = new_values(&random, fill, (size_t)n * n_cols);
    p->y = calloc((size_t)n * n_rows, sizeof *p->y);
    p->q = (struct quant_rows){new_quantised((size_t)n * n_cols), (size_t)(n_cols / GROUP), false};
    struct kernels k;
    kernels_ref(&k);
    if (pack_is_quantised(p->w.format))
        k.quantise(&p->q, 0, 0, p->x, (size_t)n, p->q.n_groups);
    struct matmul m = {
        .w = &p->w, .x = p->x, .q = p->q, .y = p->y, .y_stride = (size_t)n_rows, .n = n};
    k.matmul[p->w.format](&m, 0, p->w.n_panels);
}

static void product_free(struct product *p)
{
    free(p->w.data);
    free(p->x);
    free(p->y);
    free(p->q.groups);
}

/* Every output of one product against its sums in double. */
static void check_product(const struct product *p)
{
    int n_cols = p->w.n_cols;
    bool quantised = pack_is_quantised(p->w.format);
    double roundings = n_cols / (quantised ? 16 : 1) / K_SECTIONS + SUPER_BLOCK / 16 + 8;
    float *w = malloc((size_t)n_cols * sizeof *w);
    for (int r = 0; r < p->w.n_rows; r++) {
        unpack_row(&p->w, r, w);
        for (int t = 0; t < p->n; t++) {
            double sum = 0, size = 0, float_sum = 0, slack = 0;
            for (int k = 0; k < n_cols; k++) {
                size_t i = (size_t)t * n_cols + k;
                const struct quant_group *q = &p->q.groups[i / GROUP];
                double x = p->x[i], scale = quantised ? q->scale : 0;
                double term = w[k] * (quantised ? q->codes[i % GROUP] * scale : x);
                sum += term;
                size += fabs(term);
                float_sum += w[k] * x;
                slack += fabs(w[k]) * (scale > 0 ? scale * (0.5 + 0x1p-15) : 0x1p-121);
            }
            double found = p->y[(size_t)t * p->w.n_rows + r];
            /* A scale product dw * dx in the denormals is off by TINY, times a group's sum. */
            double tiny = TINY * n_cols * (quantised ? 128.0 * 128 * 128 : 1);
            double bound = roundings * U * size + tiny;
            assert_true(fabs(found - sum) <= bound);
            if (quantised)
                assert_true(fabs(found - float_sum) <= bound + slack);
        }
    }
    free(w);
}

static void products_are_within_their_bounds(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16,
                                       DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q6_K};
    static const int widths[] = {256, 768, 2816};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        for (int fill = 0; fill < N_FILLS; fill++) {
            for (size_t j = 0; j < sizeof widths / sizeof widths[0]; j++) {
                struct product p;
                product_new(&p, types[i], (enum fill)fill, 20, widths[j], 3);
                check_product(&p);
                product_free(&p);
            }
        }
    }
}

/* --- rows --- */

static void rms_norm_is_within_its_bound(void **state)
{
    (void)state;
    struct kernels k;
    kernels_ref(&k);
    struct random random = {.state = 7};
    static const int widths[] = {1, 15, 16, 33, 288, 4096};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        int n = widths[w];
        float *x = new_values(&random, FILL_RANDOM, (size_t)n);
        float *gain = new_values(&random, FILL_RANDOM, (size_t)n);
        float *y = malloc((size_t)n * sizeof *y);
        k.rms_norm(y, x, gain, 1e-5f, n);
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += (double)x[i] * x[i];
        double scale = 1.0 / sqrt(sum / n + (double)1e-5f);
        for (int i = 0; i < n; i++) {
            double expected = x[i] * scale * gain[i];
            assert_true(fabs(y[i] - expected) <= (n / STRIPES + 12) * U * fabs(expected) + TINY);
        }
        free(x);
        free(gain);
        free(y);
    }
}

static void silu_is_within_its_bound(void **state)
{
    (void)state;
    struct kernels k;
    kernels_ref(&k);
    for (float g = -120.0f; g < 120.0f; g += 0.01f) {
        float up = 1.5f, y;
        k.silu_mul(&y, &g, &up, 1);
        double expected = g / (1.0 + exp(-(double)g)) * 1.5;
        /* below -88.73 the exponential is infinite and the result -0 */
        double lost = g < -88.0f ? 0x1p-119 : TINY;
        assert_true(fabs(y - expected) <= 6 * U * fabs(expected) + lost);
    }
}

static void rotation_is_within_its_bound(void **state)
{
    (void)state;
    struct kernels k;
    kernels_ref(&k);
    struct random random = {.state = 9};
    for (int i = 0; i < 2000; i++) {
        float x[4], y[4], turn[4];
        double angle[2];
        for (int j = 0; j < 4; j++)
            y[j] = x[j] = random_unit(&random);
        for (int j = 0; j < 2; j++) {
            angle[j] = random_unit(&random) * 4.0;
            turn[j] = (float)cos(angle[j]);
            turn[2 + j] = (float)sin(angle[j]);
        }
        bool halves = i & 1;
        k.rotate(y, turn, 4, halves);
        for (int j = 0; j < 2; j++) {
            int a = halves ? j : 2 * j, b = halves ? j + 2 : 2 * j + 1;
            double s = sin(angle[j]), c = cos(angle[j]), size = fabs(x[a]) + fabs(x[b]);
            assert_true(fabs(y[a] - (x[a] * c - x[b] * s)) <= 3 * U * size);
            assert_true(fabs(y[b] - (x[b] * c + x[a] * s)) <= 3 * U * size);
        }
    }
}

/* --- attention --- */

/* Element i of an array of the store's type, its scale being number g of `scales`; what it then is. */
static float store(enum kv_type type, uint8_t *array, size_t i, uint8_t *scales, size_t g, float x)
{
    struct f16 h = f16_from_f32(x);
    float scale = 0x1p-7f * 1.37f;
    switch (type) {
    case KV_F16: memcpy(array + 2 * i, &h, 2); return f16_to_f32(h);
    case KV_F32: memcpy(array + 4 * i, &x, 4); return x;
    default:
        memcpy(scales + 4 * g, &scale, 4);
        array[i] = (uint8_t)(int8_t)lrintf(fminf(fmaxf(x * 90.0f, -127.0f), 127.0f));
        return (float)(int8_t)array[i] * scale;
    }
}

static void check_attention(enum kv_type type, int head_size, int n_positions, int window,
                            float spread)
{
    struct random random = {.state = (uint64_t)n_positions};
    int n_blocks = (n_positions - 1) / KV_BLOCK_TOKENS + 1;
    struct kv_layout l = kv_layout(type, 1, head_size);
    size_t elems = (size_t)n_positions * head_size, n = KV_BLOCK_TOKENS;
    uint8_t *cells = calloc((size_t)n_blocks, l.block_bytes);
    float *kept_k = malloc(elems * 4), *kept_v = malloc(elems * 4);
    int32_t *table = malloc((size_t)n_blocks * sizeof *table);
    for (int b = 0; b < n_blocks; b++)
        table[b] = n_blocks - 1 - b; /* blocks in reverse */
    for (int position = 0; position < n_positions; position++) {
        size_t p = (size_t)(position % KV_BLOCK_TOKENS);
        int32_t block = table[position / KV_BLOCK_TOKENS];
        uint8_t *keys = cells + kv_keys_at(&l, n_blocks, block, 0);
        uint8_t *values = cells + kv_values_at(&l, n_blocks, block, 0);
        for (int d = 0; d < head_size; d++) {
            size_t kept = (size_t)position * head_size + d, g = (size_t)(d / KV_GROUP);
            kept_k[kept] = store(type, keys, d * n + p, keys + n * head_size, g * n + p,
                                 random_unit(&random) * spread);
            kept_v[kept] = store(type, values, p * l.padded + d, values + n * l.padded,
                                 g * n + p, random_unit(&random));
        }
    }
    float *q = new_values(&random, FILL_RANDOM, (size_t)head_size),
          *y = calloc((size_t)head_size, 4);
    int32_t position = n_positions - 1;
    const int32_t *tables[] = {table};
    struct batch batch = {1, &position, tables};
    struct attention a = {cells, l, n_blocks, 1, 1, window, 1.0f / sqrtf((float)head_size),
                          q,     y, &batch};
    struct kernels k;
    kernels_ref(&k);
    k.attention(&a, &(struct attention_tile){0, 1, 0, 1}, NULL);

    double *scores = malloc((size_t)n_positions * sizeof *scores);
    double max = -INFINITY, size = 0, sum = 0;
    int first = window > 0 && window < n_positions ? n_positions - window : 0;
    for (int p = first; p < n_positions; p++) {
        double dot = 0, terms = 0;
        for (int d = 0; d < head_size; d++) {
            dot += (double)q[d] * kept_k[(size_t)p * head_size + d];
            terms += fabs((double)q[d] * kept_k[(size_t)p * head_size + d]);
        }
        scores[p] = dot / sqrt(head_size);
        max = fmax(max, scores[p]);
        size = fmax(size, terms / sqrt(head_size));
    }
    for (int p = first; p < n_positions; p++)
        sum += scores[p] = exp(scores[p] - max);
    /* Weights are off by the error of two scores; sums have ATTENTION_CHUNK and merge roundings. */
    double weight_error = 2 * (head_size + 4) * U * size + 4 * U * (1 + 2 * size);
    double bound = 2 * weight_error + (ATTENTION_CHUNK + n_positions / ATTENTION_CHUNK * 4 + 8) * U;
    for (int d = 0; d < head_size; d++) {
        double expected = 0, mass = 0;
        for (int p = first; p < n_positions; p++) {
            expected += scores[p] / sum * kept_v[(size_t)p * head_size + d];
            mass += scores[p] / sum * fabs(kept_v[(size_t)p * head_size + d]);
        }
        assert_true(fabs(y[d] - expected) <= bound * mass);
    }
    free(cells), free(kept_k), free(kept_v), free(table), free(q), free(y);
    free(scores);
}

static void attention_is_within_its_bound(void **state)
{
    (void)state;
    static const int lengths[] = {1, 2, 16, 17, 255, 256, 257, 700, 1536};
    static const int sizes[] = {1, 8, 48, 64, 100, 128};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (size_t j = 0; j < sizeof sizes / sizeof sizes[0]; j++) {
            check_attention(KV_F32, sizes[j], lengths[i], 0, 1.0f);
            check_attention(KV_F16, sizes[j], lengths[i], 0, 1.0f);
            check_attention(KV_Q8, sizes[j], lengths[i], 0, 1.0f);
            check_attention(KV_F32, sizes[j], lengths[i], 0, 100.0f); /* one position wins */
        }
    }
}

static void windows_are_within_the_same_bound(void **state)
{
    (void)state;
    static const int windows[] = {1, 2, 16, 100, 256, 257, 700};
    static const int lengths[] = {1, 17, 256, 257, 700, 1536};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        for (size_t j = 0; j < sizeof windows / sizeof windows[0]; j++)
            for (int type = 0; type < N_KV_TYPES; type++)
                check_attention((enum kv_type)type, 48, lengths[i], windows[j], 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantising_is_off_by_half_a_step),
        cmocka_unit_test(quantising_rounds_ties_to_even_and_marks_what_is_not_finite),
        cmocka_unit_test(products_are_within_their_bounds),
        cmocka_unit_test(rms_norm_is_within_its_bound),
        cmocka_unit_test(silu_is_within_its_bound),
        cmocka_unit_test(rotation_is_within_its_bound),
        cmocka_unit_test(attention_is_within_its_bound),
        cmocka_unit_test(windows_are_within_the_same_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
