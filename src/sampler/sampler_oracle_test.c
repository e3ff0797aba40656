/* The whole chain against a naive one in double precision: sorts everything, walks lists, asks
 * libm. Vocabularies of several blocks, distributions of all shapes, equals, banned tokens. A case
 * where a decision hangs on the last digits is left out (`margin`); how many remain is asserted. */
#include "sampler/sampler.h"

#include "sampler/counted_random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_VOCAB = 1500 };

struct naive {
    int n;                       /* tokens left */
    int token[MAX_VOCAB];        /* best first */
    double logit[MAX_VOCAB];     /* of token[i] */
    double p[MAX_VOCAB];         /* of token[i] */
    double deviation[MAX_VOCAB]; /* typical: from the entropy */
    double margin;               /* how far the nearest decision was from going the other way */
};

static struct naive v;

static void closer(double distance)
{
    v.margin = fmin(v.margin, fabs(distance));
}

static const float *sort_logits;

static int best_first(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    if (sort_logits[x] != sort_logits[y])
        return sort_logits[x] < sort_logits[y] ? 1 : -1;
    return x - y;
}

static void naive_begin(const float *logits, int vocab)
{
    v.n = 0;
    v.margin = 1;
    for (int t = 0; t < vocab; t++)
        if (logits[t] > -INFINITY)
            v.token[v.n++] = t;
    sort_logits = logits;
    qsort(v.token, (size_t)v.n, sizeof v.token[0], best_first);
    for (int i = 0; i < v.n; i++)
        v.logit[i] = (double)logits[v.token[i]];
}

static void naive_softmax(double temperature)
{
    double total = 0;
    for (int i = 0; i < v.n; i++)
        total += v.p[i] = exp((v.logit[i] - v.logit[0]) / temperature);
    for (int i = 0; i < v.n; i++)
        v.p[i] /= total;
}

static void naive_keep(const bool *keep)
{
    int n = 0;
    for (int i = 0; i < v.n; i++) {
        if (!keep[i])
            continue;
        v.token[n] = v.token[i];
        v.logit[n] = v.logit[i];
        n++;
    }
    v.n = n;
}

static int nearest_first(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    if (v.deviation[x] != v.deviation[y])
        return v.deviation[x] > v.deviation[y] ? 1 : -1;
    return x - y; /* equal logits stand by id */
}

static void naive_typical(double typical_p)
{
    static int order[MAX_VOCAB];
    static bool keep[MAX_VOCAB];
    naive_softmax(1);
    double entropy = 0, sum = 0;
    for (int i = 0; i < v.n; i++)
        entropy -= v.p[i] > 0 ? v.p[i] * log(v.p[i]) : 0;
    for (int i = 0; i < v.n; i++) {
        order[i] = i;
        keep[i] = false;
        v.deviation[i] = fabs(-log(v.p[i]) - entropy);
    }
    qsort(order, (size_t)v.n, sizeof order[0], nearest_first);
    for (int i = 0; i < v.n; i++) {
        keep[order[i]] = true;
        sum += v.p[order[i]];
        closer(sum - typical_p);
        if (sum < typical_p)
            continue;
        if (i + 1 < v.n && v.logit[order[i]] != v.logit[order[i + 1]])
            closer(v.deviation[order[i + 1]] - v.deviation[order[i]]);
        break;
    }
    naive_keep(keep);
}

static void naive_top_p(double top_p)
{
    naive_softmax(1);
    double sum = 0;
    for (int i = 0; i < v.n; i++) {
        sum += v.p[i];
        closer(sum - top_p);
        if (sum >= top_p)
            v.n = i + 1;
    }
}

static void naive_min_p(double min_p)
{
    for (int i = 0; i < v.n; i++) {
        double p = exp(v.logit[i] - v.logit[0]);
        closer(p - min_p);
        if (p < min_p)
            v.n = i;
    }
}

static void naive_xtc(double threshold)
{
    naive_softmax(1);
    int n_top = 0;
    for (int i = 0; i < v.n; i++) {
        closer(v.p[i] - threshold);
        n_top += v.p[i] >= threshold;
    }
    for (int drop = n_top - 1; drop > 0; drop--) {
        memmove(v.token, v.token + 1, (size_t)(v.n - 1) * sizeof v.token[0]);
        memmove(v.logit, v.logit + 1, (size_t)(v.n - 1) * sizeof v.logit[0]);
        v.n--;
    }
}

