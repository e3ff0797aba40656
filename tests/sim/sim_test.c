/* Simulated clusters: the same tokens however the work is cut and mixed; injected faults are
 * noticed; nothing leaks. Every run is a function of one seed, printed when something fails;
 * SHOAL_SIM_SEED takes the place of the fixed ones. */
#include "base/panic.h"
#include "sim/sim_cluster.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CONTEXT = 96, CONTEXT_BLOCKS = 6, N_LAYERS = 4, MAX_PROMPT = 70, MODEL_SEED = 5 };

/* ---- seeds ---- */

static uint64_t seeds[64];
static int n_seeds;

static int choose_seeds(void **state)
{
    (void)state;
    const char *given = getenv("SHOAL_SIM_SEED");
    n_seeds = given != NULL ? 1 : 8;
    for (int i = 0; i < n_seeds; i++)
        seeds[i] = given != NULL ? strtoull(given, NULL, 0) : 1000 + (uint64_t)i;
    return 0;
}

static int roll(uint64_t *random, int n) /* 0 … n - 1 */
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (int)((*random >> 33) % (uint64_t)n);
}

static int between(uint64_t *random, int least, int most)
{
    return least + roll(random, most - least + 1);
}

/* ---- requests of a seed ---- */

struct batch_of_requests {
    int n;
    struct sim_request *requests;
    int32_t (*prompts)[MAX_PROMPT];
};

/* Settings that a user may have. A few tokens are favoured sometimes, so that they repeat and
 * guesses come true. */
static void sample_somehow(uint64_t *random, int i, struct sampling *s)
{
    static const struct logit_bias few[] = {{.token = 3, .bias = 30}, {.token = 9, .bias = 30}};
    s->temperature = roll(random, 3) == 0 ? 0.3f : 1;
    s->top_p = 0.95f;
    s->repetition_penalty = roll(random, 2) == 0 ? 1.2f : 1;
    s->presence_penalty = roll(random, 3) == 0 ? 0.5f : 0;
    s->seed = (uint64_t)i;
    if (roll(random, 2) == 0) {
        s->logit_bias = few;
        s->n_logit_bias = 2;
        s->repetition_penalty = 1;
    }
}

/* And those that look at more than the logits: memory, history, random numbers of their own. */
static void sample_with_more(int i, struct sampling *s)
{
    static const uint64_t breakers[(SIM_VOCAB + 63) / 64] = {1u << 5 | 1u << 11};
    switch (i % 5) {
    case 0: s->mirostat = 2, s->mirostat_tau = 2, s->mirostat_eta = 0.5f; break;
    case 1: s->dry_multiplier = 3, s->dry_allowed_length = 1, s->dry_breakers = breakers; break;
    case 2: s->xtc_probability = 0.5f, s->xtc_threshold = 0.02f; break;
    case 3: s->typical_p = 0.7f, s->min_p = 0.01f; break;
    default: break;
    }
}

static void another_choice(struct batch_of_requests *b, int i)
{
    struct sim_request *r = &b->requests[i], *before = &b->requests[i - 1];
    memcpy(b->prompts[i], b->prompts[i - 1], sizeof(b->prompts[i]));
    r->n_prompt = before->n_prompt;
    r->sampling = before->sampling;
    r->choice = before->choice + 1;
    r->arrives_at = before->arrives_at;
}

