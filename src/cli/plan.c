/* shoal plan: which node gets which layers, before anything is loaded. */
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lead_flags.h"

#include <stdio.h>

enum { PLAN_ROWS = 512 }; /* of one step, as shoal serve runs them */

static enum err print_plan(struct lead *lead, bool json, struct error *e)
{
    if (json)
        return print_json(json_pack("{s:i, s:i, s:i, s:o}", "layers", lead->params.n_layers,
                                    "context", lead->context, "kv_blocks", lead->n_blocks, "nodes",
                                    ring_json(lead)),
                          e);
    printf("%-4s %-22s %-10s %12s %14s\n", "", "node", "layers", "needs", "free memory");
    for (int i = 0; i < lead->plan.n_stages; i++) {
        const struct plan_stage *s = &lead->plan.stages[i];
        char layers[32] = "head only";
        if (s->last > s->first)
            snprintf(layers, sizeof layers, "%d-%d", s->first, s->last - 1);
        printf("%-4d %-22s %-10s %9.1f MB", i, lead_stage_name(lead, i), layers,
               (double)s->bytes / 1e6);
        uint64_t free_bytes = i < lead->plan.n_stages - 1
                                  ? cluster_node(lead->cluster, s->node_i)->memory_free_bytes
                                  : lead->free_bytes;
        printf(" %11.1f MB\n", (double)free_bytes / 1e6);
    }
    return OK;
}

enum err verb_plan(int argc, char **argv, struct error *e)
{
    struct lead_flags f = {0};
    bool json = false;
    int slots = 1;
    const struct flag table[] = {
        LEAD_FLAGS(f),
        CONTEXT_FLAG(f),
        {"slots", FLAG_INT, &slots, "N", "sequences at once (default 1)", .min = 1,
         .max = SLOT_MAX},
        {"json", FLAG_BOOL, &json, NULL, "print JSON"},
        {0},
    };
    const struct verb_usage usage = {
        "plan",
        "MODEL [--nodes H:P,…] [--layers H:P=a-b,…] [flags]",
        "Asks the nodes for their memory and prints which layers each would hold.",
        table,
        1,
        1};
    const char *model;
    int n_args;
    enum err err = flags_parse(&usage, argc, argv, &model, &n_args, e);
    if (err != OK)
        return err;
    struct modelfile *file;
    err = modelfile_open(model, &file, e);
    if (err != OK)
        return err;
    struct lead_options o = lead_options_from(&f);
    o.file = file;
    o.n_slots = slots;
    o.max_rows = PLAN_ROWS;
    struct lead lead;
    err = lead_plan(&o, &lead, e);
    if (err == OK) {
        err = print_plan(&lead, json, e);
        lead_close(&lead);
    }
    modelfile_close(file);
    return err;
}
