/* The OpenAI-compatible HTTP server in front of an engine.
 *
 *   api_server_start       listens at once, so that probes see "Loading model" (503) while
 *                          gigabytes are being read
 *   api_server_set_model   from now on requests are served; or
 *   api_server_fail        loading failed: /health and every request answer 503 with the reason
 *   api_server_stop        ends running answers, closes
 *
 * Routes: GET /v1/models, /v1/models/{id}, /health, /ready, /metrics; POST /v1/completions and
 * /v1/chat/completions, plain and streamed (server-sent events). Fields, errors and limits:
 * docs/api.md.
 *
 * Threads: a few threads of libmicrohttpd parse, tokenize and write; the engine's thread leaves
 * text in a buffer of its request and wakes the connection; one thread watches the sockets of
 * running requests for hang-up and cancels them in the engine. All functions here belong to one
 * thread (the program's main); none is called from a callback.
 *
 * What an api_model points to must outlive api_server_stop: stop the server first, then free the
 * engine, then tokenizer and template. */
#ifndef SHOAL_API_API_H
#define SHOAL_API_API_H

#include "base/error.h"
#include "engine/engine.h"
#include "text/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct api_server;

struct api_options {
    const char *host;      /* numeric address or name; NULL: 127.0.0.1 */
    int port;              /* 0 picks a free one: api_server_address says which */
    size_t max_body_bytes; /* of one request; 0: HTTP_MAX_BODY_BYTES */
    int n_threads;         /* of libmicrohttpd; 0: 4 */
};

/* Listen and answer. ERR_IO (address in use, not ours), ERR_INVALID (host or port), each naming
 * the address. */
enum err api_server_start(const struct api_options *o, struct api_server **out, struct error *e);

/* "127.0.0.1:8100", "[::1]:8100": where the server really listens. Valid until stop. */
const char *api_server_address(const struct api_server *s);
int api_server_port(const struct api_server *s);

/* What a stage of the ring did so far, for /metrics. */
struct api_stage {
    char node[264];  /* printable */
    char layers[32]; /* "0-11" */
    bool known;      /* it answered; if not, the rest means nothing */
    uint64_t steps, rows, sent_bytes, received_bytes;
    time_us busy_us, input_wait_us, send_wait_us, other_us; /* all of the time of its thread */
};

struct api_model {
    struct engine *engine;
    const struct tokenizer *tokenizer;
    const struct chat_template *chat_template; /* NULL: chat requests are refused with 400 */
    const char *id;                            /* its name in the API, valid UTF-8; copied */
    int64_t created;                           /* Unix seconds */
    int max_context;                           /* positions, as given to the engine */
    int vocab; /* ids 0 … vocab-1 may be asked for in a prompt and in logit_bias */
    /* NULL, or: ask the stages, at most `most`; answers how many there are. On a thread of the
     * server, one call at a time; may take a moment. */
    int (*stages)(void *context, struct api_stage *out, int most);
    void *stages_context;
};

/* Serve this model; once per server. */
void api_server_set_model(struct api_server *s, const struct api_model *m);

/* There will be no model: say why, instead of "Loading model". Instead of set_model. */
void api_server_fail(struct api_server *s, const struct error *reason);

/* Refuse new requests, end the running ones (their clients read an error object), close all
 * connections, join all threads. Takes at most a few seconds. NULL allowed. */
void api_server_stop(struct api_server *s);

#endif
