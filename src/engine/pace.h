/* How long steps take, and how many prompt rows fit beside running streams.
 *
 * A step is taken to keep the slowest stage as long as its decode rows alone would, and something
 * for each prompt row on top. What decode rows cost is fitted to steps that had no others (base
 * and slope, least squares with forgetting); what a prompt row costs is the rest of the steps that
 * had some, and grows with the positions it stands at. Both follow the machine, the model and the
 * context. As long as nothing is known, prompts come in small pieces. Pure: times come in as
 * arguments. */
#ifndef SHOAL_ENGINE_PACE_H
#define SHOAL_ENGINE_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    /* Of steps without prompt rows: sums of what was seen, the old fading, and the line. */
    double weight, rows, us, rows_squared, rows_us;
    double base_us, per_row_us;
    bool had_slope; /* steps of different sizes were seen, … */
    bool has_slope; /* … and not too long ago: … */
    int n_alike;    /* … so many steps */
    /* Of prompt rows: likewise, and their quotient. */
    double prompt_rows, prompt_us;
    double per_prompt_us; /* 0: unknown */
};

/* A step with so many rows kept the slowest stage for us (>= 0). */
void pace_note(struct pace *p, int n_decoding, int n_prompt, int64_t us);

bool pace_is_known(const struct pace *p);
double pace_step_us(const struct pace *p, int n_decoding); /* without prompt rows; 0: unknown */

/* What a step of n rows costs without them: the line's base, or half of it while only steps of one
 * size have ever been seen. */
double pace_own_us(const struct pace *p, int n);

/* What a user may set: no step beside running streams is to be longer than this. */
struct pace_bound {
    int64_t max_step_us; /* 0: any */
    float max_stretch;   /* times the step without prompt rows; 0: any */
};

/* Prompt rows that may go beside n_decoding rows, or PACE_MIN_ROWS: where the bound cannot be kept,
 * or nothing is known yet, prompts go on at least so fast. (A chunk has costs of its own, whatever
 * its size: below a few rows, it would only make the prompt last longer.) INT_MAX without a bound.
 */
enum { PACE_MIN_ROWS = 4 };
int pace_prompt_rows(const struct pace *p, const struct pace_bound *bound, int n_decoding);

/* What a chunk of a prompt costs by itself, in prompt rows: what a decoding step does that is not
 * its rows (reading the weights, the barriers), as far as it does not go on behind the products. A
 * guess as long as nothing is known. */
double pace_step_cost_rows(const struct pace *p);

/* What a guess costs, in tokens: as many of these it must win for guessing to pay, with n_decoding
 * streams in a step. A guess costs a row, and making it guess_us; a token is a stream's share of
 * the step, and of the idle_us that a stage waits for the next. */
float pace_least_rate(const struct pace *p, int n_decoding, double guess_us, double idle_us);

#endif
