#include "base/random.h"

#include <errno.h>
#include <sys/random.h>

enum err random_bytes(void *out, size_t bytes, struct error *e)
{
    unsigned char *at = out;
    while (bytes > 0) {
        ssize_t n = getrandom(at, bytes, 0);
        if (n < 0 && errno != EINTR)
            return error_errno(e, ERR_IO, errno, "no random numbers from the system");
        if (n > 0) {
            at += n;
            bytes -= (size_t)n;
        }
    }
    return OK;
}
