/* Moving codes from file order into panels, and reading single values back. Layouts: pack.h; file
 * blocks: docs/formats/gguf.md. */
#include "backend/cpu/pack.h"

#include "base/size.h"
#include "tensor/float16.h"

#include <math.h>
#include <string.h>

enum {
    Q8_0_BLOCK = 34,  /* f16 d, int8[32] */
    Q4_0_BLOCK = 18,  /* f16 d, 16 bytes: value i low nibble, value i + 16 high nibble of byte i */
    Q4_K_BLOCK = 144, /* f16 d, f16 dmin, 12 bytes of 6-bit scales and mins, codes[128] */
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
    case DTYPE_Q4_K: *format = PACK_Q4_K; return true;
    case DTYPE_Q6_K: *format = PACK_Q6_K; return true;
    default: return false;
    }
}

/* Bytes of one block of a panel; 0 for the float formats, which have none. */
static size_t block_bytes(enum pack_format format)
{
    switch (format) {
    case PACK_Q8_0: return PAIR_CODES_AT + 2 * Q8_GROUP_BYTES;
    case PACK_Q4_0: return PAIR_CODES_AT + 2 * Q4_GROUP_BYTES;
    case PACK_Q4_K: return Q4_K_CODES_AT + 8 * Q4_GROUP_BYTES;
    case PACK_Q6_K: return Q6_K_PAIRS_AT + 4 * Q6_K_PAIR_BYTES;
    default: return 0;
    }
}

bool pack_layout(enum dtype type, int n_rows, int n_cols, struct packed *p)
{
    uint64_t row_bytes, total;
    *p = (struct packed){.n_rows = n_rows, .n_cols = n_cols};
    if (!format_of(type, &p->format) || n_rows < 1 || n_cols < 1 ||
        !dtype_row_bytes(type, (uint64_t)n_cols, &row_bytes))
        return false;
    p->n_panels = (n_rows - 1) / PANEL_ROWS + 1;
    p->block_bytes = block_bytes(p->format);
    if (p->block_bytes > 0) /* products below 2^38: n_cols is an int */
        p->panel_bytes = p->block_bytes * (size_t)packed_n_blocks(p);
    else
        p->panel_bytes = (row_bytes * PANEL_ROWS + 63) & ~(uint64_t)63;
    return size_mul(p->panel_bytes, (uint64_t)p->n_panels, &total) && total <= SIZE_MAX / 2;
}

/* Group g of a panel of pairs: its codes; *scale is where the scale of `lane` goes. */
static uint8_t *pair_group(const struct packed *p, uint8_t *panel, int g, int lane, uint8_t **scale)
{
    size_t group_bytes = p->format == PACK_Q8_0 ? Q8_GROUP_BYTES : Q4_GROUP_BYTES;
    uint8_t *block = panel + (size_t)(g / 2) * p->block_bytes;
    *scale = block + 2 * ((g & 1) * PANEL_ROWS + lane);
    return block + PAIR_CODES_AT + (g & 1) * group_bytes + 4 * lane;
}

