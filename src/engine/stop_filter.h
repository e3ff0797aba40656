/* Stop strings in a stream of text: what may be the beginning of one is held back, what is one
 * ends the text in front of it.
 *
 * Works byte by byte, so the outcome does not depend on how the text is cut into tokens: the stop
 * string that is complete first ends the text; of several complete at the same byte, the longest.
 * One pass, constant work per byte and stop string (the automaton of Knuth, Morris and Pratt). */
#ifndef SHOAL_ENGINE_STOP_FILTER_H
#define SHOAL_ENGINE_STOP_FILTER_H

#include "base/error.h"
#include "base/strbuf.h"

struct stop_filter;

/* n strings (0 allowed), copied, each of 1 … REQUEST_MAX_STOP_BYTES bytes, REQUEST_MAX_STOP at
 * most, and beginning with a whole character: ERR_INVALID or ERR_LIMIT otherwise. */
enum err stop_filter_new(const char *const *strings, int n, struct stop_filter **out,
                         struct error *e);
void stop_filter_free(struct stop_filter *f); /* NULL allowed */

/* More text. What is certain now is appended to *out. Answers the stop string that was met, valid
 * while the filter lives, or NULL; after one was met nothing more may be pushed. */
const char *stop_filter_push(struct stop_filter *f, const char *text, size_t bytes,
                             struct strbuf *out);

/* The text is over without a stop string: what was held back comes out. */
void stop_filter_finish(struct stop_filter *f, struct strbuf *out);

#endif
