/* Which tokens end a repetition in the eyes of the sampler's DRY (docs/sampling.md): those whose
 * text contains one of some strings, and control tokens, which have no text and divide it. Pure. */
#ifndef SHOAL_ENGINE_BREAKERS_H
#define SHOAL_ENGINE_BREAKERS_H

#include "text/text.h"

#include <stdint.h>

/* Set bit token % 64 of bits[token / 64] for each of them below `vocab`. `strings` NULL: the usual
 * ones, as far as the vocabulary has them. ERR_INVALID names an empty string or one that no token's
 * text contains. */
enum err breakers_mark(const struct tokenizer *t, const char *const *strings, int n, int vocab,
                       uint64_t *bits, struct error *e);

#endif