/* Eight bytes at a time: bytes are moved and masked alike wherever they stand in the word. */
static uint64_t load8(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Two steps of four bytes of a lane, from eight consecutive bytes. */
static void store_steps(uint8_t *to, uint64_t v)
{
    memcpy(to, &v, 4);
    memcpy(to + 64, (const uint8_t *)&v + 4, 4);
}

/* The nibbles of eight bytes: the low ones (shift 0), or the high ones (shift 4). */
static uint64_t nibbles(const uint8_t *from, int shift)
{
    return load8(from) >> shift & 0x0f0f0f0f0f0f0f0f;
}

/* Lane `lane` of a panel from one row in file order. */
static void pack_q8_0(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    for (int g = 0; g < p->n_cols / GROUP; g++, row += Q8_0_BLOCK) {
        uint8_t *scale, *codes = pair_group(p, panel, g, lane, &scale);
        memcpy(scale, row, 2);
        for (int step = 0; step < 8; step += 2)
            store_steps(codes + step * 64, load8(row + 2 + 4 * step));
    }
}

static void pack_q4_0(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    for (int g = 0; g < p->n_cols / GROUP; g++, row += Q4_0_BLOCK) {
        uint8_t *scale, *codes = pair_group(p, panel, g, lane, &scale);
        memcpy(scale, row, 2);
        store_steps(codes, load8(row + 2)); /* byte i already holds values i and i + 16 */
        store_steps(codes + 128, load8(row + 10));
    }
}

/* Codes of a group of Q4_K into a lane: in the file each byte holds nibbles of two groups, value i
 * in byte i; in a panel, of one, values i and i + 16. */
static void pack_nibbles(uint8_t *codes, const uint8_t *from, int shift)
{
    store_steps(codes, nibbles(from, shift) | nibbles(from + 16, shift) << 4);
    store_steps(codes + 128, nibbles(from + 8, shift) | nibbles(from + 24, shift) << 4);
}

/* The 6-bit scale and min of group g (0 … 7) from the 12 bytes of a Q4_K block in file order: those
 * of the first four groups are the low six bits of bytes g and g + 4; of the others, the low four
 * bits are the nibbles of byte g + 4 and the high two the top bits of bytes g - 4 and g. */
static void q4_k_scales(const uint8_t *bytes, int g, unsigned *scale, unsigned *min)
{
    if (g < 4) {
        *scale = bytes[g] & 63;
        *min = bytes[g + 4] & 63;
    } else {
        *scale = (bytes[g + 4] & 15) | (bytes[g - 4] >> 6) << 4;
        *min = (bytes[g + 4] >> 4) | (bytes[g] >> 6) << 4;
    }
}

static void pack_q4_k(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    for (int b = 0; b < p->n_cols / SUPER_BLOCK; b++, row += Q4_K_BLOCK) {
        uint8_t *to = panel + (size_t)b * p->block_bytes;
        memcpy(to + 2 * lane, row, 2);
        memcpy(to + 2 * (PANEL_ROWS + lane), row + 2, 2);
        for (int g = 0; g < 8; g++) {
            unsigned scale, min;
            q4_k_scales(row + 4, g, &scale, &min);
            unsigned high = (scale >> 4 | min >> 4 << 2) << 4 * (g & 1);
            to[Q4_K_LOW_AT + g * PANEL_ROWS + lane] = (uint8_t)((scale & 15) | (min & 15) << 4);
            to[Q4_K_HIGH_AT + g / 2 * PANEL_ROWS + lane] |= (uint8_t)high;
            pack_nibbles(to + Q4_K_CODES_AT + g * Q4_GROUP_BYTES + 4 * lane, row + 16 + g / 2 * 32,
                         4 * (g & 1));
        }
    }
}

/* Half of a group into a lane: 16 codes of six bits, a byte each. */
static void pack_six_bits(uint8_t *half, int lane, const uint8_t codes[16])
{
    for (int j = 0; j < 3; j++)
        for (int i = 0; i < 4; i++)
            half[j * 64 + 4 * lane + i] =
                (uint8_t)(codes[4 * j + i] | (codes[12 + i] >> (4 - 2 * j) & 3) << 6);
}

/* Group g (0 … 7) of a Q6_K block in file order: each half of 128 values has 64 low bytes and 32
 * high bytes; in it, value i of group a (0 … 3) has its low bits in byte 32 (a & 1) + i, nibble
 * a >> 1, and its high bits in byte i, bits 2a, 2a + 1. */
static void pack_q6_k_group(uint8_t *group, int lane, const uint8_t *block, int g)
{
    int half = g / 4, a = g % 4;
    const uint8_t *low = block + half * 64 + 32 * (a & 1), *high = block + 128 + half * 32;
    uint64_t codes[4];
    for (int i = 0; i < 4; i++)
        codes[i] = nibbles(low + 8 * i, 4 * (a >> 1)) |
                   (load8(high + 8 * i) >> 2 * a & 0x0303030303030303) << 4;
    for (int h = 0; h < 2; h++)
        pack_six_bits(group + h * Q6_HALF_BYTES, lane, (const uint8_t *)&codes[2 * h]);
}

static void pack_q6_k(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    for (int b = 0; b < p->n_cols / SUPER_BLOCK; b++, row += Q6_K_BLOCK) {
        uint8_t *to = panel + (size_t)b * p->block_bytes;
        memcpy(to + 2 * lane, row + 208, 2);
        for (int i = 0; i < 16; i++)
            to[q6_k_scales_at(i / 2) + i % 2 * PANEL_ROWS + lane] = row[192 + i];
        for (int g = 0; g < 8; g++)
            pack_q6_k_group(to + q6_k_codes_at(g), lane, row, g);
    }
}

static void pack_16_bit(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    for (int k = 0; k < p->n_cols; k++)
        memcpy(panel + 2 * ((size_t)k * PANEL_ROWS + lane), row + 2 * (size_t)k, 2);
}

static void pack_32_bit(const struct packed *p, uint8_t *panel, int lane, const uint8_t *row)
{
    for (int k = 0; k < p->n_cols; k++)
        memcpy(panel + 4 * ((size_t)k * PANEL_ROWS + lane), row + 4 * (size_t)k, 4);
}

void pack_panels(const struct packed *p, const uint8_t *rows, size_t row_bytes, int begin, int end)
{
    typedef void (*pack_fn)(const struct packed *, uint8_t *, int, const uint8_t *);
    static const pack_fn pack_row[N_PACK_FORMATS] = {
        [PACK_F32] = pack_32_bit, [PACK_F16] = pack_16_bit, [PACK_BF16] = pack_16_bit,
        [PACK_Q8_0] = pack_q8_0,  [PACK_Q4_0] = pack_q4_0,  [PACK_Q4_K] = pack_q4_k,
        [PACK_Q6_K] = pack_q6_k,
    };
    for (int panel_i = begin; panel_i < end; panel_i++) {
        uint8_t *panel = p->data + (size_t)panel_i * p->panel_bytes;
        memset(panel, 0, p->panel_bytes); /* padding, and bits that are joined in */
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

/* The nibble of value i (0 … 31) of a group of 4-bit codes. */
static int nibble_at(const uint8_t *codes, int lane, int i)
{
    return codes[(i / 4 & 3) * 64 + 4 * lane + i % 4] >> (i / 4 & 4) & 15;
}

static float pair_value(const struct packed *p, const uint8_t *panel, int lane, int k)
{
    size_t group_bytes = p->format == PACK_Q8_0 ? Q8_GROUP_BYTES : Q4_GROUP_BYTES;
    const uint8_t *block = panel + (size_t)(k / (2 * GROUP)) * p->block_bytes;
    int g = k / GROUP & 1, i = k % GROUP;
    const uint8_t *codes = block + PAIR_CODES_AT + g * group_bytes;
    int value = p->format == PACK_Q8_0 ? (int8_t)codes[i / 4 * 64 + 4 * lane + i % 4]
                                       : nibble_at(codes, lane, i) - 8;
    return (float)value * scale_at(block, (size_t)(g * PANEL_ROWS + lane));
}

static float q4_k_value(const uint8_t *block, int lane, int k)
{
    int g = k / GROUP;
    unsigned low = block[Q4_K_LOW_AT + g * PANEL_ROWS + lane];
    unsigned high = block[Q4_K_HIGH_AT + g / 2 * PANEL_ROWS + lane] >> 4 * (g & 1);
    unsigned scale = (low & 15) | (high & 3) << 4, min = low >> 4 | (high >> 2 & 3) << 4;
    int code = nibble_at(block + Q4_K_CODES_AT + g * Q4_GROUP_BYTES, lane, k % GROUP);
    float d = scale_at(block, (size_t)lane), dmin = scale_at(block, (size_t)(PANEL_ROWS + lane));
    return fmaf((float)code, d * (float)scale, -(dmin * (float)min));
}

static float q6_k_value(const uint8_t *block, int lane, int k)
{
    int g = k / GROUP, h = k / 16 % 2;
    const uint8_t *half = block + q6_k_codes_at(g) + h * Q6_HALF_BYTES;
    int code = six_bits_at(half + 4 * lane + k % 4, k % 16 / 4);
    int scale = (int8_t)block[q6_k_scales_at(g) + h * PANEL_ROWS + lane];
    return (float)((code - 32) * scale) * scale_at(block, (size_t)lane);
}

static float value_at(const struct packed *p, const uint8_t *panel, int lane, int k)
{
    const uint8_t *block = panel + (size_t)(k / pack_block(p->format)) * p->block_bytes;
    switch (p->format) {
    case PACK_Q8_0:
    case PACK_Q4_0: return pair_value(p, panel, lane, k);
    case PACK_Q4_K: return q4_k_value(block, lane, k % SUPER_BLOCK);
    case PACK_Q6_K: return q6_k_value(block, lane, k % SUPER_BLOCK);
    default: return float_at(p, panel, (size_t)k * PANEL_ROWS + lane);
    }
}

void unpack_row(const struct packed *p, int row, float *y)
{
    const uint8_t *panel = packed_panel(p, row / PANEL_ROWS);
    for (int k = 0; k < p->n_cols; k++)
        y[k] = value_at(p, panel, row % PANEL_ROWS, k);
}
