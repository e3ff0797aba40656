#include "api/answer_json_impl.h"

#include "api/json_text_impl.h"

#include <string.h>

#define MAX(a, b) ((a) > (b) ? (a) : (b))

void answer_totals_add(struct answer_totals *t, const struct request_timings *one, bool again)
{
    t->n_prompt += again ? 0 : one->n_prompt;
    t->n_cached += again ? 0 : one->n_cached;
    t->n_preempted += one->n_preempted;
    for (int i = 0; i < N_GUESS_SOURCES; i++) {
        t->n_guessed[i] += one->n_guessed[i];
        t->n_right[i] += one->n_right[i];
    }
    t->stalled_us = MAX(t->stalled_us, one->stalled_us);
    t->n_output += one->n_output;
    t->n_decoded += one->n_output > 1 ? one->n_output - 1 : 0;
    t->queued_us = MAX(t->queued_us, one->queued_us);
    t->prefill_us = MAX(t->prefill_us, one->prefill_us);
    t->decode_us = MAX(t->decode_us, one->decode_us);
}

const char *finish_name(enum finish_reason finish)
{
    return finish == FINISH_STOP ? "stop" : finish == FINISH_LENGTH ? "length" : NULL;
}

static double per_second(int64_t n, time_us us)
{
    return us > 0 ? (double)n * 1e6 / (double)us : 0;
}

static json_int_t all_sources(const int64_t n[N_GUESS_SOURCES])
{
    return (json_int_t)(n[GUESS_LOOKUP] + n[GUESS_MODEL]);
}

static json_t *timings_json(const struct answer_totals *t)
{
    return json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I}", "queued_ms",
        (double)t->queued_us / 1e3, "prefill_ms", (double)t->prefill_us / 1e3, "decode_ms",
        (double)t->decode_us / 1e3, "stalled_ms", (double)t->stalled_us / 1e3, "prefill_tok_s",
        per_second(t->n_prompt, t->prefill_us), "decode_tok_s",
        per_second(t->n_decoded, t->decode_us), "cached_tokens", (json_int_t)t->n_cached,
        "preempted", (json_int_t)t->n_preempted, "draft_tokens", all_sources(t->n_guessed),
        "draft_accepted_tokens", all_sources(t->n_right), "draft_model_tokens",
        (json_int_t)t->n_guessed[GUESS_MODEL], "draft_model_accepted_tokens",
        (json_int_t)t->n_right[GUESS_MODEL]);
}

static json_t *usage_json(const struct answer_totals *t)
{
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)t->n_prompt,
                     "completion_tokens", (json_int_t)t->n_output, "total_tokens",
                     (json_int_t)(t->n_prompt + t->n_output), "prompt_tokens_details",
                     "cached_tokens", (json_int_t)t->n_cached);
}

/* The members that every answer and chunk begins with; `choices` is taken. */
static json_t *answer_json(const struct answer *a, bool chunk, json_t *choices)
{
    const char *object = !a->chat ? "text_completion"
                         : chunk  ? "chat.completion.chunk"
                                  : "chat.completion";
    return json_pack("{s:s, s:s, s:I, s:o, s:s, s:o}", "id", a->id, "object", object, "created",
                     (json_int_t)a->created, "model", json_text(a->model, strlen(a->model)),
                     "system_fingerprint", "shoal-" SHOAL_VERSION, "choices", choices);
}

static json_t *finish_json(enum finish_reason finish)
{
    const char *name = finish_name(finish);
    return name != NULL ? json_string(name) : json_null();
}

static json_t *choice_json(const struct answer *a, int i, const struct answer_choice *c)
{
    json_t *text = json_text(c->text, c->bytes);
    if (!a->chat)
        return json_pack("{s:i, s:o, s:n, s:o}", "index", i, "text", text, "logprobs",
                         "finish_reason", finish_json(c->finish));
    return json_pack("{s:i, s:{s:s, s:o, s:n}, s:n, s:o}", "index", i, "message", "role",
                     "assistant", "content", text, "refusal", "logprobs", "finish_reason",
                     finish_json(c->finish));
}

void answer_append(struct strbuf *out, const struct answer *a, const struct answer_choice *choices,
                   int n_choices, const struct answer_totals *totals)
{
    json_t *list = json_array();
    for (int i = 0; i < n_choices; i++)
        if (json_array_append_new(list, choice_json(a, i, &choices[i])) != 0)
            out->failed = true;
    json_t *whole = answer_json(a, false, list);
    json_object_set_new(whole, "usage", usage_json(totals));
    json_object_set_new(whole, "timings", timings_json(totals));
    json_append(out, whole);
}

/* ---- streams ---- */

static void append_event(struct strbuf *out, json_t *value)
{
    strbuf_puts(out, "data: ");
    json_append(out, value);
    strbuf_puts(out, "\n\n");
}

/* A chunk with one choice, which is taken. */
static void append_chunk(struct strbuf *out, const struct answer *a, json_t *choice,
                         const struct answer_totals *timings)
{
    json_t *chunk = answer_json(a, true, json_pack("[o]", choice));
    if (a->include_usage)
        json_object_set_new(chunk, "usage", json_null());
    if (timings != NULL)
        json_object_set_new(chunk, "timings", timings_json(timings));
    append_event(out, chunk);
}

void answer_append_role(struct strbuf *out, const struct answer *a, int choice_i)
{
    append_chunk(out, a,
                 json_pack("{s:i, s:{s:s, s:s}, s:n, s:n}", "index", choice_i, "delta", "role",
                           "assistant", "content", "", "logprobs", "finish_reason"),
                 NULL);
}

static json_t *chat_delta(int i, const struct answer_choice *c, enum finish_reason finish)
{
    json_t *delta =
        c->bytes > 0 ? json_pack("{s:o}", "content", json_text(c->text, c->bytes)) : json_object();
    return json_pack("{s:i, s:o, s:n, s:o}", "index", i, "delta", delta, "logprobs",
                     "finish_reason", finish_json(finish));
}

void answer_append_delta(struct strbuf *out, const struct answer *a, int choice_i,
                         const struct answer_choice *delta, const struct answer_totals *totals)
{
    if (!a->chat) {
        append_chunk(out, a, choice_json(a, choice_i, delta), totals);
        return;
    }
    /* Chat clients expect the end in a chunk of its own, with an empty delta. */
    struct answer_choice end = {.text = "", .finish = delta->finish};
    if (delta->bytes > 0)
        append_chunk(out, a, chat_delta(choice_i, delta, FINISH_NONE), NULL);
    if (delta->finish != FINISH_NONE)
        append_chunk(out, a, chat_delta(choice_i, &end, delta->finish), totals);
}

void answer_append_usage(struct strbuf *out, const struct answer *a,
                         const struct answer_totals *totals)
{
    json_t *chunk = answer_json(a, true, json_array());
    json_object_set_new(chunk, "usage", usage_json(totals));
    append_event(out, chunk);
}

void answer_append_failure(struct strbuf *out, const struct api_error *e)
{
    append_event(out, api_error_json(e));
}

void answer_append_done(struct strbuf *out)
{
    strbuf_puts(out, "data: [DONE]\n\n");
}