static struct batch_of_requests make_requests(uint64_t *random, int n, int64_t within)
{
    struct batch_of_requests b = {.n = n,
                                  .requests = xcalloc((size_t)n, sizeof(struct sim_request)),
                                  .prompts = xcalloc((size_t)n, sizeof(int32_t[MAX_PROMPT]))};
    for (int i = 0; i < n; i++) {
        struct sim_request *r = &b.requests[i];
        *r = (struct sim_request){.prompt = b.prompts[i],
                                  .n_prompt = roll(random, 4) == 0 ? between(random, 1, MAX_PROMPT)
                                                                   : between(random, 1, 20),
                                  .max_tokens = between(random, 1, 26),
                                  .sampling = SAMPLING_GREEDY,
                                  .arrives_at = roll(random, (int)within),
                                  .cancelled_at = -1};
        /* Some prompts begin alike, so that cells of others are tempting, and rightly so. */
        int alike = roll(random, 3), until = between(random, 0, MAX_PROMPT);
        for (int j = 0; j < r->n_prompt; j++)
            b.prompts[i][j] = alike == 0 && j < until ? 1 + j % 5 : roll(random, SIM_VOCAB);
        if (roll(random, 2) == 0)
            sample_somehow(random, i, &r->sampling);
        sample_with_more(i, &r->sampling);
        r->priority = roll(random, 6) == 0 ? between(random, -1, 2) : 0;
        if (i > 0 && roll(random, 4) == 0) /* n > 1: another choice of the request before */
            another_choice(&b, i);
    }
    return b;
}

static void release_requests(struct batch_of_requests *b)
{
    free(b->requests);
    free(b->prompts);
}

/* A cluster of so many stages, all else at random. */
static struct sim_cluster_options random_cluster(uint64_t *random, int n_stages)
{
    struct sim_cluster_options o = {.shape = {.model_seed = MODEL_SEED,
                                              .n_layers = N_LAYERS,
                                              .n_stages = n_stages,
                                              .n_blocks = between(random, CONTEXT_BLOCKS, 30),
                                              .n_slots = between(random, 1, 8),
                                              .max_rows = between(random, 1, 24),
                                              .max_context = CONTEXT},
                                    .n_flights = between(random, 1, 6),
                                    .fit_flights = roll(random, 2) == 0,
                                    .min_chunk = between(random, 1, 30),
                                    .max_draft = roll(random, 3) == 0 ? 0 : between(random, 1, 16),
                                    .draft_blocks =
                                        roll(random, 2) == 0 ? 0 : between(random, 1, 30),
                                    .draft_seed = roll(random, 4) == 0 ? 6 : MODEL_SEED,
                                    .max_itl = roll(random, 3) == 0 ? between(random, 10, 400) : 0,
                                    .max_stretch = roll(random, 3) == 0 ? 1.5f : 0,
                                    .no_reuse = roll(random, 5) == 0,
                                    .seed = *random};
    return o;
}

static void run(const struct sim_cluster_options *o, struct sim_request *requests, int n,
                uint64_t seed, struct sim_outcome *outcome)
{
    struct error e = {.text = ""};
    if (sim_cluster_run(o, requests, n, outcome, &e) != OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, e.text);
    const struct schedule_counts *left = &outcome->left;
    if (left->waiting + left->running + left->in_flight + left->slots_used + left->blocks_used != 0)
        fail_msg("seed %llu: left behind: %d waiting, %d running, %d slots, %d blocks",
                 (unsigned long long)seed, left->waiting, left->running, left->slots_used,
                 left->blocks_used);
}

/* Each request for itself, one row a step, on one stage, with room for all of it. */
static void run_alone(struct batch_of_requests *b, int window, uint64_t seed)
{
    for (int i = 0; i < b->n; i++) {
        struct sim_cluster_options o = {.shape = {.model_seed = MODEL_SEED,
                                                  .n_layers = N_LAYERS,
                                                  .n_stages = 1,
                                                  .n_blocks = CONTEXT_BLOCKS,
                                                  .n_slots = 1,
                                                  .max_rows = 1,
                                                  .max_context = CONTEXT,
                                                  .window = window},
                                        .n_flights = 1,
                                        .seed = seed};
        struct sim_outcome outcome;
        run(&o, &b->requests[i], 1, seed, &outcome);
    }
}

/* Were the tokens of `got` those of `alone` (a beginning of them, if it was cancelled)? */
static bool same_tokens(const struct sim_request *got, const struct sim_request *alone)
{
    if (got->cancelled ? got->n_tokens > alone->n_tokens : got->n_tokens != alone->n_tokens)
        return false;
    return memcmp(got->tokens, alone->tokens, (size_t)got->n_tokens * sizeof(got->tokens[0])) == 0;
}

