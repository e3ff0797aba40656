#include "engine/draft.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void what_followed_before_is_guessed(void **state)
{
    (void)state;
    static const int32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 1, 2, 3};
    int32_t guesses[DRAFT_MAX];
    struct draft *d = draft_new(100);
    draft_note(d, tokens, 9);
    assert_int_equal(draft_guess(d, tokens, 8, 0, guesses), 0); /* "7 1 2" was not there before */
    draft_note(d, tokens, 10);
    assert_int_equal(draft_guess(d, tokens, 8, 0, guesses), 4);
    assert_memory_equal(guesses, ((const int32_t[]){4, 5, 6, 7}), 4 * sizeof(guesses[0]));
    assert_int_equal(draft_guess(d, tokens, 2, 0, guesses), 2);
    assert_int_equal(draft_guess(d, tokens, 0, 0, guesses), 0);
    assert_int_equal(draft_guess(d, tokens, -1, 0, guesses), 0);
    draft_free(d);
}

static void repetition_is_guessed_to_go_on(void **state)
{
    (void)state;
    static const int32_t tokens[] = {1, 2, 1, 2, 1};
    int32_t guesses[DRAFT_MAX];
    struct draft *d = draft_new(100);
    draft_note(d, tokens, 5);
    assert_int_equal(draft_guess(d, tokens, 4, 0, guesses), 4);
    assert_memory_equal(guesses, ((const int32_t[]){2, 1, 2, 1}), 4 * sizeof(guesses[0]));
    draft_free(d);
}

static void success_makes_bold_and_failure_cautious(void **state)
{
    (void)state;
    int32_t tokens[64], guesses[DRAFT_MAX];
    for (int i = 0; i < 64; i++)
        tokens[i] = i % 32;
    struct draft *d = draft_new(64);
    draft_note(d, tokens, 36);
    assert_int_equal(draft_guess(d, tokens, DRAFT_MAX, 0.4f, guesses), 4);
    draft_answer(d, 4, 4);
    assert_int_equal(draft_guess(d, tokens, DRAFT_MAX, 0.4f, guesses), 8);
    draft_answer(d, 8, 8);
    draft_answer(d, 16, 16);
    assert_int_equal(draft_guess(d, tokens, DRAFT_MAX, 0.4f, guesses), DRAFT_MAX);
    draft_answer(d, 16, 2);
    assert_int_equal(draft_guess(d, tokens, DRAFT_MAX, 0.4f, guesses), 3);
    draft_free(d);
}

static void what_does_not_pay_is_left_off_for_a_while(void **state)
{
    (void)state;
    static const int32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 1, 2, 3};
    int32_t guesses[DRAFT_MAX];
    struct draft *d = draft_new(100);
    draft_note(d, tokens, 10);
    for (int i = 0; i < 5; i++)
        draft_answer(d, 4, 0);
    int n_tries = 0;
    while (draft_guess(d, tokens, 4, 0.3f, guesses) == 0)
        assert_in_range(++n_tries, 1, 40); /* it is tried again */
    assert_true(n_tries > 10);
    draft_free(d);
}

/* A small table under many grams: guesses are always of what is there. */
static void random_tokens(void **state)
{
    (void)state;
    enum { N = 5000 };
    static int32_t tokens[N];
    unsigned seed = 3;
    int n_guessed = 0;
    struct draft *d = draft_new(10);
    for (int i = 0; i < N; i++) {
        tokens[i] = rand_r(&seed) % 8;
        draft_note(d, tokens, i + 1);
        int32_t guesses[DRAFT_MAX];
        int n = draft_guess(d, tokens, 1, 0, guesses);
        bool found = n == 0;
        for (int j = 2; j < i && !found; j++)
            found = tokens[j] == tokens[i] && tokens[j - 1] == tokens[i - 1] &&
                    tokens[j - 2] == tokens[i - 2] && tokens[j + 1] == guesses[0];
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
        cmocka_unit_test(success_makes_bold_and_failure_cautious),
        cmocka_unit_test(what_does_not_pay_is_left_off_for_a_while),
        cmocka_unit_test(random_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
