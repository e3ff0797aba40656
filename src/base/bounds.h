/* Every limit that Shoal puts on what comes from outside or grows, in one place.
 * Exceeding one is an ordinary error (ERR_LIMIT, ERR_FULL) whose text names the limit. */
#ifndef SHOAL_BASE_BOUNDS_H
#define SHOAL_BASE_BOUNDS_H

enum {
    /* Model files. */
    MODEL_MAX_TENSORS = 1 << 20,        /* tensors in one model */
    MODEL_MAX_METADATA = 1 << 16,       /* metadata pairs in one GGUF file */
    MODEL_MAX_NAME = 256,               /* bytes of a tensor name or metadata key */
    MODEL_MAX_DIMS = 4,                 /* dimensions of a tensor */
    MODEL_MAX_FILES = 4096,             /* .safetensors shards of one folder */
    MODEL_MAX_HEADER_BYTES = 512 << 20, /* safetensors JSON header, GGUF header */
    MODEL_MAX_JSON_BYTES = 128 << 20,   /* config.json, tokenizer.json, index */
    MODEL_MAX_ARRAY = 1 << 24,          /* elements of one metadata array */

    /* Shapes (validated before any product is formed). */
    SHAPE_MAX_LAYERS = 4096,
    SHAPE_MAX_HEADS = 4096,
    SHAPE_MAX_HEAD_SIZE = 1024,
    SHAPE_MAX_WIDTH = 1 << 20, /* hidden, ffn */
    SHAPE_MAX_VOCAB = 1 << 22,
    SHAPE_MAX_CONTEXT = 1 << 24,

    /* Pipeline. */
    RING_MAX_STAGES = 256,
    STEP_MAX_ROWS = 4096,            /* rows (tokens) of one step */
    STEP_MAX_UPDATES = 1 << 16,      /* table updates of one step */
    SLOT_MAX = 4096,                 /* sequence slots of a stage */
    SLOT_TABLES_MAX_BYTES = 1 << 30, /* their tables, where these may have holes */
    KV_BLOCK_TOKENS = 16,            /* positions of one KV block */
    KV_STRIP_BLOCKS = 16,            /* KV blocks that lie together in memory */
    KV_MAX_BLOCKS = 1 << 26,         /* KV blocks of a stage */
    FRAME_MAX_BYTES = 256 << 20,     /* one frame on a link */

    /* Threads. */
    POOL_MAX_THREADS = 256,

    /* Serving. */
    HTTP_MAX_BODY_BYTES = 16 << 20,
    HTTP_MAX_BODIES_BYTES = 256 << 20, /* of all requests being received */
    HTTP_MAX_CONNECTIONS = 1024,
    JSON_MAX_DEPTH = 128,              /* nesting of a request's body */
    JSON_MAX_VALUES = 1 << 21,         /* values in it, a prompt's ids included */
    JSON_MAX_CONTAINERS = 1 << 16,     /* arrays and objects in it */
    REQUEST_MAX_PROMPTS = 64,          /* prompts of one completion request */
    REQUEST_MAX_CHOICES = 128,         /* of all its prompts together */
    REQUEST_MAX_TEXT_BYTES = 64 << 20, /* text generated for one request and not yet read */
    REQUEST_MAX_STOP = 16,             /* stop strings of a request */
    REQUEST_MAX_STOP_BYTES = 1024,     /* bytes of one stop string */
    REQUEST_MAX_LOGIT_BIAS = 4096,     /* logit_bias entries of a request */
    REQUEST_MAX_BREAKERS = 32,         /* dry_sequence_breakers of a request */
    REQUEST_MAX_BREAKER_BYTES = 64,    /* bytes of one of them */
    TEMPLATE_MAX_OUTPUT_BYTES = 16 << 20,
};

#endif
