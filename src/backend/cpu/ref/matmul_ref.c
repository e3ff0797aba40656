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

static float weight_scale(const struct dot *d, size_t block)
{
    struct f16 h;
    memcpy(&h, d->panel + d->w->scales_at + 2 * (block * PANEL_ROWS + d->lane), 2);
    return f16_to_f32(h);
}

/* acc + block `b` of a row, for each format. */
typedef float (*block_fn)(const struct dot *d, int b, float acc);

static float q8_0_block(const struct dot *d, int b, float acc)
{
    const uint8_t *w = d->panel + (size_t)b * Q8_GROUP_BYTES + 4 * d->lane;
    const int8_t *x = d->q[b].codes;
    int32_t sum = 0;
    for (int i = 0; i < GROUP; i++)
        sum += (int8_t)w[i / 4 * 64 + i % 4] * x[i];
    return fmaf((float)sum, weight_scale(d, (size_t)b) * d->q[b].scale, acc);
}

static float q4_0_block(const struct dot *d, int b, float acc)
{
    const uint8_t *w = d->panel + (size_t)b * Q4_GROUP_BYTES + 4 * d->lane;
    const int8_t *x = d->q[b].codes;
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        int pair = w[i / 4 * 64 + i % 4];
        sum += ((pair & 15) - 8) * x[i] + ((pair >> 4) - 8) * x[i + 16];
    }
    return fmaf((float)sum, weight_scale(d, (size_t)b) * d->q[b].scale, acc);
}

/* Values 16 half … 16 half + 15 of group g, without the half's own scale. */
static int32_t q6_k_half(const struct dot *d, size_t g, int half)
{
    const uint8_t *low = d->panel + g * Q6_GROUP_BYTES + 4 * d->lane;
    const uint8_t *high = low + Q4_GROUP_BYTES;
    const int8_t *x = d->q[g].codes + 16 * half;
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        int step = 4 * half + i / 4, byte = i % 4;
        int code = low[(step & 3) * 64 + byte] >> (step & 4) & 15;
        code |= (high[(step & 1) * 64 + byte] >> (step & 6) & 3) << 4;
        sum += (code - 32) * x[i];
    }
    return sum;
}

static float q6_k_block(const struct dot *d, int b, float acc)
{
    const uint8_t *halves = d->panel + d->w->halves_at + d->lane;
    float block_scale = weight_scale(d, (size_t)b);
    for (size_t g = (size_t)b * 8; g < (size_t)b * 8 + 8; g++) {
        int32_t sum = 0;
        for (int half = 0; half < 2; half++)
            sum += (int8_t)halves[(2 * g + half) * PANEL_ROWS] * q6_k_half(d, g, half);
        acc = fmaf((float)sum, block_scale * d->q[g].scale, acc);
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
                d.q = m->q + (size_t)t * (w->n_cols / GROUP);
            else
                d.x = m->x + (size_t)t * w->n_cols;
            m->y[t * m->y_stride + row] = dot_product(&d, block);
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

void matmul_q6_k_ref(const struct matmul *m, int panel_begin, int panel_end)
{
    matmul(m, panel_begin, panel_end, q6_k_block);
}