static struct sim_request *copy_of(const struct batch_of_requests *b)
{
    struct sim_request *copy = xcalloc((size_t)b->n, sizeof(copy[0]));
    memcpy(copy, b->requests, (size_t)b->n * sizeof(copy[0]));
    return copy;
}

/* ---- (1) the same tokens ---- */

/* What happened in the runs of a test, so that it can be seen to have tried something. */
struct happened {
    uint64_t preempted, cached, guessed[N_GUESS_SOURCES], right[N_GUESS_SOURCES], ahead;
    int n_cancelled;
};

static void note(struct happened *h, const struct schedule_counts *c)
{
    h->preempted += c->preempted;
    h->cached += c->cached_tokens;
    for (int i = 0; i < N_GUESS_SOURCES; i++) {
        h->guessed[i] += c->guessed[i];
        h->right[i] += c->right[i];
    }
    h->ahead += c->shares_ahead;
}

static void print_happened(const struct happened *h)
{
    static const char *const sources[] = {[GUESS_LOOKUP] = "look-up", [GUESS_MODEL] = "a model"};
    print_message("%llu preempted, %d cancelled, %llu tokens cached\n",
                  (unsigned long long)h->preempted, h->n_cancelled, (unsigned long long)h->cached);
    for (int i = 0; i < N_GUESS_SOURCES; i++)
        print_message("%llu guessed by %s, %llu right\n", (unsigned long long)h->guessed[i],
                      sources[i], (unsigned long long)h->right[i]);
    print_message("%llu times ahead of answers\n", (unsigned long long)h->ahead);
}

static void compare(const struct batch_of_requests *b, const struct sim_request *got, uint64_t seed,
                    int n_stages)
{
    for (int i = 0; i < b->n; i++)
        if (!got[i].ended || !same_tokens(&got[i], &b->requests[i]))
            fail_msg("seed %llu, %d stages: request %d got other tokens than alone",
                     (unsigned long long)seed, n_stages, i);
}

static void tokens_do_not_depend_on_the_cluster(void **state)
{
    (void)state;
    struct happened happened = {0};
    for (int s = 0; s < n_seeds; s++) {
        uint64_t random = seeds[s];
        struct batch_of_requests b = make_requests(&random, 40, 1500);
        run_alone(&b, 0, seeds[s]);
        for (int n_stages = 1; n_stages <= N_LAYERS + 1; n_stages++) {
            struct sim_request *got = copy_of(&b);
            struct sim_cluster_options o = random_cluster(&random, n_stages);
            if (roll(&random, 2) == 0)
                o.shape.n_blocks = between(&random, CONTEXT_BLOCKS, CONTEXT_BLOCKS + 3);
            for (int i = 0; i < b.n; i++)
                if (roll(&random, 6) == 0)
                    got[i].cancelled_at = got[i].arrives_at + roll(&random, 800);
            struct sim_outcome outcome;
            run(&o, got, b.n, seeds[s], &outcome);
            compare(&b, got, seeds[s], n_stages);
            note(&happened, &outcome.left);
            for (int i = 0; i < b.n; i++)
                happened.n_cancelled += got[i].cancelled;
            free(got);
        }
        release_requests(&b);
    }
    print_happened(&happened);
    if (n_seeds > 1) {
        assert_true(happened.preempted > 50 && happened.n_cancelled > 50);
        assert_true(happened.cached > 500);
        for (int i = 0; i < N_GUESS_SOURCES; i++)
            assert_true(happened.guessed[i] > 200 && happened.right[i] > 50);
    }
}

/* With a window the tables have holes, and small pools do for long sequences: still the same
 * tokens. A window that is longer than all changes nothing, others do. */
