/* How long steps take, and how many prompt rows fit beside running streams.
 *
 * A step of n rows is taken to last base + n * per_row microseconds at the slowest stage; both are
 * fitted to the steps seen lately (least squares with forgetting), so that they follow the machine,
 * the model and the growing context. The first steps, before anything is known, get few prompt
 * rows. Pure: times come in as arguments. */
#ifndef SHOAL_ENGINE_PACE_H
#define SHOAL_ENGINE_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    double weight, rows, us, rows_squared, rows_us; /* sums of what was seen, the old fading */
    double base_us, per_row_us;
};

/* A step of n_rows kept the slowest stage for us (>= 0). */
void pace_note(struct pace *p, int n_rows, int64_t us);

bool pace_is_known(const struct pace *p);
double pace_step_us(const struct pace *p, double n_rows); /* 0 while unknown */

/* What a user may set: no step beside running streams is to be longer than this. */
struct pace_bound {
    int64_t max_step_us; /* 0: any */
    float max_stretch;   /* times the step without prompt rows; 0: any */
};

/* Prompt rows that may go beside n_decoding rows; at least PACE_MIN_ROWS, so that prompts never
 * starve; INT_MAX without a bound. */
enum { PACE_MIN_ROWS = 8 };
int pace_prompt_rows(const struct pace *p, const struct pace_bound *bound, int n_decoding);

/* The share of guesses that must be right for guessing to pay, with n_decoding streams in a step: a
 * guess costs a row, and wins its stream a token's share of the step. */
float pace_least_rate(const struct pace *p, int n_decoding);

#endif
