#include "engine/pace.h"

#include <limits.h>

static const double FORGETTING = 0.9; /* per step: about the last ten count */
enum { SLOPE_LASTS = 200 }; /* steps alike, after which what rows cost is to be seen anew */
static const double MOST_STRETCH = 3;
static const double MIN_SPREAD = 0.2; /* of the rows, below which they tell nothing of the slope */

/* The slope is known only from steps of different sizes; otherwise the last one is kept. */
static void fit(struct pace *p)
{
    double mean_rows = p->rows / p->weight, mean_us = p->us / p->weight;
    double variance = p->rows_squared / p->weight - mean_rows * mean_rows;
    double spread = MIN_SPREAD * mean_rows;
    bool differ = variance > spread * spread && variance > 0.25;
    p->n_alike = differ ? 0 : p->n_alike + 1;
    p->had_slope = differ || p->had_slope;
    p->has_slope = differ || (p->has_slope && p->n_alike < SLOPE_LASTS);
    if (differ)
        p->per_row_us = (p->rows_us / p->weight - mean_rows * mean_us) / variance;
    else if (p->per_row_us <= 0)
        p->per_row_us = mean_us / mean_rows; /* the worst case: all of it is rows */
    p->base_us = mean_us - p->per_row_us * mean_rows;
    if (p->per_row_us <= 0) { /* noise: larger steps were not slower */
        p->per_row_us = 0.1 * mean_us / mean_rows;
        p->base_us = 0.9 * mean_us;
    }
    if (p->base_us < 0) {
        p->base_us = 0;
        p->per_row_us = mean_us / mean_rows;
    }
}

/* A step that took far longer than expected is mostly one whose thread had to wait. If it is the
 * machine that has become slower, the next ones say so too. */
static void note_decoding(struct pace *p, double n, double us)
{
    double most = MOST_STRETCH * pace_step_us(p, (int)n);
    if (p->weight > 1 && most > 0 && us > most)
        us = most;
    p->weight = FORGETTING * p->weight + 1;
    p->rows = FORGETTING * p->rows + n;
    p->us = FORGETTING * p->us + us;
    p->rows_squared = FORGETTING * p->rows_squared + n * n;
    p->rows_us = FORGETTING * p->rows_us + n * us;
    fit(p);
}

/* Decode rows of which nothing is known yet are taken to cost what prompt rows do. */
static void note_prompt(struct pace *p, double n_decoding, double n, double us)
{
    double rest = us - pace_step_us(p, (int)n_decoding);
    if (p->weight <= 0)
        rest = us * n / (n + n_decoding);
    p->prompt_rows = FORGETTING * p->prompt_rows + n;
    p->prompt_us = FORGETTING * p->prompt_us + (rest > 0 ? rest : 0);
    p->per_prompt_us = p->prompt_us / p->prompt_rows;
}

void pace_note(struct pace *p, int n_decoding, int n_prompt, int64_t us)
{
    if (us < 0)
        return;
    if (n_prompt > 0)
        note_prompt(p, n_decoding, n_prompt, (double)us);
    else if (n_decoding > 0)
        note_decoding(p, n_decoding, (double)us);
}

bool pace_is_known(const struct pace *p)
{
    return p->weight > 0 ? p->us > 0 : p->per_prompt_us > 0;
}

double pace_step_us(const struct pace *p, int n_decoding)
{
    return p->weight > 0 ? p->base_us + p->per_row_us * n_decoding : p->per_prompt_us * n_decoding;
}

double pace_own_us(const struct pace *p, int n)
{
    const double unknown = 0.5;
    return p->had_slope ? p->base_us : unknown * pace_step_us(p, n);
}

int pace_prompt_rows(const struct pace *p, const struct pace_bound *bound, int n_decoding)
{
    bool is_bound = bound->max_step_us > 0 || bound->max_stretch > 0;
    if (!is_bound)
        return INT_MAX;
    if (!pace_is_known(p) || p->per_prompt_us <= 0)
        return PACE_MIN_ROWS;
    double without = pace_step_us(p, n_decoding), most = 1e18;
    if (bound->max_step_us > 0)
        most = (double)bound->max_step_us;
    if (bound->max_stretch > 0 && without * bound->max_stretch < most)
        most = without * bound->max_stretch;
    double rows = (most - without) / p->per_prompt_us;
    return rows < PACE_MIN_ROWS ? PACE_MIN_ROWS : rows > INT_MAX / 2 ? INT_MAX / 2 : (int)rows;
}

double pace_step_cost_rows(const struct pace *p)
{
    const double unknown = 4, least = 2, most = 512;
    const double not_hidden = 0.5; /* half of the reading is, behind the products */
    if (p->weight <= 0 || p->per_prompt_us <= 0)
        return unknown;
    double rows = not_hidden * p->base_us / p->per_prompt_us;
    return rows < least ? least : rows > most ? most : rows;
}

/* Before steps of different sizes were seen, a row may be thought to cost all of a step, and
 * nothing would ever be guessed to learn better. */
float pace_least_rate(const struct pace *p, int n_decoding, double guess_us, double idle_us)
{
    const float unknown = 0.3f, least = 0.1f;
    if (p->weight <= 0 || p->us <= 0)
        return unknown;
    int n = n_decoding > 1 ? n_decoding : 1;
    double token_us = (pace_step_us(p, n) + idle_us) / n;
    float row = p->has_slope ? (float)(p->per_row_us / token_us) : unknown;
    float rate = row + (float)(guess_us / token_us);
    return rate > least ? rate : least;
}
