/* Moving codes from file order into panels, and reading single values back. Layouts: pack.h; file
 * blocks: docs/formats/gguf.md. */
#include "backend/cpu/pack.h"

#include "base/size.h"
#include "tensor/float16.h"

#include <string.h>

enum {
    Q8_0_BLOCK = 34,  /* f16 d, int8[32] */
    Q4_0_BLOCK = 18,  /* f16 d, 16 bytes: value i low nibble, value i + 16 high nibble of byte i */
    Q6_K_BLOCK = 210, /* low[128], high[64], int8 scales[16], f16 d */
};

static bool format_of(enum dtype type, enum pack_format *format)
{
    switch (type) {
    case DTYPE_F32: *format = PACK_F32; return true;
    case DTYPE_F16: *format = PACK_F16; return true;
    case DTYPE_BF16: *format = PACK_BF16; return true;
    case DTYPE_Q8_0: *format = PACK_Q8_0; return true;
    case DTYPE_Q4_0: *format = PACK_Q4_0; return true;
    case DTYPE_Q6_K: *format = PACK_Q6_K; return true;
    default: return false;
    }
}

/* Bytes of the codes, scales and halves regions of one panel of n_cols columns. */
static void region_bytes(enum pack_format format, uint64_t n_cols, uint64_t bytes[3])
{
    bytes[1] = bytes[2] = 0;
    switch (format) {
    case PACK_F32: bytes[0] = n_cols * PANEL_ROWS * 4; return;
    case PACK_F16:
    case PACK_BF16: bytes[0] = n_cols * PANEL_ROWS * 2; return;
    case PACK_Q8_0: bytes[0] = n_cols / GROUP * Q8_GROUP_BYTES; break;
    case PACK_Q4_0: bytes[0] = n_cols / GROUP * Q4_GROUP_BYTES; break;
    default:
        bytes[0] = n_cols / GROUP * Q6_GROUP_BYTES;
        bytes[1] = n_cols / SUPER_BLOCK * PANEL_ROWS * 2;
        bytes[2] = n_cols / 16 * PANEL_ROWS;
        return;
    }
    bytes[1] = n_cols / GROUP * PANEL_ROWS * 2;
}

bool pack_layout(enum dtype type, int n_rows, int n_cols, struct packed *p)
{
    uint64_t row_bytes, total, bytes[3];
    *p = (struct packed){.n_rows = n_rows, .n_cols = n_cols};
    if (!format_of(type, &p->format) || n_rows < 1 || n_cols < 1 ||
        !dtype_row_bytes(type, (uint64_t)n_cols, &row_bytes))
        return false;
    region_bytes(p->format, (uint64_t)n_cols, bytes);
    for (int i = 0; i < 3; i++)
        bytes[i] = (bytes[i] + 63) & ~(uint64_t)63; /* < 2^38: n_cols is an int */
    p->n_panels = (n_rows - 1) / PANEL_ROWS + 1;
    p->scales_at = bytes[0];
    p->halves_at = bytes[0] + bytes[1];
    p->panel_bytes = bytes[0] + bytes[1] + bytes[2];
    return size_mul(p->panel_bytes, (uint64_t)p->n_panels, &total) && total <= SIZE_MAX / 2;
}

/* Lane `lane` of a panel from one row in file order. */
static void pack_q8_0(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    for (int g = 0; g < p->n_cols / GROUP; g++, row += Q8_0_BLOCK) {
        uint8_t *codes = panel + (size_t)g * Q8_GROUP_BYTES + 4 * lane;
        memcpy(panel + p->scales_at + 2 * ((size_t)g * PANEL_ROWS + lane), row, 2);
        for (int step = 0; step < 8; step++)
            memcpy(codes + step * 64, row + 2 + 4 * step, 4);
    }
}

static void pack_q4_0(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    for (int g = 0; g < p->n_cols / GROUP; g++, row += Q4_0_BLOCK) {
        uint8_t *codes = panel + (size_t)g * Q4_GROUP_BYTES + 4 * lane;
        memcpy(panel + p->scales_at + 2 * ((size_t)g * PANEL_ROWS + lane), row, 2);
        for (int step = 0; step < 4; step++) /* byte i already holds values i and i + 16 */
            memcpy(codes + step * 64, row + 2 + 4 * step, 4);
    }
}

/* The 6-bit code of value i (0 … 255) of a Q6_K block in file order: each half of 128 values has 64
 * low bytes and 32 high bytes; within it, value 32 a + b has its low bits in byte 32 (a & 1) + b,
 * nibble a >> 1, and its high bits in byte b, bits 2a, 2a + 1. */
static uint8_t q6_k_code(const uint8_t *block, int i)
{
    int half = i / 128, a = i % 128 / 32, b = i % 32;
    uint8_t low = block[half * 64 + 32 * (a & 1) + b] >> (a & 2 ? 4 : 0) & 15;
    uint8_t high = block[128 + half * 32 + b] >> 2 * a & 3;
    return (uint8_t)(low | high << 4);
}

