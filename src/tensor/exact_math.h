/* The transcendental functions of the forward pass and the sampler: our own polynomials, because
 * libm's bits differ from system to system (DESIGN, "The bits").
 *
 * Only +, -, *, / , fma, sqrt and integer operations, each rounded once, in one order: the same
 * bits from every compiler and on every processor. Vector kernels repeat the f32 ones lane by
 * lane. Errors are bounded against long double libm in exact_math_test.c; the bounds stand here. */
#ifndef SHOAL_TENSOR_EXACT_MATH_H
#define SHOAL_TENSOR_EXACT_MATH_H

/* e^x. x <= -104 gives 0, x >= 88.73 +inf, NaN NaN. Error below 1 ulp (denormal results: below 1.5
 * of theirs). */
float exact_expf(float x);

/* The numbers of exact_expf, for the vector kernels that repeat it. e^x = 2^n e^r, n = x / ln 2 to
 * the nearest integer (read from the low bits of fma(x, LOG2E, SHIFT)), r = x - n ln 2 in two fmas;
 * e^r by Horner with C7 … C2, 1, 1, each an fma; the result is (e^r * 2^(n>>1)) * 2^(n - (n>>1)).
 */
#define EXPF_MAX 88.73f
#define EXPF_MIN (-104.0f)
#define EXPF_LOG2E 0x1.715476p0f
#define EXPF_SHIFT 0x1.8p23f
#define EXPF_LN2_HI 0x1.62e4p-1f
#define EXPF_LN2_LO 0x1.7f7d1cp-20f
#define EXPF_C7 (1.0f / 5040.0f)
#define EXPF_C6 (1.0f / 720.0f)
#define EXPF_C5 (1.0f / 120.0f)
#define EXPF_C4 (1.0f / 24.0f)
#define EXPF_C3 (1.0f / 6.0f)
#define EXPF_C2 0.5f

/* Natural logarithm, x > 0; 0 gives -inf, negative NaN, +inf itself. Relative error below 2^-52. */
double exact_log(double x);

/* e^x. x <= -745.2 gives 0, x >= 709.8 +inf, NaN NaN. Relative error of a normal result below
 * 2^-51. */
double exact_exp(double x);

/* base^exponent for base > 0 (rope frequencies), with the logarithm and its product in two doubles:
 * relative error below 2^-50 where |exponent * log base| < 64. base 0, negative and infinite go
 * through exact_log and exact_exp. */
double exact_pow(double base, double exponent);

/* sin and cos of x, |x| < 2^30 radians, absolute error below 2^-52. Any other x, NaN too, gives
 * NaN for both. */
void exact_sincos(double x, double *sine, double *cosine);

#endif
