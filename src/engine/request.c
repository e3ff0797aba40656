#include "engine/request_impl.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "engine/breakers.h"

#include <stdlib.h>
#include <string.h>

enum { REQUEST_MAX_EVENT_BYTES = 1 << 20 }; /* text of one event: tokens are far shorter */

/* ---- from options ---- */

static enum err check_options(const struct request_options *o, int vocab, struct error *e)
{
    if (o->n_prompt < 1)
        return error_set(e, ERR_INVALID, "the prompt is empty: expected at least 1 token");
    for (int i = 0; i < o->n_prompt; i++)
        if (o->prompt[i] < 0 || o->prompt[i] >= vocab)
            return error_set(e, ERR_INVALID, "prompt: expected tokens from 0 to %d, found %d",
                             vocab - 1, o->prompt[i]);
    if (o->truncate_to < 0)
        return error_set(e, ERR_INVALID, "truncate_prompt_tokens: expected 0 or more, found %d",
                         o->truncate_to);
    if (o->max_tokens < -1)
        return error_set(e, ERR_INVALID, "max_tokens: expected 0 or more, found %d", o->max_tokens);
    if (o->deadline_us < 0)
        return error_set(e, ERR_INVALID, "deadline: expected 0 or more, found %lld us",
                         (long long)o->deadline_us);
    if (o->sampling.n_logit_bias > REQUEST_MAX_LOGIT_BIAS)
        return error_set(e, ERR_LIMIT, "logit_bias: expected at most %d entries, found %d",
                         REQUEST_MAX_LOGIT_BIAS, o->sampling.n_logit_bias);
    return sampling_check(&o->sampling, vocab, e);
}

