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
static int blocks_needed(const struct lone_sequences *s, int positions)
{
    int all = blocks_of(positions), window = s->lead->params.window;
    int at_once = window > 0 ? window_blocks(window, s->max_rows) : all;
    return at_once < all ? at_once : all;
}

static void prepare(struct lone_sequences *s)
{
    /* Of one step: each sequence closed, opened and trimmed, and the blocks that its rows begin,
     * however the rows are divided. */
    size_t most = 4 * (size_t)s->most + (size_t)blocks_of(s->max_rows);
    s->updates = xcalloc(most, sizeof *s->updates);
    s->rows = xcalloc((size_t)s->max_rows, sizeof *s->rows);
}

enum err lone_sequences_init(struct lone_sequences *s, struct lead *lead, int n, int max_rows,
                             struct error *e)
{
    *s = (struct lone_sequences){.lead = lead, .n = n, .most = n, .max_rows = max_rows};
    s->n_blocks = blocks_needed(s, lead->context);
    if (n * s->n_blocks > lead->n_blocks)
        return error_set(e, ERR_LIMIT, "%d sequences of %d positions need %d KV blocks, %d fit", n,
                         lead->context, n * s->n_blocks, lead->n_blocks);
    prepare(s);
    return OK;
}

enum err lone_sequences_init_one(struct lone_sequences *s, struct lead *lead, int slot,
                                 int first_block, int positions, int max_rows, struct error *e)
{
    ASSERT(positions <= lead->context && first_block >= 0);
    *s = (struct lone_sequences){.lead = lead,
                                 .first = slot,
                                 .n = 1,
                                 .most = 1,
                                 .first_block = first_block,
                                 .max_rows = max_rows};
    s->n_blocks = blocks_needed(s, positions);
    if (first_block + s->n_blocks > lead->n_blocks)
        return error_set(e, ERR_LIMIT, "%d positions need %d KV blocks, %d are left", positions,
                         s->n_blocks, lead->n_blocks - first_block);
    prepare(s);
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
    uint32_t n = 0, each = (uint32_t)s->n_blocks;
    uint32_t begin = (uint32_t)blocks_of(s->length), end = (uint32_t)blocks_of(s->length + n_more);
    uint32_t holes = (uint32_t)(window_first(s->lead->params.window, s->length) / KV_BLOCK_TOKENS);
    if (s->length == 0)
        s->n_holes = 0;
    uint32_t first = (uint32_t)s->first;
    for (uint32_t slot = first; s->length == 0 && slot < first + (uint32_t)s->n_open; slot++)
        s->updates[n++] = (struct step_update){.kind = UPDATE_CLOSE, .slot = slot};
    for (uint32_t slot = first; slot < first + (uint32_t)s->n; slot++) {
        if (s->length == 0)
            s->updates[n++] = (struct step_update){.kind = UPDATE_OPEN, .slot = slot};
        if (holes > s->n_holes)
            s->updates[n++] =
                (struct step_update){.kind = UPDATE_TRIM, .slot = slot, .block = holes};
        for (uint32_t i = begin; i < end; i++) /* where there are holes, in turn */
            s->updates[n++] = (struct step_update){.kind = UPDATE_APPEND,
                                                   .slot = slot,
                                                   .block = (uint32_t)s->first_block +
                                                            (slot - first) * each + i % each};
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
    for (int sequence = 0; sequence < s->n; sequence++)
        for (int i = 0; i < n_ids; i++)
            if (ids[sequence][i] < 0 || ids[sequence][i] >= vocab)
                return error_set(e, ERR_MISMATCH,
                                 "token %d: the model's vocabulary has tokens 0 to %d only",
                                 ids[sequence][i], vocab - 1);
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
            visit((int)r->slot - s->first, (int)r->position,
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
        for (int sequence = 0; sequence < s->n; sequence++) {
            for (int i = 0; i < n; i++) {
                bool wanted = visit != NULL && (all_logits || done + i == n_ids - 1);
                s->rows[step.n_rows++] =
                    (struct step_row){.token = (uint32_t)ids[sequence][done + i],
                                      .position = (uint32_t)(s->length + i),
                                      .slot = (uint32_t)(s->first + sequence),
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
