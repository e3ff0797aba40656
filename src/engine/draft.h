/* Guessing what comes next from what was there before (prompt look-up): when the last three tokens
 * have stood together earlier in the sequence, the ones that followed them then are guessed
 * to follow again. Texts that quote, code, lists and answers that repeat the question are full of
 * it.
 *
 * How many guesses are made, and whether any, is decided elsewhere (engine/guessing.c). Pure: a
 * function of the tokens noted. One thread at a time. */
#ifndef SHOAL_ENGINE_DRAFT_H
#define SHOAL_ENGINE_DRAFT_H

#include <stdint.h>

enum { DRAFT_MAX = 16 /* guesses of one sequence in one step */ };

struct draft;

/* For a sequence of at most `limit` tokens. NULL without memory. */
struct draft *draft_new(int limit);
void draft_free(struct draft *d); /* NULL allowed */

/* Tokens 0 … n_tokens - 1 are there: to be called for every new one, in order. */
void draft_note(struct draft *d, const int32_t *tokens, int n_tokens);

/* Append up to n guesses of what follows tokens[0 … n_tokens), which begin with those noted and may
 * go on with guesses. Answers how many: n, or 0 if the last three stood nowhere before. */
int draft_extend(const struct draft *d, int32_t *tokens, int n_tokens, int n);

#endif
