/* The sampler against a naive one in double precision (sort everything, no cleverness), its
 * distribution by chi-square on fixed seeds, ties, NaN, limits. */
#include "sampler/sampler.h"

#include "sampler/counted_random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 50 };

static struct sampling plain(float temperature)
{
    struct sampling s = SAMPLING_GREEDY;
    s.temperature = temperature;
    return s;
}

static int32_t pick(const struct sampling *s, const float *logits, int vocab,
                    const int32_t *history, int n_history, uint32_t position)
{
    struct sampler_scratch *scratch = sampler_scratch_new(vocab);
    float *copy = malloc((size_t)vocab * sizeof(float));
    memcpy(copy, logits, (size_t)vocab * sizeof(float));
    int32_t token;
    struct error e = {.text = ""};
    if (sampler_pick(s, scratch, copy, history, n_history, 0, position, &token, &e) != OK)
        fail_msg("%s", e.text);
    sampler_scratch_free(scratch);
    free(copy);
    return token;
}

/* ---- the naive sampler ---- */

struct naive {
    double logit[VOCAB], probability[VOCAB]; /* final ones; 0: filtered out */
    double margin; /* how far the nearest filter decision was from going the other way */
};

static void naive_penalties(struct naive *v, const struct sampling *s, const int32_t *history,
                            int n_history)
{
    int first =
        s->penalty_last_n < 0 || s->penalty_last_n > n_history ? 0 : n_history - s->penalty_last_n;
    for (int t = 0; t < VOCAB; t++) {
        int count = 0;
        for (int i = first; i < n_history; i++)
            count += history[i] == t;
        if (count == 0)
            continue;
        double l = v->logit[t], r = (double)s->repetition_penalty;
        l = l > 0 ? l / r : l * r;
        v->logit[t] = l - count * (double)s->frequency_penalty - (double)s->presence_penalty;
    }
}

static void naive_order(const struct naive *v, int *order)
{
    for (int i = 0; i < VOCAB; i++)
        order[i] = i;
    for (int i = 0; i < VOCAB; i++)
        for (int j = i + 1; j < VOCAB; j++)
            if (v->logit[order[j]] > v->logit[order[i]] ||
                (v->logit[order[j]] == v->logit[order[i]] && order[j] < order[i])) {
                int swapped = order[i];
                order[i] = order[j];
                order[j] = swapped;
            }
}

static void closer(struct naive *v, double distance)
{
    v->margin = fmin(v->margin, fabs(distance));
}

static void naive_run(struct naive *v, const struct sampling *s, const float *logits,
                      const int32_t *history, int n_history)
{
    int order[VOCAB], n_kept = VOCAB;
    v->margin = 1;
    for (int t = 0; t < VOCAB; t++)
        v->logit[t] = (double)logits[t];
    for (int i = 0; i < s->n_logit_bias; i++)
        v->logit[s->logit_bias[i].token] += (double)s->logit_bias[i].bias;
    naive_penalties(v, s, history, n_history);
    naive_order(v, order);
    double max = v->logit[order[0]], total = 0, sum = 0;
    if (s->top_k > 0 && s->top_k < n_kept)
        n_kept = s->top_k;
    for (int i = 0; i < n_kept; i++)
        total += exp(v->logit[order[i]] - max);
    if (s->top_p < 1) {
        for (int i = 0; i < n_kept; i++) {
            sum += exp(v->logit[order[i]] - max) / total;
            closer(v, sum - (double)s->top_p);
            if (sum >= (double)s->top_p)
                n_kept = i + 1;
        }
    }
    for (int i = 0; s->min_p > 0 && i < n_kept; i++) {
        closer(v, exp(v->logit[order[i]] - max) - (double)s->min_p);
        if (exp(v->logit[order[i]] - max) < (double)s->min_p)
            n_kept = i;
    }
    memset(v->probability, 0, sizeof(v->probability));
    total = 0;
    for (int i = 0; i < n_kept; i++)
        total += exp((v->logit[order[i]] - max) / (double)s->temperature);
    for (int i = 0; i < n_kept; i++)
        v->probability[order[i]] = exp((v->logit[order[i]] - max) / (double)s->temperature) / total;
}

