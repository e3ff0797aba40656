/* Answers as OpenAI's clients read them: whole objects, and chunks of a stream as server-sent
 * events ("data: {…}\n\n"). Pure: results in, text out. Beside OpenAI's members an answer carries
 * `timings`. */
#ifndef SHOAL_API_ANSWER_JSON_IMPL_H
#define SHOAL_API_ANSWER_JSON_IMPL_H

#include "api/api_error_impl.h"
#include "base/strbuf.h"
#include "engine/engine.h"
#include "text/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What all chunks of one answer share. */
struct answer {
    bool chat;
    bool include_usage; /* in streams: a last chunk with usage, "usage": null in the others */
    const char *id;
    const char *model;
    int64_t created;
    const struct tokenizer *tokenizer; /* with log-probabilities: for the names of tokens */
};

/* Sums over the choices of an answer, each time the longest. */
struct answer_totals {
    int64_t n_prompt, n_cached, n_truncated, n_output; /* of the prompts, each once */
    int64_t n_preempted;
    int64_t n_guessed[N_GUESS_SOURCES], n_right[N_GUESS_SOURCES];
    time_us queued_us, prefill_us, decode_us, stalled_us;
    int64_t
        n_decoded; /* tokens after the first of each choice: those that decode_us was spent on */
};
/* `again`: a choice whose prompt was counted with another one. */
void answer_totals_add(struct answer_totals *t, const struct request_timings *one, bool again);

/* "stop" or "length"; NULL for the ways of ending that are not an answer. */
const char *finish_name(enum finish_reason finish);

struct answer_choice {
    const char *text; /* all of it, or what is new */
    size_t bytes;
    enum finish_reason finish;     /* FINISH_NONE: goes on */
    const struct strbuf *logprobs; /* of its tokens (token_logprobs_impl.h); NULL: not wanted */
};

/* The whole answer of a plain request. */
void answer_append(struct strbuf *out, const struct answer *a, const struct answer_choice *choices,
                   int n_choices, const struct answer_totals *totals);

/* Chat streams open each choice with its role. */
void answer_append_role(struct strbuf *out, const struct answer *a, int choice_i);
/* New text of one choice; with the choice's finish it is its last chunk. `totals` (or NULL)
 * puts timings into it. */
void answer_append_delta(struct strbuf *out, const struct answer *a, int choice_i,
                         const struct answer_choice *delta, const struct answer_totals *totals);
void answer_append_usage(struct strbuf *out, const struct answer *a,
                         const struct answer_totals *totals);
void answer_append_failure(struct strbuf *out, const struct api_error *e);
void answer_append_done(struct strbuf *out); /* "data: [DONE]" */

#endif
