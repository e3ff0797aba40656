/* DRY against a naive one that compares suffixes at every place; bias and penalties over long
 * histories; what a window is. (Penalties alone against libm: sampler_test.c.) */
#include "sampler/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 130 };

static unsigned seed = 57;

static bool breaks(const struct sampling *s, int32_t token)
{
    return s->dry_breakers != NULL && (s->dry_breakers[token / 64] >> (token % 64) & 1) != 0;
}

/* The longest suffix of the window that stands before place i, without a breaker in it. */
static int suffix_before(const struct sampling *s, const int32_t *window, int n, int i)
{
    int length = 0;
    while (length < i && window[i - 1 - length] == window[n - 1 - length] &&
           !breaks(s, window[n - 1 - length]))
        length++;
    return length;
}

static void naive_dry(const struct sampling *s, const int32_t *history, int n_history,
                      double *logits)
{
    int n = s->dry_penalty_last_n < 0 || s->dry_penalty_last_n > n_history ? n_history
                                                                           : s->dry_penalty_last_n;
    const int32_t *window = history + (n_history - n);
    for (int32_t t = 0; t < VOCAB; t++) {
        int longest = 0;
        for (int i = 1; i < n; i++) { /* t stands at place i */
            int length = window[i] == t ? suffix_before(s, window, n, i) : 0;
            longest = length > longest ? length : longest;
        }
        if (longest >= s->dry_allowed_length && !breaks(s, t))
            logits[t] -= (double)s->dry_multiplier *
                         pow((double)s->dry_base, longest - s->dry_allowed_length);
    }
}

static int32_t pick(const struct sampling *s, struct sampler_scratch *scratch, const float *logits,
                    const int32_t *history, int n_history)
{
    float copy[VOCAB];
    int32_t token;
    struct error e;
    memcpy(copy, logits, sizeof copy);
    if (sampler_pick(s, scratch, copy, history, n_history, 0, 0, &token, &e) != OK)
        fail_msg("%s", e.text);
    return token;
}

/* Greedy over logits with and without: the order of all tokens is asked by banning the best one. */
static void assert_order(const struct sampling *s, struct sampler_scratch *scratch,
                         const float *logits, const double *expected, const int32_t *history,
                         int n_history)
{
    struct sampling banning = *s;
    struct logit_bias ban[12];
    double left[VOCAB];
    memcpy(left, expected, sizeof left);
    banning.logit_bias = ban;
    for (int i = 0; i < 12; i++) {
        banning.n_logit_bias = i;
        int32_t token = pick(&banning, scratch, logits, history, n_history);
        int best = 0;
        for (int t = 1; t < VOCAB; t++)
            if (left[t] > left[best])
                best = t;
        if (fabs(left[token] - left[best]) > 1e-3) /* nearer: rounding may decide */
            fail_msg("expected %d (%g), found %d (%g)", best, left[best], token, left[token]);
        left[token] = -INFINITY;
        ban[i] = (struct logit_bias){token, -INFINITY};
    }
}

/* Text of few words, with pieces copied from before. */
static int fill_history(int32_t *history, int n_max)
{
    int n = 1 + rand_r(&seed) % n_max, n_words = 2 + rand_r(&seed) % 30;
    for (int i = 0; i < n;) {
        int length = 1 + rand_r(&seed) % 12;
        int from = i > 0 && rand_r(&seed) % 2 == 0 ? rand_r(&seed) % i : -1;
        for (int k = 0; k < length && i < n; k++, i++)
            history[i] = from >= 0 ? history[from + k] : rand_r(&seed) % n_words;
    }
    return n;
}

static void dry_agrees_with_the_naive_one(void **state)
{
    (void)state;
    struct sampler_scratch *scratch = sampler_scratch_new(VOCAB);
    int n_changed = 0;
    for (int round = 0; round < 3000; round++) {
        int32_t history[200];
        float logits[VOCAB];
        double expected[VOCAB], before[VOCAB];
        uint64_t breakers[(VOCAB + 63) / 64] = {0};
        int n = fill_history(history, 200);
        for (int t = 0; t < VOCAB; t++) {
            logits[t] = (float)(rand_r(&seed) % 4000) / 1000 + (t < 32 ? 4 : 0);
            expected[t] = before[t] = (double)logits[t];
        }
        struct sampling s = SAMPLING_GREEDY;
        s.dry_multiplier = 0.1f + (float)(rand_r(&seed) % 20) / 10;
        s.dry_base = 1 + (float)(rand_r(&seed) % 10) / 10;
        s.dry_allowed_length = 1 + rand_r(&seed) % 4;
        s.dry_penalty_last_n = rand_r(&seed) % 2 == 0 ? -1 : rand_r(&seed) % 220;
        if (rand_r(&seed) % 2 == 0) {
            breakers[0] = 1u << rand_r(&seed) % 8 | 1u << rand_r(&seed) % 8;
            s.dry_breakers = breakers;
        }
        naive_dry(&s, history, n, expected);
        n_changed += memcmp(expected, before, sizeof before) != 0;
        assert_order(&s, scratch, logits, expected, history, n);
    }
    assert_true(n_changed > 1000);
    sampler_scratch_free(scratch);
}

