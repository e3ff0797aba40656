/* The order of the steps, and the scratch they share. What makes it quick: sampler_impl.h. */
#include "sampler/sampler_impl.h"

#include "base/panic.h"
#include "sampler/counted_random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sampler_scratch *sampler_scratch_new(int vocab)
{
    ASSERT(vocab >= 1);
    struct sampler_scratch *s = xcalloc(1, sizeof(*s));
    size_t n = (size_t)vocab;
    s->vocab = vocab;
    s->n_blocks = (vocab + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    s->block_best = xcalloc((size_t)s->n_blocks, sizeof(s->block_best[0]));
    s->block_stale = xcalloc((size_t)s->n_blocks, sizeof(s->block_stale[0]));
    s->counts = xcalloc(n, sizeof(s->counts[0]));
    s->touched = xcalloc(n, sizeof(s->touched[0]));
    s->logits = xcalloc(n, sizeof(s->logits[0]));
    s->ids = xcalloc(n, sizeof(s->ids[0]));
    s->weights = xcalloc(n, sizeof(s->weights[0]));
    s->keys = xcalloc(n, sizeof(s->keys[0]));
    s->raw = xcalloc(n, sizeof(s->raw[0]));
    s->cut_work = key_cut_work_new(vocab);
    return s;
}

void sampler_scratch_free(struct sampler_scratch *s)
{
    if (s == NULL)
        return;
    free(s->block_best);
    free(s->block_stale);
    free(s->counts);
    free(s->touched);
    free(s->logits);
    free(s->ids);
    free(s->weights);
    free(s->keys);
    free(s->raw);
    key_cut_work_free(s->cut_work);
    free(s->matches);
    free(s);
}

/* Another use of random numbers counts from another half of the choices: for one seed no two uses,
 * choices or positions share a number. */
uint64_t sampler_random(const struct sampler_input *in, enum random_use use)
{
    uint32_t half = use == RANDOM_XTC ? 0x80000000u : 0;
    return counted_bits(in->sampling->seed, in->choice ^ half, in->position) >> 11;
}

/* Bias, penalties, DRY; then the best token. */
static enum err edit(struct sampler_scratch *s, const struct sampler_input *in, int32_t *best,
                     struct error *e)
{
    apply_bias(in, s);
    apply_penalties(in, s);
    enum err err = apply_dry(in, s, e);
    logit_blocks_refresh(s, in->logits);
    *best = err == OK ? logit_blocks_best(s, in->logits) : -1;
    if (err == OK && *best < 0)
        err = error_set(e, ERR_INVALID, "logit_bias: every token that the model allows is banned");
    return err;
}

static int32_t choose(struct sampler_scratch *s, const struct sampler_input *in, int32_t best,
                      struct sampler_memory *memory)
{
    const struct sampling *p = in->sampling;
    struct candidates c = {.logits = in->logits, .n = s->vocab, .best = in->logits[best]};
    if (p->temperature <= 0 || (p->top_k == 1 && p->mirostat == 0))
        return best;
    if (p->mirostat != 0)
        return mirostat_draw(in, s, &c, memory);
    filter(in, s, &c);
    uint64_t total = candidates_weigh(s, &c, p->temperature);
    int i = candidates_draw(s, &c, total, sampler_random(in, RANDOM_DRAW));
    return c.ids != NULL ? (int32_t)c.ids[i] : i;
}

enum err sampler_choose(struct sampler_scratch *s, const struct sampler_input *in,
                        struct sampler_memory *memory, int32_t *token,
                        struct sampler_logprobs *logprobs, struct error *e)
{
    int32_t best;
    double log_total = 0;
    *token = -1;
    if (in->sampling->mirostat != 0 && memory == NULL)
        return error_set(e, ERR_INVALID, "mirostat: this kind of request does not carry its state");
    enum err err = logit_blocks_scan(s, in->logits, e);
    if (err == OK && logprobs != NULL) {
        memcpy(s->raw, in->logits, (size_t)s->vocab * sizeof(s->raw[0]));
        log_total = logprobs_of(s, in->sampling->n_logprobs, logprobs);
    }
    if (err == OK)
        err = edit(s, in, &best, e);
    if (err != OK)
        return err;
    *token = choose(s, in, best, memory);
    if (logprobs != NULL)
        logprobs->chosen = (float)((double)s->raw[*token] - log_total);
    return OK;
}

enum err sampler_pick(const struct sampling *s, struct sampler_scratch *scratch, float *logits,
                      const int32_t *history, int n_history, uint32_t choice, uint32_t position,
                      int32_t *token, struct error *e)
{
    const struct sampler_input in = {.sampling = s,
                                     .logits = logits,
                                     .history = history,
                                     .n_history = n_history,
                                     .choice = choice,
                                     .position = position};
    return sampler_choose(scratch, &in, NULL, token, NULL, e);
}
