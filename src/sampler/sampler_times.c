/* How long a token takes to choose: one line for each setting, at 128 Ki and 152 k tokens, for a
 * peaked distribution (as of a model that knows what comes next), a broad one (normal logits) and a
 * flat one. Prints the least and the median of many calls, in microseconds; one thread. The logits
 * are copied before each call, as the backend would write them, outside the time.
 *
 * sampler_times [calls] */
#include "sampler/sampler.h"

#include "base/panic.h"
#include "sampler/counted_random.h"
#include "sampler/sampler_loops_impl.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_VOCAB = 152064, MAX_HISTORY = 131072 };

enum shape { PEAKED, BROAD, FLAT, N_SHAPES };
static const char *const shape_names[] = {"peaked", "broad", "flat"};

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Nearly normal: the sum of twelve uniform numbers. */
static float normal(uint32_t i)
{
    double sum = -6;
    for (uint32_t k = 0; k < 12; k++)
        sum += counted_uniform(1, k, i);
    return (float)sum;
}

static void fill(float *logits, int vocab, enum shape shape)
{
    for (int i = 0; i < vocab; i++)
        logits[i] = shape == FLAT ? 1e-3f * normal((uint32_t)i) : 2.5f * normal((uint32_t)i);
    for (int i = 0; shape == PEAKED && i < 40; i++)
        logits[(i * 7919 + 11) % vocab] = 20 - 0.5f * (float)i;
}

struct setting {
    const char *name;
    struct sampling sampling; /* 0: off, or the usual value */
    int n_history;
    bool logprobs;
};

static const struct setting settings[] = {
    {"greedy", {0}},
    {"greedy, 20 logprobs", {.n_logprobs = 20}, .logprobs = true},
    {"temperature 0.8", {.temperature = 0.8f}},
    {"top-k 40, top-p 0.95, T 0.8", {.top_k = 40, .top_p = 0.95f, .temperature = 0.8f}},
    {"… and 20 logprobs",
     {.top_k = 40, .top_p = 0.95f, .temperature = 0.8f, .n_logprobs = 20},
     .logprobs = true},
    {"top-k 5000", {.top_k = 5000, .temperature = 0.8f}},
    {"top-p 0.95", {.top_p = 0.95f, .temperature = 1}},
    {"top-p 0.95, T 0.8", {.top_p = 0.95f, .temperature = 0.8f}},
    {"min-p 0.05", {.min_p = 0.05f, .temperature = 1}},
    {"typical 0.9", {.typical_p = 0.9f, .temperature = 1}},
    {"XTC 0.5 / 0.1 always", {.xtc_probability = 1, .xtc_threshold = 0.1f, .temperature = 1}},
    {"mirostat", {.mirostat = 2, .temperature = 1}},
    {"repetition, 1024 back, greedy",
     {.repetition_penalty = 1.1f, .penalty_last_n = 1024},
     .n_history = MAX_HISTORY},
    {"penalties, 131072 back, top-k 40",
     {.repetition_penalty = 1.1f, .presence_penalty = 0.5f, .top_k = 40, .temperature = 1},
     .n_history = MAX_HISTORY},
    {"DRY, 131072 back, top-k 40",
     {.dry_multiplier = 0.8f, .top_k = 40, .temperature = 1},
     .n_history = MAX_HISTORY},
};
enum { N_SETTINGS = sizeof settings / sizeof settings[0] };

static struct sampling completed(struct sampling s)
{
    const struct sampling usual = SAMPLING_GREEDY;
    s.typical_p = s.typical_p > 0 ? s.typical_p : usual.typical_p;
    s.top_p = s.top_p > 0 ? s.top_p : usual.top_p;
    s.repetition_penalty = s.repetition_penalty > 0 ? s.repetition_penalty : 1;
    s.penalty_last_n = s.penalty_last_n > 0 ? s.penalty_last_n : usual.penalty_last_n;
    s.dry_base = usual.dry_base;
    s.dry_allowed_length = usual.dry_allowed_length;
    s.dry_penalty_last_n = usual.dry_penalty_last_n;
    s.mirostat_tau = usual.mirostat_tau;
    s.mirostat_eta = usual.mirostat_eta;
    s.seed = 7;
    return s;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void time_setting(const struct setting *s, struct sampler_scratch *scratch,
                         const float *logits, int vocab, const int32_t *history, int n_calls,
                         double *times)
{
    static float copy[MAX_VOCAB];
    struct sampling sampling = completed(s->sampling);
    struct sampler_memory memory = {0};
    struct sampler_logprobs logprobs;
    for (int i = 0; i < n_calls; i++) {
        memcpy(copy, logits, (size_t)vocab * sizeof copy[0]);
        struct sampler_input in = {.sampling = &sampling,
                                   .logits = copy,
                                   .history = history,
                                   .n_history = s->n_history,
                                   .position = (uint32_t)i};
        int32_t token;
        struct error e;
        double start = now_us();
        enum err err =
            sampler_choose(scratch, &in, &memory, &token, s->logprobs ? &logprobs : NULL, &e);
        times[i] = now_us() - start;
        if (err != OK)
            PANIC("%s", e.text);
    }
    qsort(times, (size_t)n_calls, sizeof times[0], ascending);
}

int main(int argc, char **argv)
{
    static float logits[N_SHAPES][MAX_VOCAB];
    static int32_t history[MAX_HISTORY];
    int n_calls = argc > 1 ? atoi(argv[1]) : 100;
    if (argc > 2 || n_calls < 1) {
        fprintf(stderr, "usage: sampler_times [calls]\n");
        return 64;
    }
    double *times = xcalloc((size_t)n_calls, sizeof times[0]);
    printf("%s; least and median of %d calls, us\n", sampler_loops()->name, n_calls);
    for (int vocab = 131072; vocab <= MAX_VOCAB; vocab += MAX_VOCAB - 131072) {
        struct sampler_scratch *scratch = sampler_scratch_new(vocab);
        for (int i = 0; i < MAX_HISTORY; i++) /* text repeats itself now and then */
            history[i] = (int32_t)(counted_bits(2, 0, (uint32_t)(i % 50000)) % (uint64_t)vocab);
        for (enum shape shape = 0; shape < N_SHAPES; shape++)
            fill(logits[shape], vocab, shape);
        printf("%-34s", vocab == 131072 ? "131072 tokens" : "152064 tokens");
        for (enum shape shape = 0; shape < N_SHAPES; shape++)
            printf("%17s", shape_names[shape]);
        putchar('\n');
        for (int i = 0; i < N_SETTINGS; i++) {
            printf("%-34s", settings[i].name);
            for (enum shape shape = 0; shape < N_SHAPES; shape++) {
                time_setting(&settings[i], scratch, logits[shape], vocab, history, n_calls, times);
                printf("%9.0f%8.0f", times[0], times[n_calls / 2]);
            }
            putchar('\n');
        }
        sampler_scratch_free(scratch);
    }
    free(times);
    return 0;
}
