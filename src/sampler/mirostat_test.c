/* Mirostat holds the surprise at tau; its memory goes with the tokens: copied, taken back or
 * computed again it gives the same text. (Each step against libm: sampler_oracle_test.c.) */
#include "sampler/sampler.h"

#include "sampler/counted_random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 500, N_TOKENS = 600 };

/* Logits of a position that depend on the token before, as those of a model do. */
static void model(const int32_t *tokens, int n, float *logits)
{
    uint32_t last = n > 0 ? (uint32_t)tokens[n - 1] : 0;
    for (uint32_t t = 0; t < VOCAB; t++)
        logits[t] = -1.2f * (float)log(1e-6 + counted_uniform(11, last, (uint32_t)n << 16 | t));
}

static int32_t step(const struct sampling *s, struct sampler_scratch *scratch,
                    const int32_t *tokens, int n, struct sampler_memory *memory)
{
    float logits[VOCAB];
    model(tokens, n, logits);
    struct sampler_input in = {.sampling = s,
                               .logits = logits,
                               .history = tokens,
                               .n_history = n,
                               .position = (uint32_t)n};
    int32_t token;
    struct error e;
    if (sampler_choose(scratch, &in, memory, &token, NULL, &e) != OK)
        fail_msg("%s", e.text);
    return token;
}

static struct sampling mirostat(float tau, float eta)
{
    struct sampling s = SAMPLING_GREEDY;
    s.temperature = 1;
    s.mirostat = 2;
    s.mirostat_tau = tau;
    s.mirostat_eta = eta;
    s.seed = 3;
    return s;
}

static void surprise_stays_about_tau(void **state)
{
    (void)state;
    struct sampler_scratch *scratch = sampler_scratch_new(VOCAB);
    for (int tau = 1; tau <= 4; tau++) {
        struct sampling s = mirostat((float)tau, 0.1f);
        struct sampler_memory memory = {0};
        int32_t tokens[N_TOKENS];
        for (int n = 0; n < N_TOKENS; n++)
            tokens[n] = step(&s, scratch, tokens, n, &memory);
        /* mu moves by eta * (tau - surprise) each time: the mean surprise is tau but for this. */
        double mean = tau - memory.mirostat_mu / (0.1 * N_TOKENS);
        assert_true(fabs(mean - tau) < 0.25);
    }
    sampler_scratch_free(scratch);
}

static void memory_belongs_to_the_tokens(void **state)
{
    (void)state;
    struct sampler_scratch *scratch = sampler_scratch_new(VOCAB),
                           *other = sampler_scratch_new(VOCAB);
    struct sampling s = mirostat(2.5f, 0.3f);
    struct sampler_memory memory[N_TOKENS + 1] = {{0}};
    int32_t tokens[N_TOKENS];
    for (int n = 0; n < N_TOKENS; n++) {
        memory[n + 1] = memory[n];
        tokens[n] = step(&s, scratch, tokens, n, &memory[n + 1]);
        assert_true(memory[n + 1].mirostat_mu != memory[n].mirostat_mu);
    }
    /* Another process goes on from a copy. */
    for (int start = 0; start < N_TOKENS; start += 97) {
        struct sampler_memory copy = memory[start];
        for (int n = start; n < N_TOKENS; n++)
            assert_int_equal(step(&s, other, tokens, n, &copy), tokens[n]);
        assert_memory_equal(&copy, &memory[N_TOKENS], sizeof copy);
    }
    /* Without the copy: the tokens are picked again from their logits. */
    struct sampler_memory again = {0};
    for (int n = 0; n < 300; n++)
        assert_int_equal(step(&s, other, tokens, n, &again), tokens[n]);
    assert_memory_equal(&again, &memory[300], sizeof again);
    /* It matters: from the beginning's memory the text is another. */
    struct sampler_memory fresh = {0};
    int n_other = 0;
    for (int n = 300; n < N_TOKENS; n++)
        n_other += step(&s, other, tokens, n, &fresh) != tokens[n];
    assert_true(n_other > 0);
    sampler_scratch_free(scratch);
    sampler_scratch_free(other);
}

/* Greedy ends before mirostat; other filters are not looked at; without a memory it is refused. */
static void where_it_stands_in_the_order(void **state)
{
    (void)state;
    struct sampler_scratch *scratch = sampler_scratch_new(VOCAB);
    struct sampling s = mirostat(3, 0.1f), filtered = s;
    filtered.top_k = 1;
    filtered.top_p = 0.01f;
    filtered.min_p = 1;
    filtered.typical_p = 0.01f;
    filtered.xtc_probability = 1;
    struct sampler_memory memory = {0}, memory_filtered = {0};
    int32_t tokens[50];
    for (int n = 0; n < 50; n++) {
        tokens[n] = step(&s, scratch, tokens, n, &memory);
        assert_int_equal(step(&filtered, scratch, tokens, n, &memory_filtered), tokens[n]);
    }
    struct sampler_memory before = memory;
    struct sampling greedy = SAMPLING_GREEDY;
    s.temperature = 0;
    assert_int_equal(step(&s, scratch, tokens, 50, &memory),
                     step(&greedy, scratch, tokens, 50, NULL));
    assert_memory_equal(&memory, &before, sizeof before);
    float logits[VOCAB] = {0};
    int32_t token;
    struct error e;
    assert_int_equal(sampler_pick(&s, scratch, logits, NULL, 0, 0, 0, &token, &e), ERR_INVALID);
    assert_int_equal(token, -1);
    assert_non_null(strstr(e.text, "mirostat"));
    /* An error leaves the memory as it was. */
    logits[4] = NAN;
    s.temperature = 1;
    struct sampler_input in = {.sampling = &s, .logits = logits};
    assert_int_equal(sampler_choose(scratch, &in, &memory, &token, NULL, &e), ERR_INVALID);
    assert_memory_equal(&memory, &before, sizeof before);
    sampler_scratch_free(scratch);
}

/* tau 0: only what is as good as the best; a high one keeps everything. */
static void the_ends_of_the_range(void **state)
{
    (void)state;
    struct sampler_scratch *scratch = sampler_scratch_new(VOCAB);
    struct sampling narrow = mirostat(0, 1), wide = mirostat(100, 1), off = SAMPLING_GREEDY;
    off.temperature = 1;
    off.seed = 3;
    struct sampler_memory memory = {0}, memory_wide = {0};
    int32_t tokens[50];
    for (int n = 0; n < 50; n++) {
        struct sampling greedy = SAMPLING_GREEDY;
        tokens[n] = step(&narrow, scratch, tokens, n, &memory);
        assert_int_equal(tokens[n], step(&greedy, scratch, tokens, n, NULL));
        assert_int_equal(step(&wide, scratch, tokens, n, &memory_wide),
                         step(&off, scratch, tokens, n, NULL));
    }
    sampler_scratch_free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(surprise_stays_about_tau),
        cmocka_unit_test(memory_belongs_to_the_tokens),
        cmocka_unit_test(where_it_stands_in_the_order),
        cmocka_unit_test(the_ends_of_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
