/* The flags of the engine's sizes, which serve and bench latency share: a profile, and each of its
 * values by itself. */
#ifndef SHOAL_CLI_SIZE_FLAGS_H
#define SHOAL_CLI_SIZE_FLAGS_H

#include "base/bounds.h"
#include "cli/flags.h"
#include "engine/draft.h"
#include "lead/profile.h"

#include <limits.h>
#include <stdbool.h>

enum { MAX_FLIGHTS = 64 };

/* Beside the profile: -1 where nothing was said. */
struct size_flags {
    int profile; /* enum profile */
    int slots, max_rows, flights, max_itl_ms, draft, max_queued, kv_mb;
    bool no_overlap, no_prefix_cache;
};

#define SIZE_FLAGS_UNSAID \
    { \
        .slots = -1, .max_rows = -1, .flights = -1, .max_itl_ms = -1, .draft = -1, \
        .max_queued = -1, .kv_mb = -1 \
    }

/* Rows for a verb's table; `z` is a struct size_flags that began as SIZE_FLAGS_UNSAID. */
#define SIZE_FLAGS(z) \
    {"profile", \
     FLAG_CHOICE, \
     &(z).profile, \
     "NAME", \
     "sizes that suit a use: interactive (default), throughput or low-memory; each of the " \
     "following can be set beside it", \
     .choices = profile_names}, \
        {"slots",  FLAG_INT,       &(z).slots, "N", "sequences at once (16, 64, 4 by profile)", \
         .min = 1, .max = SLOT_MAX}, \
        {"batch", \
         FLAG_INT, \
         &(z).max_rows, \
         "N", \
         "rows of one step (512, 1024, 128 by profile)", \
         .min = 1, \
         .max = STEP_MAX_ROWS}, \
        {"max-itl-ms", \
         FLAG_INT, \
         &(z).max_itl_ms, \
         "MS", \
         "the longest wait for the next token of a stream while prompts are computed; 0: any " \
         "(interactive, low-memory: not much over its usual time)", \
         .min = 0, \
         .max = 3600000}, \
        {"flights", \
         FLAG_INT, \
         &(z).flights, \
         "N", \
         "steps on their way through the ring at once (default: up to stages + 1)", \
         .min = 1, \
         .max = MAX_FLIGHTS}, \
        {"no-overlap", FLAG_BOOL, &(z).no_overlap, NULL, \
         "one step at a time: for comparison and debugging"}, \
        {"draft", \
         FLAG_INT, \
         &(z).draft, \
         "N", \
         "tokens guessed ahead in a step of a sequence; 0: none (8, 4, 8 by profile)", \
         .min = 0, \
         .max = DRAFT_MAX}, \
        {"kv-mb", \
         FLAG_INT, \
         &(z).kv_mb, \
         "MB", \
         "memory for keys and values, of all nodes together (default: a quarter, half, a tenth " \
         "of what is free, by profile)", \
         .min = 1, \
         .max = INT_MAX}, \
        {"queue", \
         FLAG_INT, \
         &(z).max_queued, \
         "N", \
         "requests that may wait; more are refused with 429 (128, 1024, 64 by profile)", \
         .min = 1, \
         .max = 1 << 20}, \
    { \
        "no-prefix-cache", FLAG_BOOL, &(z).no_prefix_cache, NULL, \
            "compute every prompt from its beginning" \
    }

/* What flags_parse cannot see: values that contradict each other. */
enum err size_flags_check(const struct size_flags *f, struct error *e);

/* The profile first, then what was said by itself. */
void size_flags_apply(const struct size_flags *f, struct lead_options *o);

#endif
