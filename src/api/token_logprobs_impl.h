/* The log-probabilities of a choice's tokens on their way from the engine's events into JSON.
 *
 * Each token has a record, and text and records leave together: a record when all of its token's
 * text is there, text as far as the records that leave with it reach. So the pieces of a chunk's
 * tokens put together are the chunk's text, whatever stop strings or unfinished characters hold
 * back. At the end of the text its tokens are those with a byte in it: a token that a stop string
 * cut through is told, one that it took whole is not, nor is the token that means "end".
 *
 * Records stand packed in a strbuf, whose limit bounds them. Pure; one thread at a time. */
#ifndef SHOAL_API_TOKEN_LOGPROBS_IMPL_H
#define SHOAL_API_TOKEN_LOGPROBS_IMPL_H

#include "base/strbuf.h"
#include "engine/engine.h"
#include "text/text.h"

#include <stdbool.h>
#include <stddef.h>

/* Append the record of an event's token; an event without log-probabilities adds nothing. */
void token_logprobs_add(struct strbuf *records, const struct request_event *event);

/* The last event has come, with its token's record at the end: what is no part of the answer's
 * `text_bytes` bytes is removed, and the rest is complete. */
void token_logprobs_end(struct strbuf *records, const struct request_event *last,
                        size_t text_bytes);

/* Move the records whose text is within the first `text_bytes` bytes to `out`. Answers where the
 * text of the last of them ends; `given`, the answer of the call before, if there is none. */
size_t token_logprobs_take(struct strbuf *records, size_t text_bytes, size_t given,
                           struct strbuf *out);

/* As OpenAI's APIs write them: "logprobs" of a choice, an object. */
void token_logprobs_append_chat(struct strbuf *out, const struct tokenizer *t,
                                const struct strbuf *records);
void token_logprobs_append_text(struct strbuf *out, const struct tokenizer *t,
                                const struct strbuf *records);

#endif
