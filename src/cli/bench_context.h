/* bench model --context: what a decode step costs more, the more positions stand before it.
 *
 * For each context one sequence is filled with so many tokens (prefill, not counted), another with
 * as many as the first context has. In each repetition both decode, one after the other, with
 * probes of reading around them: machines drift, and what is compared is measured within a second.
 * The extra time stands beside what reading the extra keys and values may take: their bytes at
 * CONTEXT_BANDWIDTH of the probed bandwidth. */
#ifndef SHOAL_CLI_BENCH_CONTEXT_H
#define SHOAL_CLI_BENCH_CONTEXT_H

#include "bench/probe.h"
#include "cli/bench_cost.h"
#include "cli/lone_sequences.h"

#include <jansson.h>

#define CONTEXT_BANDWIDTH 0.85

enum { CONTEXT_SEQUENCES = 2 }; /* the one measured and the one it is held against */

struct context_bench {
    struct lead *lead;   /* of CONTEXT_SEQUENCES slots, of context_bench_length positions */
    int max_rows;        /* of a step */
    struct probe *probe; /* NULL: none wanted */
    const struct bench_cost *cost;
    const int32_t *ids; /* as many as the longest context */
    const int *contexts;
    int n_contexts;
    int n_decode, repeats; /* tokens of a repetition; one more warms up */
};

/* Positions that a sequence of the longest context needs. */
int64_t context_bench_length(const int *contexts, int n_contexts, int n_decode, int repeats);

/* Seconds that the keys and values of `positions` more may take at this bandwidth. */
double context_bench_allowed_s(const struct bench_cost *c, double positions, double read_gb_s);

/* A table on stdout, or, with `json`, "contexts" in it. Errors are the pipeline's. */
enum err context_bench_run(const struct context_bench *b, json_t *json, struct error *e);

#endif
