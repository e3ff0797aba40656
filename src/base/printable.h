/* Text from outside made fit for a line: names in files, frames and requests end up in messages, on
 * terminals and in JSON, and may hold anything. Pure; any thread. */
#ifndef SHOAL_BASE_PRINTABLE_H
#define SHOAL_BASE_PRINTABLE_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes (1 to 4) of the well-formed UTF-8 character at s, whose text ends with 0; 0 where there is
 * none: overlong forms, surrogates and what lies beyond U+10FFFF are not well-formed. */
int utf8_char_bytes(const char *s);

/* Replace each control character (C0, DEL, C1: a terminal may obey them) and each byte that is not
 * UTF-8 by '?', in place. */
void make_printable(char *text);

#endif
