/* Which clients have hung up? A connection that waits for the engine is out of libmicrohttpd's
 * own loop, which therefore does not see its socket close; one thread here watches the sockets of
 * all running requests. A client that closes only its sending side counts as gone: the two look
 * alike from here. One file per system: hangup_linux.c. */
#ifndef SHOAL_API_HANGUP_IMPL_H
#define SHOAL_API_HANGUP_IMPL_H

#include "base/error.h"

#include <stdint.h>

struct hangup_watch;

/* Called once per added socket at most, from the watching thread. It may come for a socket just
 * removed: look the id up, and do not reuse ids. */
typedef void (*hangup_fn)(void *context, uint64_t id);

enum err hangup_watch_start(hangup_fn fn, void *context, struct hangup_watch **out,
                            struct error *e);
void hangup_watch_stop(struct hangup_watch *w); /* joins the thread; NULL allowed */

/* id != 0. A socket is removed before it is closed. */
enum err hangup_watch_add(struct hangup_watch *w, int fd, uint64_t id, struct error *e);
void hangup_watch_remove(struct hangup_watch *w, int fd);

#endif
