/* What `shoal top` shows: two snapshots of a server's metrics, one after the other, as rates,
 * latencies and shares of the time between them; and that as text and as JSON. Pure. */
#ifndef SHOAL_CLI_TOP_VIEW_H
#define SHOAL_CLI_TOP_VIEW_H

#include "base/strbuf.h"
#include "cli/metrics_read.h"

#include <jansson.h>
#include <stdbool.h>

/* NAN: nothing of the kind happened in the interval. */
struct top_stage {
    const char *node, *layers; /* of the later snapshot */
    bool is_up;
    double busy, input_wait, send_wait, other; /* shares of its thread's time: 1 together */
    double rows_per_s;
};

struct top_view {
    double interval_s;
    double running, waiting, slots, requests_per_s, refused, preempted;
    double prefill_per_s, decode_per_s;           /* tokens */
    double first_token_s[2], between_tokens_s[2]; /* median, 95th percentile */
    double held, idle, free;                      /* blocks */
    double prefix_found, guesses_right;           /* shares */
    int n_stages;
    struct top_stage stages[RING_MAX_STAGES];
    /* The stage that the others wait for: it waits least itself; or whose output waits for the
     * network. -1: one stage, or nothing was done. */
    int bottleneck;
    bool is_network;
};

/* False: the later one is of another run of the server. Points into `later`. */
bool top_view_make(const struct metrics_snapshot *earlier, const struct metrics_snapshot *later,
                   struct top_view *out);

void top_view_append(struct strbuf *out, const struct top_view *v);
json_t *top_view_json(const struct top_view *v); /* a new reference */

#endif
