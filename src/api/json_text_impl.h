/* Text on its way into JSON and out of it: what leaves the server is valid UTF-8 whatever came in
 * (a path in a URL, a piece of a broken vocabulary), what comes in is bounded before it is parsed.
 */
#ifndef SHOAL_API_JSON_TEXT_IMPL_H
#define SHOAL_API_JSON_TEXT_IMPL_H

#include "api/api_error_impl.h"
#include "base/strbuf.h"

#include <jansson.h>
#include <stddef.h>

/* A JSON string of `bytes` bytes; what is not UTF-8 in them becomes U+FFFD. NULL without memory. */
json_t *json_text(const char *text, size_t bytes);

/* Bytes of the well-formed UTF-8 character at s, where `left` bytes are; 0 if it is none. */
size_t utf8_character(const unsigned char *s, size_t left);

/* Append *value as one line and drop the reference. A NULL value, or no memory, marks the buffer
 * failed. */
void json_append(struct strbuf *out, json_t *value);
/* The same for an object that is not empty, without its closing brace: members that are too large
 * to be built first can follow. */
void json_append_open(struct strbuf *out, json_t *object);
/* ,"name":value, behind json_append_open. */
void json_append_member(struct strbuf *out, const char *name, json_t *value);
/* json_text(…) */
void json_append_text(struct strbuf *out, const char *text, size_t bytes);

/* Parse the body of a request: one JSON object. NULL with *e filled for anything else: bad syntax
 * (with line and column), text that is not UTF-8, \u0000, a key given twice, nesting deeper than
 * JSON_MAX_DEPTH, more than JSON_MAX_VALUES values or JSON_MAX_CONTAINERS arrays and objects: these
 * cost up to a hundred times their text in memory, so they are counted before anything is built. */
json_t *json_parse_request(const char *text, size_t bytes, struct api_error *e);

#endif
