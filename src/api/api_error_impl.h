/* Why a request is refused, as a client reads it: HTTP status and OpenAI's error object
 * {"error": {"message", "type", "param", "code"}}. Filled where the fault is found, sent by the
 * server. */
#ifndef SHOAL_API_API_ERROR_IMPL_H
#define SHOAL_API_API_ERROR_IMPL_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

/* name, HTTP status, OpenAI's type, code */
#define FAULT_LIST(X) \
    X(FAULT_INVALID, 400, "invalid_request_error", "invalid_value") \
    X(FAULT_UNSUPPORTED, 400, "invalid_request_error", "unsupported_parameter") \
    X(FAULT_JSON, 400, "invalid_request_error", "invalid_json") \
    X(FAULT_CONTEXT, 400, "invalid_request_error", "context_length_exceeded") \
    X(FAULT_NO_ROUTE, 404, "invalid_request_error", "not_found") \
    X(FAULT_NO_MODEL, 404, "invalid_request_error", "model_not_found") \
    X(FAULT_METHOD, 405, "invalid_request_error", "method_not_allowed") \
    X(FAULT_TOO_LARGE, 413, "invalid_request_error", "request_too_large") \
    X(FAULT_MEDIA_TYPE, 415, "invalid_request_error", "unsupported_media_type") \
    X(FAULT_QUEUE_FULL, 429, "rate_limit_error", "queue_full") \
    X(FAULT_INTERNAL, 500, "server_error", "internal_error") \
    X(FAULT_LOADING, 503, "unavailable_error", "model_loading") \
    X(FAULT_ENGINE, 503, "unavailable_error", "engine_failed") \
    X(FAULT_STOPPING, 503, "unavailable_error", "server_stopping") \
    X(FAULT_DEADLINE, 504, "timeout_error", "deadline_exceeded")

enum api_fault {
#define FAULT_ENUM(name, status, type, code) name,
    FAULT_LIST(FAULT_ENUM)
#undef FAULT_ENUM
        N_FAULTS
};

struct api_error {
    enum api_fault fault;
    char param[96];      /* the field at fault; "" for none */
    struct error reason; /* its text is the message; its code is not used */
};

/* Fill *e and answer false, so that `return api_refuse(e, …)` reads well where true means that
 * all went well. param may be NULL. */
bool api_refuse(struct api_error *e, enum api_fault fault, const char *param, const char *format,
                ...) __attribute__((format(printf, 4, 5)));

unsigned api_error_status(const struct api_error *e);

/* The error object, a new reference; NULL without memory. */
json_t *api_error_json(const struct api_error *e);

#endif
