/* A listening TCP socket with errors that name the address. */
#ifndef SHOAL_API_LISTEN_SOCKET_IMPL_H
#define SHOAL_API_LISTEN_SOCKET_IMPL_H

#include "base/error.h"

struct listen_socket {
    int fd;
    int port;          /* the real one */
    char address[300]; /* "127.0.0.1:8100", "[::1]:8100" */
};

/* Bind to the first address of `host` that works and listen; port 0 picks a free one.
 * ERR_INVALID (host not known, port out of range), ERR_IO. */
enum err listen_socket_open(const char *host, int port, struct listen_socket *out, struct error *e);

#endif
