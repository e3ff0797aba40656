#include "cli/top_view.h"

#include <math.h>
#include <stdio.h>

#define MIN_WORK 0.02 /* a share of the time below which no stage is anybody's bottleneck */

/* ---- two snapshots to a view ---- */

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : NAN;
}

/* The q-quantile of what was added between two histograms: linear within its bucket, as Prometheus'
 * histogram_quantile; beyond the last finite bound that bound. */
static double quantile(const struct metrics_histogram *a, const struct metrics_histogram *b,
                       double q)
{
    int n = b->n_bounds;
    if (n < 2 || (a->n_bounds != n && a->n_bounds != 0))
        return NAN;
    double all = b->n_below[n - 1] - (a->n_bounds > 0 ? a->n_below[n - 1] : 0), before = 0;
    if (all <= 0)
        return NAN;
    for (int i = 0; i < n - 1; i++) {
        double below = b->n_below[i] - (a->n_bounds > 0 ? a->n_below[i] : 0);
        double low = i > 0 ? b->bounds[i - 1] : 0;
        if (below >= q * all && below > before)
            return low + (b->bounds[i] - low) * (q * all - before) / (below - before);
        before = below;
    }
    return b->bounds[n - 2];
}

static double grown(double earlier, double later)
{
    return later > earlier ? later - earlier : 0;
}

static void make_stage(const struct metrics_stage *a, const struct metrics_stage *b,
                       double interval_s, struct top_stage *out)
{
    double busy = grown(a->busy_s, b->busy_s), input = grown(a->input_wait_s, b->input_wait_s);
    double send = grown(a->send_wait_s, b->send_wait_s), other = grown(a->other_s, b->other_s);
    double all = a->is_up && b->is_up ? busy + input + send + other : 0;
    *out = (struct top_stage){.node = b->node,
                              .layers = b->layers,
                              .is_up = b->is_up,
                              .busy = ratio(busy, all),
                              .input_wait = ratio(input, all),
                              .send_wait = ratio(send, all),
                              .other = ratio(other, all),
                              .rows_per_s = all > 0 ? grown(a->rows, b->rows) / interval_s : NAN};
}

static void find_bottleneck(struct top_view *v)
{
    double most = MIN_WORK;
    v->bottleneck = -1;
    for (int i = 0; i < v->n_stages && v->n_stages > 1; i++) {
        const struct top_stage *s = &v->stages[i];
        bool is_network = s->send_wait > s->busy + s->other; /* false with NAN */
        double work = is_network ? s->send_wait : s->busy + s->other;
        if (!(work > most))
            continue;
        most = work;
        v->bottleneck = i;
        v->is_network = is_network;
    }
}

bool top_view_make(const struct metrics_snapshot *a, const struct metrics_snapshot *b,
                   struct top_view *out)
{
    double s = b->at_s - a->at_s;
    if (s <= 0 || b->steps < a->steps || b->requests < a->requests || b->generated < a->generated)
        return false;
    *out = (struct top_view){
        .interval_s = s,
        .running = b->running,
        .waiting = b->waiting,
        .slots = b->slots,
        .requests_per_s = (b->requests - a->requests) / s,
        .refused = grown(a->refused, b->refused),
        .preempted = grown(a->preempted, b->preempted),
        .prefill_per_s = grown(a->prompt_rows, b->prompt_rows) / s,
        .decode_per_s = (b->generated - a->generated) / s,
        .held = b->held,
        .idle = b->idle,
        .free = b->free,
        .prefix_found = ratio(b->found - a->found, b->looked_for - a->looked_for),
        .guesses_right = ratio(b->right - a->right, b->guessed - a->guessed),
        .n_stages = b->n_stages,
    };
    for (int i = 0; i < 2; i++) {
        out->first_token_s[i] = quantile(&a->first_token, &b->first_token, i == 0 ? 0.5 : 0.95);
        out->between_tokens_s[i] =
            quantile(&a->between_tokens, &b->between_tokens, i == 0 ? 0.5 : 0.95);
    }
    for (int i = 0; i < b->n_stages; i++)
        make_stage(&a->stages[i], &b->stages[i], s, &out->stages[i]);
    find_bottleneck(out);
    return true;
}

/* ---- text ---- */

struct cell {
    char text[32];
};

static struct cell percent(double share)
{
    struct cell c;
    if (isnan(share))
        snprintf(c.text, sizeof c.text, "-");
    else
        snprintf(c.text, sizeof c.text, "%.0f %%", share * 100);
    return c;
}

