/* The settings of a request, checked by their API names. */
#include "sampler/sampler.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

static enum err check_range(const char *name, float value, float least, float most, struct error *e)
{
    if (value >= least && value <= most) /* false for NaN */
        return OK;
    return error_set(e, ERR_INVALID, "%s: expected %g to %g, found %g", name, (double)least,
                     (double)most, (double)value);
}

static enum err check_bias(const struct logit_bias *b, int vocab, struct error *e)
{
    if (b->token < 0 || b->token >= vocab)
        return error_set(e, ERR_INVALID, "logit_bias: expected a token from 0 to %d, found %d",
                         vocab - 1, b->token);
    if (b->bias == -INFINITY)
        return OK;
    return check_range("logit_bias", b->bias, -100, 100, e);
}

static enum err check_numbers(const struct sampling *s, struct error *e)
{
    const struct {
        const char *name;
        float value, least, most;
    } fields[] = {
        {"temperature", s->temperature, 0, SAMPLING_MAX_TEMPERATURE},
        {"typical_p", s->typical_p, FLT_MIN, 1},
        {"top_p", s->top_p, FLT_MIN, 1},
        {"min_p", s->min_p, 0, 1},
        {"xtc_probability", s->xtc_probability, 0, 1},
        {"xtc_threshold", s->xtc_threshold, 0, 1},
        {"repetition_penalty", s->repetition_penalty, 1e-3f, 1e3f},
        {"presence_penalty", s->presence_penalty, -2, 2},
        {"frequency_penalty", s->frequency_penalty, -2, 2},
        {"dry_multiplier", s->dry_multiplier, 0, 100},
        {"dry_base", s->dry_base, 1, 100},
        {"mirostat_tau", s->mirostat_tau, 0, 100},
        {"mirostat_eta", s->mirostat_eta, 0, 1},
    };
    enum err err = OK;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]) && err == OK; i++)
        err = check_range(fields[i].name, fields[i].value, fields[i].least, fields[i].most, e);
    return err;
}

static enum err check_integers(const struct sampling *s, struct error *e)
{
    const struct {
        const char *name;
        int value, least;
    } fields[] = {
        {"top_k", s->top_k, 0},
        {"penalty_last_n", s->penalty_last_n, -1},
        {"dry_allowed_length", s->dry_allowed_length, 1},
        {"dry_penalty_last_n", s->dry_penalty_last_n, -1},
        {"top_logprobs", s->n_logprobs, 0},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].value < fields[i].least)
            return error_set(e, ERR_INVALID, "%s: expected %d or more, found %d", fields[i].name,
                             fields[i].least, fields[i].value);
    if (s->n_logprobs > SAMPLING_MAX_LOGPROBS)
        return error_set(e, ERR_INVALID, "top_logprobs: expected at most %d, found %d",
                         SAMPLING_MAX_LOGPROBS, s->n_logprobs);
    if (s->mirostat != 0 && s->mirostat != 2)
        return error_set(e, ERR_INVALID, "mirostat: expected 0 (off) or 2 (version 2), found %d",
                         s->mirostat);
    return OK;
}

enum err sampling_check(const struct sampling *s, int vocab, struct error *e)
{
    enum err err = check_numbers(s, e);
    if (err == OK)
        err = check_integers(s, e);
    for (int i = 0; i < s->n_logit_bias && err == OK; i++)
        err = check_bias(&s->logit_bias[i], vocab, e);
    return err;
}
