#include "cli/lone_sequences.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <stdlib.h>

/* KV blocks of one sequence: the engine's blocks, divided evenly. */
static int blocks_each(const struct lone_sequences *s)
{
    int need = (s->lead->context + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    int there = s->lead->n_blocks / s->n;
    return need < there ? need : there;
}

enum err lone_sequences_init(struct lone_sequences *s, struct lead *lead, int n, int max_rows,
                             struct error *e)
{
    *s = (struct lone_sequences){.lead = lead, .n = n, .max_rows = max_rows};
    int need = (lead->context + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    if (blocks_each(s) < need)
        return error_set(e, ERR_LIMIT, "%d sequences of %d positions need %d KV blocks, %d fit", n,
                         lead->context, n * need, lead->n_blocks);
    s->updates = xcalloc((size_t)n * (size_t)(need + 2), sizeof *s->updates);
    s->rows = xcalloc((size_t)max_rows, sizeof *s->rows);
    return OK;
}

void lone_sequences_release(struct lone_sequences *s)
{
    free(s->updates);
    free(s->rows);
}

void lone_sequences_restart(struct lone_sequences *s)
{
    s->length = 0;
}

/* Updates that leave every sequence empty with all its blocks. */
static uint32_t write_updates(struct lone_sequences *s)
{
    uint32_t n = 0;
    for (uint32_t slot = 0; slot < (uint32_t)s->n; slot++) {
        if (s->open)
            s->updates[n++] = (struct step_update){.kind = UPDATE_CLOSE, .slot = slot};
        s->updates[n++] = (struct step_update){.kind = UPDATE_OPEN, .slot = slot};
        uint32_t each = (uint32_t)blocks_each(s);
        for (uint32_t i = 0; i < each; i++)
            s->updates[n++] =
                (struct step_update){.kind = UPDATE_APPEND, .slot = slot, .block = slot * each + i};
    }
    s->open = true;
    return n;
}

static enum err run_step(struct lone_sequences *s, struct step *step, lone_logits visit,
                         void *context, struct error *e)
{
    struct pipeline_result result;
    enum err err = pipeline_submit(s->lead->pipeline, step, e);
    do {
        if (err == OK || err == ERR_TIMEOUT)
            err = pipeline_collect(s->lead->pipeline, &result, 1000000, e);
    } while (err == ERR_TIMEOUT);
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
    int chunk = s->max_rows / s->n;
    for (int done = 0; done < n_ids; done += chunk) {
        int n = n_ids - done < chunk ? n_ids - done : chunk;
        struct step step = {.updates = s->updates, .rows = s->rows};
        if (s->length == 0)
            step.n_updates = write_updates(s);
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
        enum err err = run_step(s, &step, visit, context, e);
        if (err != OK)
            return err;
        s->length += n;
    }
    return OK;
}
