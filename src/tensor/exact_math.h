/* The transcendental functions of the forward pass and the sampler: our own polynomials, because
 * libm's bits differ from system to system (DESIGN, "The bits").
 *
 * Only +, -, *, / , fma, sqrt and integer operations, each rounded once, in one order: the same
 * bits from every compiler and on every processor. Vector kernels repeat the f32 ones lane by
 * lane. Errors are bounded against long double libm in exact_math_test.c; the bounds stand here. */
#ifndef SHOAL_TENSOR_EXACT_MATH_H
#define SHOAL_TENSOR_EXACT_MATH_H

/* e^x. x <= -104 gives 0, x >= 88.73 +inf, NaN NaN. Relative error below 2 ulp. */
float exact_expf(float x);

/* Natural logarithm, x > 0; 0 gives -inf, negative NaN. Double: relative error below 2^-48. */
double exact_log(double x);
double exact_exp(double x);

/* base^exponent for base > 0 (rope frequencies): exact_exp(exponent * exact_log(base)) with enough
 * extra precision for a relative error below 2^-44 where |exponent * log base| < 64. */
double exact_pow(double base, double exponent);

/* sin and cos of x, |x| < 2^30 radians, absolute error below 2^-40. */
void exact_sincos(double x, double *sine, double *cosine);

#endif
