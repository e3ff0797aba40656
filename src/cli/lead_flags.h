/* The flags that run, serve, plan, eval and bench share: where a model runs and how large. */
#ifndef SHOAL_CLI_LEAD_FLAGS_H
#define SHOAL_CLI_LEAD_FLAGS_H

#include "base/bounds.h"
#include "cli/flags.h"
#include "lead/lead.h"

#include <jansson.h>

struct lead_flags {
    const char *nodes, *layers;
    int threads;
    int kv; /* enum kv_type */
    int context;
    bool insecure, pin;
    const char *draft_model; /* NULL: none */
    struct backend_choice backend;
};

/* Rows for a verb's table; `f` is a struct lead_flags variable. */
#define LEAD_FLAGS(f) \
    {"nodes", FLAG_STRING, &(f).nodes, "H:P,…", "workers of the ring, in order"}, \
        {"layers", FLAG_STRING, &(f).layers, "H:P=a-b,…", \
         "place layers by hand (inclusive numbers)"}, \
        {"threads", \
         FLAG_INT, \
         &(f).threads, \
         "K", \
         "compute threads (default: every processor)", \
         .min = 1, \
         .max = POOL_MAX_THREADS}, \
        {"pin", FLAG_BOOL, &(f).pin, NULL, "keep each compute thread to one processor"}, \
        {"kv", \
         FLAG_CHOICE, \
         &(f).kv, \
         "TYPE", \
         "keys and values as f16 (default), f32 or q8 (half the memory, not exact)", \
         .choices = kv_type_names}, \
    { \
        "insecure", FLAG_BOOL, &(f).insecure, NULL, \
            "let other machines reach this process: workers that fetch weights, users of serve" \
    }

/* What computes, for the verbs that do; `c` is a struct backend_choice variable. */
#define BACKEND_FLAGS(c) \
    {"backend", \
     FLAG_CHOICE, \
     &(c).kind, \
     "NAME", \
     "what computes: cpu (default), or sim, which hashes instead, for measuring all the rest: " \
     "the same on every node", \
     .choices = backend_names}, \
    { \
        "sim-step-us", FLAG_INT, &(c).pass_us, "US", \
            "with --backend sim: what this node's layers take for a step (default 0)", \
            .max = SIM_MAX_PASS_US \
    }

/* One more, for the verbs that do not know the length of their sequences. */
#define CONTEXT_FLAG(f) \
    { \
        "ctx", FLAG_INT, &(f).context, "N", "positions of one sequence (default: the model's)", \
            .min = 1, .max = SHAPE_MAX_CONTEXT \
    }

/* For the verbs that have an engine. */
#define DRAFT_MODEL_FLAG(f) \
    { \
        "draft-model", FLAG_STRING, &(f).draft_model, "FILE", \
            "a small model with the same vocabulary that guesses ahead" \
    }

/* Open the file of --draft-model, where one is given: *file is the caller's, NULL if none. */
enum err open_draft_model(const struct lead_flags *f, int max_draft, struct modelfile **file,
                          struct error *e);

/* Options of these flags; the caller adds model, sizes and progress. */
struct lead_options lead_options_from(const struct lead_flags *f);

/* What stage_i's process did and holds; false if it cannot be asked (any more). */
bool stage_stats(struct lead *lead, int stage_i, struct node_stats *out);

/* "0-11", or "head only". */
void stage_layers_text(const struct plan_stage *s, char text[static 32]);

/* The ring as a table on stderr: who holds which layers, and for a loaded cluster what each did. */
void print_ring(struct lead *lead);
/* The same as a JSON array. */
json_t *ring_json(struct lead *lead);

#endif
