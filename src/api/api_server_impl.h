/* The server's state as its exchanges see it. */
#ifndef SHOAL_API_API_SERVER_IMPL_H
#define SHOAL_API_API_SERVER_IMPL_H

#include "api/api.h"
#include "api/api_error_impl.h"
#include "api/hangup_impl.h"
#include "api/listen_socket_impl.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum api_phase { PHASE_LOADING, PHASE_READY, PHASE_FAILED };

struct exchange;

struct api_server {
    struct listen_socket listener;
    struct MHD_Daemon *daemon;
    struct hangup_watch *watch;
    size_t max_body_bytes;
    atomic_size_t bodies_bytes; /* of all requests being received */

    atomic_int phase; /* model, model_id and failure are written before it changes */
    struct api_model model;
    char *model_id;
    struct error failure;

    pthread_mutex_t lock; /* guards all below, and serial, previous, next of the exchanges */
    pthread_cond_t idle;  /* `running` became empty */
    struct exchange *running;
    uint64_t last_serial;
    bool stopping;
};

/* Can requests be served? False with *e: still loading, failed, the engine failed, stopping. */
bool api_server_ready(struct api_server *s, struct api_error *e);

/* Count the exchange, which has a generation, among the running ones: it will be told to stop when
 * its client hangs up or the server stops. False: stopping, or the socket cannot be watched. */
bool api_server_enter(struct api_server *s, struct exchange *x, struct api_error *e);
void api_server_leave(struct api_server *s, struct exchange *x); /* not entered: nothing */

#endif