static enum err copy_arrays(struct request *r, const struct request_options *o, struct error *e)
{
    size_t prompt_bytes = (size_t)r->n_prompt * sizeof(r->prompt[0]);
    size_t bias_bytes = (size_t)o->sampling.n_logit_bias * sizeof(r->bias[0]);
    r->prompt = malloc(prompt_bytes);
    r->bias = malloc(bias_bytes > 0 ? bias_bytes : 1);
    if (r->prompt == NULL || r->bias == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a prompt of %d tokens", r->n_prompt);
    memcpy(r->prompt, o->prompt + r->n_truncated, prompt_bytes);
    uint32_t bos = r->tokenizer != NULL ? tokenizer_bos(r->tokenizer) : TOKEN_NONE;
    if (r->n_truncated > 0 && r->n_prompt > 1 && (uint32_t)o->prompt[0] == bos)
        r->prompt[0] = o->prompt[0];
    if (bias_bytes > 0)
        memcpy(r->bias, o->sampling.logit_bias, bias_bytes);
    r->sampling.logit_bias = r->bias;
    return OK;
}

/* DRY's breakers: given as tokens, or as strings where there is a tokenizer to look them up. */
static enum err copy_breakers(struct request *r, const struct request_options *o, int vocab,
                              struct error *e)
{
    size_t bytes = ((size_t)vocab + 63) / 64 * sizeof(r->breakers[0]);
    const uint64_t *given = o->sampling.dry_breakers;
    r->sampling.dry_breakers = NULL;
    if (o->n_breakers > REQUEST_MAX_BREAKERS)
        return error_set(e, ERR_LIMIT, "dry_sequence_breakers: expected at most %d, found %d",
                         REQUEST_MAX_BREAKERS, o->n_breakers);
    if (o->sampling.dry_multiplier <= 0 || (given == NULL && r->tokenizer == NULL))
        return OK;
    r->breakers = malloc(bytes);
    if (r->breakers == NULL)
        return error_set(e, ERR_MEMORY, "no memory for dry_sequence_breakers");
    r->sampling.dry_breakers = r->breakers;
    if (given == NULL)
        return breakers_mark(r->tokenizer, o->breakers, o->n_breakers, vocab, r->breakers, e);
    memcpy(r->breakers, given, bytes);
    return OK;
}

/* The text that the tokens will become continues that of the prompt. */
static enum err begin_text(struct request *r, const struct request_options *o, struct error *e)
{
    if (r->tokenizer == NULL)
        return o->n_stop == 0 ? OK : error_set(e, ERR_INVALID, "stop: there is no tokenizer");
    enum err err = stop_filter_new(o->stop, o->n_stop, &r->stops, e);
    if (err != OK)
        return err;
    detokenizer_init(&r->detokenizer, r->tokenizer, o->special_text ? 0 : TOKENIZER_SKIP_SPECIAL);
    uint32_t known = tokenizer_n_tokens(r->tokenizer);
    for (int i = 0; i < r->n_prompt && err == OK; i++) {
        uint32_t id = (uint32_t)r->prompt[i];
        if (id < known)
            err = detokenizer_prime(&r->detokenizer, &id, 1, e);
    }
    return err;
}

enum err request_new(const struct request_options *o, int most_prompt,
                     const struct tokenizer *tokenizer, int vocab, struct request **out,
                     struct error *e)
{
    *out = NULL;
    enum err err = check_options(o, vocab, e);
    if (err != OK)
        return err;
    struct request *r = xcalloc(1, sizeof(*r));
    int n_prompt = o->n_prompt < most_prompt ? o->n_prompt : most_prompt;
    *r = (struct request){.n_prompt = n_prompt,
                          .n_truncated = o->n_prompt - n_prompt,
                          .sampling = o->sampling,
                          .choice = o->choice,
                          .tokenizer = tokenizer,
                          .ignore_eos = o->ignore_eos,
                          .priority = o->priority,
                          .no_draft = o->no_draft,
                          .deadline_us = o->deadline_us,
                          .wants_logprobs = o->logprobs,
                          .on_event = o->on_event,
                          .context = o->context,
                          .sequence = -1};
    strbuf_init(&r->piece, REQUEST_MAX_EVENT_BYTES);
    strbuf_init(&r->text, REQUEST_MAX_EVENT_BYTES);
    err = copy_arrays(r, o, e);
    if (err == OK)
        err = copy_breakers(r, o, vocab, e);
    if (err == OK)
        err = begin_text(r, o, e);
    if (err != OK) {
        request_free(r);
        return err;
    }
    *out = r;
    return OK;
}

void request_free(struct request *r)
{
    if (r == NULL)
        return;
    free(r->prompt);
    free(r->bias);
    free(r->breakers);
    stop_filter_free(r->stops);
    strbuf_release(&r->piece);
    strbuf_release(&r->text);
    free(r);
}

/* ---- tokens to events ---- */

/* A piece is whole characters: a byte that does not continue one begins one. */
static void count_piece(struct request *r)
{
    r->n_text_bytes += r->piece.bytes;
    for (size_t i = 0; i < r->piece.bytes; i++)
        r->n_text_characters += ((unsigned char)r->piece.data[i] & 0xC0) != 0x80;
}

/* The text of one token through detokenizer and stop filter into r->text. A token that the
 * tokenizer does not know (vocabularies of models are padded) has no text. */
static enum err add_text(struct request *r, int32_t token, const char **stop, struct error *e)
{
    if ((uint32_t)token >= tokenizer_n_tokens(r->tokenizer))
        return OK;
    strbuf_clear(&r->piece);
    enum err err = detokenizer_push(&r->detokenizer, (uint32_t)token, &r->piece, e);
    if (err != OK)
        return err;
    count_piece(r);
    r->span.end = r->n_text_bytes + (r->detokenizer.n_pending > 0);
    *stop = stop_filter_push(r->stops, r->piece.data, r->piece.bytes, &r->text);
    return OK;
}

/* No more tokens: a character begun and text held back come out. */
static enum err end_text(struct request *r, const char **stop, struct error *e)
{
    strbuf_clear(&r->piece);
    enum err err = detokenizer_finish(&r->detokenizer, &r->piece, e);
    if (err != OK)
        return err;
    *stop = stop_filter_push(r->stops, r->piece.data, r->piece.bytes, &r->text);
    if (*stop == NULL)
        stop_filter_finish(r->stops, &r->text);
    return OK;
}

static enum finish_reason token_text(struct request *r, int32_t token, bool last, const char **stop,
                                     struct error *e)
{
    if (r->tokenizer == NULL)
        return last ? FINISH_LENGTH : FINISH_NONE;
    bool end = !r->ignore_eos && (uint32_t)token < tokenizer_n_tokens(r->tokenizer) &&
               tokenizer_is_end(r->tokenizer, (uint32_t)token);
    enum err err = end ? OK : add_text(r, token, stop, e);
    if (err == OK && *stop == NULL && (end || last))
        err = end_text(r, stop, e);
    if (err == OK && r->text.failed)
        err = error_set(e, ERR_LIMIT, "the text of token %d is longer than %d bytes", token,
                        REQUEST_MAX_EVENT_BYTES);
    if (err != OK)
        return FINISH_ERROR;
    if (end || *stop != NULL)
        return FINISH_STOP;
    return last ? FINISH_LENGTH : FINISH_NONE;
}

enum finish_reason request_token(struct request *r, int32_t token, bool last, time_us now,
                                 const char **stop, struct error *e)
{
    *stop = NULL;
    if (r->n_output++ == 0)
        r->first_us = now;
    r->last_us = now;
    r->span = (struct text_span){r->n_text_bytes, r->n_text_bytes, r->n_text_characters};
    enum finish_reason finish = token_text(r, token, last, stop, e);
    if (finish != FINISH_NONE)
        return finish;
    struct request_event event = {.token = token,
                                  .text = r->text.data,
                                  .text_bytes = r->text.bytes,
                                  .span = r->span,
                                  .logprobs = r->wants_logprobs ? &r->logprobs : NULL};
    r->on_event(r->context, &event);
    strbuf_clear(&r->text);
    return FINISH_NONE;
}

void request_timings(const struct request *r, time_us now, struct request_timings *out)
{
    const struct sequence_account *a = &r->account;
    time_us started = a->started ? r->added_us + a->queued_us : now;
    time_us first = r->first_us > 0 ? r->first_us : now;
    *out = (struct request_timings){.queued_us = started - r->submitted_us,
                                    .prefill_us = first - started,
                                    .decode_us = r->n_output > 0 ? r->last_us - first : 0,
                                    .stalled_us = a->stalled_us,
                                    .n_prompt = r->n_prompt,
                                    .n_truncated = r->n_truncated,
                                    .n_output = r->n_output,
                                    .n_cached = a->n_cached,
                                    .n_preempted = a->n_preempted};
    memcpy(out->n_guessed, a->n_guessed, sizeof(out->n_guessed));
    memcpy(out->n_right, a->n_right, sizeof(out->n_right));
}

void request_finish(struct request *r, enum finish_reason finish, int32_t token, const char *stop,
                    const struct error *error, time_us now)
{
    ASSERT(finish != FINISH_NONE && (finish == FINISH_ERROR) == (error != NULL));
    struct request_timings timings;
    request_timings(r, now, &timings);
    struct request_event event = {.token = token,
                                  .text = r->text.data,
                                  .text_bytes = r->text.bytes,
                                  .finish = finish,
                                  .stop = stop,
                                  .error = error,
                                  .span = r->span,
                                  .logprobs = token >= 0 && r->wants_logprobs ? &r->logprobs : NULL,
                                  .timings = &timings};
    r->on_event(r->context, &event);
    strbuf_clear(&r->text);
}