/* a b c … a b: c would go on repeating; a breaker b forbids to see that, and is never punished. */
static void dry_in_small(void **state)
{
    (void)state;
    struct sampler_scratch *scratch = sampler_scratch_new(VOCAB);
    float logits[VOCAB] = {[3] = 5, [4] = 4.5f};
    const int32_t history[] = {1, 2, 3, 9, 1, 2};
    struct sampling s = SAMPLING_GREEDY;
    assert_int_equal(pick(&s, scratch, logits, history, 6), 3);
    s.dry_multiplier = 0.8f; /* of 2 tokens: 0.8 * 1.75^0 */
    assert_int_equal(pick(&s, scratch, logits, history, 6), 4);
    s.dry_multiplier = 0.4f;
    assert_int_equal(pick(&s, scratch, logits, history, 6), 3);
    s.dry_multiplier = 0.8f;
    s.dry_allowed_length = 3;
    assert_int_equal(pick(&s, scratch, logits, history, 6), 3);
    s.dry_allowed_length = 2;
    s.dry_penalty_last_n = 3; /* 9 1 2: nothing repeats */
    assert_int_equal(pick(&s, scratch, logits, history, 6), 3);
    s.dry_penalty_last_n = 0;
    assert_int_equal(pick(&s, scratch, logits, history, 6), 3);
    s.dry_penalty_last_n = -1;
    uint64_t breakers[3] = {1u << 2};
    s.dry_breakers = breakers;
    assert_int_equal(pick(&s, scratch, logits, history, 6), 3);
    breakers[0] = 1u << 3;
    assert_int_equal(pick(&s, scratch, logits, history, 6), 3);
    breakers[0] = 1u << 9; /* outside of what is repeated */
    assert_int_equal(pick(&s, scratch, logits, history, 6), 4);
    sampler_scratch_free(scratch);
}

/* A very long repetition: the penalty is held at the end of floats, and a banned token stays so. */
static void dry_of_endless_repetition(void **state)
{
    (void)state;
    enum { N = 200000 };
    struct sampler_scratch *scratch = sampler_scratch_new(VOCAB);
    int32_t *history = malloc(N * sizeof history[0]);
    for (int i = 0; i < N; i++)
        history[i] = 7;
    float logits[VOCAB] = {[7] = 100, [8] = -INFINITY};
    struct sampling s = SAMPLING_GREEDY;
    s.dry_multiplier = 1;
    assert_int_equal(pick(&s, scratch, logits, history, N), 0);
    for (int i = 0; i < VOCAB; i++)
        logits[i] = i == 7 ? 0 : -INFINITY;
    assert_int_equal(pick(&s, scratch, logits, history, N), 7); /* all that is left */
    logits[7] = -INFINITY;
    logits[9] = -1e30f;
    s.temperature = 1;
    assert_int_equal(pick(&s, scratch, logits, history, N), 9);
    free(history);
    sampler_scratch_free(scratch);
}

/* Token t stands t times in the history: frequency counts, presence and repetition do not. */
static void penalties_count_over_the_whole_window(void **state)
{
    (void)state;
    struct sampler_scratch *scratch = sampler_scratch_new(VOCAB);
    static int32_t history[VOCAB * VOCAB];
    int n = 0;
    for (int t = 0; t < VOCAB; t++)
        for (int i = 0; i < t; i++)
            history[n++] = t;
    float logits[VOCAB];
    for (int t = 0; t < VOCAB; t++)
        logits[t] = 0.4f * (float)t;
    struct sampling s = SAMPLING_GREEDY;
    assert_int_equal(pick(&s, scratch, logits, history, n), VOCAB - 1);
    s.presence_penalty = 1;
    assert_int_equal(pick(&s, scratch, logits, history, n), VOCAB - 1);
    s.frequency_penalty = 0.5f;
    assert_int_equal(pick(&s, scratch, logits, history, n), 0);
    s.penalty_last_n = 129 + 128; /* the last two tokens only */
    assert_int_equal(pick(&s, scratch, logits, history, n), VOCAB - 3);
    s.penalty_last_n = 0;
    assert_int_equal(pick(&s, scratch, logits, history, n), VOCAB - 1);
    sampler_scratch_free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dry_agrees_with_the_naive_one),
        cmocka_unit_test(dry_in_small),
        cmocka_unit_test(dry_of_endless_repetition),
        cmocka_unit_test(penalties_count_over_the_whole_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