/* The token at u in the cumulative distribution by id; *margin: how near u is to a border. */
static int32_t naive_draw(struct naive *v, double u)
{
    double sum = 0;
    for (int t = 0; t < VOCAB; t++) {
        sum += v->probability[t];
        if (v->probability[t] > 0)
            closer(v, sum - u);
        if (sum > u)
            return t;
    }
    return VOCAB - 1;
}

static float random_logit(unsigned *seed)
{
    return (float)(rand_r(seed) % 20000) / 1000 - 12;
}

/* Which settings a round uses: each alone, then all mixed. */
static struct sampling settings_of(int kind, unsigned *seed, struct logit_bias *bias)
{
    struct sampling s = plain(0.3f + (float)(rand_r(seed) % 20) / 10);
    s.seed = (uint64_t)rand_r(seed);
    bool all = kind == 7;
    if (kind == 1 || all)
        s.top_k = 1 + rand_r(seed) % VOCAB;
    if (kind == 2 || all)
        s.top_p = (float)(1 + rand_r(seed) % 99) / 100;
    if (kind == 3 || all)
        s.min_p = (float)(rand_r(seed) % 100) / 300;
    if (kind == 4 || all)
        s.repetition_penalty = 0.5f + (float)(rand_r(seed) % 20) / 10;
    if (kind == 5 || all) {
        s.presence_penalty = (float)(rand_r(seed) % 40) / 10 - 2;
        s.frequency_penalty = (float)(rand_r(seed) % 40) / 10 - 2;
        s.penalty_last_n = rand_r(seed) % 30 - 1;
    }
    if (kind == 6 || all) {
        for (int i = 0; i < 3; i++)
            bias[i] = (struct logit_bias){.token = (i * 7 + rand_r(seed) % 7) % VOCAB,
                                          .bias = (float)(rand_r(seed) % 200) / 10 - 10};
        bias[1].bias = -INFINITY;
        s.logit_bias = bias;
        s.n_logit_bias = 3;
    }
    return s;
}

static void every_filter_agrees_with_the_naive_one(void **state)
{
    (void)state;
    unsigned seed = 17;
    int n_compared = 0, n_different[8] = {0};
    for (int round = 0; round < 16000; round++) {
        float logits[VOCAB];
        int32_t history[25];
        struct logit_bias bias[3];
        int kind = round % 8, n_history = rand_r(&seed) % 26;
        for (int t = 0; t < VOCAB; t++)
            logits[t] = random_logit(&seed);
        for (int i = 0; i < n_history; i++)
            history[i] = rand_r(&seed) % VOCAB;
        struct sampling s = settings_of(kind, &seed, bias), off = plain(s.temperature);
        off.seed = s.seed;
        struct naive naive, unfiltered;
        naive_run(&naive, &s, logits, history, n_history);
        naive_run(&unfiltered, &off, logits, history, n_history);
        double u = counted_uniform(s.seed, 0, (uint32_t)round);
        int32_t expected = naive_draw(&naive, u);
        if (naive.margin < 1e-5) /* the two roundings may decide differently */
            continue;
        n_compared++;
        n_different[kind] += expected != naive_draw(&unfiltered, u);
        assert_int_equal(pick(&s, logits, VOCAB, history, n_history, (uint32_t)round), expected);
    }
    assert_true(n_compared > 15000);
    for (int kind = 1; kind < 8; kind++) /* the filters do something */
        assert_true(n_different[kind] > 50);
}

/* Many draws of one distribution: the counts fit the probabilities. */
static void draws_follow_the_distribution(void **state)
{
    (void)state;
    enum { N_DRAWS = 20000 };
    unsigned seed = 23;
    for (int round = 0; round < 8; round++) {
        float logits[VOCAB];
        struct logit_bias bias[3];
        for (int t = 0; t < VOCAB; t++)
            logits[t] = random_logit(&seed) / 6;
        struct sampling s = settings_of(round % 4, &seed, bias);
        struct naive naive;
        naive_run(&naive, &s, logits, NULL, 0);
        struct sampler_scratch *scratch = sampler_scratch_new(VOCAB);
        int counts[VOCAB] = {0};
        for (uint32_t i = 0; i < N_DRAWS; i++) {
            float copy[VOCAB];
            int32_t token;
            memcpy(copy, logits, sizeof(copy));
            assert_int_equal(sampler_pick(&s, scratch, copy, NULL, 0, i % 3, i / 3, &token, NULL),
                             OK);
            counts[token]++;
        }
        double sum = 0, rest = 0;
        int n_cells = 0, rest_count = 0;
        for (int t = 0; t < VOCAB; t++) {
            double expected = naive.probability[t] * N_DRAWS;
            if (naive.probability[t] == 0)
                assert_int_equal(counts[t], 0);
            if (expected < 8) { /* too rare for a cell of its own */
                rest += expected;
                rest_count += counts[t];
                continue;
            }
            sum += (counts[t] - expected) * (counts[t] - expected) / expected;
            n_cells++;
        }
        if (rest >= 8)
            sum += (rest_count - rest) * (rest_count - rest) / rest;
        /* Mean n_cells - 1, variance twice that; five sigma. */
        assert_true(sum < n_cells + 5 * sqrt(2.0 * n_cells));
        sampler_scratch_free(scratch);
    }
}

