#include "sampler/exp_many.h"

#include "tensor/exact_math.h"
#include "tensor/float16.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { N = 4099 };

static void assert_bits(const float *x, int n)
{
    static float all[N + 1];
    for (int i = 0; i < n; i++)
        all[i] = x[i];
    all[n] = 7; /* guard */
    exp_many(all, n);
    assert_true(all[n] == 7);
    for (int i = 0; i < n; i++)
        if (f32_bits(all[i]) != f32_bits(exact_expf(x[i])))
            fail_msg("e^%a: expected %a, found %a", (double)x[i], (double)exact_expf(x[i]),
                     (double)all[i]);
}

static void same_bits_as_exact_expf(void **state)
{
    (void)state;
    static float x[N];
    for (int i = 0; i < N; i++) /* evenly over all that is not 0, denormal results included */
        x[i] = -110.0f * (float)i / N;
    assert_bits(x, N);
    uint32_t bits = 0x80000000u; /* -0, then over all negative floats up to -inf */
    for (int round = 0; round < 64; round++) {
        for (int i = 0; i < N; i++, bits += 8111)
            x[i] = bits >= 0x80000000u && bits <= 0xff800000u ? f32_from_bits(bits) : -INFINITY;
        assert_bits(x, N);
    }
}

static void every_length(void **state)
{
    (void)state;
    static const float x[17] = {0,   -1,  -2.5f, -INFINITY, -104, -103.9f, -87,     -1e-30f, -0.5f,
                                -3,  -4,  -50,   -88,       -90,  -0.0f,   -1e30f, -7};
    for (int n = 0; n <= 17; n++)
        assert_bits(x, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_as_exact_expf),
        cmocka_unit_test(every_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
