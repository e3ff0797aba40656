/* The type table against sizes worked out here from the layouts, and the checked row size. */
#include "tensor/dtype.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

static void sizes_follow_from_layouts(void **state)
{
    (void)state;
    /* bits per element * elements / 8 + scales; K types have 16 or 8 sub-blocks in 256. */
    static const struct {
        uint32_t type;
        const char *name;
        int elems, bytes;
    } want[] = {
        {DTYPE_F32, "F32", 1, 4},
        {DTYPE_F16, "F16", 1, 2},
        {DTYPE_BF16, "BF16", 1, 2},
        {DTYPE_Q4_0, "Q4_0", 32, 2 + 32 / 2},
        {DTYPE_Q4_1, "Q4_1", 32, 2 + 2 + 32 / 2},
        {DTYPE_Q5_0, "Q5_0", 32, 2 + 4 + 32 / 2},
        {DTYPE_Q5_1, "Q5_1", 32, 2 + 2 + 4 + 32 / 2},
        {DTYPE_Q8_0, "Q8_0", 32, 2 + 32},
        {DTYPE_Q2_K, "Q2_K", 256, 256 / 16 + 256 / 4 + 2 + 2},
        {DTYPE_Q3_K, "Q3_K", 256, 256 / 8 + 256 / 4 + 12 + 2},
        {DTYPE_Q4_K, "Q4_K", 256, 2 + 2 + 12 + 256 / 2},
        {DTYPE_Q5_K, "Q5_K", 256, 2 + 2 + 12 + 256 / 8 + 256 / 2},
        {DTYPE_Q6_K, "Q6_K", 256, 256 / 2 + 256 / 4 + 256 / 16 + 2},
        {DTYPE_Q8_K, "Q8_K", 256, 4 + 256 + 256 / 16 * 2},
        {DTYPE_IQ4_XS, "IQ4_XS", 256, 2 + 2 + 4 + 256 / 2},
        {DTYPE_MXFP4, "MXFP4", 32, 1 + 32 / 2},
        {DTYPE_I64, "I64", 1, 8},
        {DTYPE_F8_E4M3, "F8_E4M3", 1, 1},
    };
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        const struct dtype_info *info = dtype_info(want[i].type);
        assert_non_null(info);
        assert_string_equal(info->name, want[i].name);
        assert_int_equal(info->block_elems, want[i].elems);
        assert_int_equal(info->block_bytes, want[i].bytes);
    }
}

static void exactly_seven_are_computable(void **state)
{
    (void)state;
    int n = 0;
    for (uint32_t type = 0; type < N_DTYPES; type++) {
        const struct dtype_info *info = dtype_info(type);
        n += info != NULL && info->computable;
    }
    assert_int_equal(n, 7);
    static const uint32_t can[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0,
                                   DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q6_K};
    for (size_t i = 0; i < 7; i++)
        assert_true(dtype_info(can[i])->computable);
}

static void names_lead_back_to_numbers(void **state)
{
    (void)state;
    uint32_t type;
    for (uint32_t i = 0; i < N_DTYPES; i++) {
        if (dtype_info(i) == NULL)
            continue;
        assert_true(dtype_from_name(dtype_info(i)->name, &type));
        assert_int_equal(type, i);
        assert_true(dtype_info(i)->block_elems > 0 && dtype_info(i)->block_bytes > 0);
    }
    assert_false(dtype_from_name("q8_0", &type));
    assert_false(dtype_from_name("", &type));
}

static void unknown_numbers(void **state)
{
    (void)state;
    assert_null(dtype_info(N_GGUF_DTYPES));
    assert_null(dtype_info(DTYPE_BOOL - 1));
    assert_null(dtype_info(N_DTYPES));
    assert_null(dtype_info(UINT32_MAX));
    assert_string_equal(dtype_name(77), "type 77");
    assert_string_equal(dtype_name(UINT32_MAX), "type 4294967295");
    assert_string_equal(dtype_name(DTYPE_Q6_K), "Q6_K");
}

static void row_bytes_are_checked(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    assert_true(dtype_row_bytes(DTYPE_Q8_0, 64, &bytes));
    assert_int_equal(bytes, 68);
    assert_true(dtype_row_bytes(DTYPE_Q6_K, 512, &bytes));
    assert_int_equal(bytes, 420);
    assert_true(dtype_row_bytes(DTYPE_F32, 0, &bytes));
    assert_int_equal(bytes, 0);
    assert_false(dtype_row_bytes(DTYPE_Q8_0, 63, &bytes));
    assert_false(dtype_row_bytes(DTYPE_Q6_K, 128, &bytes));
    assert_false(dtype_row_bytes(77, 32, &bytes));
    assert_false(dtype_row_bytes(DTYPE_F32, UINT64_MAX / 4 + 1, &bytes));
    assert_false(dtype_row_bytes(DTYPE_Q8_0, UINT64_MAX - 31, &bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_follow_from_layouts),
        cmocka_unit_test(exactly_seven_are_computable),
        cmocka_unit_test(names_lead_back_to_numbers),
        cmocka_unit_test(unknown_numbers),
        cmocka_unit_test(row_bytes_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
