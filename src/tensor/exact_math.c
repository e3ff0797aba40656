/* Range reduction and Taylor polynomials, the textbook way; what matters is that every operation
 * stands here and rounds once. Nothing is a table, so vector kernels repeat exact_expf with the
 * same constants (exact_math.h has them).
 *
 * Rounding to an integer is done by adding 1.5 * 2^p, p the width of the fraction: the sum's last
 * place is then 1, so the addition itself rounds to nearest even and the integer can be read from
 * the low bits. No conversion instruction, so no rounding mode but the default matters. */
#include "tensor/exact_math.h"

#include "tensor/float16.h"

#include <math.h>
#include <stdint.h>

static uint64_t f64_bits(double x)
{
    union {
        double f;
        uint64_t u;
    } v = {.f = x};
    return v.u;
}

static double f64_from_bits(uint64_t bits)
{
    union {
        uint64_t u;
        double f;
    } v = {.u = bits};
    return v.f;
}

/* 2^n for a normal result. */
static float pow2_f32(int n)
{
    return f32_from_bits((uint32_t)(n + 127) << 23);
}

static double pow2_f64(int n)
{
    return f64_from_bits((uint64_t)(n + 1023) << 52);
}

/* e^x = 2^n e^r with r = x - n ln 2, |r| <= ln 2 / 2. The scale 2^n is applied in two exact halves,
 * of which the second may round into the denormals or to infinity. */
