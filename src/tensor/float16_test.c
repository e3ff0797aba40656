/* Every f16 and bf16 value, and every rounding boundary between neighbours, against arithmetic
 * in double with ldexp: a second way to the same numbers. */
#include "tensor/float16.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>

/* The value of a finite f16 from its fields. */
static double f16_value(unsigned bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static void every_f16_is_exact_and_returns(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 0x10000; bits++) {
        float x = f16_to_f32((struct f16){(uint16_t)bits});
        if ((bits & 0x7fff) < 0x7c00) {
            assert_true((double)x == f16_value(bits));
            assert_int_equal(signbit(x) != 0, bits >> 15);
            assert_int_equal(f16_from_f32(x).bits, bits);
        } else if ((bits & 0x7fff) == 0x7c00) {
            assert_true(isinf(x) && (signbit(x) != 0) == (bits >> 15));
            assert_int_equal(f16_from_f32(x).bits, bits);
        } else {
            assert_true(isnan(x));
            assert_int_equal(f16_from_f32(x).bits, bits | 0x200);
        }
    }
}

/* Between neighbours a < b: the middle goes to the even one, one ulp of f32 off it to the nearer.
 */
static void f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 0x7bff; bits++) {
        float middle = (float)((f16_value(bits) + f16_value(bits + 1)) / 2);
        unsigned even = bits & 1 ? bits + 1 : bits;
        assert_int_equal(f16_from_f32(middle).bits, even);
        assert_int_equal(f16_from_f32(nextafterf(middle, 0)).bits, bits);
        assert_int_equal(f16_from_f32(nextafterf(middle, 1e9f)).bits, bits + 1);
        assert_int_equal(f16_from_f32(-middle).bits, even | 0x8000);
    }
}

static void f16_overflow_and_underflow(void **state)
{
    (void)state;
    assert_int_equal(f16_from_f32(65504.0f).bits, 0x7bff);
    assert_int_equal(f16_from_f32(65519.996f).bits, 0x7bff);
    assert_int_equal(f16_from_f32(65520.0f).bits, 0x7c00);
    assert_int_equal(f16_from_f32(1e38f).bits, 0x7c00);
    assert_int_equal(f16_from_f32(-INFINITY).bits, 0xfc00);
    assert_int_equal(f16_from_f32(ldexpf(1, -25)).bits, 0);
    assert_int_equal(f16_from_f32(nextafterf(ldexpf(1, -25), 1)).bits, 1);
    assert_int_equal(f16_from_f32(f32_from_bits(1)).bits, 0);
    assert_int_equal(f16_from_f32(f32_from_bits(0x80000001)).bits, 0x8000);
}

static void every_bf16_returns_and_rounds(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 0x10000; bits++) {
        float x = bf16_to_f32((struct bf16){(uint16_t)bits});
        assert_int_equal(f32_bits(x), bits << 16);
        if ((bits & 0x7fff) > 0x7f80) {
            assert_int_equal(bf16_from_f32(x).bits, bits | 0x40);
            continue;
        }
        assert_int_equal(bf16_from_f32(x).bits, bits);
        if ((bits & 0x7fff) == 0x7f80)
            continue;
        unsigned even = bits & 1 ? bits + 1 : bits;
        assert_int_equal(bf16_from_f32(f32_from_bits(bits << 16 | 0x8000)).bits, even);
        assert_int_equal(bf16_from_f32(f32_from_bits(bits << 16 | 0x7fff)).bits, bits);
        assert_int_equal(bf16_from_f32(f32_from_bits(bits << 16 | 0x8001)).bits, bits + 1);
    }
}

static void nan_never_becomes_infinity(void **state)
{
    (void)state;
    float low_payload = f32_from_bits(0x7f800001); /* payload only in bits that are cut off */
    assert_int_equal(f16_from_f32(low_payload).bits, 0x7e00);
    assert_int_equal(bf16_from_f32(low_payload).bits, 0x7fc0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_is_exact_and_returns),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(f16_overflow_and_underflow),
        cmocka_unit_test(every_bf16_returns_and_rounds),
        cmocka_unit_test(nan_never_becomes_infinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
