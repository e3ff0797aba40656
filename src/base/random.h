/* Random numbers from the system: for seeds, epochs and ids, never for what must replay. */
#ifndef SHOAL_BASE_RANDOM_H
#define SHOAL_BASE_RANDOM_H

#include "base/error.h"

#include <stddef.h>

/* Fill `out`; ERR_IO if the system has none. Any thread; may block early after the machine's start.
 */
enum err random_bytes(void *out, size_t bytes, struct error *e);

#endif
