/* Packed panels hold exactly the values of the file: every element, read back by its coordinates,
 * is compared with a decoder written here from the description of the file's blocks. */
#include "backend/cpu/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <cmocka.h>

#include "backend/cpu/check_data.h"
#include "backend/cpu/memory.h"

#include <stdlib.h>

static float half_at(const uint8_t *at)
{
    struct f16 h;
    memcpy(&h, at, 2);
    return f16_to_f32(h);
}

/* Four pairs of groups; 32 bytes hold the low nibbles of the first and the high ones of the second.
 * The eight 6-bit scales and minima share 12 bytes: 4 + 4 whole with the upper bits of the last
 * four on top, and the lower bits of these. */
static float decode_q4_k(const uint8_t *block, size_t j)
{
    const uint8_t *bytes = block + 4;
    size_t g = j / 32;
    int byte = block[16 + g / 2 * 32 + j % 32], code = g % 2 ? byte >> 4 : byte & 15;
    int scale = bytes[g % 4], min = bytes[4 + g % 4];
    if (g >= 4) {
        scale = (bytes[8 + g - 4] & 15) + (scale >> 6) * 16;
        min = (bytes[8 + g - 4] >> 4) + (min >> 6) * 16;
    }
    double value =
        (double)half_at(block) * (scale & 63) * code - (double)half_at(block + 2) * (min & 63);
    return (float)value;
}

/* Element i of a row, decoded block by block as the format's description says. */
static float decode(enum dtype type, const uint8_t *row, size_t i)
{
    const struct dtype_info *info = dtype_info(type);
    const uint8_t *block = row + i / (size_t)info->block_elems * (size_t)info->block_bytes;
    size_t j = i % (size_t)info->block_elems;
    float f;
    struct bf16 brain;
    switch (type) {
    case DTYPE_F32: memcpy(&f, block, 4); return f;
    case DTYPE_F16: return half_at(block);
    case DTYPE_BF16: memcpy(&brain, block, 2); return bf16_to_f32(brain);
    case DTYPE_Q8_0: return (float)(int8_t)block[2 + j] * half_at(block);
    case DTYPE_Q4_0:
        f = (float)((j < 16 ? block[2 + j] & 15 : block[2 + j - 16] >> 4) - 8);
        return f * half_at(block);
    case DTYPE_Q4_K: return decode_q4_k(block, j);
    default: break;
    }
    /* Q6_K: halves of 128; the four quarters of a half share 32 high bytes. */
    const uint8_t *low = block + j / 128 * 64, *high = block + 128 + j / 128 * 32;
    size_t l = j % 32;
    int code = 0;
    switch (j % 128 / 32) {
    case 0: code = (low[l] & 15) | (high[l] & 3) << 4; break;
    case 1: code = (low[l + 32] & 15) | (high[l] >> 2 & 3) << 4; break;
    case 2: code = low[l] >> 4 | (high[l] >> 4 & 3) << 4; break;
    case 3: code = low[l + 32] >> 4 | high[l] >> 6 << 4; break;
    }
    return (float)((code - 32) * (int8_t)block[192 + j / 16]) * half_at(block + 208);
}

static void check(enum dtype type, int n_rows, int n_cols, enum fill fill)
{
    struct random random = {.state = (uint64_t)type * 1000 + (uint64_t)n_rows};
    struct packed p;
    uint64_t row_bytes;
    assert_true(pack_layout(type, n_rows, n_cols, &p));
    assert_true(dtype_row_bytes(type, (uint64_t)n_cols, &row_bytes));
    assert_int_equal(p.panel_bytes % 64 | p.block_bytes % 64, 0);
    uint8_t *file = malloc(n_rows * row_bytes + 1); /* + 1: rows at odd addresses */
    fill_weights(&random, fill, type, (size_t)n_rows * n_cols, file + 1);
    size_t bytes = p.panel_bytes * (size_t)p.n_panels;
    p.data = cpu_alloc(bytes);
    memset(p.data, 0xa5, bytes); /* packing must not rely on zeros */
    pack_panels(&p, file + 1, row_bytes, 0, p.n_panels / 2);
    pack_panels(&p, file + 1, row_bytes, p.n_panels / 2, p.n_panels);
    float *y = malloc((size_t)n_cols * sizeof *y);
    for (int r = 0; r < n_rows; r++) {
        unpack_row(&p, r, y);
        for (int k = 0; k < n_cols; k++) {
            float expected = decode(type, file + 1 + r * row_bytes, (size_t)k);
            assert_int_equal(f32_bits(y[k]), f32_bits(expected));
        }
    }
    free(y);
    cpu_free(p.data, bytes);
    free(file);
}

