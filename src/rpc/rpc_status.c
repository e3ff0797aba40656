/* Error codes as gRPC statuses and back, and the texts of failed connections.
 *
 * Where two of our codes share a status, the first of the table is what comes back. */
#include "rpc/rpc_impl.h"

#include <grpc/support/alloc.h>

#include <stdio.h>
#include <string.h>

static const struct {
    enum err code;
    grpc_status_code status;
} codes[] = {
    {OK, GRPC_STATUS_OK},
    {ERR_FORMAT, GRPC_STATUS_DATA_LOSS},
    {ERR_INVALID, GRPC_STATUS_INVALID_ARGUMENT},
    {ERR_USAGE, GRPC_STATUS_INVALID_ARGUMENT},
    {ERR_UNSUPPORTED, GRPC_STATUS_UNIMPLEMENTED},
    {ERR_NOT_FOUND, GRPC_STATUS_NOT_FOUND},
    {ERR_IO, GRPC_STATUS_UNKNOWN},
    {ERR_MEMORY, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {ERR_FULL, GRPC_STATUS_RESOURCE_EXHAUSTED},
    {ERR_LIMIT, GRPC_STATUS_OUT_OF_RANGE},
    {ERR_CLOSED, GRPC_STATUS_ABORTED},
    {ERR_TIMEOUT, GRPC_STATUS_DEADLINE_EXCEEDED},
    {ERR_UNREACHABLE, GRPC_STATUS_UNAVAILABLE},
    {ERR_VERSION, GRPC_STATUS_FAILED_PRECONDITION},
    {ERR_MISMATCH, GRPC_STATUS_ALREADY_EXISTS},
    {ERR_CANCELLED, GRPC_STATUS_CANCELLED},
    {ERR_INTERNAL, GRPC_STATUS_INTERNAL},
};

grpc_status_code rpc_status_of(enum err code)
{
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].code == code)
            return codes[i].status;
    return GRPC_STATUS_UNKNOWN;
}

static enum err code_of(grpc_status_code status)
{
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].status == status)
            return codes[i].code;
    return ERR_IO;
}

/* gRPC tells a refused connection as "failed to connect to all addresses; last error: UNKNOWN:
 * ipv4:1.2.3.4:5: Failed to connect to remote host: Connection refused": the end is what counts. */
static const char *connection_text(const char *text)
{
    static const char *const marks[] = {"remote host: ", "last error: UNKNOWN: ", "last error: "};
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        const char *found = strstr(text, marks[i]);
        if (found != NULL && found[strlen(marks[i])] != 0)
            return found + strlen(marks[i]);
    }
    return text;
}

static bool is_about_connecting(const char *text)
{
    return strstr(text, "failed to connect") != NULL || strstr(text, "DNS resolution") != NULL ||
           strstr(text, "Name resolution") != NULL;
}

/* gRPC 1.51 may give a connection up that is being made: it looks at errno only after calls
 * that may have set it to anything (grpc/grpc#35064). What it then says lacks connect's "remote
 * host". */
bool rpc_is_false_alarm(grpc_status_code status, grpc_slice text)
{
    static const char failed[] = "failed to connect", genuine[] = "remote host: ";
    const char *at = (const char *)GRPC_SLICE_START_PTR(text);
    size_t n = GRPC_SLICE_LENGTH(text);
    return status == GRPC_STATUS_UNAVAILABLE && memmem(at, n, failed, sizeof failed - 1) != NULL &&
           memmem(at, n, genuine, sizeof genuine - 1) == NULL;
}

enum err rpc_status_error(grpc_status_code status, grpc_slice text, const char *address,
                          struct error *e)
{
    char message[512];
    size_t n = GRPC_SLICE_LENGTH(text);
    if (n >= sizeof(message))
        n = sizeof(message) - 1;
    memcpy(message, GRPC_SLICE_START_PTR(text), n);
    message[n] = 0;
    enum err code = code_of(status);
    if (code == OK)
        return OK;
    if (code == ERR_UNREACHABLE && is_about_connecting(message))
        return error_set(e, code, "cannot reach %s: %s", address, connection_text(message));
    if (code == ERR_UNREACHABLE)
        return error_set(e, code, "%s: connection lost (%s)", address, connection_text(message));
    if (code == ERR_TIMEOUT)
        return error_set(e, code, "%s: no answer in time", address);
    return error_set(e, code, "%s: %s", address, n > 0 ? message : err_text(code));
}

void rpc_error_role(struct error *e, const char *role)
{
    struct error before = *e;
    struct address a;
    char *end = strstr(before.text, ": ");
    if (role[0] == 0 || end == NULL)
        return;
    *end = 0;
    bool is_address = address_parse(before.text, &a, NULL) == OK;
    *end = ':';
    if (is_address)
        error_set(e, before.code, "%s %s", role, before.text);
}

/* %5B and the like: gRPC writes peers as URIs. */
static void percent_decode(char *text)
{
    char *to = text;
    for (const char *from = text; *from != 0; from++, to++) {
        unsigned value;
        *to = *from;
        if (*from == '%' && sscanf(from + 1, "%2x", &value) == 1 && from[1] != 0 && from[2] != 0) {
            *to = (char)value;
            from += 2;
        }
    }
    *to = 0;
}

void rpc_peer_text(grpc_call *call, char out[static ADDRESS_MAX])
{
    char *peer = grpc_call_get_peer(call);
    const char *text = peer;
    if (strncmp(text, "ipv4:", 5) == 0 || strncmp(text, "ipv6:", 5) == 0)
        text += 5;
    snprintf(out, ADDRESS_MAX, "%s", text);
    gpr_free(peer);
    percent_decode(out);
}
