#include "model/model_impl.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { PAIRS = 64 };

static struct model_params llama(void)
{
    return (struct model_params){.rope_size = 2 * PAIRS, .rope_base = 500000};
}

static void near(double found, double expected)
{
    assert_true(fabs(found / expected - 1) < 1e-12);
}

static void plain_frequencies_fall_by_powers(void **state)
{
    (void)state;
    struct model_params p = llama();
    double f[PAIRS];
    rope_frequencies(&p, NULL, f);
    assert_true(f[0] == 1);
    for (int i = 0; i < PAIRS; i++)
        near(f[i], pow(500000, -2.0 * i / (2 * PAIRS)));
}

static void linear_scaling_divides(void **state)
{
    (void)state;
    struct model_params p = llama();
    double plain[PAIRS], scaled[PAIRS];
    rope_frequencies(&p, NULL, plain);
    p.rope_scaling = ROPE_SCALING_LINEAR;
    p.rope_factor = 4;
    rope_frequencies(&p, NULL, scaled);
    for (int i = 0; i < PAIRS; i++)
        near(scaled[i], plain[i] / 4);
}

static void llama3_scaling_keeps_short_and_stretches_long_waves(void **state)
{
    (void)state;
    struct model_params p = llama();
    double plain[PAIRS], scaled[PAIRS];
    rope_frequencies(&p, NULL, plain);
    p.rope_scaling = ROPE_SCALING_LLAMA3;
    p.rope_factor = 8;
    p.rope_low_freq_factor = 1;
    p.rope_high_freq_factor = 4;
    p.rope_original_context = 8192;
    rope_frequencies(&p, NULL, scaled);
    int kept = 0, stretched = 0, between = 0;
    for (int i = 0; i < PAIRS; i++) {
        double wave = 2 * M_PI / plain[i];
        if (wave < 8192 / 4.0) {
            assert_true(scaled[i] == plain[i]);
            kept++;
        } else if (wave > 8192) {
            near(scaled[i], plain[i] / 8);
            stretched++;
        } else {
            assert_true(scaled[i] < plain[i] && scaled[i] > plain[i] / 8);
            between++;
        }
    }
    assert_true(kept > 10 && stretched > 10 && between > 3);
    /* The 33rd pair of Llama 3.1, worked out by hand from the published rule. */
    double smooth = (8192 / (2 * M_PI / plain[32]) - 1) / 3;
    near(scaled[32], (1 - smooth) * plain[32] / 8 + smooth * plain[32]);
}

static void factors_of_the_file_divide(void **state)
{
    (void)state;
    struct model_params p = llama();
    double plain[PAIRS], divided[PAIRS];
    float factors[PAIRS];
    for (int i = 0; i < PAIRS; i++)
        factors[i] = 1 + (float)i / 8;
    rope_frequencies(&p, NULL, plain);
    rope_frequencies(&p, factors, divided);
    for (int i = 0; i < PAIRS; i++)
        near(divided[i], plain[i] / (1 + i / 8.0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_frequencies_fall_by_powers),
        cmocka_unit_test(linear_scaling_divides),
        cmocka_unit_test(llama3_scaling_keeps_short_and_stretches_long_waves),
        cmocka_unit_test(factors_of_the_file_divide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
