/* e^x of many numbers at once, each the bits of exact_expf: the sampler takes it of a whole
 * vocabulary per token, and a call of fmaf for each of ten steps (what the baseline of x86-64 has to
 * do) costs milliseconds. exp_many chooses by processor; the others are there to be compared. */
#ifndef SHOAL_SAMPLER_EXP_MANY_H
#define SHOAL_SAMPLER_EXP_MANY_H

/* x[i] = e^x[i] for n numbers <= 0; -inf gives 0, NaN is not allowed. Any alignment. */
void exp_many(float *x, int n);

void exp_many_plain(float *x, int n);
void exp_many_avx2(float *x, int n); /* x86/, needs AVX2 and FMA */

#endif
