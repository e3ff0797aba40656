/* Bodies from other programs' HTTP servers, one GET after another over one connection; libcurl does
 * the work. What comes is hostile: its length and the time for it are bounded, redirects are not
 * followed, and only http and https are spoken. One thread at a time uses a fetcher. */
#ifndef SHOAL_FETCH_FETCH_H
#define SHOAL_FETCH_FETCH_H

#include "base/clock.h"
#include "base/error.h"
#include "base/strbuf.h"

struct fetcher;

/* ERR_INVALID for a URL that is none, or of another kind; nothing is connected yet. */
enum err fetcher_open(const char *url, time_us timeout_us, struct fetcher **out, struct error *e);
void fetcher_close(struct fetcher *f); /* NULL allowed */

/* Append the body to *out, whose limit bounds it. ERR_UNREACHABLE (nobody there, or silent),
 * ERR_TIMEOUT, ERR_LIMIT (the body), ERR_IO (any other status than 200, which is named). */
enum err fetcher_get(struct fetcher *f, struct strbuf *out, struct error *e);

#endif
