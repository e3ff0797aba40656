#include "cli/metrics_read.h"

#include "base/printable.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_MAX = 264, NAME_MAX_BYTES = 128, MAX_LABELS = 4, NUMBER_MAX = 64 };

struct label {
    char name[32], value[LABEL_MAX];
};

struct sample {
    char name[NAME_MAX_BYTES];
    struct label labels[MAX_LABELS];
    int n_labels;
    double value;
};

/* ---- one line: name{label="value",…} number ---- */

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == ':';
}

static bool take_name(const char **at, const char *end, char *out, size_t room)
{
    size_t n = 0;
    while (*at + n < end && is_name_byte((*at)[n]))
        n++;
    if (n == 0 || n >= room)
        return false;
    memcpy(out, *at, n);
    out[n] = 0;
    *at += n;
    return true;
}

static bool take_byte(const char **at, const char *end, char byte)
{
    if (*at == end || **at != byte)
        return false;
    ++*at;
    return true;
}

/* What stands between quotes; \\, \" and \n are escaped there. */
static bool take_value(const char **at, const char *end, char out[static LABEL_MAX])
{
    size_t n = 0;
    if (!take_byte(at, end, '"'))
        return false;
    for (; *at < end && **at != '"'; ++*at) {
        char c = **at;
        if (c == '\\') {
            if (++*at == end)
                return false;
            c = **at == 'n' ? '\n' : **at;
        }
        if (n == LABEL_MAX - 1)
            return false;
        out[n++] = c;
    }
    out[n] = 0;
    make_printable(out); /* it goes to a terminal */
    return take_byte(at, end, '"');
}

static bool take_labels(const char **at, const char *end, struct sample *s)
{
    if (!take_byte(at, end, '{'))
        return true;
    while (!take_byte(at, end, '}')) {
        if (s->n_labels == MAX_LABELS)
            return false;
        struct label *l = &s->labels[s->n_labels++];
        if (!take_name(at, end, l->name, sizeof l->name) || !take_byte(at, end, '=') ||
            !take_value(at, end, l->value))
            return false;
        take_byte(at, end, ',');
    }
    return true;
}

static bool take_number(const char **at, const char *end, double *out)
{
    char text[NUMBER_MAX], *rest;
    size_t n = (size_t)(end - *at);
    if (n == 0 || n >= sizeof text)
        return false;
    memcpy(text, *at, n);
    text[n] = 0;
    *out = strtod(text, &rest);
    *at = end;
    return rest != text && *rest == 0 && !isnan(*out);
}

static bool read_line(const char *at, const char *end, struct sample *s)
{
    *s = (struct sample){.value = 0};
    return take_name(&at, end, s->name, sizeof s->name) && take_labels(&at, end, s) &&
           take_byte(&at, end, ' ') && take_number(&at, end, &s->value);
}

static const char *label_of(const struct sample *s, const char *name)
{
    for (int i = 0; i < s->n_labels; i++)
        if (strcmp(s->labels[i].name, name) == 0)
            return s->labels[i].value;
    return "";
}

/* ---- where a sample goes ---- */

#define AT(member) offsetof(struct metrics_snapshot, member)
static const struct {
    const char *name, *state; /* with the label state="…", or none */
    size_t offset;
} plain[] = {
    {"shoal_ready", "", AT(ready)},
    {"shoal_num_requests_running", "", AT(running)},
    {"shoal_num_requests_waiting", "", AT(waiting)},
    {"shoal_slots", "", AT(slots)},
    {"shoal_requests_total", "", AT(requests)},
    {"shoal_requests_refused_total", "", AT(refused)},
    {"shoal_num_preemptions_total", "", AT(preempted)},
    {"shoal_generation_tokens_total", "", AT(generated)},
    {"shoal_step_prompt_rows_total", "", AT(prompt_rows)},
    {"shoal_steps_total", "", AT(steps)},
    {"shoal_prefix_cache_queries_total", "", AT(looked_for)},
    {"shoal_prefix_cache_hits_total", "", AT(found)},
    {"shoal_spec_decode_num_draft_tokens_total", "", AT(guessed)},
    {"shoal_spec_decode_num_accepted_tokens_total", "", AT(right)},
    {"shoal_kv_blocks", "held", AT(held)},
    {"shoal_kv_blocks", "idle", AT(idle)},
    {"shoal_kv_blocks", "free", AT(free)},
};

static const struct {
    const char *name;
    size_t offset;
} histograms[] = {
    {"shoal_time_to_first_token_seconds_bucket", AT(first_token)},
    {"shoal_inter_token_latency_seconds_bucket", AT(between_tokens)},
};
#undef AT

