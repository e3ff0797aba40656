/* The life of a worker process: listen, describe, load what a lead assigns, serve frames until told
 * to stop. docs/wire/grpc.md shows the conversation. */
#ifndef SHOAL_NODE_WORKER_H
#define SHOAL_NODE_WORKER_H

#include "backend/backend.h"
#include "base/clock.h"
#include "base/error.h"

#include <stdbool.h>

struct worker_options {
    const char *listen;   /* "H:P"; port 0 picks a free one */
    int threads;          /* 0: pool_default_threads() */
    bool pin;             /* compute threads to one processor each */
    struct backend_choice backend;
    bool insecure;        /* allow an address that is not loopback */
    time_us lead_wait_us; /* how long an assignment outlives the last sign of a lead that has not
                           * opened its stream yet; 0: 30 s */
};

/* Serve until SIGTERM or SIGINT. Prints "listening on H:P" on stdout when ready. ERR_INVALID
 * (address; naming --insecure where that is missing), ERR_IO (port in use), ERR_MEMORY. */
enum err worker_run(const struct worker_options *o, struct error *e);

/* The same in pieces, for tests and programs with a life of their own: several may live in one
 * process. Stopping drops what is assigned. */
struct worker;
enum err worker_start(const struct worker_options *o, struct worker **out, struct error *e);
const char *worker_address(const struct worker *w); /* with the real port */
void worker_stop(struct worker *w);                 /* NULL allowed */

#endif