float exact_expf(float x)
{
    if (!(x < EXPF_MAX))
        return x >= EXPF_MAX ? f32_from_bits(0x7f800000u) : x;
    if (x <= EXPF_MIN)
        return 0.0f;
    float shifted = fmaf(x, EXPF_LOG2E, EXPF_SHIFT);
    int n = (int32_t)(f32_bits(shifted) - f32_bits(EXPF_SHIFT));
    float whole = shifted - EXPF_SHIFT;
    float r = fmaf(whole, -EXPF_LN2_HI, x);
    r = fmaf(whole, -EXPF_LN2_LO, r);
    float p = EXPF_C7;
    p = fmaf(p, r, EXPF_C6);
    p = fmaf(p, r, EXPF_C5);
    p = fmaf(p, r, EXPF_C4);
    p = fmaf(p, r, EXPF_C3);
    p = fmaf(p, r, EXPF_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    int half = n >> 1;
    return p * pow2_f32(half) * pow2_f32(n - half);
}

/* ln 2 in two parts; the first has 20 zero bits at the end, so n * LN2_HI is exact for |n| < 2^20.
 */
#define LN2_HI 0x1.62e42fee00000p-1
#define LN2_LO 0x1.a39ef35793c76p-33

static const double SHIFT_F64 = 0x1.8p52;

/* sum c[i] x^i, highest first: c[0] is the coefficient of x^(n-1). */
static double horner(const double *c, int n, double x)
{
    double sum = c[0];
    for (int i = 1; i < n; i++)
        sum = fma(sum, x, c[i]);
    return sum;
}

double exact_exp(double x)
{
    static const double c[] = {1.0 / 6227020800.0,
                               1.0 / 479001600.0,
                               1.0 / 39916800.0,
                               1.0 / 3628800.0,
                               1.0 / 362880.0,
                               1.0 / 40320.0,
                               1.0 / 5040.0,
                               1.0 / 720.0,
                               1.0 / 120.0,
                               1.0 / 24.0,
                               1.0 / 6.0,
                               0.5,
                               1.0,
                               1.0};
    if (!(x < 709.8))
        return x >= 709.8 ? f64_from_bits(0x7ff0000000000000u) : x;
    if (x <= -745.2)
        return 0.0;
    double shifted = fma(x, 0x1.71547652b82fep0, SHIFT_F64);
    int n = (int32_t)(uint32_t)(f64_bits(shifted) - f64_bits(SHIFT_F64));
    double whole = shifted - SHIFT_F64;
    double r = fma(whole, -LN2_HI, x);
    r = fma(whole, -LN2_LO, r);
    double p = horner(c, sizeof c / sizeof c[0], r);
    int half = n >> 1;
    return p * pow2_f64(half) * pow2_f64(n - half);
}

/* log x as a sum of two doubles, |*low| a few 2^-52 of |*high|, for finite x > 0.
 * x = 2^n m with m in [sqrt(1/2), sqrt 2); log m = 2 atanh(s), s = (m - 1) / (m + 1). */
static void log_parts(double x, double *high, double *low)
{
    static const double c[] = {2.0 / 25, 2.0 / 23, 2.0 / 21, 2.0 / 19, 2.0 / 17, 2.0 / 15,
                               2.0 / 13, 2.0 / 11, 2.0 / 9,  2.0 / 7,  2.0 / 5,  2.0 / 3};
    int n = 0;
    if (x < 0x1p-1022) { /* denormal: make it normal first */
        x *= 0x1p54;
        n = -54;
    }
    uint64_t bits = f64_bits(x);
    n += (int)(bits >> 52) - 1023;
    double m = f64_from_bits((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
    if (m > 0x1.6a09e667f3bcdp0) {
        m *= 0.5;
        n++;
    }
    double f = m - 1.0;       /* exact */
    double divisor = m + 1.0; /* rounded; what was lost: */
    double divisor_low = m - (divisor - 1.0);
    double s = f / divisor;
    double s_low = (fma(-s, divisor, f) - s * divisor_low) / divisor;
    double z = s * s;
    double tail = horner(c, sizeof c / sizeof c[0], z) * z; /* log m = s (2 + tail) */
    double small = fma(s, tail, fma(2.0, s_low, n * LN2_LO));
    double a = n * LN2_HI, b = 2.0 * s; /* a = 0 or |a| > |b| */
    double sum = a + b;
    double lost = n == 0 ? 0.0 : b - (sum - a);
    *high = sum + (lost + small);
    *low = (sum - *high) + (lost + small);
}

double exact_log(double x)
{
    if (x == 0.0)
        return -f64_from_bits(0x7ff0000000000000u);
    if (!(x > 0.0))
        return f64_from_bits(0x7ff8000000000000u);
    if (f64_bits(x) >= 0x7ff0000000000000u)
        return x;
    double high, low;
    log_parts(x, &high, &low);
    return high;
}

double exact_pow(double base, double exponent)
{
    if (exponent == 0.0 || base == 1.0)
        return 1.0;
    if (!(base > 0.0) || f64_bits(base) >= 0x7ff0000000000000u)
        return exact_exp(exponent * exact_log(base));
    double high, low;
    log_parts(base, &high, &low);
    double product = exponent * high;
    double rest = fma(exponent, high, -product) + exponent * low;
    if (!(fabs(product) < 745.0))
        return exact_exp(product); /* all or nothing; rest may be NaN where product is infinite */
    double power = exact_exp(product);
    return fma(power, rest, power);
}

/* x = n pi/2 + r, |r| <= pi/4. The first step is exact: both x and n * PIO2_1 are multiples of
 * 2^-52 wherever |x| >= 1/2, and the difference is below 1. */
void exact_sincos(double x, double *sine, double *cosine)
{
    static const double sin_c[] = {
        -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
        -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
    static const double cos_c[] = {
        1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
        1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0,        -0.5};
    if (!(fabs(x) < 0x1p30)) {
        *sine = *cosine = f64_from_bits(0x7ff8000000000000u);
        return;
    }
    double shifted = fma(x, 0x1.45f306dc9c883p-1, SHIFT_F64);
    unsigned quadrant = (unsigned)(f64_bits(shifted) & 3);
    double whole = shifted - SHIFT_F64;
    double r = fma(whole, -0x1.921fb54442d18p0, x);
    r = fma(whole, -0x1.1a62633145c07p-54, r);
    double z = r * r;
    double s = fma(horner(sin_c, sizeof sin_c / sizeof sin_c[0], z) * z, r, r);
    double c = fma(horner(cos_c, sizeof cos_c / sizeof cos_c[0], z), z, 1.0);
    double swapped_s = quadrant & 1 ? c : s;
    double swapped_c = quadrant & 1 ? s : c;
    *sine = quadrant & 2 ? -swapped_s : swapped_s;
    *cosine = (quadrant + 1) & 2 ? -swapped_c : swapped_c;
}
