#include "lead/lead.h"

#include "base/bounds.h"
#include "base/panic.h"
#include "base/random.h"
#include "base/size.h"
#include "lead/sizes.h"
#include "node/machine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    DRAFT_KV_SHARE = 4, /* of the memory for keys and values, one part for those of a draft model */
    SPARE_CREDITS = 2,  /* frames on their way beyond the flights of the engine */
    RING_TIMEOUT_S = 120, /* silence of a live ring: a stage is stuck */
    LOAD_POLL_US = 5000,
};

static uint64_t kv_budget(const struct lead_options *o, const struct lead *lead)
{
    if (o->kv_bytes > 0)
        return o->kv_bytes;
    uint64_t free_bytes = lead->free_bytes, draft_bytes = lead->draft.weight_bytes;
    free_bytes -= draft_bytes < free_bytes ? draft_bytes : free_bytes;
    for (int i = 0; lead->cluster != NULL && i < cluster_n_nodes(lead->cluster); i++)
        if (!size_add(free_bytes, cluster_node(lead->cluster, i)->memory_free_bytes, &free_bytes))
            free_bytes = UINT64_MAX; /* nodes say what they like */
    return (uint64_t)((double)free_bytes * (o->kv_share > 0 ? o->kv_share : 0.25f));
}

static enum err fit_draft(const struct lead_options *o, struct lead *lead, struct error *e)
{
    struct lead_draft_use use = {.kv_type = o->kv_type,
                                 .context = lead->context,
                                 .n_slots = o->n_slots,
                                 .max_rows = o->max_rows,
                                 .kv_bytes = kv_budget(o, lead) / DRAFT_KV_SHARE};
    enum err err = lead_draft_fit(&lead->draft, &use, e);
    if (err == OK && lead->draft.bytes > lead->free_bytes)
        err = error_set(e, ERR_LIMIT, "the draft model needs %.1f MB, %.1f MB are free",
                        (double)lead->draft.bytes / 1e6, (double)lead->free_bytes / 1e6);
    return err;
}

static enum err make_plan(const struct lead_options *o, struct lead *lead, struct error *e)
{
    struct sizes_kv kv;
    enum err err = sizes_kv_fit(&(struct sizes_kv_wish){.params = &lead->params,
                                                        .type = o->kv_type,
                                                        .context = o->context,
                                                        .n_slots = o->n_slots,
                                                        .max_rows = o->max_rows,
                                                        .budget = kv_budget(o, lead)},
                                &kv, e);
    if (err != OK)
        return err;
    lead->context = kv.context;
    lead->n_blocks = kv.n_blocks;
    if (o->draft_file != NULL)
        err = fit_draft(o, lead, e);
    if (err != OK)
        return err;
    struct plan_model model;
    uint64_t *layer_bytes;
    struct sizes_use use = {.params = &lead->params,
                            .kv_type = o->kv_type,
                            .n_blocks = kv.n_blocks,
                            .max_rows = o->max_rows};
    err = sizes_plan_model(o->file, &use, &model, &layer_bytes, e);
    int n_workers = lead->cluster != NULL ? cluster_n_nodes(lead->cluster) : 0;
    struct plan_node *nodes = xcalloc((size_t)n_workers + 1, sizeof *nodes);
    for (int i = 0; i < n_workers; i++) {
        const struct node_info *info = cluster_node(lead->cluster, i);
        nodes[i].memory_bytes = info->memory_free_bytes;
        memcpy(nodes[i].address, info->address, sizeof nodes[i].address);
    }
    nodes[n_workers].memory_bytes = lead->free_bytes - lead->draft.bytes;
    if (err == OK && o->layers != NULL)
        err = plan_by_hand(&model, o->layers, nodes, n_workers + 1, &lead->plan, e);
    else if (err == OK)
        err = plan_by_memory(&model, nodes, n_workers + 1, &lead->plan, e);
    free(nodes);
    free(layer_bytes);
    return err;
}

enum err lead_plan(const struct lead_options *o, struct lead *lead, struct error *e)
{
    *lead = (struct lead){0};
    enum err err = modelfile_params(o->file, &lead->params, e);
    if (err == OK)
        err = model_check(o->file, e);
    if (err == OK && o->draft_file != NULL)
        err = lead_draft_check(o->draft_file, &lead->params, o->tokenizer, &lead->draft, e);
    if (err == OK && o->nodes != NULL)
        err = cluster_connect(o->nodes, &lead->cluster, e);
    struct machine_memory memory;
    machine_memory(&memory);
    lead->free_bytes = memory.available_bytes;
    if (err == OK)
        err = make_plan(o, lead, e);
    if (err != OK)
        lead_close(lead);
    return err;
}