static struct cell milliseconds(double s)
{
    struct cell c;
    if (isnan(s))
        snprintf(c.text, sizeof c.text, "-");
    else
        snprintf(c.text, sizeof c.text, s < 0.01 ? "%.1f ms" : "%.0f ms", s * 1e3);
    return c;
}

static struct cell number(double value)
{
    struct cell c;
    if (isnan(value))
        snprintf(c.text, sizeof c.text, "-");
    else
        snprintf(c.text, sizeof c.text, "%.1f", value);
    return c;
}

static void append_stages(struct strbuf *out, const struct top_view *v)
{
    strbuf_printf(out, "\n%5s  %-22s %-10s %7s %8s %9s %7s %9s\n", "stage", "node", "layers",
                  "busy", "wait in", "wait out", "other", "rows/s");
    for (int i = 0; i < v->n_stages; i++) {
        const struct top_stage *s = &v->stages[i];
        const char *mark = i != v->bottleneck ? ""
                           : v->is_network    ? "  <- bottleneck: the network behind it"
                                              : "  <- bottleneck";
        strbuf_printf(out, "%5d  %-22s %-10s %7s %8s %9s %7s %9s%s\n", i, s->node, s->layers,
                      percent(s->busy).text, percent(s->input_wait).text,
                      percent(s->send_wait).text, percent(s->other).text,
                      number(s->rows_per_s).text, s->is_up ? mark : "  does not answer");
    }
}

void top_view_append(struct strbuf *out, const struct top_view *v)
{
    double blocks = v->held + v->idle + v->free;
    strbuf_printf(out,
                  "requests   %.0f running, %.0f waiting (%.0f slots); %.1f/s came, %.0f refused, "
                  "%.0f preempted\n",
                  v->running, v->waiting, v->slots, v->requests_per_s, v->refused, v->preempted);
    strbuf_printf(out, "tokens     prefill %.1f/s, decode %.1f/s\n", v->prefill_per_s,
                  v->decode_per_s);
    strbuf_printf(out, "latency    first token p50 %s, p95 %s; between tokens p50 %s, p95 %s\n",
                  milliseconds(v->first_token_s[0]).text, milliseconds(v->first_token_s[1]).text,
                  milliseconds(v->between_tokens_s[0]).text,
                  milliseconds(v->between_tokens_s[1]).text);
    strbuf_printf(out, "kv blocks  %.0f held (%s), %.0f kept for reuse, %.0f free\n", v->held,
                  percent(ratio(v->held, blocks)).text, v->idle, v->free);
    strbuf_printf(out, "saved      %s of prompts found in the prefix cache, %s of guesses right\n",
                  percent(v->prefix_found).text, percent(v->guesses_right).text);
    if (v->n_stages > 0)
        append_stages(out, v);
}

/* ---- JSON ---- */

static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *quantiles_json(const double s[2])
{
    return json_pack("{s:o, s:o}", "p50", real(s[0]), "p95", real(s[1]));
}

static json_t *stages_json(const struct top_view *v)
{
    json_t *list = json_array();
    for (int i = 0; i < v->n_stages; i++) {
        const struct top_stage *s = &v->stages[i];
        json_array_append_new(
            list, json_pack("{s:i, s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:b}", "stage", i,
                            "node", s->node, "layers", s->layers, "up", (int)s->is_up, "busy",
                            real(s->busy), "input_wait", real(s->input_wait), "send_wait",
                            real(s->send_wait), "other", real(s->other), "rows_per_s",
                            real(s->rows_per_s), "bottleneck", i == v->bottleneck));
    }
    return list;
}

json_t *top_view_json(const struct top_view *v)
{
    json_t *blocks = json_pack("{s:o, s:o, s:o}", "held", real(v->held), "idle", real(v->idle),
                               "free", real(v->free));
    const char *bottleneck = v->bottleneck < 0 ? NULL : v->is_network ? "network" : "stage";
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s?, s:o}",
        "interval_s", real(v->interval_s), "running", real(v->running), "waiting", real(v->waiting),
        "slots", real(v->slots), "requests_per_s", real(v->requests_per_s), "refused",
        real(v->refused), "preempted", real(v->preempted), "prefill_tok_s", real(v->prefill_per_s),
        "decode_tok_s", real(v->decode_per_s), "first_token_s", quantiles_json(v->first_token_s),
        "inter_token_s", quantiles_json(v->between_tokens_s), "kv_blocks", blocks, "prefix_found",
        real(v->prefix_found), "guesses_right", real(v->guesses_right), "bottleneck", bottleneck,
        "stages", stages_json(v));
}