static void pack_q6_k_group(uint8_t *group, int lane, const uint8_t *block, int first)
{
    uint8_t *low = group + 4 * lane, *high = group + Q4_GROUP_BYTES + 4 * lane;
    for (int step = 0; step < 8; step++) {
        for (int i = 0; i < 4; i++) {
            uint8_t code = q6_k_code(block, first + 4 * step + i);
            low[(step & 3) * 64 + i] |= (uint8_t)((code & 15) << (step & 4));
            high[(step & 1) * 64 + i] |= (uint8_t)((code >> 4) << (step & 6));
        }
    }
}

static void pack_q6_k(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    uint8_t *halves = panel + p->halves_at + lane;
    for (int b = 0; b < p->n_cols / SUPER_BLOCK; b++, row += Q6_K_BLOCK) {
        for (int g = 0; g < 8; g++)
            pack_q6_k_group(panel + ((size_t)b * 8 + g) * Q6_GROUP_BYTES, lane, row, g * GROUP);
        for (int i = 0; i < 16; i++)
            halves[((size_t)b * 16 + i) * PANEL_ROWS] = row[192 + i];
        memcpy(panel + p->scales_at + 2 * ((size_t)b * PANEL_ROWS + lane), row + 208, 2);
    }
}

static void pack_float(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    size_t bytes = p->format == PACK_F32 ? 4 : 2;
    for (int k = 0; k < p->n_cols; k++)
        memcpy(panel + ((size_t)k * PANEL_ROWS + lane) * bytes, row + k * bytes, bytes);
}

void pack_panels(const struct packed *p, const uint8_t *rows, size_t row_bytes, int begin, int end)
{
    typedef void (*pack_fn)(const struct packed *, uint8_t *, int, const uint8_t *);
    static const pack_fn pack_row[N_PACK_FORMATS] = {
        [PACK_F32] = pack_float, [PACK_F16] = pack_float, [PACK_BF16] = pack_float,
        [PACK_Q8_0] = pack_q8_0, [PACK_Q4_0] = pack_q4_0, [PACK_Q6_K] = pack_q6_k,
    };
    for (int panel_i = begin; panel_i < end; panel_i++) {
        uint8_t *panel = p->data + (size_t)panel_i * p->panel_bytes;
        memset(panel, 0, p->panel_bytes);
        for (int lane = 0; lane < PANEL_ROWS; lane++) {
            int row = panel_i * PANEL_ROWS + lane;
            if (row < p->n_rows)
                pack_row[p->format](p, panel, lane, rows + (size_t)row * row_bytes);
        }
    }
}

static float scale_at(const uint8_t *scales, size_t i)
{
    struct f16 h;
    memcpy(&h, scales + 2 * i, 2);
    return f16_to_f32(h);
}

static float float_at(const struct packed *p, const uint8_t *panel, size_t i)
{
    float f;
    struct bf16 b;
    if (p->format == PACK_F16)
        return scale_at(panel, i);
    if (p->format == PACK_BF16) {
        memcpy(&b, panel + 2 * i, 2);
        return bf16_to_f32(b);
    }
    memcpy(&f, panel + 4 * i, 4);
    return f;
}

static float value_at(const struct packed *p, const uint8_t *panel, int lane, int k)
{
    const uint8_t *scales = panel + p->scales_at;
    size_t g = (size_t)(k / GROUP);
    int step = k % GROUP / 4, byte = 4 * lane + k % 4;
    if (p->format == PACK_Q8_0) {
        int code = (int8_t)panel[g * Q8_GROUP_BYTES + step * 64 + byte];
        return (float)code * scale_at(scales, g * PANEL_ROWS + lane);
    }
    if (p->format == PACK_Q4_0) {
        int code = panel[g * Q4_GROUP_BYTES + (step & 3) * 64 + byte] >> (step & 4) & 15;
        return (float)(code - 8) * scale_at(scales, g * PANEL_ROWS + lane);
    }
    if (p->format == PACK_Q6_K) {
        const uint8_t *low = panel + g * Q6_GROUP_BYTES, *high = low + Q4_GROUP_BYTES;
        int code = low[(step & 3) * 64 + byte] >> (step & 4) & 15;
        code |= (high[(step & 1) * 64 + byte] >> (step & 6) & 3) << 4;
        int half = (int8_t)panel[p->halves_at + (size_t)(k / 16) * PANEL_ROWS + lane];
        size_t block = (size_t)(k / SUPER_BLOCK);
        return (float)((code - 32) * half) * scale_at(scales, block * PANEL_ROWS + lane);
    }
    return float_at(p, panel, (size_t)k * PANEL_ROWS + lane);
}

void unpack_row(const struct packed *p, int row, float *y)
{
    const uint8_t *panel = packed_panel(p, row / PANEL_ROWS);
    for (int k = 0; k < p->n_cols; k++)
        y[k] = value_at(p, panel, row % PANEL_ROWS, k);
}
