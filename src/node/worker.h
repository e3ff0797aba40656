/* The life of a worker process: listen, describe, load what a lead assigns, serve frames until told
 * to stop. docs/wire/grpc.md shows the conversation. */
#ifndef SHOAL_NODE_WORKER_H
#define SHOAL_NODE_WORKER_H

#include "base/error.h"

#include <stdbool.h>

struct worker_options {
    const char *listen; /* "H:P"; port 0 picks a free one */
    int threads;        /* 0: pool_default_threads() */
    bool insecure;      /* allow an address that is not loopback */
};

/* Serve until SIGTERM or SIGINT. Prints "listening on H:P" on stdout when ready. ERR_INVALID
 * (address; naming --insecure where that is missing), ERR_IO (port in use), ERR_MEMORY. */
enum err worker_run(const struct worker_options *o, struct error *e);

#endif
