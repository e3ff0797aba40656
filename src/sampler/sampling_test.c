/* Every setting outside its range is refused by its name, with the range and what was found. */
#include "sampler/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 50 };

static void assert_refused(const struct sampling *s, const char *name)
{
    struct error e = {.text = ""};
    assert_int_equal(sampling_check(s, VOCAB, &e), ERR_INVALID);
    assert_memory_equal(e.text, name, strlen(name));
    assert_true(strncmp(e.text + strlen(name), ": expected ", 11) == 0);
    assert_non_null(strstr(e.text, ", found "));
}

static void settings_are_checked_by_name(void **state)
{
    (void)state;
#define FIELD(field_) #field_, offsetof(struct sampling, field_)
    static const struct {
        const char *name;
        size_t offset;
        float value;
    } bad[] = {
        {FIELD(temperature), -0.1f},     {FIELD(temperature), NAN},
        {FIELD(temperature), INFINITY},  {FIELD(top_p), 0},
        {FIELD(top_p), 1.01f},           {FIELD(top_p), NAN},
        {FIELD(min_p), -0.1f},           {FIELD(min_p), 1.1f},
        {FIELD(repetition_penalty), 0},  {FIELD(repetition_penalty), -1},
        {FIELD(presence_penalty), 2.1f}, {FIELD(frequency_penalty), -2.1f},
        {FIELD(typical_p), 0},           {FIELD(typical_p), 1.5f},
        {FIELD(xtc_probability), -1},    {FIELD(xtc_probability), 1.1f},
        {FIELD(xtc_threshold), -0.1f},   {FIELD(xtc_threshold), NAN},
        {FIELD(dry_multiplier), -0.1f},  {FIELD(dry_multiplier), INFINITY},
        {FIELD(dry_base), 0.9f},         {FIELD(dry_base), 101},
        {FIELD(mirostat_tau), -1},       {FIELD(mirostat_tau), 101},
        {FIELD(mirostat_eta), -0.1f},    {FIELD(mirostat_eta), 1.1f},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct sampling s = SAMPLING_GREEDY;
        memcpy((char *)&s + bad[i].offset, &bad[i].value, sizeof(bad[i].value));
        assert_refused(&s, bad[i].name);
    }
#define INTEGER(name_, field_, value_) \
    { \
        name_, offsetof(struct sampling, field_), value_ \
    }
    static const struct {
        const char *name;
        size_t offset;
        int value;
    } bad_integers[] = {
        INTEGER("top_k", top_k, -1),
        INTEGER("penalty_last_n", penalty_last_n, -2),
        INTEGER("dry_allowed_length", dry_allowed_length, 0),
        INTEGER("dry_penalty_last_n", dry_penalty_last_n, -2),
        INTEGER("top_logprobs", n_logprobs, -1),
        INTEGER("top_logprobs", n_logprobs, SAMPLING_MAX_LOGPROBS + 1),
        INTEGER("mirostat", mirostat, 1),
        INTEGER("mirostat", mirostat, 3),
        INTEGER("mirostat", mirostat, -2),
    };
    for (size_t i = 0; i < sizeof(bad_integers) / sizeof(bad_integers[0]); i++) {
        struct sampling s = SAMPLING_GREEDY;
        memcpy((char *)&s + bad_integers[i].offset, &bad_integers[i].value, sizeof(int));
        assert_refused(&s, bad_integers[i].name);
    }
    const struct logit_bias biases[] = {{VOCAB, 0}, {-1, 0}, {0, 101}, {0, NAN}, {0, INFINITY}};
    for (int i = 0; i < 5; i++) {
        struct sampling s = SAMPLING_GREEDY;
        s.logit_bias = &biases[i];
        s.n_logit_bias = 1;
        assert_refused(&s, "logit_bias");
    }
}

static void good_settings_pass(void **state)
{
    (void)state;
    struct error e;
    struct sampling good = SAMPLING_GREEDY;
    assert_int_equal(sampling_check(&good, VOCAB, &e), OK);
    const struct logit_bias ban = {VOCAB - 1, -INFINITY};
    good = (struct sampling){.temperature = 2,
                             .top_k = 1 << 30,
                             .typical_p = 1e-6f,
                             .xtc_probability = 1,
                             .xtc_threshold = 1,
                             .dry_multiplier = 100,
                             .dry_base = 1,
                             .dry_allowed_length = 1,
                             .dry_penalty_last_n = 0,
                             .mirostat = 2,
                             .mirostat_tau = 100,
                             .mirostat_eta = 1,
                             .n_logprobs = SAMPLING_MAX_LOGPROBS,
                             .top_p = 1e-6f,
                             .min_p = 1,
                             .repetition_penalty = 1.1f,
                             .presence_penalty = -2,
                             .frequency_penalty = 2,
                             .penalty_last_n = 64,
                             .logit_bias = &ban,
                             .n_logit_bias = 1};
    assert_int_equal(sampling_check(&good, VOCAB, &e), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_are_checked_by_name),
        cmocka_unit_test(good_settings_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
