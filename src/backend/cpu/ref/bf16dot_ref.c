/* Products of BF16 weights in bf16 arithmetic: the definition (docs/numerics.md, "bf16dot-1"). Not
 * part of the exact arithmetic: activations lose 16 bits, denormals count as zeros. */
#include "backend/cpu/ref/ref.h"

#include <math.h>
#include <string.h>

static float flushed(float x)
{
    uint32_t bits = f32_bits(x);
    return (bits & 0x7f800000u) != 0 ? x : f32_from_bits(bits & 0x80000000u);
}

static float weight_at(const uint8_t *panel, int lane, int k)
{
    struct bf16 b;
    memcpy(&b, panel + 2 * ((size_t)k * PANEL_ROWS + lane), 2);
    return flushed(bf16_to_f32(b));
}

static float rounded(float x)
{
    return flushed(bf16_to_f32(bf16_from_f32(flushed(x))));
}

/* acc + one pair of products, the second value of the pair first. */
static float pair(float acc, const uint8_t *panel, int lane, int k, int n_cols, const float *x)
{
    bool second = k + 1 < n_cols;
    float w = second ? weight_at(panel, lane, k + 1) : 0.0f;
    float v = second ? rounded(x[k + 1]) : 0.0f;
    acc = flushed(fmaf(w, v, acc));
    return flushed(fmaf(weight_at(panel, lane, k), rounded(x[k]), acc));
}

static float dot(const struct packed *w, int row, const float *x)
{
    const uint8_t *panel = packed_panel(w, row / PANEL_ROWS);
    int n_blocks = packed_n_blocks(w);
    float sums[K_SECTIONS];
    for (int s = 0; s < K_SECTIONS; s++) {
        int end = section_begin(n_blocks, s + 1) * GROUP;
        end = end < w->n_cols ? end : w->n_cols;
        sums[s] = 0.0f;
        for (int k = section_begin(n_blocks, s) * GROUP; k < end; k += 2)
            sums[s] = pair(sums[s], panel, row % PANEL_ROWS, k, w->n_cols, x);
    }
    return section_tree(sums);
}

void matmul_bf16dot_ref(const struct matmul *m, int panel_begin, int panel_end)
{
    int end = panel_end * PANEL_ROWS < m->w->n_rows ? panel_end * PANEL_ROWS : m->w->n_rows;
    for (int row = panel_begin * PANEL_ROWS; row < end; row++) {
        for (int t = 0; t < m->n; t++) {
            float *y = &m->y[t * m->y_stride + (row - m->first_row)];
            float sum = dot(m->w, row, m->x + (size_t)t * m->w->n_cols);
            *y = m->add ? *y + sum : sum;
        }
    }
}
