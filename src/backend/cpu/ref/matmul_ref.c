/* Matrix products over packed panels: the definition (docs/numerics.md, "Matrix products").
 *
 * For one row and one token: k is cut into 8 sections of whole blocks; each section has one
 * accumulator that starts at 0 and takes the blocks in order; the 8 sums meet in a fixed tree. */
#include "backend/cpu/ref/ref.h"

#include <math.h>
#include <string.h>

/* One row of one panel against one token. */
struct dot {
    const struct packed *w;
    const uint8_t *panel;
    int lane;
    const float *x;              /* of the token: values, */
    const struct quant_group *q; /* or codes */
};

static float half_at(const uint8_t *halves, int i)
{
    struct f16 h;
    memcpy(&h, halves + 2 * i, 2);
    return f16_to_f32(h);
}

/* Sum of (code - offset) * x over a group of 4-bit codes. */
static int32_t nibble_sum(const struct dot *d, const uint8_t *codes, int offset, const int8_t *x)
{
    int32_t sum = 0;
    for (int i = 0; i < GROUP; i++) {
        int step = i / 4, byte = 4 * d->lane + i % 4;
        int code = codes[(step & 3) * 64 + byte] >> (step & 4) & 15;
        sum += (code - offset) * x[i];
    }
    return sum;
}

/* Sum of (code - 32) * x over half a group of 6-bit codes. */
static int32_t six_bits_sum(const struct dot *d, const uint8_t *codes, const int8_t *x)
{
    int32_t sum = 0;
    for (int i = 0; i < GROUP / 2; i++)
        sum += (six_bits_at(codes + 4 * d->lane + i % 4, i / 4) - 32) * x[i];
    return sum;
}

/* acc + block `b` of a row, for each format. */
typedef float (*block_fn)(const struct dot *d, int b, float acc);

/* How many of the two groups of a block there are. */
static int groups_of_pair(const struct dot *d, int b)
{
    return (b + 1) * 2 * GROUP <= d->w->n_cols ? 2 : 1;
}

static float q8_0_block(const struct dot *d, int b, float acc)
{
    const uint8_t *block = d->panel + (size_t)b * d->w->block_bytes;
    for (int g = 0; g < groups_of_pair(d, b); g++) {
        const struct quant_group *x = &d->q[2 * b + g];
        const uint8_t *codes = block + PAIR_CODES_AT + g * Q8_GROUP_BYTES + 4 * d->lane;
        int32_t sum = 0;
        for (int i = 0; i < GROUP; i++)
            sum += (int8_t)codes[i / 4 * 64 + i % 4] * x->codes[i];
        acc = fmaf((float)sum, half_at(block, g * PANEL_ROWS + d->lane) * x->scale, acc);
    }
    return acc;
}

static float q4_0_block(const struct dot *d, int b, float acc)
{
    const uint8_t *block = d->panel + (size_t)b * d->w->block_bytes;
    for (int g = 0; g < groups_of_pair(d, b); g++) {
        const struct quant_group *x = &d->q[2 * b + g];
        const uint8_t *codes = block + PAIR_CODES_AT + g * Q4_GROUP_BYTES;
        int32_t sum = nibble_sum(d, codes, 8, x->codes);
        acc = fmaf((float)sum, half_at(block, g * PANEL_ROWS + d->lane) * x->scale, acc);
    }
    return acc;
}

static float q4_k_block(const struct dot *d, int b, float acc)
{
    const uint8_t *block = d->panel + (size_t)b * d->w->block_bytes;
    const uint8_t *low = block + Q4_K_LOW_AT + d->lane, *high = block + Q4_K_HIGH_AT + d->lane;
    float block_scale = half_at(block, d->lane), block_min = half_at(block, PANEL_ROWS + d->lane);
    for (int g = 0; g < 8; g++) {
        const struct quant_group *x = &d->q[8 * b + g];
        int bits = high[g / 2 * PANEL_ROWS] >> 4 * (g & 1);
        float scale = block_scale * (float)((low[g * PANEL_ROWS] & 15) | (bits & 3) << 4);
        float min = block_min * (float)((low[g * PANEL_ROWS] >> 4) | (bits >> 2 & 3) << 4);
        int32_t sum = nibble_sum(d, block + Q4_K_CODES_AT + g * Q4_GROUP_BYTES, 0, x->codes);
        acc = fmaf((float)sum, scale * x->scale, acc);
        acc = fmaf(-min, x->scaled_sum, acc);
    }
    return acc;
}

static float q6_k_block(const struct dot *d, int b, float acc)
{
    const uint8_t *block = d->panel + (size_t)b * d->w->block_bytes;
    float block_scale = half_at(block, d->lane);
    for (int half = 0; half < 16; half++) {
        int g = half / 2, h = half % 2;
        const struct quant_group *x = &d->q[8 * b + g];
        const uint8_t *codes = block + q6_k_codes_at(g) + h * Q6_HALF_BYTES;
        int32_t sum = six_bits_sum(d, codes, x->codes + h * (GROUP / 2));
        int scale = (int8_t)block[q6_k_scales_at(g) + h * PANEL_ROWS + d->lane];
        acc = fmaf((float)sum, (block_scale * (float)scale) * x->scale, acc);
    }
    return acc;
}

static float float_weight(const struct dot *d, int k)
{
    size_t i = (size_t)k * PANEL_ROWS + d->lane;
    struct f16 h;
    struct bf16 b;
    float f;
    switch (d->w->format) {
    case PACK_F16: memcpy(&h, d->panel + 2 * i, 2); return f16_to_f32(h);
    case PACK_BF16: memcpy(&b, d->panel + 2 * i, 2); return bf16_to_f32(b);
    default: memcpy(&f, d->panel + 4 * i, 4); return f;
    }
}

static float float_block(const struct dot *d, int b, float acc)
{
    int end = (b + 1) * GROUP < d->w->n_cols ? (b + 1) * GROUP : d->w->n_cols;
    for (int k = b * GROUP; k < end; k++)
        acc = fmaf(float_weight(d, k), d->x[k], acc);
    return acc;
}

static float dot_product(const struct dot *d, block_fn block)
{
    float sums[K_SECTIONS];
    int n_blocks = packed_n_blocks(d->w);
    for (int s = 0; s < K_SECTIONS; s++) {
        sums[s] = 0.0f;
        for (int b = section_begin(n_blocks, s); b < section_begin(n_blocks, s + 1); b++)
            sums[s] = block(d, b, sums[s]);
    }
    return section_tree(sums);
}

static void matmul(const struct matmul *m, int panel_begin, int panel_end, block_fn block)
{
    const struct packed *w = m->w;
    bool quantised = pack_is_quantised(w->format);
    for (int row = panel_begin * PANEL_ROWS; row < panel_end * PANEL_ROWS; row++) {
        if (row >= w->n_rows)
            return;
        for (int t = 0; t < m->n; t++) {
            struct dot d = {
                .w = w, .panel = packed_panel(w, row / PANEL_ROWS), .lane = row % PANEL_ROWS};
            if (quantised)
                d.q = quant_row(&m->q, (size_t)t);
            else
                d.x = m->x + (size_t)t * w->n_cols;
            float *y = &m->y[t * m->y_stride + (row - m->first_row)];
            float sum = dot_product(&d, block);
            *y = m->add ? *y + sum : sum;
        }
    }
}

void matmul_float_ref(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, float_block);
}

void matmul_q8_0_ref(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, q8_0_block);
}

void matmul_q4_0_ref(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, q4_0_block);
}

void matmul_q4_k_ref(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, q4_k_block);
}

void matmul_q6_k_ref(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, q6_k_block);
}