static void greedy_and_ties(void **state)
{
    (void)state;
    float logits[VOCAB] = {0};
    struct sampling greedy = SAMPLING_GREEDY, one = plain(1);
    one.top_k = 1;
    assert_int_equal(pick(&greedy, logits, VOCAB, NULL, 0, 0), 0);
    logits[9] = logits[31] = 2.5f;
    assert_int_equal(pick(&greedy, logits, VOCAB, NULL, 0, 0), 9);
    assert_int_equal(pick(&one, logits, VOCAB, NULL, 0, 0), 9);
    logits[40] = -0.0f;
    for (int t = 0; t < VOCAB; t++)
        logits[t] -= 3; /* negative ones too */
    assert_int_equal(pick(&greedy, logits, VOCAB, NULL, 0, 0), 9);
    /* Of equals at the border of top-k the lower ids are kept. */
    struct sampling three = plain(1);
    three.top_k = 3;
    for (uint32_t i = 0; i < 200; i++) {
        int32_t token = pick(&three, logits, VOCAB, NULL, 0, i);
        assert_true(token == 0 || token == 9 || token == 31);
    }
}

/* A filter at its "off" value, or one that removes nothing, changes no token. */
static void filters_that_remove_nothing_change_nothing(void **state)
{
    (void)state;
    unsigned seed = 29;
    float logits[VOCAB];
    for (int t = 0; t < VOCAB; t++)
        logits[t] = random_logit(&seed) / 4;
    struct sampling off = plain(0.9f), all = off, history_off = off;
    all.top_k = VOCAB;
    all.top_p = 0.99999f;
    all.min_p = 1e-30f;
    history_off.repetition_penalty = 2;
    history_off.penalty_last_n = 0;
    const int32_t history[] = {1, 2, 3};
    for (uint32_t i = 0; i < 300; i++) {
        int32_t token = pick(&off, logits, VOCAB, history, 3, i);
        assert_int_equal(pick(&all, logits, VOCAB, history, 3, i), token);
        assert_int_equal(pick(&history_off, logits, VOCAB, history, 3, i), token);
    }
}

static void broken_logits_are_told(void **state)
{
    (void)state;
    struct sampler_scratch *scratch = sampler_scratch_new(4);
    struct sampling s = plain(1);
    struct error e;
    int32_t token;
    float nan_there[] = {0, NAN, 0, 0}, infinite[] = {0, 0, INFINITY, 0};
    float none[] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    assert_int_equal(sampler_pick(&s, scratch, nan_there, NULL, 0, 0, 0, &token, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "token 1"));
    assert_int_equal(token, -1);
    assert_int_equal(sampler_pick(&s, scratch, infinite, NULL, 0, 0, 0, &token, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "token 2"));
    assert_int_equal(sampler_pick(&s, scratch, none, NULL, 0, 0, 0, &token, &e), ERR_INVALID);

    struct logit_bias ban[] = {{0, -INFINITY}, {1, -INFINITY}, {3, -INFINITY}};
    s.logit_bias = ban;
    s.n_logit_bias = 3;
    float three_banned[] = {9, 9, -3, 9};
    assert_int_equal(sampler_pick(&s, scratch, three_banned, NULL, 0, 0, 0, &token, &e), OK);
    assert_int_equal(token, 2);
    float all_banned[] = {9, 9, -INFINITY, 9};
    assert_int_equal(sampler_pick(&s, scratch, all_banned, NULL, 0, 0, 0, &token, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "logit_bias"));
    sampler_scratch_free(scratch);
}

