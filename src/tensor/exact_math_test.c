/* The bounds that exact_math.h promises, against long double libm, over dense sweeps and the ends
 * of every range; and a few results as bits, so that a change of constants or order is noticed. */
#include "tensor/exact_math.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tensor/float16.h"

#include <math.h>

/* Uniform in [0, 1), the same sequence in every run. */
static double uniform(uint64_t *seed)
{
    *seed += 0x9e3779b97f4a7c15u;
    uint64_t z = *seed;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static double relative(long double found, long double expected)
{
    return (double)fabsl((found - expected) / expected);
}

static void expf_is_within_its_bound(void **state)
{
    (void)state;
    double worst = 0, worst_denormal = 0;
    for (float x = -103.97f; x < 88.722f; x += 0.0007f) {
        long double exact = expl(x);
        bool denormal = exact < 0x1p-126L;
        double place = denormal ? 0x1p-149 : ldexp(1.0, ilogb((double)exact) - 23);
        double error = (double)fabsl((exact_expf(x) - exact) / place);
        if (denormal)
            worst_denormal = fmax(worst_denormal, error);
        else
            worst = fmax(worst, error);
    }
    assert_true(worst < 1.0);
    assert_true(worst_denormal < 1.5);
}

static void expf_ends_are_as_stated(void **state)
{
    (void)state;
    assert_true(exact_expf(0.0f) == 1.0f && exact_expf(-0.0f) == 1.0f);
    assert_true(exact_expf(-104.0f) == 0.0f && exact_expf(-INFINITY) == 0.0f);
    assert_true(exact_expf(-103.9f) == 0x1p-149f);
    assert_true(isinf(exact_expf(88.73f)) && isinf(exact_expf(INFINITY)));
    assert_true(isfinite(exact_expf(88.722f)));
    assert_true(isnan(exact_expf(NAN)));
    assert_int_equal(f32_bits(exact_expf(1.0f)), 0x402df854);
    assert_int_equal(f32_bits(exact_expf(-0.5f)), 0x3f1b4598);
}

static void exp_is_within_its_bound(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 300000; i++) {
        double x = (uniform(&seed) - 0.5) * (i & 1 ? 1416.0 : 2.0);
        assert_true(relative(exact_exp(x), expl(x)) < 0x1p-51);
    }
    assert_true(exact_exp(0.0) == 1.0);
    assert_true(exact_exp(-745.2) == 0.0 && exact_exp(-INFINITY) == 0.0);
    assert_true(exact_exp(-745.0) > 0.0);
    assert_true(isinf(exact_exp(709.8)) && isinf(exact_exp(INFINITY)) && isnan(exact_exp(NAN)));
}

static void log_is_within_its_bound(void **state)
{
    (void)state;
    uint64_t seed = 2;
    for (int i = 0; i < 300000; i++) {
        double x = exp((uniform(&seed) - 0.5) * (i & 1 ? 1400.0 : 0.8));
        if (x != 1.0)
            assert_true(relative(exact_log(x), logl(x)) < 0x1p-52);
    }
    for (double x = 0x1p-1074; x < 0x1p-1020; x *= 3) /* denormals */
        assert_true(relative(exact_log(x), logl(x)) < 0x1p-52);
    double next = nextafter(1.0, 2.0), before = nextafter(1.0, 0.0);
    assert_true(relative(exact_log(next), logl(next)) < 0x1p-52);
    assert_true(relative(exact_log(before), logl(before)) < 0x1p-52);
    assert_true(exact_log(1.0) == 0.0);
    assert_true(isinf(exact_log(0.0)) && exact_log(0.0) < 0);
    assert_true(isinf(exact_log(INFINITY)) && exact_log(INFINITY) > 0);
    assert_true(isnan(exact_log(-1.0)) && isnan(exact_log(NAN)));
}

static void pow_is_within_its_bound(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int i = 0; i < 300000; i++) {
        double base = exp((uniform(&seed) - 0.3) * 30.0);
        double exponent = (uniform(&seed) - 0.7) * 3.0;
        if (fabs(exponent * log(base)) < 64.0)
            assert_true(relative(exact_pow(base, exponent), powl(base, exponent)) < 0x1p-50);
    }
    assert_true(exact_pow(10000.0, 0.0) == 1.0 && exact_pow(1.0, 77.0) == 1.0);
    assert_true(exact_pow(0.0, 2.0) == 0.0 && isinf(exact_pow(0.0, -2.0)));
    assert_true(exact_pow(2.0, -10000.0) == 0.0 && isinf(exact_pow(2.0, 1e300)));
    assert_true(isnan(exact_pow(-2.0, 0.5)));
}

static void sincos_is_within_its_bound(void **state)
{
    (void)state;
    static const double spans[] = {0x1p31, 0x1p20, 100.0, 1.6, 1e-6};
    uint64_t seed = 4;
    for (int i = 0; i < 500000; i++) {
        double x = (uniform(&seed) - 0.5) * spans[i % 5], s, c;
        exact_sincos(x, &s, &c);
        assert_true(fabsl(s - sinl(x)) < 0x1p-52L);
        assert_true(fabsl(c - cosl(x)) < 0x1p-52L);
    }
    for (int n = -4000; n < 4000; n++) { /* beside the multiples of pi/4, where quadrants change */
        double x = n * 0x1.921fb54442d18p-1, s, c;
        exact_sincos(x, &s, &c);
        assert_true(fabsl(s - sinl(x)) < 0x1p-52L && fabsl(c - cosl(x)) < 0x1p-52L);
    }
}

static void sincos_outside_its_range_is_nan(void **state)
{
    (void)state;
    static const double outside[] = {0x1p30, -0x1p30, 1e300, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        double s = 0, c = 0;
        exact_sincos(outside[i], &s, &c);
        assert_true(isnan(s) && isnan(c));
    }
    double s, c;
    exact_sincos(0.0, &s, &c);
    assert_true(s == 0.0 && c == 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expf_is_within_its_bound),
        cmocka_unit_test(expf_ends_are_as_stated),
        cmocka_unit_test(exp_is_within_its_bound),
        cmocka_unit_test(log_is_within_its_bound),
        cmocka_unit_test(pow_is_within_its_bound),
        cmocka_unit_test(sincos_is_within_its_bound),
        cmocka_unit_test(sincos_outside_its_range_is_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