const char *lead_stage_name(const struct lead *lead, int stage_i)
{
    if (stage_i == lead->plan.n_stages - 1)
        return "lead";
    return cluster_node(lead->cluster, lead->plan.stages[stage_i].node_i)->address;
}

/* ---- loading ---- */

/* The lead's own layers, loaded while the workers load theirs. */
struct own_load {
    const struct lead_options *o;
    struct lead *lead;
    uint64_t epoch;
    pthread_t thread;
    bool has_thread;
    _Atomic uint64_t done_bytes, total_bytes;
    _Atomic bool is_done;
    struct error error;                         /* once done */
    uint64_t workers_done_bytes, workers_bytes; /* the opening thread's, as last heard */
};

static struct model_part own_part(const struct lead *lead)
{
    const struct plan_stage *own = &lead->plan.stages[lead->plan.n_stages - 1];
    return (struct model_part){.first = own->first,
                               .last = own->last,
                               .embedding = lead->plan.n_stages == 1,
                               .head = true};
}

static enum err load_own_layers(struct own_load *l, model_progress progress, void *context,
                                struct error *e)
{
    const struct lead_options *o = l->o;
    struct lead *lead = l->lead;
    struct model_part part = own_part(lead);
    enum err err = model_load(o->file, lead->backend, &part, progress, context, &lead->model, e);
    struct stage_options stage = {.model = lead->model,
                                  .backend = lead->backend,
                                  .max_rows = o->max_rows,
                                  .n_slots = o->n_slots,
                                  .n_blocks = lead->n_blocks,
                                  .max_context = lead->context,
                                  .kv_type = o->kv_type,
                                  .epoch = l->epoch};
    if (err == OK)
        err = stage_new(&stage, &lead->stage, e);
    pool_unbind_caller(lead->pool); /* this thread goes on to other things */
    return err;
}

/* Loader's thread. */
static void note_own_progress(uint64_t done_bytes, uint64_t total_bytes, void *context)
{
    struct own_load *l = context;
    l->total_bytes = total_bytes;
    l->done_bytes = done_bytes;
}

/* Opening thread, as are all below: the workers' progress and our own together. */
static void report_progress(struct own_load *l)
{
    if (l->o->progress != NULL)
        l->o->progress(l->workers_done_bytes + l->done_bytes, l->workers_bytes + l->total_bytes,
                       l->o->progress_context);
}

static void note_workers_progress(uint64_t done_bytes, uint64_t total_bytes, void *context)
{
    struct own_load *l = context;
    l->workers_done_bytes = done_bytes;
    l->workers_bytes = total_bytes;
    report_progress(l);
}

static void *own_loader(void *context)
{
    struct own_load *l = context;
    load_own_layers(l, note_own_progress, l, &l->error);
    l->is_done = true;
    return NULL;
}

static enum err add_bytes(const struct model_tensor *t, void *context, struct error *e)
{
    (void)e;
    *(_Atomic uint64_t *)context += t->bytes;
    return OK;
}

/* On a thread of its own; where there is none, here and now. */
static void start_own_load(struct own_load *l)
{
    struct model_part part = own_part(l->lead);
    model_part_tensors(l->o->file, &part, add_bytes, &l->total_bytes, NULL);
    l->has_thread = pthread_create(&l->thread, NULL, own_loader, l) == 0;
    if (!l->has_thread)
        own_loader(l);
}

/* Whoever waits for the lead also sees how far it is. */
static enum err join_own_load(struct own_load *l, struct error *e)
{
    while (!l->is_done) {
        clock_sleep_us(LOAD_POLL_US);
        report_progress(l);
    }
    if (l->has_thread)
        pthread_join(l->thread, NULL);
    if (l->error.code != OK && e != NULL)
        *e = l->error;
    return l->error.code;
}

static enum err check_cluster(void *cluster, struct error *e)
{
    return cluster_check(cluster, e);
}

/* The workers load, and we do; the ring is laid between them. If either fails, the other is waited
 * for: what it touches is freed after. Where both fail, the workers' reason is told. */
static enum err load_all(const struct lead_options *o, struct lead *lead, uint64_t epoch,
                         struct pipeline_options *ring, struct error *e)
{
    struct own_load own = {.o = o, .lead = lead, .epoch = epoch};
    if (lead->cluster == NULL)
        return load_own_layers(&own, o->progress, o->progress_context, e);
    struct cluster_options cluster = {.file = o->file,
                                      .plan = &lead->plan,
                                      .numerics_id = lead->backend->numerics_id,
                                      .kv_type = o->kv_type,
                                      .n_slots = o->n_slots,
                                      .n_blocks = lead->n_blocks,
                                      .max_rows = o->max_rows,
                                      .max_context = lead->context,
                                      .credits = ring->credits,
                                      .epoch = epoch,
                                      .insecure = o->insecure,
                                      .progress = note_workers_progress,
                                      .progress_context = &own};
    start_own_load(&own);
    enum err err = cluster_assign(lead->cluster, &cluster, &ring->first, &ring->inbox, e);
    enum err own_err = join_own_load(&own, err == OK ? e : NULL);
    report_progress(&own);
    ring->check = check_cluster;
    ring->check_context = lead->cluster;
    return err != OK ? err : own_err;
}