/* The largest and smallest settings stay finite and choose the best token where nothing else has
 * weight. */
static void extremes_are_harmless(void **state)
{
    (void)state;
    const float logits[] = {-3e38f, 3e38f, 1, -INFINITY};
    const int32_t history[] = {0, 1, 1, 3};
    struct sampling s = plain(1e-30f);
    s.repetition_penalty = 1e-3f;
    s.frequency_penalty = -2;
    assert_int_equal(pick(&s, logits, 4, history, 4, 0), 1);
    s.temperature = SAMPLING_MAX_TEMPERATURE;
    s.min_p = 1;
    assert_int_equal(pick(&s, logits, 4, history, 4, 0), 1);
    const float single[] = {-7};
    assert_int_equal(pick(&s, single, 1, NULL, 0, 3), 0);
}

/* Scratch carries nothing from one call to the next. */
static void calls_are_independent(void **state)
{
    (void)state;
    struct sampler_scratch *scratch = sampler_scratch_new(VOCAB);
    unsigned seed = 31;
    struct sampling s = plain(0.8f);
    s.frequency_penalty = 1;
    s.top_p = 0.8f;
    for (uint32_t round = 0; round < 500; round++) {
        float logits[VOCAB], copy[VOCAB];
        int32_t history[10], token;
        for (int t = 0; t < VOCAB; t++)
            logits[t] = copy[t] = random_logit(&seed);
        for (int i = 0; i < 10; i++)
            history[i] = rand_r(&seed) % VOCAB;
        assert_int_equal(sampler_pick(&s, scratch, copy, history, 10, 0, round, &token, NULL), OK);
        assert_int_equal(token, pick(&s, logits, VOCAB, history, 10, round));
    }
    sampler_scratch_free(scratch);
}

/* The tokens of many settings over a large vocabulary, as one number: the same from every compiler,
 * processor and version. A change here changes the text that users have seen for their seeds. */
static void tokens_are_pinned(void **state)
{
    (void)state;
    enum { LARGE = 33001, N_SETTINGS = 9 };
    struct sampling s[N_SETTINGS];
    for (int i = 0; i < N_SETTINGS; i++) {
        s[i] = plain(0.9f);
        s[i].seed = 77;
    }
    s[1].top_k = 40, s[1].top_p = 0.95f;
    s[2].top_p = 0.9f;
    s[3].min_p = 0.02f;
    s[4].typical_p = 0.8f;
    s[5].xtc_probability = 0.5f, s[5].xtc_threshold = 0.01f;
    s[6].mirostat = 2;
    s[7].repetition_penalty = 1.2f, s[7].frequency_penalty = 0.3f;
    s[8].dry_multiplier = 2, s[8].top_k = 3;
    struct sampler_scratch *scratch = sampler_scratch_new(LARGE);
    static float logits[LARGE];
    uint64_t pin = 0;
    for (int i = 0; i < N_SETTINGS; i++) {
        struct sampler_memory memory = {0};
        int32_t history[200];
        for (int n = 0; n < 200; n++) {
            for (uint32_t t = 0; t < LARGE; t++) {
                double u = counted_uniform(5, (uint32_t)n % 5, t);
                logits[t] = (float)(u * u * u * u * (n % 2 == 0 ? 14 : 3));
            }
            struct sampler_input in = {.sampling = &s[i],
                                       .logits = logits,
                                       .history = history,
                                       .n_history = n,
                                       .position = (uint32_t)n};
            assert_int_equal(sampler_choose(scratch, &in, &memory, &history[n], NULL, NULL), OK);
            pin = counted_bits(pin, (uint32_t)i, (uint32_t)history[n]);
        }
    }
    sampler_scratch_free(scratch);
    if (pin != 0x51fdce4b77b41184u)
        fail_msg("expected another 0x%llx", (unsigned long long)pin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_filter_agrees_with_the_naive_one),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(greedy_and_ties),
        cmocka_unit_test(filters_that_remove_nothing_change_nothing),
        cmocka_unit_test(broken_logits_are_told),
        cmocka_unit_test(extremes_are_harmless),
        cmocka_unit_test(calls_are_independent),
        cmocka_unit_test(tokens_are_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
