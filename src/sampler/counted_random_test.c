#include "sampler/counted_random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* The numbers are part of what users see ("same seed, same text"): they may not change. */
static void the_numbers_stay(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed;
        uint32_t choice, position;
        uint64_t bits;
    } known[] = {
        {0u, 0u, 0u, 0x0ea7daed92c09475u},
        {1u, 0u, 0u, 0xfed251c33ceb7648u},
        {0u, 1u, 0u, 0xbfee7eefeffaaee1u},
        {0u, 0u, 1u, 0xca556438385c81e1u},
        {18446744073709551615u, 4294967295u, 4294967295u, 0x905eb5fbf4a53ed6u},
        {42u, 0u, 4096u, 0x77cd8b724120b828u},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        assert_int_equal(counted_bits(known[i].seed, known[i].choice, known[i].position),
                         known[i].bits);
}

static uint64_t with_bit_flipped(int bit)
{
    uint64_t seed = 0x0123456789abcdefu;
    uint32_t choice = 3, position = 1000;
    if (bit < 64)
        seed ^= 1ull << bit;
    else if (bit < 96)
        choice ^= 1u << (bit - 64);
    else
        position ^= 1u << (bit - 96);
    return counted_bits(seed, choice, position);
}

/* Flipping any one input bit, over many neighbours, flips about half of the output bits. */
static void every_input_bit_matters(void **state)
{
    (void)state;
    uint64_t base = counted_bits(0x0123456789abcdefu, 3, 1000);
    int total = 0;
    for (int bit = 0; bit < 128; bit++) {
        int flipped = __builtin_popcountll(base ^ with_bit_flipped(bit));
        assert_in_range(flipped, 12, 52);
        total += flipped;
    }
    assert_in_range(total, 128 * 32 - 300, 128 * 32 + 300); /* sigma is 45 */
}

/* Chi-square of the top 6 bits along one counter, for positions, choices and seeds. */
enum { CELLS = 64, DRAWS = 64000 };

static double chi_square(uint64_t seed_step, uint32_t choice_step, uint32_t position_step)
{
    int count[CELLS] = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        double u = counted_uniform(42 + i * seed_step, i * choice_step, i * position_step);
        assert_true(u >= 0 && u < 1);
        count[(int)(u * CELLS)]++;
    }
    double sum = 0, expected = (double)DRAWS / CELLS;
    for (int i = 0; i < CELLS; i++)
        sum += (count[i] - expected) * (count[i] - expected) / expected;
    return sum;
}

static void uniform_along_every_counter(void **state)
{
    (void)state;
    /* 63 degrees of freedom: 0.01 % of good generators lie above 114 or below 27. */
    const double sums[] = {chi_square(1, 0, 0), chi_square(0, 1, 0), chi_square(0, 0, 1),
                           chi_square(1ull << 32, 0, 0), chi_square(0, 0, 16)};
    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++)
        assert_true(sums[i] > 27 && sums[i] < 114);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void no_two_counters_give_the_same(void **state)
{
    (void)state;
    static uint64_t bits[64 * 1024];
    size_t n = 0;
    for (uint32_t choice = 0; choice < 64; choice++)
        for (uint32_t position = 0; position < 1024; position++)
            bits[n++] = counted_bits(7, choice, position);
    qsort(bits, n, sizeof(bits[0]), compare);
    for (size_t i = 1; i < n; i++)
        assert_true(bits[i - 1] != bits[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_numbers_stay),
        cmocka_unit_test(every_input_bit_matters),
        cmocka_unit_test(uniform_along_every_counter),
        cmocka_unit_test(no_two_counters_give_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
