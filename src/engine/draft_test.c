#include "engine/draft.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void what_followed_before_is_guessed(void **state)
{
    (void)state;
    int32_t tokens[32] = {1, 2, 3, 4, 5, 6, 7, 1, 2, 3};
    struct draft *d = draft_new(100);
    draft_note(d, tokens, 9);
    assert_int_equal(draft_extend(d, tokens, 9, 8), 0); /* "7 1 2" was not there before */
    draft_note(d, tokens, 10);
    assert_int_equal(draft_extend(d, tokens, 10, 0), 0);
    assert_int_equal(draft_extend(d, tokens, 10, -1), 0);
    assert_int_equal(draft_extend(d, tokens, 10, 4), 4);
    assert_memory_equal(tokens + 10, ((const int32_t[]){4, 5, 6, 7}), 4 * sizeof(tokens[0]));
    draft_free(d);
}

static void repetition_is_guessed_to_go_on(void **state)
{
    (void)state;
    int32_t tokens[16] = {1, 2, 1, 2, 1};
    struct draft *d = draft_new(100);
    draft_note(d, tokens, 5);
    assert_int_equal(draft_extend(d, tokens, 5, 6), 6);
    assert_memory_equal(tokens + 5, ((const int32_t[]){2, 1, 2, 1, 2, 1}), 6 * sizeof(tokens[0]));
    draft_free(d);
}

/* What was guessed is guessed to go on, too, and is not taken for what was there. */
static void guesses_follow_guesses(void **state)
{
    (void)state;
    int32_t tokens[32] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3};
    struct draft *d = draft_new(10000);
    draft_note(d, tokens, 12);
    for (int n = 12; n < 18; n += 2)
        assert_int_equal(draft_extend(d, tokens, n, 2), 2);
    assert_memory_equal(tokens + 12, ((const int32_t[]){4, 5, 6, 7, 8, 9}), 6 * sizeof(tokens[0]));
    tokens[18] = 77; /* another's guess: nobody knows what follows that */
    assert_int_equal(draft_extend(d, tokens, 19, 2), 0);
    tokens[12] = 77; /* the first was wrong */
    draft_note(d, tokens, 13);
    assert_int_equal(draft_extend(d, tokens, 13, 2), 0);
    draft_free(d);
}

/* A small table under many grams: guesses are always of what is there. */
static void random_tokens(void **state)
{
    (void)state;
    enum { N = 5000 };
    static int32_t tokens[N + 1];
    unsigned seed = 3;
    int n_guessed = 0;
    struct draft *d = draft_new(10);
    for (int i = 0; i < N; i++) {
        tokens[i] = rand_r(&seed) % 8;
        draft_note(d, tokens, i + 1);
        int n = draft_extend(d, tokens, i + 1, 1);
        bool found = n == 0;
        for (int j = 2; j < i && !found; j++)
            found = tokens[j] == tokens[i] && tokens[j - 1] == tokens[i - 1] &&
                    tokens[j - 2] == tokens[i - 2] && tokens[j + 1] == tokens[i + 1];
        assert_true(found);
        n_guessed += n;
    }
    assert_true(n_guessed > 100);
    draft_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_followed_before_is_guessed),
        cmocka_unit_test(repetition_is_guessed_to_go_on),
        cmocka_unit_test(guesses_follow_guesses),
        cmocka_unit_test(random_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
