/* What `shoal top` reads: the text of GET /metrics (docs/api.md, Prometheus' format 0.0.4) as a
 * struct. Metrics that are not asked for here are passed by. The text is outside data: lines that
 * are none, and indices out of range, are refused with their number; nothing is allocated. Pure. */
#ifndef SHOAL_CLI_METRICS_READ_H
#define SHOAL_CLI_METRICS_READ_H

#include "base/bounds.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

enum { METRICS_MAX_BUCKETS = 32 };

/* Cumulative, as Prometheus has it: n_below[i] were at most bounds[i]; the last bound is +Inf. */
struct metrics_histogram {
    int n_bounds;
    double bounds[METRICS_MAX_BUCKETS], n_below[METRICS_MAX_BUCKETS];
};

struct metrics_stage {
    char node[264], layers[32]; /* printable */
    bool is_up;
    double busy_s, input_wait_s, send_wait_s, other_s; /* all of its thread's time */
    double rows;
};

struct metrics_snapshot {
    double at_s; /* the reader's clock; set by whoever reads */
    double ready;
    double running, waiting, slots;
    double requests, refused, preempted;
    double generated, prompt_rows, steps;
    double looked_for, found; /* tokens of prompts, in the prefix cache */
    double guessed, right;
    double held, idle, free; /* blocks */
    struct metrics_histogram first_token, between_tokens;
    int n_stages;
    struct metrics_stage stages[RING_MAX_STAGES];
};

/* ERR_FORMAT: a line that is no sample, or text without shoal_ready, which every Shoal has. */
enum err metrics_read(const char *text, size_t bytes, struct metrics_snapshot *out,
                      struct error *e);

#endif
