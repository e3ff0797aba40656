#include "api/answer_json_impl.h"

#include "api/json_text_impl.h"
#include "api/token_logprobs_impl.h"

#include <string.h>

#define MAX(a, b) ((a) > (b) ? (a) : (b))

void answer_totals_add(struct answer_totals *t, const struct request_timings *one, bool again)
{
    t->n_prompt += again ? 0 : one->n_prompt;
    t->n_cached += again ? 0 : one->n_cached;
    t->n_truncated += again ? 0 : one->n_truncated;
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
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "queued_ms",
        (double)t->queued_us / 1e3, "prefill_ms", (double)t->prefill_us / 1e3, "decode_ms",
        (double)t->decode_us / 1e3, "stalled_ms", (double)t->stalled_us / 1e3, "prefill_tok_s",
        per_second(t->n_prompt, t->prefill_us), "decode_tok_s",
        per_second(t->n_decoded, t->decode_us), "cached_tokens", (json_int_t)t->n_cached,
        "truncated_tokens", (json_int_t)t->n_truncated,
        "preempted", (json_int_t)t->n_preempted, "draft_tokens", all_sources(t->n_guessed),
        "draft_accepted_tokens", all_sources(t->n_right), "draft_model_tokens",
        (json_int_t)t->n_guessed[GUESS_MODEL], "draft_model_accepted_tokens",
        (json_int_t)t->n_right[GUESS_MODEL]);
}

static json_t *usage_json(const struct answer_totals *t)
{
    return json_pack("{s:I, s:I, s:I, s:{s:I, s:I}}", "prompt_tokens", (json_int_t)t->n_prompt,
                     "completion_tokens", (json_int_t)t->n_output, "total_tokens",
                     (json_int_t)(t->n_prompt + t->n_output), "prompt_tokens_details",
                     "cached_tokens", (json_int_t)t->n_cached, "truncated_tokens",
                     (json_int_t)t->n_truncated);
}

/* The members that every answer and chunk begins with, up to the first choice. */
static void open_answer(struct strbuf *out, const struct answer *a, bool chunk)
{
    const char *object = !a->chat ? "text_completion"
                         : chunk  ? "chat.completion.chunk"
                                  : "chat.completion";
    json_append_open(out, json_pack("{s:s, s:s, s:I, s:o, s:s}", "id", a->id, "object", object,
                                    "created", (json_int_t)a->created, "model",
                                    json_text(a->model, strlen(a->model)), "system_fingerprint",
                                    "shoal-" SHOAL_VERSION));
    strbuf_puts(out, ",\"choices\":[");
}

/* One choice: its index and what it says, which is taken; then what all choices have. */
static void append_choice(struct strbuf *out, const struct answer *a, json_t *says,
                          const struct strbuf *logprobs, enum finish_reason finish)
{
    const char *name = finish_name(finish);
    json_append_open(out, says);
    strbuf_puts(out, ",\"logprobs\":");
    if (logprobs == NULL)
        strbuf_puts(out, "null");
    else if (a->chat)
        token_logprobs_append_chat(out, a->tokenizer, logprobs);
    else
        token_logprobs_append_text(out, a->tokenizer, logprobs);
    json_append_member(out, "finish_reason", name != NULL ? json_string(name) : json_null());
    strbuf_puts(out, "}");
}

static json_t *says_json(const struct answer *a, int i, const struct answer_choice *c)
{
    json_t *text = json_text(c->text, c->bytes);
    if (!a->chat)
        return json_pack("{s:i, s:o}", "index", i, "text", text);
    return json_pack("{s:i, s:{s:s, s:o, s:n}}", "index", i, "message", "role", "assistant",
                     "content", text, "refusal");
}

void answer_append(struct strbuf *out, const struct answer *a, const struct answer_choice *choices,
                   int n_choices, const struct answer_totals *totals)
{
    open_answer(out, a, false);
    for (int i = 0; i < n_choices; i++) {
        strbuf_puts(out, i > 0 ? "," : "");
        append_choice(out, a, says_json(a, i, &choices[i]), choices[i].logprobs, choices[i].finish);
    }
    strbuf_puts(out, "]");
    json_append_member(out, "usage", usage_json(totals));
    json_append_member(out, "timings", timings_json(totals));
    strbuf_puts(out, "}");
}

/* ---- streams ---- */

static void append_event(struct strbuf *out, json_t *value)
{
    strbuf_puts(out, "data: ");
    json_append(out, value);
    strbuf_puts(out, "\n\n");
}

/* A chunk with one choice; what it says is taken. */
static void append_chunk(struct strbuf *out, const struct answer *a, json_t *says,
                         const struct strbuf *logprobs, enum finish_reason finish,
                         const struct answer_totals *timings)
{
    strbuf_puts(out, "data: ");
    open_answer(out, a, true);
    append_choice(out, a, says, logprobs, finish);
    strbuf_puts(out, "]");
    if (a->include_usage)
        json_append_member(out, "usage", json_null());
    if (timings != NULL)
        json_append_member(out, "timings", timings_json(timings));
    strbuf_puts(out, "}\n\n");
}

void answer_append_role(struct strbuf *out, const struct answer *a, int choice_i)
{
    append_chunk(out, a,
                 json_pack("{s:i, s:{s:s, s:s}}", "index", choice_i, "delta", "role", "assistant",
                           "content", ""),
                 NULL, FINISH_NONE, NULL);
}

static json_t *delta_json(int i, const struct answer_choice *c)
{
    json_t *delta =
        c->bytes > 0 ? json_pack("{s:o}", "content", json_text(c->text, c->bytes)) : json_object();
    return json_pack("{s:i, s:o}", "index", i, "delta", delta);
}

void answer_append_delta(struct strbuf *out, const struct answer *a, int choice_i,
                         const struct answer_choice *delta, const struct answer_totals *totals)
{
    if (!a->chat) {
        append_chunk(out, a, says_json(a, choice_i, delta), delta->logprobs, delta->finish, totals);
        return;
    }
    /* Chat clients expect the end in a chunk of its own, with an empty delta. */
    struct answer_choice end = {.text = ""};
    bool has_tokens = delta->logprobs != NULL && delta->logprobs->bytes > 0;
    if (delta->bytes > 0 || has_tokens)
        append_chunk(out, a, delta_json(choice_i, delta), delta->logprobs, FINISH_NONE, NULL);
    if (delta->finish != FINISH_NONE)
        append_chunk(out, a, delta_json(choice_i, &end), NULL, delta->finish, totals);
}

void answer_append_usage(struct strbuf *out, const struct answer *a,
                         const struct answer_totals *totals)
{
    strbuf_puts(out, "data: ");
    open_answer(out, a, true);
    strbuf_puts(out, "]");
    json_append_member(out, "usage", usage_json(totals));
    strbuf_puts(out, "}\n\n");
}

void answer_append_failure(struct strbuf *out, const struct api_error *e)
{
    append_event(out, api_error_json(e));
}

void answer_append_done(struct strbuf *out)
{
    strbuf_puts(out, "data: [DONE]\n\n");
}