static void windows_change_the_model_and_nothing_else(void **state)
{
    (void)state;
    struct happened happened = {0};
    int n_other = 0;
    for (int s = 0; s < n_seeds; s++) {
        uint64_t random = seeds[s] + 20;
        struct batch_of_requests b = make_requests(&random, 30, 1500);
        for (int i = 0; i < b.n; i++)
            if (i % 2 == 0)
                b.requests[i].n_prompt = between(&random, 40, MAX_PROMPT);
        int window = s == 0 ? CONTEXT : between(&random, 1, 40);
        run_alone(&b, 0, seeds[s]);
        struct sim_request *without = copy_of(&b);
        run_alone(&b, window, seeds[s]);
        for (int i = 0; i < b.n; i++) {
            assert_true(s > 0 || same_tokens(&b.requests[i], &without[i]));
            n_other += !same_tokens(&b.requests[i], &without[i]);
        }
        free(without);
        for (int n_stages = 1; n_stages <= N_LAYERS + 1; n_stages++) {
            struct sim_request *got = copy_of(&b);
            struct sim_cluster_options o = random_cluster(&random, n_stages);
            int least = window == CONTEXT ? CONTEXT_BLOCKS : (window + 14) / KV_BLOCK_TOKENS + 1;
            o.shape.window = window;
            o.shape.n_blocks = between(&random, least, least + 2 + roll(&random, 6));
            for (int i = 0; i < b.n; i++)
                if (roll(&random, 6) == 0)
                    got[i].cancelled_at = got[i].arrives_at + roll(&random, 800);
            struct sim_outcome outcome;
            run(&o, got, b.n, seeds[s], &outcome);
            compare(&b, got, seeds[s], n_stages);
            note(&happened, &outcome.left);
            free(got);
        }
        release_requests(&b);
    }
    print_happened(&happened);
    if (n_seeds > 1) {
        assert_true(n_other > 40);
        assert_true(happened.preempted > 30 && happened.cached > 300 && happened.ahead > 50);
        for (int i = 0; i < N_GUESS_SOURCES; i++)
            assert_true(happened.right[i] > 30);
    }
}

/* Rows computed are those of the tokens, less what was found: nothing twice without need. */
static void nothing_is_computed_twice(void **state)
{
    (void)state;
    for (int s = 0; s < n_seeds; s++) {
        uint64_t random = seeds[s] + 40, rows_alone = 0;
        struct batch_of_requests b = make_requests(&random, 30, 1500);
        run_alone(&b, 0, seeds[s]);
        for (int i = 0; i < b.n; i++)
            rows_alone += (uint64_t)(b.requests[i].n_prompt + b.requests[i].n_tokens - 1);
        for (int i = 0; i < b.n; i++)
            b.requests[i].priority = 0; /* nobody gives way to another */
        for (int no_reuse = 0; no_reuse <= 1; no_reuse++) {
            struct sim_request *got = copy_of(&b);
            struct sim_cluster_options o = random_cluster(&random, 2);
            o.max_draft = 0;
            o.no_reuse = no_reuse == 1;
            o.shape.n_blocks = 200;
            struct sim_outcome outcome;
            run(&o, got, b.n, seeds[s], &outcome);
            compare(&b, got, seeds[s], 2);
            assert_int_equal(outcome.left.preempted, 0);
            assert_int_equal(outcome.n_rows, rows_alone - outcome.left.cached_tokens);
            assert_int_equal(outcome.left.cached_tokens > 0, no_reuse == 0);
            free(got);
        }
        release_requests(&b);
    }
}

/* Every kind of guessing on every ring of up to 4 stages with up to 5 flights, few streams at a
 * time in half of them, so that guesses go ahead of answers. */
