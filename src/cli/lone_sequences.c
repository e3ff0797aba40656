#include "cli/lone_sequences.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "base/window.h"

#include <stdlib.h>

static int blocks_of(int positions)
{
    return (positions + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

/* KV blocks that one sequence needs: of its window and a step where it has one. */
static int blocks_needed(const struct lone_sequences *s)
{
    int all = blocks_of(s->lead->context), window = s->lead->params.window;
    int at_once = window > 0 ? window_blocks(window, s->max_rows) : all;
    return at_once < all ? at_once : all;
}

/* And that it has: the engine's blocks, divided evenly. */
static int blocks_each(const struct lone_sequences *s)
{
    int need = blocks_needed(s), there = s->lead->n_blocks / s->most;
    return need < there ? need : there;
}

enum err lone_sequences_init(struct lone_sequences *s, struct lead *lead, int n, int max_rows,
                             struct error *e)
{
    *s = (struct lone_sequences){.lead = lead, .n = n, .most = n, .max_rows = max_rows};
    int need = blocks_needed(s);
    if (blocks_each(s) < need)
        return error_set(e, ERR_LIMIT, "%d sequences of %d positions need %d KV blocks, %d fit", n,
                         lead->context, n * need, lead->n_blocks);
    /* Of one step: each sequence closed, opened and trimmed, and the blocks that its rows begin,
     * however the rows are divided. */
    size_t most = 4 * (size_t)n + (size_t)blocks_of(max_rows);
    s->updates = xcalloc(most, sizeof *s->updates);
    s->rows = xcalloc((size_t)max_rows, sizeof *s->rows);
    return OK;
}

void lone_sequences_release(struct lone_sequences *s)
{
    free(s->updates);
    free(s->rows);
}

void lone_sequences_restart(struct lone_sequences *s, int n)
{
    ASSERT(n >= 1 && n <= s->most);
    s->n = n;
    s->length = 0;
}

/* Updates that make room for n more positions in every sequence; the first close what was open
 * before and open the sequences. */
static uint32_t write_updates(struct lone_sequences *s, int n_more)
{
    uint32_t n = 0, each = (uint32_t)blocks_each(s);
    uint32_t begin = (uint32_t)blocks_of(s->length), end = (uint32_t)blocks_of(s->length + n_more);
    uint32_t holes = (uint32_t)(window_first(s->lead->params.window, s->length) / KV_BLOCK_TOKENS);
    if (s->length == 0)
        s->n_holes = 0;
    for (uint32_t slot = 0; s->length == 0 && slot < (uint32_t)s->n_open; slot++)
        s->updates[n++] = (struct step_update){.kind = UPDATE_CLOSE, .slot = slot};
    for (uint32_t slot = 0; slot < (uint32_t)s->n; slot++) {
        if (s->length == 0)
            s->updates[n++] = (struct step_update){.kind = UPDATE_OPEN, .slot = slot};
        if (holes > s->n_holes)
            s->updates[n++] =
                (struct step_update){.kind = UPDATE_TRIM, .slot = slot, .block = holes};
        for (uint32_t i = begin; i < end; i++) /* where there are holes, in turn */
            s->updates[n++] = (struct step_update){
                .kind = UPDATE_APPEND, .slot = slot, .block = slot * each + i % each};
    }
    s->n_holes = holes;
    s->n_open = s->n;
    return n;
}

/* A tokenizer may know more tokens than the model has rows for. */
static enum err check_ids(const struct lone_sequences *s, const int32_t *const *ids, int n_ids,
                          struct error *e)
{
    int vocab = s->lead->params.vocab;
    for (int slot = 0; slot < s->n; slot++)
        for (int i = 0; i < n_ids; i++)
            if (ids[slot][i] < 0 || ids[slot][i] >= vocab)
                return error_set(e, ERR_MISMATCH,
                                 "token %d: the model's vocabulary has tokens 0 to %d only",
                                 ids[slot][i], vocab - 1);
    return OK;
}

static enum err run_step(struct lone_sequences *s, struct step *step, lone_logits visit,
                         void *context, struct error *e)
{
    struct pipeline_result result;
    enum err err = pipeline_submit(s->lead->pipeline, step, e);
    if (err != OK)
        return err;
    do {
        err = pipeline_collect(s->lead->pipeline, &result, 1000000, e);
    } while (err == ERR_TIMEOUT); /* slow, nothing is wrong */
    int wanted = 0;
    for (uint32_t i = 0; err == OK && visit != NULL && i < step->n_rows; i++) {
        const struct step_row *r = &step->rows[i];
        if (r->want == WANT_LOGITS)
            visit((int)r->slot, (int)r->position,
                  result.logits + (size_t)wanted++ * (size_t)s->lead->params.vocab, context);
    }
    return err;
}

enum err lone_sequences_append(struct lone_sequences *s, const int32_t *const *ids, int n_ids,
                               bool all_logits, lone_logits visit, void *context, struct error *e)
{
    ASSERT(s->length + n_ids <= s->lead->context && s->n <= s->max_rows);
    enum err err = check_ids(s, ids, n_ids, e);
    if (err != OK)
        return err;
    int chunk = s->max_rows / s->n;
    for (int done = 0; done < n_ids; done += chunk) {
        int n = n_ids - done < chunk ? n_ids - done : chunk;
        struct step step = {.updates = s->updates, .rows = s->rows};
        step.n_updates = write_updates(s, n);
        for (int slot = 0; slot < s->n; slot++) {
            for (int i = 0; i < n; i++) {
                bool wanted = visit != NULL && (all_logits || done + i == n_ids - 1);
                s->rows[step.n_rows++] =
                    (struct step_row){.token = (uint32_t)ids[slot][done + i],
                                      .position = (uint32_t)(s->length + i),
                                      .slot = (uint32_t)slot,
                                      .want = wanted ? WANT_LOGITS : WANT_NONE};
            }
        }
        err = run_step(s, &step, visit, context, e);
        if (err != OK)
            return err;
        s->length += n;
    }
    return OK;
}
