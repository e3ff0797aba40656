/* How often guesses come true, and how far ahead it therefore pays to guess.
 *
 * A guess counts only together with all in front of it, so of a chain of guesses the j-th is
 * worth rate to the power of j. It pays as long as that is at least what a guess costs, measured in
 * tokens (engine/pace.h). Only guesses that were checked say anything: those behind a wrong one do
 * not. Pure. */
#ifndef SHOAL_ENGINE_ACCEPTANCE_H
#define SHOAL_ENGINE_ACCEPTANCE_H

#include <stdbool.h>

enum guess_source { GUESS_LOOKUP, GUESS_MODEL, N_GUESS_SOURCES };

struct acceptance {
    float rate;    /* of right ones among those checked lately */
    float newness; /* weight of the next one */
};

/* Before anything is known. */
struct acceptance acceptance_begin(enum guess_source source);

void acceptance_note(struct acceptance *a, bool right);

/* How many guesses in a row pay, at most `most`, when one costs `least` tokens. */
int acceptance_reach(const struct acceptance *a, float least, int most);

/* A token came for which nothing was guessed because it did not pay: things change, so some day one
 * guess will be tried again. */
void acceptance_forget(struct acceptance *a, float least);

#endif
