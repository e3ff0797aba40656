/* Which function answers which URL, and the small ones of them. */
#include "api/exchange_impl.h"

#include "api/json_text_impl.h"
#include "api/metrics_text_impl.h"
#include "base/bounds.h"
#include "base/panic.h"

#include <stdlib.h>

#include <string.h>

static json_t *model_json(const struct api_model *m)
{
    return json_pack("{s:o, s:s, s:I, s:s}", "id", json_text(m->id, strlen(m->id)), "object",
                     "model", "created", (json_int_t)m->created, "owned_by", "shoal");
}

static enum MHD_Result handle_models(struct exchange *x)
{
    return reply_json(
        x, MHD_HTTP_OK,
        json_pack("{s:s, s:[o]}", "object", "list", "data", model_json(&x->server->model)));
}

static enum MHD_Result handle_model(struct exchange *x)
{
    struct api_error e;
    if (strcmp(x->tail, x->server->model.id) == 0)
        return reply_json(x, MHD_HTTP_OK, model_json(&x->server->model));
    api_refuse(&e, FAULT_NO_MODEL, "model",
               "the model \"%.80s\" is not here: this server has "
               "\"%.80s\"",
               x->tail, x->server->model.id);
    return reply_error(x, &e);
}

static enum MHD_Result handle_health(struct exchange *x)
{
    struct api_error e;
    if (!api_server_ready(x->server, &e))
        return reply_error(x, &e);
    return reply_json(x, MHD_HTTP_OK, json_pack("{s:s}", "status", "ok"));
}

/* For load balancers; differs from /health once a server can be alive and not take requests. */
static enum MHD_Result handle_ready(struct exchange *x)
{
    struct api_error e;
    if (!api_server_ready(x->server, &e))
        return reply_error(x, &e);
    return reply_json(x, MHD_HTTP_OK, json_pack("{s:s}", "status", "ready"));
}

/* Scrapers come every few seconds, one at a time: who asks the stages keeps others waiting. */
static enum MHD_Result handle_metrics(struct exchange *x)
{
    static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;
    enum { MAX_BYTES = 1 << 20 };
    const struct api_model *m = &x->server->model;
    struct strbuf text;
    strbuf_init(&text, MAX_BYTES);
    if (atomic_load(&x->server->phase) != PHASE_READY) {
        metrics_append(&text, NULL, NULL, 0);
    } else {
        struct engine_stats stats;
        struct api_stage *stages = xcalloc(RING_MAX_STAGES, sizeof *stages);
        engine_stats(m->engine, &stats);
        pthread_mutex_lock(&asking);
        int n = m->stages != NULL ? m->stages(m->stages_context, stages, RING_MAX_STAGES) : 0;
        pthread_mutex_unlock(&asking);
        metrics_append(&text, &stats, stages, n);
        free(stages);
    }
    return reply_text(x, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &text);
}

static const struct route routes[] = {
    {"/v1/models", false, "GET", true, handle_models},
    {"/v1/models/", true, "GET", true, handle_model},
    {"/v1/completions", false, "POST", true, handle_completions},
    {"/v1/chat/completions", false, "POST", true, handle_chat},
    {"/health", false, "GET", false, handle_health},
    {"/ready", false, "GET", false, handle_ready},
    {"/metrics", false, "GET", false, handle_metrics},
};

static bool takes_method(const struct route *r, const char *method)
{
    return strcmp(r->method, method) == 0 ||
           (strcmp(r->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

const struct route *route_find(const char *url, const char *method, const struct route **other,
                               const char **tail)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const struct route *r = &routes[i];
        size_t n = strlen(r->path);
        if (strncmp(url, r->path, n) != 0 || (!r->has_tail && url[n] != 0))
            continue;
        *tail = url + n;
        if (takes_method(r, method))
            return r;
        *other = r;
    }
    return NULL;
}
