/* Splitting, joining and classifying addresses. Hosts stay text: who connects looks them up. */
#include "rpc/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum err refuse(struct error *e, const char *text)
{
    return error_set(e, ERR_INVALID,
                     "\"%.128s\" is not an address: expected HOST:PORT, port 0 … 65535", text);
}

static bool parse_port(const char *text, int *port)
{
    size_t n = strlen(text);
    if (n == 0 || n > 5 || strspn(text, "0123456789") != n)
        return false;
    long value = strtol(text, NULL, 10);
    *port = (int)value;
    return value <= 65535;
}

static bool host_is_plain(const char *host, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)host[i];
        if (c <= ' ' || c >= 0x7f || strchr("/\\\"'[]@?#%", c) != NULL)
            return false;
    }
    return n > 0;
}

enum err address_parse(const char *text, struct address *out, struct error *e)
{
    const char *host = text, *colon = strrchr(text, ':');
    if (colon == NULL || !parse_port(colon + 1, &out->port))
        return refuse(e, text);
    size_t n = (size_t)(colon - text);
    bool bracketed = text[0] == '[' && n >= 2 && text[n - 1] == ']';
    if (bracketed) {
        host++;
        n -= 2;
    }
    bool has_colon = memchr(host, ':', n) != NULL;
    if (n >= sizeof(out->host) || has_colon != bracketed || !host_is_plain(host, n))
        return refuse(e, text);
    memcpy(out->host, host, n);
    out->host[n] = 0;
    return OK;
}

void address_format(const struct address *a, char out[static ADDRESS_MAX])
{
    bool v6 = strchr(a->host, ':') != NULL;
    snprintf(out, ADDRESS_MAX, "%s%s%s:%d", v6 ? "[" : "", a->host, v6 ? "]" : "", a->port);
}

static bool is_loopback_number(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sa;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *in6 = (const void *)sa;
    return sa->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

bool address_is_loopback(const struct address *a)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
    if (getaddrinfo(a->host, NULL, &hints, &all) != 0)
        return false;
    bool loopback = all != NULL;
    for (const struct addrinfo *i = all; i != NULL; i = i->ai_next)
        loopback &= is_loopback_number(i->ai_addr);
    freeaddrinfo(all);
    return loopback;
}
