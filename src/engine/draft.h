/* Guessing what comes next from what was there before (prompt look-up): when the last three tokens
 * have stood together earlier in the sequence, the ones that followed them then are guessed
 * to follow again. Texts that quote, code, lists and answers that repeat the question are full of
 * it.
 *
 * Guesses cost rows and nothing else: the tokens that come out are those of plain decoding, because
 * each guess is only kept if the sampler, given the logits in front of it, chooses that very token.
 * How many are made, and whether any, follows from how many were right before. Pure: a function of
 * the tokens and the answers noted. One thread at a time. */
#ifndef SHOAL_ENGINE_DRAFT_H
#define SHOAL_ENGINE_DRAFT_H

#include <stdbool.h>
#include <stdint.h>

enum { DRAFT_MAX = 16 /* guesses at once */ };

struct draft;

/* For a sequence of at most `limit` tokens. NULL without memory. */
struct draft *draft_new(int limit);
void draft_free(struct draft *d); /* NULL allowed */

/* Tokens 0 … n_tokens - 1 are there: to be called for every new one, in order. */
void draft_note(struct draft *d, const int32_t *tokens, int n_tokens);

/* At most `most` (<= DRAFT_MAX) guesses of what follows the tokens noted. `least_rate`: how many
 * of a hundred guesses times 0.01 must have been right lately for guessing to pay. */
int draft_guess(struct draft *d, const int32_t *tokens, int most, float least_rate,
                int32_t *guesses);

/* Of n_guesses, the first n_right were right. */
void draft_answer(struct draft *d, int n_guesses, int n_right);

#endif