static const enum dtype types[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0,
                                   DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q6_K};

static void every_value_comes_back(void **state)
{
    (void)state;
    static const int rows[] = {1, 15, 16, 17, 40};
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        int block = dtype_info(types[t])->block_elems;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            for (int fill = 0; fill < N_FILLS; fill++)
                for (int n_blocks = 1; n_blocks < 4; n_blocks++)
                    check(types[t], rows[i], n_blocks * block, (enum fill)fill);
    }
}

static void rows_of_padding_are_zero(void **state)
{
    (void)state;
    struct random random = {.state = 5};
    struct packed p;
    uint8_t file[34];
    fill_weights(&random, FILL_RANDOM, DTYPE_Q8_0, 32, file);
    assert_true(pack_layout(DTYPE_Q8_0, 1, 32, &p));
    p.data = cpu_alloc(p.panel_bytes);
    memset(p.data, 0xa5, p.panel_bytes);
    pack_panels(&p, file, 34, 0, 1);
    for (size_t i = 0; i < Q8_GROUP_BYTES; i++)
        if (i % 64 >= 4)
            assert_int_equal(p.data[PAIR_CODES_AT + i], 0);
    for (size_t i = 2; i < 2 * PANEL_ROWS; i++)
        assert_int_equal(p.data[i], 0);
    for (size_t i = PAIR_CODES_AT + Q8_GROUP_BYTES; i < p.panel_bytes; i++) /* no second group */
        assert_int_equal(p.data[i], 0);
    cpu_free(p.data, p.panel_bytes);
}

static void what_cannot_be_packed_is_refused(void **state)
{
    (void)state;
    struct packed p;
    assert_false(pack_layout(DTYPE_Q8_0, 4, 33, &p));
    assert_false(pack_layout(DTYPE_Q6_K, 4, 128, &p));
    assert_false(pack_layout(DTYPE_Q4_K, 4, 128, &p));
    assert_false(pack_layout(DTYPE_Q5_K, 4, 256, &p));
    assert_false(pack_layout(DTYPE_F32, 0, 4, &p));
    assert_false(pack_layout(DTYPE_F32, 4, 0, &p));
    assert_true(pack_layout(DTYPE_F32, 4, 33, &p));
}

/* The memory promise: packed weights take the file's bytes plus padding to 16 rows and 64 bytes. */
static void packing_does_not_grow(void **state)
{
    (void)state;
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        struct packed p;
        uint64_t row_bytes;
        assert_true(pack_layout(types[t], 4096, 4096, &p));
        assert_true(dtype_row_bytes(types[t], 4096, &row_bytes));
        /* 32 bytes of zeros for 3360 of Q6_K */
        size_t padding = types[t] == DTYPE_Q6_K ? 4096 / SUPER_BLOCK * 32 * (size_t)p.n_panels : 0;
        assert_int_equal(p.panel_bytes * (size_t)p.n_panels, row_bytes * 4096 + padding);
    }
}

static void sections_cover_all_blocks_once(void **state)
{
    (void)state;
    for (int n = 1; n < 70; n++) {
        assert_int_equal(section_begin(n, 0), 0);
        assert_int_equal(section_begin(n, K_SECTIONS), n);
        for (int s = 0; s < K_SECTIONS; s++)
            assert_true(section_begin(n, s) <= section_begin(n, s + 1));
    }
    assert_int_equal(section_begin(INT32_MAX, K_SECTIONS), INT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_comes_back),
        cmocka_unit_test(rows_of_padding_are_zero),
        cmocka_unit_test(what_cannot_be_packed_is_refused),
        cmocka_unit_test(packing_does_not_grow),
        cmocka_unit_test(sections_cover_all_blocks_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
