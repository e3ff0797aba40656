/* Network addresses as people write them: "127.0.0.1:50100", "node7:50100", "[::1]:50100". */
#ifndef SHOAL_RPC_ADDRESS_H
#define SHOAL_RPC_ADDRESS_H

#include "base/error.h"

#include <stdbool.h>

enum { ADDRESS_MAX = 272 }; /* bytes of "host:port" with its terminator */

struct address {
    char host[256]; /* without brackets */
    int port;       /* 0 … 65535 */
};

/* ERR_INVALID names the text and what is expected. Names are not looked up. */
enum err address_parse(const char *text, struct address *out, struct error *e);
void address_format(const struct address *a, char out[static ADDRESS_MAX]);

/* Can only this machine reach it: a loopback number, or a name all of whose numbers are? A name
 * that cannot be looked up is not. */
bool address_is_loopback(const struct address *a);

#endif