#define AT(member) offsetof(struct metrics_stage, member)
static const struct {
    const char *name;
    size_t offset;
} of_stages[] = {
    {"shoal_stage_busy_seconds_total", AT(busy_s)},
    {"shoal_stage_input_wait_seconds_total", AT(input_wait_s)},
    {"shoal_stage_send_wait_seconds_total", AT(send_wait_s)},
    {"shoal_stage_other_seconds_total", AT(other_s)},
    {"shoal_stage_rows_total", AT(rows)},
};
#undef AT

/* What comes with other labels too (guesses, by source) is added up. */
static void put_plain(const struct sample *s, struct metrics_snapshot *out)
{
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (strcmp(plain[i].name, s->name) == 0 &&
            strcmp(plain[i].state, label_of(s, "state")) == 0)
            *(double *)(void *)((char *)out + plain[i].offset) += s->value;
}

/* Buckets come by ascending bound. */
static bool put_bucket(const struct sample *s, struct metrics_histogram *h)
{
    const char *le = label_of(s, "le");
    double bound;
    if (!take_number(&le, le + strlen(le), &bound) || h->n_bounds == METRICS_MAX_BUCKETS ||
        (h->n_bounds > 0 && bound <= h->bounds[h->n_bounds - 1]))
        return false;
    h->bounds[h->n_bounds] = bound;
    h->n_below[h->n_bounds++] = s->value;
    return true;
}

static bool put_histograms(const struct sample *s, struct metrics_snapshot *out)
{
    for (size_t i = 0; i < sizeof histograms / sizeof histograms[0]; i++)
        if (strcmp(histograms[i].name, s->name) == 0)
            return put_bucket(s, (void *)((char *)out + histograms[i].offset));
    return true;
}

/* The stage that a sample's labels name. */
static struct metrics_stage *stage_of(const struct sample *s, struct metrics_snapshot *out)
{
    const char *number = label_of(s, "stage");
    char *rest;
    long i = strtol(number, &rest, 10);
    if (number[0] < '0' || number[0] > '9' || *rest != 0 || i >= RING_MAX_STAGES)
        return NULL;
    if (i >= out->n_stages)
        out->n_stages = (int)i + 1;
    struct metrics_stage *stage = &out->stages[i];
    snprintf(stage->node, sizeof stage->node, "%s", label_of(s, "node"));
    snprintf(stage->layers, sizeof stage->layers, "%.31s", label_of(s, "layers"));
    return stage;
}

static bool put_stages(const struct sample *s, struct metrics_snapshot *out)
{
    if (strncmp(s->name, "shoal_stage_", 12) != 0)
        return true;
    struct metrics_stage *stage = stage_of(s, out);
    if (stage == NULL)
        return false;
    if (strcmp(s->name, "shoal_stage_up") == 0)
        stage->is_up = s->value > 0;
    for (size_t i = 0; i < sizeof of_stages / sizeof of_stages[0]; i++)
        if (strcmp(of_stages[i].name, s->name) == 0)
            memcpy((char *)stage + of_stages[i].offset, &s->value, sizeof s->value);
    return true;
}

enum err metrics_read(const char *text, size_t bytes, struct metrics_snapshot *out, struct error *e)
{
    const char *end = text + bytes;
    int line = 1;
    bool is_shoal = false;
    *out = (struct metrics_snapshot){0};
    for (const char *at = text; at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline != NULL ? newline : end;
        struct sample s;
        bool is_sample = at < stop && *at != '#';
        if (is_sample && !read_line(at, stop, &s))
            return error_set(e, ERR_FORMAT,
                             "metrics: line %d is no sample: \"name{labels} number\" "
                             "expected",
                             line);
        if (is_sample && (!put_histograms(&s, out) || !put_stages(&s, out)))
            return error_set(
                e, ERR_FORMAT,
                "metrics: line %d: %s: a stage from 0 to %d, or ascending buckets of at "
                "most %d, expected",
                line, s.name, RING_MAX_STAGES - 1, METRICS_MAX_BUCKETS);
        if (is_sample)
            put_plain(&s, out);
        is_shoal |= is_sample && strcmp(s.name, "shoal_ready") == 0;
        at = stop + (newline != NULL);
    }
    if (!is_shoal)
        return error_set(e, ERR_FORMAT,
                         "metrics: shoal_ready expected, found none: is this a "
                         "shoal serve?");
    return OK;
}