static void guessing_changes_no_token(void **state)
{
    (void)state;
    enum { OFF, LOOK_UP, MODEL, N_MODES };
    struct happened happened[N_MODES] = {0};
    uint64_t random = seeds[0] + 7;
    struct batch_of_requests b = make_requests(&random, 24, 4000);
    run_alone(&b, 0, seeds[0]);
    for (int i = 0; i < N_MODES * 4 * 5; i++) {
        int mode = i % N_MODES, n_stages = 1 + i / N_MODES % 4;
        struct sim_cluster_options o = random_cluster(&random, n_stages);
        o.n_flights = 1 + i / (N_MODES * 4);
        o.shape.n_slots = between(&random, 1, roll(&random, 2) == 0 ? 2 : 6);
        o.shape.n_blocks = between(&random, CONTEXT_BLOCKS, CONTEXT_BLOCKS + 6);
        o.max_draft = mode == OFF ? 0 : between(&random, 1, 8);
        o.draft_blocks = mode == MODEL ? between(&random, 3, 20) : 0;
        struct sim_request *got = copy_of(&b);
        for (int j = 0; j < b.n; j++)
            if (roll(&random, 6) == 0)
                got[j].cancelled_at = got[j].arrives_at + roll(&random, 800);
        struct sim_outcome outcome;
        run(&o, got, b.n, seeds[0], &outcome);
        compare(&b, got, seeds[0], n_stages);
        note(&happened[mode], &outcome.left);
        for (int j = 0; j < b.n; j++)
            happened[mode].n_cancelled += got[j].cancelled;
        free(got);
    }
    release_requests(&b);
    assert_int_equal(happened[OFF].guessed[GUESS_LOOKUP] + happened[OFF].guessed[GUESS_MODEL], 0);
    assert_int_equal(happened[LOOK_UP].guessed[GUESS_MODEL], 0);
    print_happened(&happened[MODEL]);
    if (n_seeds > 1) {
        assert_true(happened[LOOK_UP].right[GUESS_LOOKUP] > 50);
        assert_true(happened[MODEL].right[GUESS_MODEL] > 200 && happened[MODEL].preempted > 5);
        assert_true(happened[MODEL].ahead > 100);
    }
}

/* ---- what guessing is for ---- */

/* The fake time that one stream of 60 tokens takes on a ring of 4 stages. */
static int64_t time_of_one_stream(int n_flights, int max_draft, struct schedule_counts *counts)
{
    static const struct logit_bias no_end = {.token = SIM_END_TOKEN, .bias = -INFINITY};
    static const int32_t prompt[] = {11, 5, 40, 17, 9, 33, 2};
    struct sim_request request = {.prompt = prompt,
                                  .n_prompt = 7,
                                  .max_tokens = 60,
                                  .sampling = SAMPLING_GREEDY,
                                  .cancelled_at = -1};
    request.sampling.logit_bias = &no_end;
    request.sampling.n_logit_bias = 1;
    struct sim_cluster_options o = {.shape = {.model_seed = MODEL_SEED,
                                              .n_layers = N_LAYERS,
                                              .n_stages = 4,
                                              .n_blocks = 20,
                                              .n_slots = 2,
                                              .max_rows = 32,
                                              .max_context = CONTEXT},
                                    .n_flights = n_flights,
                                    .max_draft = max_draft,
                                    .draft_blocks = max_draft > 0 ? 20 : 0,
                                    .draft_seed = MODEL_SEED,
                                    .seed = 9};
    static int32_t tokens[SIM_MAX_TOKENS];
    struct sim_outcome outcome;
    run(&o, &request, 1, 9, &outcome);
    assert_int_equal(request.n_tokens, 60);
    if (max_draft == 0)
        memcpy(tokens, request.tokens, sizeof(tokens));
    assert_memory_equal(tokens, request.tokens, 60 * sizeof(tokens[0]));
    *counts = outcome.left;
    return outcome.ended_at;
}

/* With a good draft and few rows a step, so that it is the steps that count: guessing saves ways
 * through the ring, and guessing ahead fills it. */
static void one_stream_fills_a_ring(void **state)
{
    (void)state;
    struct schedule_counts counts;
    int64_t plain = time_of_one_stream(5, 0, &counts);
    int64_t one = time_of_one_stream(1, 2, &counts);
    assert_int_equal(counts.shares_ahead, 0);
    int64_t ahead = time_of_one_stream(5, 2, &counts);
    assert_true(counts.shares_ahead > 10);
    print_message("one stream, 4 stages: %lld without guesses, %lld with one step at a time, %lld "
                  "with several\n",
                  (long long)plain, (long long)one, (long long)ahead);
    assert_true(10 * one < 6 * plain);
    assert_true(10 * ahead < 6 * one);
}