static double u53(uint64_t seed, uint32_t choice, uint32_t position)
{
    return (double)(counted_bits(seed, choice, position) >> 11) * 0x1p-53;
}

static int by_token(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* By id, where the running sum exceeds u. */
static int naive_draw(double u)
{
    static int order[MAX_VOCAB];
    static double p[MAX_VOCAB];
    for (int i = 0; i < v.n; i++) {
        order[i] = v.token[i];
        p[v.token[i]] = v.p[i];
    }
    qsort(order, (size_t)v.n, sizeof order[0], by_token);
    double sum = 0;
    int found = -1;
    for (int i = 0; i < v.n; i++) {
        sum += p[order[i]];
        if (p[order[i]] > 0)
            closer(sum - u);
        if (sum > u && found < 0)
            found = order[i];
    }
    return found;
}

static double naive_p_of(int token)
{
    for (int i = 0; i < v.n; i++)
        if (v.token[i] == token)
            return v.p[i];
    return 0;
}

static int naive_filters(const struct sampling *s, uint32_t choice, uint32_t position)
{
    if (s->top_k > 0 && s->top_k < v.n)
        v.n = s->top_k;
    if (s->typical_p < 1)
        naive_typical((double)s->typical_p);
    if (s->top_p < 1)
        naive_top_p((double)s->top_p);
    if (s->min_p > 0)
        naive_min_p((double)s->min_p);
    double u = u53(s->seed, choice ^ 0x80000000u, position);
    if (s->xtc_probability > 0 && u < (double)s->xtc_probability)
        naive_xtc((double)s->xtc_threshold);
    naive_softmax((double)s->temperature);
    return naive_draw(u53(s->seed, choice, position));
}

static int naive_mirostat(const struct sampling *s, double *mu, uint32_t choice, uint32_t position)
{
    naive_softmax((double)s->temperature);
    int n = 1;
    for (int i = 0; i < v.n; i++)
        closer((-log2(v.p[i]) - *mu) / 10);
    while (n < v.n && (-log2(v.p[n]) <= *mu || v.logit[n] == v.logit[0]))
        n++;
    v.n = n;
    naive_softmax((double)s->temperature);
    int token = naive_draw(u53(s->seed, choice, position));
    *mu -= (double)s->mirostat_eta * (-log2(naive_p_of(token)) - (double)s->mirostat_tau);
    return token;
}

/* ---- cases ---- */

static unsigned seed = 41;

static double uniform(void)
{
    return rand_r(&seed) / (RAND_MAX + 1.0);
}

static void fill_logits(float *logits, int vocab, int shape)
{
    for (int i = 0; i < vocab; i++) {
        double x = uniform() + uniform() + uniform() + uniform() - 2;
        switch (shape) {
        case 0: logits[i] = (float)(x * 8); break;
        case 1: logits[i] = (float)(x * 0.01); break;     /* flat */
        case 2: logits[i] = (float)floor(x * 6); break;   /* equals */
        case 3: logits[i] = (float)(x * 40 - 900); break; /* peaked, far from 0 */
        default: logits[i] = uniform() < 0.4 ? -INFINITY : (float)(x * 5); break;
        }
    }
    logits[rand_r(&seed) % vocab] = (float)(shape == 3 ? -860 : shape == 1 ? 0 : 4);
}

enum { N_KINDS = 7 };

static struct sampling random_settings(int kind)
{
    struct sampling s = SAMPLING_GREEDY;
    bool all = kind == 6;
    s.temperature = (float)(0.3 + 2 * uniform());
    s.seed = (uint64_t)rand_r(&seed) << 20;
    if (kind == 0 || (all && uniform() < 0.6))
        s.top_k = 1 + rand_r(&seed) % (uniform() < 0.5 ? 20 : 500);
    if (kind == 1 || (all && uniform() < 0.6))
        s.typical_p = (float)(0.05 + 0.94 * uniform());
    if (kind == 2 || (all && uniform() < 0.6))
        s.top_p = (float)(uniform() < 0.2 ? 0.999 : 0.02 + 0.97 * uniform());
    if (kind == 3 || (all && uniform() < 0.6))
        s.min_p = (float)pow(10, -6 * uniform());
    if (kind == 4 || (all && uniform() < 0.6)) {
        s.xtc_probability = (float)(0.5 + uniform() / 2);
        s.xtc_threshold = (float)(0.5 * uniform() * uniform() * uniform());
    }
    if (kind == 5) {
        s.mirostat = 2;
        s.mirostat_tau = (float)(0.5 + 6 * uniform());
        s.mirostat_eta = (float)uniform();
    }
    return s;
}

static void choose(const struct sampling *s, struct sampler_scratch *scratch, const float *logits,
                   int vocab, uint32_t position, struct sampler_memory *memory, int32_t *token)
{
    static float copy[MAX_VOCAB];
    memcpy(copy, logits, (size_t)vocab * sizeof copy[0]);
    struct sampler_input in = {
        .sampling = s, .logits = copy, .choice = position % 3, .position = position};
    struct error e;
    if (sampler_choose(scratch, &in, memory, token, NULL, &e) != OK)
        fail_msg("%s", e.text);
}

static void every_filter_agrees_with_the_naive_one(void **state)
{
    (void)state;
    static const int vocabs[] = {1, 5, 63, 64, 65, 300, 1000, MAX_VOCAB};
    static float logits[MAX_VOCAB];
    int n_compared = 0, n_changed[N_KINDS] = {0};
    for (uint32_t round = 0; round < 12000; round++) {
        int vocab = vocabs[rand_r(&seed) % 8], kind = (int)round % N_KINDS;
        fill_logits(logits, vocab, rand_r(&seed) % 5);
        struct sampling s = random_settings(kind);
        double mu = 2 * (double)s.mirostat_tau;
        naive_begin(logits, vocab);
        int32_t expected = s.mirostat != 0 ? naive_mirostat(&s, &mu, round % 3, round)
                                           : naive_filters(&s, round % 3, round);
        if (v.margin < 1e-6 * vocab)
            continue;
        n_compared++;
        struct sampler_memory memory = {0};
        struct sampler_scratch *scratch = sampler_scratch_new(vocab);
        int32_t token, unfiltered;
        choose(&s, scratch, logits, vocab, round, &memory, &token);
        if (token != expected)
            fail_msg("round %u, kind %d, vocabulary %d: expected %d, found %d", round, kind, vocab,
                     expected, token);
        if (s.mirostat != 0)
            assert_true(fabs(mu - 2 * (double)s.mirostat_tau - memory.mirostat_mu) < 1e-4);
        struct sampling off = SAMPLING_GREEDY;
        off.temperature = s.temperature;
        off.seed = s.seed;
        choose(&off, scratch, logits, vocab, round, NULL, &unfiltered);
        n_changed[kind] += token != unfiltered;
        sampler_scratch_free(scratch);
    }
    assert_true(n_compared > 8000);
    for (int kind = 0; kind < N_KINDS; kind++) /* the filters do something */
        assert_true(n_changed[kind] > 100);
}

/* ---- logprobs ---- */

static void logprobs_are_those_of_the_model(void **state)
{
    (void)state;
    static float logits[MAX_VOCAB], copy[MAX_VOCAB];
    for (int round = 0; round < 400; round++) {
        int vocab = 1 + rand_r(&seed) % (round % 2 == 0 ? 30 : MAX_VOCAB);
        fill_logits(logits, vocab, round % 5);
        memcpy(copy, logits, sizeof copy);
        naive_begin(logits, vocab);
        naive_softmax(1);
        struct sampling s = random_settings(6);
        struct logit_bias bias = {v.token[0], -50}; /* must not show */
        s.logit_bias = &bias;
        s.n_logit_bias = 1;
        s.n_logprobs = rand_r(&seed) % (SAMPLING_MAX_LOGPROBS + 1);
        struct sampler_scratch *scratch = sampler_scratch_new(vocab);
        struct sampler_input in = {.sampling = &s, .logits = copy, .position = (uint32_t)round};
        struct sampler_logprobs found;
        int32_t token;
        assert_int_equal(sampler_choose(scratch, &in, NULL, &token, &found, NULL), OK);
        assert_true(fabs((double)found.chosen - log(naive_p_of(token))) < 1e-4);
        assert_int_equal(found.n, s.n_logprobs < v.n ? s.n_logprobs : v.n);
        double sum = 0;
        for (int i = 0; i < found.n; i++) {
            assert_int_equal(found.top[i].token, v.token[i]);
            assert_true(fabs((double)found.top[i].logprob - log(v.p[i])) < 1e-4);
            assert_true(i == 0 || found.top[i].logprob <= found.top[i - 1].logprob);
            sum += exp((double)found.top[i].logprob);
        }
        assert_true(sum < 1 + 1e-5);
        if (found.n == v.n)
            assert_true(sum > 1 - 1e-5);
        sampler_scratch_free(scratch);
    }
}

/* ---- properties ---- */

/* How many different tokens 400 draws give. */
static int n_drawn(const struct sampling *s, const float *logits, int vocab)
{
    static bool drawn[MAX_VOCAB];
    memset(drawn, 0, sizeof drawn);
    struct sampler_scratch *scratch = sampler_scratch_new(vocab);
    int n = 0;
    for (uint32_t position = 0; position < 400; position++) {
        int32_t token;
        choose(s, scratch, logits, vocab, position, NULL, &token);
        n += !drawn[token];
        drawn[token] = true;
    }
    sampler_scratch_free(scratch);
    return n;
}

/* The stronger the setting, the fewer tokens: for one random number a cut only takes away. */
static void stronger_settings_leave_less(void **state)
{
    (void)state;
    static float logits[300];
    fill_logits(logits, 300, 0);
    static const float steps[] = {1, 0.9f, 0.6f, 0.3f, 0.05f};
    int last[4] = {300, 300, 300, 300};
    for (int i = 0; i < 5; i++) {
        struct sampling s[4];
        for (int kind = 0; kind < 4; kind++) {
            s[kind] = SAMPLING_GREEDY;
            s[kind].temperature = 3;
        }
        s[0].top_p = steps[i];
        s[1].typical_p = steps[i];
        s[2].min_p = 1 - steps[i];
        s[3].top_k = (int)(300 * steps[i] * steps[i]) + 1;
        for (int kind = 0; kind < 4; kind++) {
            int n = n_drawn(&s[kind], logits, 300);
            assert_true(n <= last[kind] + 10); /* other tokens, other random numbers */
            last[kind] = n;
        }
    }
    assert_true(last[0] < 5 && last[1] < 40 && last[2] < 5 && last[3] == 1);
}

static void xtc_spares_the_last_of_the_likely(void **state)
{
    (void)state;
    float logits[] = {2, 3, -20, 2.5f, 3, -30, 2}; /* 0.11 0.31 0 0.19 0.31 0 0.11: less 1 % */
    struct sampling s = SAMPLING_GREEDY;
    s.temperature = 1;
    s.xtc_probability = 1;
    s.xtc_threshold = 0.15f;
    struct sampler_scratch *scratch = sampler_scratch_new(7);
    int n_seen[7] = {0};
    for (uint32_t position = 0; position < 300; position++) {
        int32_t token;
        choose(&s, scratch, logits, 7, position, NULL, &token);
        n_seen[token]++;
    }
    assert_int_equal(n_seen[1] + n_seen[4], 0);
    assert_true(n_seen[3] > 90 && n_seen[0] > 50 && n_seen[6] > 50);
    s.xtc_threshold = 0.25f; /* of the two equals the higher id is last */
    memset(n_seen, 0, sizeof n_seen);
    for (uint32_t position = 0; position < 300; position++) {
        int32_t token;
        choose(&s, scratch, logits, 7, position, NULL, &token);
        n_seen[token]++;
    }
    assert_int_equal(n_seen[1], 0);
    assert_true(n_seen[4] > 80);
    s.xtc_probability = 0.25f; /* now and then only */
    int n_excluded_missing = 0;
    for (uint32_t position = 0; position < 2000; position++) {
        int32_t token;
        choose(&s, scratch, logits, 7, position, NULL, &token);
        n_excluded_missing += token == 1;
    }
    assert_true(n_excluded_missing > 350 && n_excluded_missing < 560); /* 0.75 * 0.30 * 2000 */
    sampler_scratch_free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_filter_agrees_with_the_naive_one),
        cmocka_unit_test(logprobs_are_those_of_the_model),
        cmocka_unit_test(stronger_settings_leave_less),
        cmocka_unit_test(xtc_spares_the_last_of_the_likely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
