/* What guessing ahead gives (docs/speculation.md): generation through the engine with guesses and
 * without, in turn, for `shoal bench model --draft-model`. */
#ifndef SHOAL_CLI_BENCH_GUESSING_H
#define SHOAL_CLI_BENCH_GUESSING_H

#include "lead/lead.h"

#include <jansson.h>

struct bench_guessing_options {
    const struct lead_options *lead; /* with draft_file and max_draft */
    const int *batches;              /* [n_batches]: requests at once */
    int n_batches;
    int n_prompt, n_decode; /* tokens of each; n_prompt >= 1, n_decode >= 2 */
    int repeats;
};

struct bench_guessing {
    int batch;
    double *tok_s, *plain_tok_s; /* [repeats]: with guesses, without; after the first token */
    int n;
    int64_t guessed[N_GUESS_SOURCES], right[N_GUESS_SOURCES]; /* in all repetitions */
};

/* results[n_batches], to be released, also after a failure. */
enum err bench_guessing(const struct bench_guessing_options *o, struct bench_guessing *results,
                        struct error *e);
void bench_guessing_release(struct bench_guessing *results, int n_batches);

void bench_guessing_print(struct bench_guessing *r);
json_t *bench_guessing_json(struct bench_guessing *r);

#endif
