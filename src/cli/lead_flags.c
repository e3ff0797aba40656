#include "cli/lead_flags.h"

#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

struct lead_options lead_options_from(const struct lead_flags *f)
{
    return (struct lead_options){.nodes = f->nodes,
                                 .layers = f->layers,
                                 .threads = f->threads,
                                 .pin = f->pin,
                                 .backend = f->backend,
                                 .kv_type = (enum kv_type)f->kv,
                                 .context = f->context,
                                 .insecure = f->insecure};
}

enum err open_draft_model(const struct lead_flags *f, int max_draft, struct modelfile **file,
                          struct error *e)
{
    *file = NULL;
    if (f->draft_model == NULL)
        return OK;
    if (max_draft == 0)
        return error_set(e, ERR_USAGE, "--draft-model %s: --draft 0 is to guess nothing",
                         f->draft_model);
    enum err err = modelfile_open(f->draft_model, file, e);
    if (err != OK)
        error_prefix(e, "--draft-model");
    return err;
}

bool stage_stats(struct lead *lead, int stage_i, struct node_stats *out)
{
    if (lead->pipeline == NULL)
        return false;
    if (stage_i < lead->plan.n_stages - 1)
        return cluster_stats(lead->cluster, lead->plan.stages[stage_i].node_i, out, NULL) == OK;
    *out = (struct node_stats){.weight_bytes = model_weight_bytes(lead->model),
                               .kv_bytes = stage_kv_bytes(lead->stage),
                               .activation_bytes = stage_activation_bytes(lead->stage)};
    struct pipeline_stats own;
    pipeline_stats(lead->pipeline, &own);
    out->steps = own.steps;
    out->rows = own.rows;
    out->time.busy_us = own.busy_us;
    if (lead->engine == NULL)
        return true; /* whose the rest of its time is, its driver knows */
    struct engine_stats s;
    engine_stats(lead->engine, &s);
    out->time = (struct stage_sums){.busy_us = s.busy_us,
                                    .input_wait_us = s.wait_us - s.send_wait_us + s.idle_us,
                                    .send_wait_us = s.send_wait_us,
                                    .other_us = s.other_us};
    return true;
}

void stage_layers_text(const struct plan_stage *s, char text[static 32])
{
    if (s->last == s->first)
        snprintf(text, 32, "head only");
    else
        snprintf(text, 32, "%d-%d", s->first, s->last - 1);
}

void print_ring(struct lead *lead)
{
    fprintf(stderr, "%-22s %-10s %10s %10s %9s %9s\n", "node", "layers", "weights", "kv cache",
            "busy", "rows");
    for (int i = 0; i < lead->plan.n_stages; i++) {
        struct node_stats s;
        char layers[32];
        stage_layers_text(&lead->plan.stages[i], layers);
        fprintf(stderr, "%-22s %-10s ", lead_stage_name(lead, i), layers);
        if (!stage_stats(lead, i, &s)) {
            fprintf(stderr, "%7.1f MB planned\n", (double)lead->plan.stages[i].bytes / 1e6);
            continue;
        }
        fprintf(stderr, "%7.1f MB %7.1f MB %7.2f s %9llu%s\n", (double)s.weight_bytes / 1e6,
                (double)s.kv_bytes / 1e6, (double)s.time.busy_us / 1e6, (unsigned long long)s.rows,
                s.fetched ? "  (weights fetched from the lead)" : "");
    }
}

json_t *ring_json(struct lead *lead)
{
    json_t *ring = json_array();
    for (int i = 0; i < lead->plan.n_stages; i++) {
        const struct plan_stage *stage = &lead->plan.stages[i];
        struct node_stats s;
        json_t *node = json_pack("{s:s, s:i, s:i, s:I}", "node", lead_stage_name(lead, i), "first",
                                 stage->first, "last", stage->last - 1, "planned_bytes",
                                 (json_int_t)stage->bytes);
        if (stage_stats(lead, i, &s))
            json_object_update_new(
                node, json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:b}", "weight_bytes",
                                (json_int_t)s.weight_bytes, "kv_bytes", (json_int_t)s.kv_bytes,
                                "activation_bytes", (json_int_t)s.activation_bytes, "steps",
                                (json_int_t)s.steps, "rows", (json_int_t)s.rows, "busy_s",
                                (double)s.time.busy_us / 1e6, "sent_bytes",
                                (json_int_t)s.sent_bytes, "received_bytes",
                                (json_int_t)s.received_bytes, "fetched", (int)s.fetched));
        json_array_append_new(ring, node);
    }
    return ring;
}
