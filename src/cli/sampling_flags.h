/* The flags of the sampler's rarer settings; docs/sampling.md says what they do. */
#ifndef SHOAL_CLI_SAMPLING_FLAGS_H
#define SHOAL_CLI_SAMPLING_FLAGS_H

#include "cli/flags.h"
#include "sampler/sampler.h"

#include <limits.h>

/* Rows for a verb's table; `s` is a struct sampling. */
#define SAMPLING_FLAGS(s) \
    {"typical-p", FLAG_FLOAT, &(s).typical_p, "P", \
     "… from the most typical with probability P together", .min = 1e-6, .max = 1}, \
        {"xtc-probability", FLAG_FLOAT, &(s).xtc_probability, "P", \
         "how often the likeliest tokens are excluded; 0: never", .max = 1}, \
        {"xtc-threshold", FLAG_FLOAT, &(s).xtc_threshold, "P", \
         "… which are those with probability P, but the last (default 0.1)", .max = 1}, \
        {"presence-penalty", FLAG_FLOAT, &(s).presence_penalty, "R", \
         "off the logits of tokens seen", .min = -2, .max = 2}, \
        {"frequency-penalty", FLAG_FLOAT, &(s).frequency_penalty, "R", \
         "off the logits of tokens for each time seen", .min = -2, .max = 2}, \
        {"repeat-last-n", FLAG_INT, &(s).penalty_last_n, "N", \
         "tokens that penalties look back at; 0: none, -1 (default): all", .min = -1, \
         .max = INT_MAX}, \
        {"dry-multiplier", FLAG_FLOAT, &(s).dry_multiplier, "R", \
         "penalty on going on with a repetition; 0: none", .max = 100}, \
        {"dry-base", FLAG_FLOAT, &(s).dry_base, "R", \
         "… times R for each token longer (default 1.75)", .min = 1, .max = 100}, \
        {"dry-allowed-length", FLAG_INT, &(s).dry_allowed_length, "N", \
         "… than N repeated tokens (default 2)", .min = 1, .max = INT_MAX}, \
        {"dry-penalty-last-n", FLAG_INT, &(s).dry_penalty_last_n, "N", \
         "tokens it looks back at; 0: none, -1 (default): all", .min = -1, .max = INT_MAX}, \
        {"mirostat", FLAG_INT, &(s).mirostat, "V", "2: mirostat version 2; 0 (default): off", \
         .max = 2}, \
        {"mirostat-tau", FLAG_FLOAT, &(s).mirostat_tau, "T", \
         "the surprise it aims at, in bits (default 5)", .max = 100}, \
    { \
        "mirostat-eta", FLAG_FLOAT, &(s).mirostat_eta, "R", "how quickly (default 0.1)", .max = 1 \
    }

#endif
