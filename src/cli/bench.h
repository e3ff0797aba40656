/* What the kinds of `shoal bench` share. Each kind is one file and one row in the table of bench.c;
 * argv begins after the kind. */
#ifndef SHOAL_CLI_BENCH_H
#define SHOAL_CLI_BENCH_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

enum err bench_model(int argc, char **argv, struct error *e);
enum err bench_kernels(int argc, char **argv, struct error *e);
enum err bench_latency(int argc, char **argv, struct error *e);

/* The middle of n >= 1 values, of two where n is even; they are sorted. */
double bench_median(double *values, int n);

/* {"median", "min", "max", "repetitions"}; JSON null for n = 0. */
json_t *bench_spread_json(double *values, int n);

/* Whether two probes of the same limit are close enough (5 %) for their mean to be a limit. */
bool bench_probes_agree(double before, double after);

/* "1,2,4" as numbers from 1 to most. ERR_USAGE naming the flag. */
enum { BENCH_MAX_LIST = 32 };
enum err bench_number_list(const char *flag, const char *text, int most, int *numbers, int *n,
                           struct error *e);

#endif