/* Room for the engine's flights in every inbox. */
static int n_credits(const struct lead_options *o, const struct lead *lead)
{
    int usual = lead->plan.n_stages + SPARE_CREDITS;
    return o->n_flights + 1 > usual ? o->n_flights + 1 : usual;
}

static enum err lay_ring(const struct lead_options *o, struct lead *lead, uint64_t epoch,
                         struct error *e)
{
    struct pipeline_options ring = {.vocab = lead->params.vocab,
                                    .hidden = lead->params.hidden,
                                    .n_stages = lead->plan.n_stages,
                                    .first_layer = own_part(lead).first,
                                    .credits = n_credits(o, lead),
                                    .max_rows = o->max_rows,
                                    .epoch = epoch,
                                    .timeout_us = (time_us)RING_TIMEOUT_S * 1000000};
    enum err err = load_all(o, lead, epoch, &ring, e);
    if (err != OK)
        return err;
    ring.stage = lead->stage;
    return pipeline_new(&ring, &lead->pipeline, e);
}

static enum err load_draft(const struct lead_options *o, struct lead *lead, struct error *e)
{
    ASSERT(!o->no_engine);
    enum err err =
        lead_draft_load(&lead->draft, lead->backend, o->progress, o->progress_context, e);
    pool_unbind_caller(lead->pool);
    return err;
}

/* The stores of this ring hold keys and values of one model in one type, and begin empty: a key
 * that no other ring has stands for all of it. Nobody outside can guess it. */
static enum err start_engine(const struct lead_options *o, struct lead *lead, struct error *e)
{
    uint64_t cache_key;
    enum err err = random_bytes(&cache_key, sizeof cache_key, e);
    if (err != OK)
        return err;
    struct engine_options engine = {.pipeline = lead->pipeline,
                                    .tokenizer = o->tokenizer,
                                    .vocab = lead->params.vocab,
                                    .max_context = lead->context,
                                    .window = lead->params.window,
                                    .n_blocks = lead->n_blocks,
                                    .n_slots = o->n_slots,
                                    .max_rows = o->max_rows,
                                    .n_flights = o->n_flights,
                                    .max_queued =
                                        o->max_queued > 0 ? o->max_queued : 4 * o->n_slots + 64,
                                    .max_draft = o->max_draft,
                                    .draft = lead->draft.draft,
                                    .max_itl_us = o->max_itl_us,
                                    .max_stretch = o->max_stretch,
                                    .cache_key = cache_key,
                                    .no_reuse = o->no_reuse};
    return engine_new(&engine, &lead->engine, e);
}

enum err lead_open(const struct lead_options *o, struct lead *lead, struct error *e)
{
    time_us begin = clock_now_us();
    struct pool_options pool = {.n_threads = o->threads > 0 ? o->threads : pool_default_threads(),
                                .pin = o->pin};
    uint64_t epoch =
        0; /* none that an earlier ring on these nodes had: late frames are told apart */
    enum err err = lead_plan(o, lead, e);
    if (err != OK)
        return err;
    err = random_bytes(&epoch, sizeof epoch, e);
    epoch += epoch == 0; /* which no ring may have */
    if (err == OK)
        err = pool_open(&pool, &lead->pool, e);
    if (err == OK)
        err = backend_open(&o->backend, lead->pool, &lead->backend, e);
    if (err == OK)
        err = lay_ring(o, lead, epoch, e);
    if (err == OK && o->draft_file != NULL)
        err = load_draft(o, lead, e);
    if (err == OK && !o->no_engine)
        err = start_engine(o, lead, e);
    if (err != OK)
        lead_close(lead);
    else
        lead->load_us = clock_now_us() - begin;
    return err;
}

void lead_close(struct lead *lead)
{
    engine_free(lead->engine);
    lead_draft_release(&lead->draft);
    pipeline_free(lead->pipeline);
    cluster_close(lead->cluster);
    stage_free(lead->stage);
    model_free(lead->model);
    if (lead->backend != NULL)
        lead->backend->ops->free(lead->backend);
    pool_free(lead->pool);
    *lead = (struct lead){0};
}
