#include "api/listen_socket_impl.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 512 };

/* The socket, or -1 with errno. */
static int bind_to(const struct addrinfo *a)
{
    int on = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* Else a restart has to wait until the old connections have left TIME_WAIT. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int failure = errno;
    close(fd);
    errno = failure;
    return -1;
}

static int bound_port(int fd)
{
    struct sockaddr_storage name;
    socklen_t bytes = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &bytes) != 0)
        return -1;
    return ntohs(name.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&name)->sin6_port
                                            : ((struct sockaddr_in *)&name)->sin_port);
}

static void write_address(struct listen_socket *s, const char *host, int port)
{
    const char *format = strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d";
    snprintf(s->address, sizeof s->address, format, host, port);
}

enum err listen_socket_open(const char *host, int port, struct listen_socket *out, struct error *e)
{
    if (port < 0 || port > 65535)
        return error_set(e, ERR_INVALID, "port %d of %s: expected 0 to 65535", port, host);
    write_address(out, host, port);
    char service[8];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list;
    int failure = getaddrinfo(host, service, &hints, &list);
    if (failure != 0)
        return error_set(e, ERR_INVALID, "cannot listen on %s: %s", out->address,
                         gai_strerror(failure));
    out->fd = -1;
    for (const struct addrinfo *a = list; a != NULL && out->fd < 0; a = a->ai_next)
        out->fd = bind_to(a);
    failure = errno;
    freeaddrinfo(list);
    if (out->fd < 0)
        return error_errno(e, ERR_IO, failure, "cannot listen on %s", out->address);
    out->port = bound_port(out->fd);
    write_address(out, host, out->port);
    return OK;
}
