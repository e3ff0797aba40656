#include "lead/lead_draft.h"

#include "base/bounds.h"
#include "base/printable.h"
#include "lead/sizes.h"

#include <stdio.h>
#include <string.h>

enum {
    DRAFT_ROWS = 128, /* of a pass: what catching up may hold the engine's thread up for */
    DRAFT_EPOCH = 1,  /* there is only one */
};

static struct model_part whole(const struct lead_draft *d)
{
    return (struct model_part){.last = d->params.n_layers, .embedding = true, .head = true};
}

static enum err add_bytes(const struct model_tensor *t, void *context, struct error *e)
{
    (void)e;
    *(uint64_t *)context += t->bytes;
    return OK;
}

/* ---- the same vocabulary ---- */

static void print_piece(char out[64], const struct tokenizer *t, uint32_t id)
{
    size_t bytes;
    const char *piece = tokenizer_piece(t, id, &bytes);
    if (piece == NULL)
        snprintf(out, 64, "nothing");
    else
        snprintf(out, 64, "\"%.*s\"", bytes < 40 ? (int)bytes : 40, piece);
    make_printable(out);
}

static bool is_same_piece(const struct tokenizer *a, const struct tokenizer *b, uint32_t id)
{
    size_t a_bytes = 0, b_bytes = 0;
    const char *a_piece = tokenizer_piece(a, id, &a_bytes);
    const char *b_piece = tokenizer_piece(b, id, &b_bytes);
    if (a_piece == NULL || b_piece == NULL)
        return a_piece == b_piece;
    return a_bytes == b_bytes && memcmp(a_piece, b_piece, a_bytes) == 0;
}

static enum err compare_texts(const struct tokenizer *model, const struct tokenizer *draft,
                              struct error *e)
{
    uint32_t n = tokenizer_n_tokens(model), n_draft = tokenizer_n_tokens(draft);
    for (uint32_t id = 0; id < n && id < n_draft; id++) {
        char expected[64], found[64];
        if (is_same_piece(model, draft, id))
            continue;
        print_piece(expected, model, id);
        print_piece(found, draft, id);
        return error_set(e, ERR_MISMATCH,
                         "another vocabulary: token %u: expected %s, as the model's, found %s", id,
                         expected, found);
    }
    if (n != n_draft)
        return error_set(e, ERR_MISMATCH,
                         "another vocabulary: expected %u tokens, as the model has, found %u", n,
                         n_draft);
    return OK;
}

static enum err check_vocabulary(struct modelfile *file, const struct tokenizer *tokenizer,
                                 struct error *e)
{
    struct tokenizer *own;
    enum err err = tokenizer_open(file, &own, e);
    if (err != OK)
        return err;
    err = compare_texts(tokenizer, own, e);
    tokenizer_close(own);
    return err;
}

static enum err check(struct lead_draft *d, const struct model_params *model,
                      const struct tokenizer *tokenizer, struct error *e)
{
    enum err err = modelfile_params(d->file, &d->params, e);
    if (err == OK)
        err = model_check(d->file, e);
    if (err == OK && tokenizer != NULL)
        err = check_vocabulary(d->file, tokenizer, e);
    if (err == OK && d->params.vocab != model->vocab)
        err = error_set(e, ERR_MISMATCH,
                        "another vocabulary: expected %d logits, as the model has, found %d",
                        model->vocab, d->params.vocab);
    struct model_part part = whole(d);
    if (err == OK)
        err = model_part_tensors(d->file, &part, add_bytes, &d->weight_bytes, e);
    return err;
}

enum err lead_draft_check(struct modelfile *file, const struct model_params *model,
                          const struct tokenizer *tokenizer, struct lead_draft *d, struct error *e)
{
    *d = (struct lead_draft){.file = file};
    enum err err = check(d, model, tokenizer, e);
    if (err != OK)
        error_prefix(e, "the draft model");
    return err;
}

/* ---- sizes, loading ---- */

enum err lead_draft_fit(struct lead_draft *d, const struct lead_draft_use *use, struct error *e)
{
    struct model_params p = d->params;
    struct sizes_kv kv;
    p.context = p.context < use->context ? p.context : use->context;
    p.window = 0; /* its lines keep all of their blocks (engine/draft_model.h) */
    enum err err = sizes_kv_fit(&(struct sizes_kv_wish){.params = &p,
                                                        .type = use->kv_type,
                                                        .n_slots = use->n_slots,
                                                        .max_rows = use->max_rows,
                                                        .budget = use->kv_bytes},
                                &kv, e);
    if (err != OK) {
        error_prefix(e, "the draft model");
        return err;
    }
    d->kv_type = use->kv_type;
    d->n_slots = use->n_slots;
    d->max_rows = use->max_rows < DRAFT_ROWS ? use->max_rows : DRAFT_ROWS;
    d->context = kv.context;
    d->n_blocks = kv.n_blocks;
    d->bytes = d->weight_bytes + model_activation_bytes(&d->params, d->max_rows, true) +
               (uint64_t)d->n_slots * (uint64_t)d->params.vocab * sizeof(float) +
               sizes_kv_position_bytes(&p, use->kv_type) * KV_BLOCK_TOKENS * (uint64_t)p.n_layers *
                   (uint64_t)kv.n_blocks;
    return OK;
}

enum err lead_draft_load(struct lead_draft *d, struct backend *backend, model_progress progress,
                         void *context, struct error *e)
{
    struct model_part part = whole(d);
    enum err err = model_load(d->file, backend, &part, progress, context, &d->model, e);
    struct stage_options stage = {.model = d->model,
                                  .backend = backend,
                                  .max_rows = d->max_rows,
                                  .n_slots = d->n_slots,
                                  .n_blocks = d->n_blocks,
                                  .max_context = d->context,
                                  .kv_type = d->kv_type,
                                  .epoch = DRAFT_EPOCH};
    if (err == OK)
        err = stage_new(&stage, &d->stage, e);
    if (err != OK) {
        error_prefix(e, "the draft model");
        return err;
    }
    d->draft = draft_model_new(&(struct draft_model_options){.stage = d->stage,
                                                             .vocab = d->params.vocab,
                                                             .epoch = DRAFT_EPOCH,
                                                             .n_slots = d->n_slots,
                                                             .n_blocks = d->n_blocks,
                                                             .max_context = d->context,
                                                             .max_rows = d->max_rows});
    return OK;
}

void lead_draft_release(struct lead_draft *d)
{
    draft_model_free(d->draft);
    stage_free(d->stage);
    model_free(d->model);
    *d = (struct lead_draft){0};
}
