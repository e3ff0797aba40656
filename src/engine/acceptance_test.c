#include "engine/acceptance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void success_makes_bold_and_failure_cautious(void **state)
{
    (void)state;
    for (enum guess_source source = GUESS_LOOKUP; source < N_GUESS_SOURCES; source++) {
        struct acceptance a = acceptance_begin(source);
        int before = acceptance_reach(&a, 0.3f, 64);
        assert_in_range(before, 2, 5);
        for (int i = 0; i < 30; i++)
            acceptance_note(&a, true);
        int bold = acceptance_reach(&a, 0.3f, 64);
        assert_in_range(bold, 15, 63); /* never sure */
        assert_int_equal(acceptance_reach(&a, 0.3f, 7), 7);
        for (int i = 0; i < 3; i++)
            acceptance_note(&a, false);
        assert_in_range(acceptance_reach(&a, 0.3f, 64), 1, bold / 2);
    }
}

static void the_dearer_the_fewer(void **state)
{
    (void)state;
    struct acceptance a = {.rate = 0.8f, .newness = 0.1f};
    assert_int_equal(acceptance_reach(&a, 0.79f, 64), 1);
    assert_int_equal(acceptance_reach(&a, 0.5f, 64), 3);  /* 0.8^3 = 0.512 */
    assert_int_equal(acceptance_reach(&a, 0.1f, 64), 10); /* 0.8^10 = 0.107 */
    assert_int_equal(acceptance_reach(&a, 0.81f, 64), 0);
    a.rate = 1;
    assert_int_equal(acceptance_reach(&a, 1, 64), 0); /* a guess for a token: nothing is won */
}

static void what_does_not_pay_is_left_off_for_a_while(void **state)
{
    (void)state;
    struct acceptance a = acceptance_begin(GUESS_LOOKUP);
    int n_wrong = 0, n_tokens = 0;
    for (; acceptance_reach(&a, 0.3f, 64) > 0; n_wrong++)
        acceptance_note(&a, false);
    assert_in_range(n_wrong, 2, 8);
    for (; acceptance_reach(&a, 0.3f, 64) == 0; n_tokens++)
        acceptance_forget(&a, 0.3f);
    assert_in_range(n_tokens, 3, 40);
    assert_int_equal(acceptance_reach(&a, 0.3f, 64), 1); /* one, to see */
    for (int i = 0; i < 1000; i++)
        acceptance_forget(&a, 1.2f); /* dearer than a token: never */
    assert_int_equal(acceptance_reach(&a, 1.2f, 64), 0);
    assert_int_equal(acceptance_reach(&a, 0.4f, 64), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(success_makes_bold_and_failure_cautious),
        cmocka_unit_test(the_dearer_the_fewer),
        cmocka_unit_test(what_does_not_pay_is_left_off_for_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