/* Different requests do get different tokens: equality above means something. */
static void tokens_depend_on_the_request(void **state)
{
    (void)state;
    uint64_t random = 77;
    struct batch_of_requests b = make_requests(&random, 2, 10);
    for (int i = 0; i < 2; i++) {
        memset(b.prompts[i], 0, sizeof(b.prompts[i]));
        b.requests[i].n_prompt = 40;
        b.requests[i].max_tokens = 20;
        b.requests[i].sampling = SAMPLING_GREEDY;
    }
    b.prompts[1][3] = 1;
    run_alone(&b, 0, 77);
    assert_false(same_tokens(&b.requests[0], &b.requests[1]));
    release_requests(&b);
}

/* A run is a function of its seed: the fake clock ends at the same moment. */
static void a_seed_replays(void **state)
{
    (void)state;
    uint64_t random = seeds[0];
    struct batch_of_requests b = make_requests(&random, 20, 300);
    struct sim_cluster_options o = random_cluster(&random, 3);
    struct sim_outcome first, second, other;
    run(&o, b.requests, b.n, seeds[0], &first);
    run(&o, b.requests, b.n, seeds[0], &second);
    assert_memory_equal(&first, &second, sizeof(first));
    int n_other = 0;
    for (int i = 0; i < 5; i++, n_other += other.ended_at != first.ended_at) {
        o.seed++;
        run(&o, b.requests, b.n, seeds[0], &other);
    }
    assert_true(n_other >= 3); /* two may end at the same moment */
    release_requests(&b);
}

/* ---- (2) faults are noticed ---- */

struct verdict {
    int n_happened, n_by_error, n_by_tokens;
};

/* Requests that start together and run long, so that whoever is harmed is still there. */
static struct batch_of_requests long_requests(uint64_t *random)
{
    struct batch_of_requests b = make_requests(random, 5, 10);
    for (int i = 0; i < b.n; i++) {
        b.requests[i].n_prompt = between(random, 8, 40);
        b.requests[i].max_tokens = 40;
        static const struct logit_bias no_end = {.token = SIM_END_TOKEN, .bias = -INFINITY};
        const struct sampling greedy = SAMPLING_GREEDY;
        b.requests[i].sampling = greedy;
        b.requests[i].sampling.logit_bias = &no_end;
        b.requests[i].sampling.n_logit_bias = 1;
        for (int j = 0; j < b.requests[i].n_prompt; j++)
            b.prompts[i][j] = 1 + roll(random, SIM_VOCAB - 1);
    }
    return b;
}

static void inject(enum sim_fault_kind kind, uint64_t seed, struct verdict *v)
{
    uint64_t random = seed;
    struct batch_of_requests b = long_requests(&random);
    run_alone(&b, 0, seed);
    for (int n_stages = 2; n_stages <= N_LAYERS; n_stages++) {
        /* Inside faults happen in workers; the lead's stage is behind the last hop. */
        int last_hop = sim_fault_is_inside(kind) ? n_stages - 2 : n_stages - 1;
        int first_hop = kind == FAULT_SWAP_PAYLOAD ? 1 : 0;
        if (kind == FAULT_INSIDE_WRONG_TOKEN)
            last_hop = 0;
        struct sim_cluster_options o = random_cluster(&random, n_stages);
        o.shape.n_slots = 5;
        o.shape.n_blocks = 30;
        o.shape.max_rows = between(&random, 4, 24);
        o.n_flights = between(&random, 2, 5); /* one alone has no frame behind it to swap with */
        o.max_draft = 0;                      /* a fault in the row of a wrong guess harms nobody */
        o.fault = (struct sim_fault){.kind = kind,
                                     .hop = between(&random, first_hop, last_hop),
                                     .from_step = (uint64_t)between(&random, 2, 12)};
        struct sim_request *got = copy_of(&b);
        struct sim_outcome outcome;
        struct error e;
        enum err err = sim_cluster_run(&o, got, b.n, &outcome, &e);
        int n_different = 0;
        for (int i = 0; i < b.n; i++)
            n_different += !same_tokens(&got[i], &b.requests[i]);
        v->n_happened += outcome.fault_happened;
        v->n_by_error += outcome.fault_happened && err != OK;
        v->n_by_tokens += outcome.fault_happened && err == OK && n_different > 0;
        if (outcome.fault_happened ? err == OK && n_different == 0 : err != OK || n_different > 0)
            fail_msg("seed %llu, %d stages, %s at hop %d from step %llu: %s",
                     (unsigned long long)seed, n_stages, sim_fault_name(kind), o.fault.hop,
                     (unsigned long long)o.fault.from_step,
                     outcome.fault_happened ? "not noticed" : "did not happen, and yet");
        free(got);
    }
    release_requests(&b);
}

