/* Life of the server: listening, the libmicrohttpd daemon, the list of running requests, the end.
 */
#include "api/api_server_impl.h"

#include "api/exchange_impl.h"
#include "base/bounds.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/panic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DEFAULT_THREADS = 4,
    IDLE_TIMEOUT_S = 60,             /* of a connection that sends or reads nothing */
    STOP_GRACE_US = 2 * 1000 * 1000, /* for running requests to hear why they end */
};

/* ---- libmicrohttpd's callbacks ---- */

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_bytes, void **exchange)
{
    (void)version;
    if (*exchange == NULL) {
        struct exchange *x = exchange_new(context, connection, url, method);
        *exchange = x;
        return x == NULL ? MHD_NO : x->answer_now ? exchange_answer(x) : MHD_YES;
    }
    if (*data_bytes > 0) {
        bool good = exchange_receive(*exchange, data, *data_bytes);
        *data_bytes = 0;
        return good ? MHD_YES : MHD_NO;
    }
    return exchange_answer(*exchange);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **exchange,
                         enum MHD_RequestTerminationCode code)
{
    (void)context, (void)connection, (void)code;
    exchange_free(*exchange);
    *exchange = NULL;
}

__attribute__((format(printf, 2, 0))) static void on_log(void *context, const char *format,
                                                         va_list args)
{
    (void)context;
    struct error line; /* makes the text one printable line */
    error_vset(&line, OK, format, args);
    log_debug("http: %s", line.text);
}

static void on_hangup(void *context, uint64_t serial)
{
    struct api_server *s = context;
    pthread_mutex_lock(&s->lock);
    for (struct exchange *x = s->running; x != NULL; x = x->next) {
        if (x->serial == serial) {
            generation_cancel(x->generation, true);
            break;
        }
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- the running requests ---- */

bool api_server_ready(struct api_server *s, struct api_error *e)
{
    struct error reason;
    switch ((enum api_phase)atomic_load(&s->phase)) {
    case PHASE_LOADING: return api_refuse(e, FAULT_LOADING, NULL, "Loading model");
    case PHASE_FAILED: return api_refuse(e, FAULT_ENGINE, NULL, "%s", s->failure.text);
    case PHASE_READY: break;
    }
    if (engine_failure(s->model.engine, &reason))
        return api_refuse(e, FAULT_ENGINE, NULL, "the engine stopped: %s", reason.text);
    pthread_mutex_lock(&s->lock);
    bool stopping = s->stopping;
    pthread_mutex_unlock(&s->lock);
    return !stopping || api_refuse(e, FAULT_STOPPING, NULL, "the server is stopping");
}

bool api_server_enter(struct api_server *s, struct exchange *x, struct api_error *e)
{
    struct error reason;
    bool good = true;
    pthread_mutex_lock(&s->lock);
    if (s->stopping)
        good = api_refuse(e, FAULT_STOPPING, NULL, "the server is stopping");
    else if (hangup_watch_add(s->watch, x->fd, s->last_serial + 1, &reason) != OK)
        good = api_refuse(e, FAULT_INTERNAL, NULL, "%s", reason.text);
    if (good) {
        x->serial = ++s->last_serial;
        x->next = s->running;
        if (x->next != NULL)
            x->next->previous = x;
        s->running = x;
    }
    pthread_mutex_unlock(&s->lock);
    return good;
}

void api_server_leave(struct api_server *s, struct exchange *x)
{
    if (x->serial == 0)
        return;
    hangup_watch_remove(s->watch, x->fd);
    pthread_mutex_lock(&s->lock);
    if (x->next != NULL)
        x->next->previous = x->previous;
    if (x->previous != NULL)
        x->previous->next = x->next;
    else
        s->running = x->next;
    x->serial = 0;
    if (s->running == NULL)
        pthread_cond_signal(&s->idle);
    pthread_mutex_unlock(&s->lock);
}

/* ---- start and stop ---- */

/* By poll, not epoll: there libmicrohttpd (0.9.75, and later ones) may remove the listening socket
 * twice, in MHD_quiesce_daemon and in a thread that is just looking, and then aborts the process.
 */
static enum err start_daemon(struct api_server *s, int n_threads, struct error *e)
{
    s->daemon = MHD_start_daemon(
        MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET,
        s->listener.fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
        MHD_OPTION_THREAD_POOL_SIZE, (unsigned)n_threads, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)HTTP_MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_TIMEOUT_S,
        MHD_OPTION_END);
    if (s->daemon == NULL)
        return error_set(e, ERR_INTERNAL, "cannot start the HTTP server on %s",
                         s->listener.address);
    return OK;
}

static struct api_server *server_new(const struct api_options *o)
{
    struct api_server *s = xcalloc(1, sizeof *s);
    s->max_body_bytes = o->max_body_bytes > 0 ? o->max_body_bytes : HTTP_MAX_BODY_BYTES;
    s->listener.fd = -1;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

static void server_free(struct api_server *s)
{
    hangup_watch_stop(s->watch);
    if (s->listener.fd >= 0)
        close(s->listener.fd);
    pthread_cond_destroy(&s->idle);
    pthread_mutex_destroy(&s->lock);
    free(s->model_id);
    free(s);
}

enum err api_server_start(const struct api_options *o, struct api_server **out, struct error *e)
{
    struct api_server *s = server_new(o);
    enum err err =
        listen_socket_open(o->host != NULL ? o->host : "127.0.0.1", o->port, &s->listener, e);
    if (err == OK)
        err = hangup_watch_start(on_hangup, s, &s->watch, e);
    if (err == OK)
        err = start_daemon(s, o->n_threads > 0 ? o->n_threads : DEFAULT_THREADS, e);
    if (err != OK) {
        server_free(s);
        return err;
    }
    *out = s;
    return OK;
}

const char *api_server_address(const struct api_server *s)
{
    return s->listener.address;
}

int api_server_port(const struct api_server *s)
{
    return s->listener.port;
}

void api_server_set_model(struct api_server *s, const struct api_model *m)
{
    ASSERT(atomic_load(&s->phase) == PHASE_LOADING);
    s->model_id = xstrdup(m->id);
    s->model = *m;
    s->model.id = s->model_id;
    atomic_store(&s->phase, PHASE_READY);
}

void api_server_fail(struct api_server *s, const struct error *reason)
{
    ASSERT(atomic_load(&s->phase) == PHASE_LOADING);
    s->failure = *reason;
    atomic_store(&s->phase, PHASE_FAILED);
}

/* Give every running request up: first so that its client hears why, after a while for good. */
static void end_running(struct api_server *s)
{
    struct timespec deadline = clock_deadline(STOP_GRACE_US);
    pthread_mutex_lock(&s->lock);
    s->stopping = true; /* from here on no exchange enters */
    for (struct exchange *x = s->running; x != NULL; x = x->next)
        generation_cancel(x->generation, false);
    while (s->running != NULL && pthread_cond_timedwait(&s->idle, &s->lock, &deadline) == 0)
        ;
    for (struct exchange *x = s->running; x != NULL; x = x->next)
        generation_cancel(x->generation, true);
    pthread_mutex_unlock(&s->lock);
}

void api_server_stop(struct api_server *s)
{
    if (s == NULL)
        return;
    s->listener.fd = MHD_quiesce_daemon(s->daemon);
    end_running(s);
    MHD_stop_daemon(s->daemon); /* may not find a sleeping connection: none sleeps now */
    server_free(s);
}