static void injected_faults_are_noticed(void **state)
{
    (void)state;
    for (int kind = FAULT_NONE; kind < N_FAULTS; kind++) {
        struct verdict v = {0};
        for (int s = 0; s < n_seeds; s++)
            for (uint64_t i = 0; i < 3; i++)
                inject((enum sim_fault_kind)kind, seeds[s] + i * 100, &v);
        print_message("%-30s %3d times, noticed by an error %3d, by the tokens %3d\n",
                      sim_fault_name((enum sim_fault_kind)kind), v.n_happened, v.n_by_error,
                      v.n_by_tokens);
        if (kind == FAULT_NONE)
            assert_int_equal(v.n_happened, 0);
        else if (n_seeds > 1)
            assert_true(v.n_happened >= 40); /* of 72: it did happen most of the time */
    }
}

/* What can only be seen in the hashes is seen there. */
static void faults_inside_a_node_change_the_tokens(void **state)
{
    (void)state;
    static const enum sim_fault_kind kinds[] = {FAULT_SWAP_PAYLOAD, FAULT_INSIDE_WRONG_BLOCK,
                                                FAULT_INSIDE_FOREIGN_BLOCK, FAULT_INSIDE_LOST_ROW,
                                                FAULT_INSIDE_WRONG_TOKEN};
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        struct verdict v = {0};
        for (uint64_t seed = 1; seed <= 5; seed++)
            inject(kinds[k], seed, &v);
        assert_true(v.n_by_tokens > 5);
        assert_int_equal(v.n_by_error, 0);
    }
}

/* ---- (3) nothing leaks ---- */

static void thousands_of_requests_leave_nothing_behind(void **state)
{
    (void)state;
    for (int n_stages = 1; n_stages <= 3; n_stages += 2) {
        uint64_t random = seeds[0] + 5;
        struct batch_of_requests b = make_requests(&random, 2500, 60000);
        int n_cancelled = 0;
        for (int i = 0; i < b.n; i++)
            if (roll(&random, 3) == 0)
                b.requests[i].cancelled_at = b.requests[i].arrives_at + roll(&random, 400);
        struct sim_request *alone = copy_of(&b);
        struct sim_cluster_options o = random_cluster(&random, n_stages);
        o.shape.n_slots = 8;
        o.shape.max_rows = 16;
        o.n_flights = n_stages + 1;
        struct sim_outcome outcome;
        run(&o, b.requests, b.n, seeds[0], &outcome);
        struct batch_of_requests few = {.n = 40, .requests = alone};
        for (int i = 0; i < few.n; i++)
            alone[i].cancelled_at = -1;
        run_alone(&few, 0, seeds[0]);
        for (int i = 0; i < b.n; i++) {
            assert_true(b.requests[i].ended);
            n_cancelled += b.requests[i].cancelled;
            if (i < few.n)
                assert_true(same_tokens(&b.requests[i], &alone[i]));
        }
        assert_in_range(n_cancelled, 200, 900);
        free(alone);
        release_requests(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_do_not_depend_on_the_cluster),
        cmocka_unit_test(windows_change_the_model_and_nothing_else),
        cmocka_unit_test(nothing_is_computed_twice),
        cmocka_unit_test(guessing_changes_no_token),
        cmocka_unit_test(one_stream_fills_a_ring),
        cmocka_unit_test(tokens_depend_on_the_request),
        cmocka_unit_test(a_seed_replays),
        cmocka_unit_test(injected_faults_are_noticed),
        cmocka_unit_test(faults_inside_a_node_change_the_tokens),
        cmocka_unit_test(thousands_of_requests_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, choose_seeds, NULL);
}
