/* The engine with its thread, over rings of the hashing backend: tokens, what is computed once,
 * crowds, limits, cancelling, the end of the ring. Built with TSan as well. */
#include "engine_rig.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void tokens_do_not_depend_on_the_ring(void **state)
{
    (void)state;
    static const struct rig_options rings[] = {
        {.n_stages = 1},
        {.n_stages = 1, .n_flights = 3, .max_rows = 3},
        {.n_stages = 2},
        {.n_stages = 3, .max_rows = 5, .n_slots = 3},
        {.n_stages = 4, .n_blocks = 9, .n_flights = 2},
        {.n_stages = 2, .n_blocks = 5, .max_draft = 8}, /* they take the blocks from each other */
        {.n_stages = 1, .max_draft = 4, .draft_blocks = 40},
        {.n_stages = 4, .n_slots = 2, .max_draft = 4, .draft_blocks = 12},
        {.n_stages = 3, .n_slots = 1, .n_blocks = 6, .max_draft = 2, .draft_blocks = 4},
    };
    static struct heard heard[N_REQUESTS];
    for (size_t r = 0; r < sizeof(rings) / sizeof(rings[0]); r++) {
        struct rig rig = rig_start(rings[r]);
        for (int i = 0; i < N_REQUESTS; i++) {
            heard_init(&heard[i]);
            submit(rig.engine, i, &heard[i]);
        }
        for (int i = 0; i < N_REQUESTS; i++) {
            wait_end(&heard[i]);
            assert_as_alone(&heard[i], i);
        }
        struct engine_stats stats;
        engine_stats(rig.engine, &stats);
        assert_int_equal(stats.requests, N_REQUESTS);
        assert_true(stats.steps > 0 && stats.output_tokens > 0);
        assert_all_free(rig.engine);
        rig_stop(&rig);
    }
}

/* Several threads submit and cancel at the same time. */
struct client {
    struct rig *rig;
    int first;
    pthread_t thread;
};

enum { N_CLIENTS = 4, PER_CLIENT = N_REQUESTS / N_CLIENTS };

static void *client_main(void *context)
{
    struct client *c = context;
    struct heard heard[PER_CLIENT], cancelled;
    for (int i = 0; i < PER_CLIENT; i++) {
        heard_init(&heard[i]);
        heard_init(&cancelled);
        submit(c->rig->engine, c->first + i, &heard[i]);
        engine_cancel(c->rig->engine, submit(c->rig->engine, 5, &cancelled));
        enum finish_reason finish = wait_end(&cancelled);
        assert_true(finish == FINISH_CANCELLED || finish == FINISH_LENGTH);
    }
    for (int i = 0; i < PER_CLIENT; i++) {
        wait_end(&heard[i]);
        assert_as_alone(&heard[i], c->first + i);
    }
    return NULL;
}

static void many_threads_at_once(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 2, .n_slots = 5});
    struct client clients[N_CLIENTS];
    for (int i = 0; i < N_CLIENTS; i++) {
        clients[i] = (struct client){.rig = &rig, .first = i * PER_CLIENT};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]), 0);
    }
    for (int i = 0; i < N_CLIENTS; i++)
        pthread_join(clients[i].thread, NULL);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* ---- what is computed once, or again ---- */

static void a_prompt_is_computed_once(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 2});
    struct heard heard[4];
    int32_t prompt[CONTEXT];
    for (int i = 0; i < 4; i++) {
        heard_init(&heard[i]);
        struct request_options o = plain(prompt, 100, 3, &heard[i]);
        submit_options(rig.engine, &o);
        wait_end(&heard[i]);
        assert_int_equal(heard[i].timings.n_cached, i == 0 ? 0 : 96); /* whole blocks */
        assert_memory_equal(heard[i].tokens, heard[0].tokens, 3 * sizeof(heard[0].tokens[0]));
    }
    struct engine_stats stats;
    engine_stats(rig.engine, &stats);
    assert_int_equal(stats.cached_tokens, 3 * 96);
    assert_int_equal(stats.started_tokens, 400);
    assert_true(stats.rows <= 100 + 3 * 4 + 4 * 2);
    assert_int_equal(stats.prompt_rows, 100 + 3 * 4); /* the rest are of tokens after the first */
    assert_int_equal(stats.rows - stats.prompt_rows, 4 * 2);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* All kinds of time are seen sooner or later: on a busy machine a request may be there before the
 * engine had a moment without any. */
static void the_engine_says_where_its_time_went(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 2, .pass_us = 500});
    struct heard heard;
    int32_t prompt[CONTEXT];
    heard_init(&heard);
    struct request_options o = plain(prompt, 20, 8, &heard);
    submit_options(rig.engine, &o);
    wait_end(&heard);
    struct engine_stats stats = {0};
    time_us until = clock_now_us() + 20 * 1000 * 1000;
    while (stats.wait_us == 0 || stats.idle_us == 0 || stats.other_us == 0) {
        assert_true(clock_now_us() < until);
        clock_sleep_us(1000);
        engine_stats(rig.engine, &stats);
    }
    rig_stop(&rig);
}

/* Prompts of several windows and answers of several more, in pools that hold fewer positions than
 * one of them has: on every ring the tokens of one long sequence after the other, all blocks
 * kept. */
static void windows_go_over_small_pools(void **state)
{
    (void)state;
    enum { N = 10, WINDOW = 20 };
    static const struct rig_options rings[] = {
        {.n_stages = 1, .max_rows = 1, .n_slots = 1, .window = WINDOW}, /* the others' measure */
        {.n_stages = 1, .n_blocks = 3, .window = WINDOW},
        {.n_stages = 1, .n_blocks = 5, .n_flights = 3, .max_rows = 7, .window = WINDOW},
        {.n_stages = 2, .n_blocks = 4, .max_draft = 8, .window = WINDOW},
        {.n_stages = 3, .n_blocks = 6, .n_slots = 3, .max_draft = 4, .window = WINDOW},
        {.n_stages = 4, .n_blocks = 7, .n_flights = 5, .max_draft = 8, .window = WINDOW},
        {.n_stages = 2}, /* without a window: others */
    };
    enum { N_RINGS = sizeof(rings) / sizeof(rings[0]) };
    static struct heard heard[N_RINGS][N];
    static const struct logit_bias few[] = {{.token = 3, .bias = 3}, {.token = 9, .bias = 3}};
    for (size_t r = 0; r < N_RINGS; r++) {
        struct rig rig = rig_start(rings[r]);
        int n_different = 0;
        for (int i = 0; i < N; i++) {
            int32_t prompt[CONTEXT];
            heard_init(&heard[r][i]);
            struct request_options o = plain(prompt, 45 + 3 * (i % 4), 65, &heard[r][i]);
            prompt[i % 3] = i % 2; /* some begin alike */
            o.sampling.temperature = i % 2 == 0 ? 0 : 1;
            o.sampling.seed = (uint64_t)i;
            if (i % 3 == 0) {
                o.sampling.logit_bias = few;
                o.sampling.n_logit_bias = 2;
            }
            submit_options(rig.engine, &o);
        }
        for (int i = 0; i < N; i++) {
            assert_int_equal(wait_end(&heard[r][i]), FINISH_LENGTH);
            assert_int_equal(heard[r][i].n_tokens, 65);
            n_different +=
                memcmp(heard[r][i].tokens, heard[0][i].tokens, 65 * sizeof(int32_t)) != 0;
        }
        if (rings[r].window > 0)
            assert_int_equal(n_different, 0);
        else
            assert_true(n_different > N / 2);
        assert_all_free(rig.engine);
        rig_stop(&rig);
    }
}

/* A stream that repeats itself takes fewer steps than it has tokens, and has the same tokens. */
static void guessing_ahead_saves_steps(void **state)
{
    (void)state;
    static const struct logit_bias few[] = {{.token = 3, .bias = 100}, {.token = 9, .bias = 99.5f}};
    struct heard heard[2];
    uint64_t steps[2];
    for (int draft = 0; draft < 2; draft++) {
        /* Steps that take a while, whatever is in them: rows are seen to be cheap. */
        struct rig rig =
            rig_start((struct rig_options){.n_stages = 1, .max_draft = 8 * draft, .pass_us = 1500});
        int32_t prompt[CONTEXT];
        heard_init(&heard[draft]);
        struct request_options o = plain(prompt, 10, 100, &heard[draft]);
        o.sampling.logit_bias = few;
        o.sampling.n_logit_bias = 2;
        submit_options(rig.engine, &o);
        wait_end(&heard[draft]);
        assert_int_equal(heard[draft].n_tokens, 100);
        struct engine_stats stats;
        engine_stats(rig.engine, &stats);
        steps[draft] = stats.steps;
        assert_int_equal(heard[draft].timings.n_guessed[GUESS_LOOKUP] > 0, draft);
        assert_int_equal(stats.right[GUESS_LOOKUP], heard[draft].timings.n_right[GUESS_LOOKUP]);
        rig_stop(&rig);
    }
    assert_memory_equal(heard[0].tokens, heard[1].tokens, 100 * sizeof(heard[0].tokens[0]));
    assert_int_equal(steps[0], 100);
    assert_true(steps[1] < 80);
}

/* Microseconds that 60 tokens of one stream take on three stages of 3 ms and a lead. */
static time_us time_of_one_stream(struct rig_options o, struct heard *h, struct engine_stats *stats)
{
    int32_t prompt[CONTEXT];
    o.n_stages = 4;
    o.pass_us = 3000;
    struct rig rig = rig_start(o);
    heard_init(h);
    struct request_options request = plain(prompt, 10, 60, h);
    submit_options(rig.engine, &request);
    assert_int_equal(wait_end(h), FINISH_LENGTH);
    engine_stats(rig.engine, stats);
    rig_stop(&rig);
    return h->timings.decode_us;
}

/* Going by the times that it sees itself, the engine sends further guesses while the first are on
 * their way, where a draft model knows them; the stream has its tokens sooner. */
static void one_stream_keeps_all_stages_at_work(void **state)
{
    (void)state;
    static struct heard plain_one, one, several;
    struct engine_stats stats;
    time_us plain_us = time_of_one_stream((struct rig_options){.n_flights = 5}, &plain_one, &stats);
    struct rig_options o = {.max_draft = 2, .draft_blocks = 20, .n_flights = 1};
    time_us one_us = time_of_one_stream(o, &one, &stats);
    assert_int_equal(stats.shares_ahead, 0);
    o.n_flights = 5;
    time_us several_us = time_of_one_stream(o, &several, &stats);
    assert_true(stats.shares_ahead > 5);
    assert_memory_equal(one.tokens, plain_one.tokens, 60 * sizeof(int32_t));
    assert_memory_equal(several.tokens, plain_one.tokens, 60 * sizeof(int32_t));
    print_message("one stream: %lld us without guesses, %lld with one step at a time, %lld with "
                  "several\n",
                  (long long)plain_us, (long long)one_us, (long long)several_us);
    assert_true(several_us < plain_us); /* which of the others is faster: sim_test, without noise */
}

/* ---- a crowd ---- */

enum { N_CROWD = 500 };

/* 500 requests at once against 6 blocks: each is answered, or refused at the door; the order in
 * which the answers begin is that of arrival. */
static void a_crowd_is_answered_or_refused(void **state)
{
    (void)state;
    static struct heard heard[N_CROWD];
    struct rig rig = rig_start((struct rig_options){
        .n_stages = 3, .n_blocks = 6, .n_slots = 6, .max_queued = 300, .max_draft = 4});
    bool refused[N_CROWD];
    int n_refused = 0;
    for (int i = 0; i < N_CROWD; i++) {
        int32_t prompt[64];
        heard_init(&heard[i]);
        struct request_options o = request_of(i % N_REQUESTS, prompt, &heard[i]);
        uint64_t id;
        struct error e;
        enum err err = engine_submit(rig.engine, &o, &id, &e);
        assert_true(err == OK || err == ERR_FULL);
        refused[i] = err != OK;
        n_refused += refused[i];
    }
    time_us longest = 0;
    for (int i = 0; i < N_CROWD; i++) {
        if (refused[i]) {
            assert_int_equal(heard[i].n_last, 0);
            continue;
        }
        wait_end(&heard[i]);
        assert_as_alone(&heard[i], i % N_REQUESTS);
        /* Nobody is overtaken by more than those who run beside it. */
        assert_true(heard[i].timings.queued_us >= longest - 2000000);
        longest = heard[i].timings.queued_us > longest ? heard[i].timings.queued_us : longest;
    }
    assert_in_range(n_refused, 1, N_CROWD - 306);
    struct engine_stats stats;
    engine_stats(rig.engine, &stats);
    assert_int_equal(stats.refused, n_refused);
    assert_int_equal(stats.requests, N_CROWD - n_refused);
    assert_int_equal(stats.ended[FINISH_LENGTH], N_CROWD - n_refused);
    assert_int_equal(stats.whole.n, N_CROWD - n_refused);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* Six long answers in the memory of two: they take turns, and lose nothing by it. */
static void who_gives_way_loses_no_token(void **state)
{
    (void)state;
    enum { N = 6, TOKENS = 70 };
    static struct heard heard[2][N];
    for (int small = 0; small < 2; small++) {
        struct rig rig = rig_start((struct rig_options){
            .n_stages = 2, .n_blocks = small ? 10 : 60, .n_slots = N, .max_draft = 4});
        for (int i = 0; i < N; i++) {
            int32_t prompt[CONTEXT];
            heard_init(&heard[small][i]);
            struct request_options o = plain(prompt, 5 + i, TOKENS, &heard[small][i]);
            o.sampling.temperature = 1;
            o.sampling.seed = (uint64_t)i;
            submit_options(rig.engine, &o);
        }
        int n_preempted = 0;
        for (int i = 0; i < N; i++) {
            assert_int_equal(wait_end(&heard[small][i]), FINISH_LENGTH);
            assert_int_equal(heard[small][i].n_tokens, TOKENS);
            n_preempted += heard[small][i].timings.n_preempted;
        }
        assert_int_equal(n_preempted > 0, small);
        assert_int_equal(heard[small][0].timings.n_preempted, 0); /* the first never gives way */
        assert_all_free(rig.engine);
        rig_stop(&rig);
    }
    for (int i = 0; i < N; i++)
        assert_memory_equal(heard[0][i].tokens, heard[1][i].tokens, TOKENS * sizeof(int32_t));
}

static void priorities_and_deadlines(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 1, .n_slots = 1, .pass_us = 6000});
    struct heard slow, late, urgent, overdue;
    int32_t prompt[CONTEXT];
    heard_init(&slow);
    heard_init(&late);
    heard_init(&urgent);
    heard_init(&overdue);
    struct request_options o = plain(prompt, 5, 60, &slow);
    submit_options(rig.engine, &o);
    wait_tokens(&slow, 1);
    o = plain(prompt, 6, 60, &late);
    o.deadline_us = 30000;
    submit_options(rig.engine, &o); /* waits behind the first until it is too late */
    o = plain(prompt, 7, 5, &urgent);
    o.priority = 1;
    submit_options(rig.engine, &o); /* takes the slot of the first */
    assert_int_equal(wait_end(&urgent), FINISH_LENGTH);
    assert_int_equal(slow.finish, FINISH_NONE);
    assert_int_equal(wait_end(&late), FINISH_ERROR);
    assert_int_equal(late.error.code, ERR_TIMEOUT);
    assert_non_null(strstr(late.error.text, "30 ms"));
    assert_int_equal(late.n_tokens, 0);
    assert_int_equal(wait_end(&slow), FINISH_LENGTH);
    assert_int_equal(slow.n_tokens, 60);
    assert_int_equal(slow.timings.n_preempted, 1);
    assert_true(slow.timings.stalled_us > 0);
    o = plain(prompt, 5, -1, &overdue);
    o.deadline_us = 100000;
    submit_options(rig.engine, &o); /* runs, but not that long */
    assert_int_equal(wait_end(&overdue), FINISH_ERROR);
    assert_in_range(overdue.n_tokens, 1, 60);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* ---- limits ---- */

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 1, .n_blocks = 4});
    struct heard h;
    heard_init(&h);
    int32_t prompt[CONTEXT + 1] = {0};
    struct request_options good = request_of(1, prompt, &h), o;
    uint64_t id;
    struct error e;
    o = good, o.n_prompt = 0;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    o = good, o.max_tokens = -2;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    o = good, o.sampling.top_p = 1.5f;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "top_p"));
    o = good, o.n_stop = 1, o.stop = (const char *const[]){"x"}; /* without a tokenizer */
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    prompt[0] = SIM_VOCAB;
    assert_int_equal(engine_submit(rig.engine, &good, &id, &e), ERR_INVALID);
    prompt[0] = 0;
    o = good, o.n_prompt = CONTEXT + 1;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "129"));
    o = good, o.n_prompt = 65; /* 4 blocks hold 64 */
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "65"));
    assert_int_equal(h.n_last, 0);
    rig_stop(&rig);
}

static void the_context_ends_a_request(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 1});
    struct heard h;
    int32_t prompt[CONTEXT] = {0};
    uint64_t id;
    struct error e;
    static const struct {
        int n_prompt, max_tokens, expected;
    } cases[] = {{100, -1, 28}, {100, 50, 28}, {100, 20, 20}, {127, 5, 1}, {128, 5, 0}, {9, 0, 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        heard_init(&h);
        struct request_options o = request_of(0, prompt, &h);
        o.n_prompt = cases[i].n_prompt;
        o.max_tokens = cases[i].max_tokens;
        assert_int_equal(engine_submit(rig.engine, &o, &id, &e), OK);
        assert_int_equal(wait_end(&h), FINISH_LENGTH);
        assert_int_equal(h.n_tokens, cases[i].expected);
    }
    rig_stop(&rig);
}

static void a_full_house_says_so(void **state)
{
    (void)state;
    struct rig rig = rig_start(
        (struct rig_options){.n_stages = 1, .n_slots = 1, .max_queued = 2, .pass_us = 60000});
    struct heard heard[4];
    uint64_t ids[3];
    for (int i = 0; i < 4; i++)
        heard_init(&heard[i]);
    for (int i = 0; i < 3; i++)
        ids[i] = submit(rig.engine, 5, &heard[i]);
    int32_t prompt[64];
    struct request_options o = request_of(5, prompt, &heard[3]);
    uint64_t id;
    struct error e;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_FULL);
    engine_cancel(rig.engine, ids[1]); /* waits for a slot */
    assert_int_equal(wait_end(&heard[1]), FINISH_CANCELLED);
    assert_int_equal(heard[1].n_tokens, 0);
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), OK);
    engine_cancel(rig.engine, 999); /* nobody */
    engine_free(rig.engine);
    int n_cancelled = 0;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(heard[i].n_last, 1);
        n_cancelled += heard[i].finish == FINISH_CANCELLED;
    }
    assert_in_range(n_cancelled, 3, 4);
    sim_ring_stop(rig.ring);
}

static void cancelled_from_its_own_event(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 3});
    struct heard h, other;
    heard_init(&h);
    heard_init(&other);
    h.engine = rig.engine;
    h.cancel_after = 3;
    pthread_mutex_lock(&h.lock); /* the id must be known before the event needs it */
    h.id = submit(rig.engine, 11, &h);
    pthread_mutex_unlock(&h.lock);
    submit(rig.engine, 10, &other);
    assert_int_equal(wait_end(&h), FINISH_CANCELLED);
    assert_in_range(h.n_tokens, 3, 4);
    assert_memory_equal(h.tokens, alone[11].tokens, 3 * sizeof(h.tokens[0]));
    wait_end(&other);
    assert_as_alone(&other, 10);
    assert_all_free(rig.engine);
    rig_stop(&rig);
}

/* ---- the end of the ring ---- */

static void a_dead_node_ends_every_request(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 3, .n_slots = 2, .pass_us = 3000});
    struct heard heard[4];
    for (int i = 0; i < 4; i++) {
        heard_init(&heard[i]);
        submit(rig.engine, 11, &heard[i]);
    }
    wait_tokens(&heard[0], 2);
    struct error e;
    assert_false(engine_failure(rig.engine, &e));
    sim_ring_kill(rig.ring, 1);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(wait_end(&heard[i]), FINISH_ERROR);
        assert_int_equal(heard[i].n_last, 1);
        assert_int_equal(heard[i].error.code, ERR_CLOSED);
    }
    assert_true(engine_failure(rig.engine, &e));
    assert_string_equal(e.text, heard[0].error.text);
    int32_t prompt[64];
    struct request_options o = request_of(1, prompt, &heard[0]);
    uint64_t id;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_CLOSED);
    rig_stop(&rig);
}

static void a_dead_node_is_noticed_when_idle(void **state)
{
    (void)state;
    struct rig rig = rig_start((struct rig_options){.n_stages = 2});
    struct error e = {.text = ""};
    sim_ring_kill(rig.ring, 0);
    for (int i = 0; i < 500 && !engine_failure(rig.engine, &e); i++)
        clock_sleep_us(10000);
    assert_int_equal(e.code, ERR_CLOSED);
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_do_not_depend_on_the_ring),
        cmocka_unit_test(windows_go_over_small_pools),
        cmocka_unit_test(many_threads_at_once),
        cmocka_unit_test(a_prompt_is_computed_once),
        cmocka_unit_test(the_engine_says_where_its_time_went),
        cmocka_unit_test(guessing_ahead_saves_steps),
        cmocka_unit_test(one_stream_keeps_all_stages_at_work),
        cmocka_unit_test(a_crowd_is_answered_or_refused),
        cmocka_unit_test(who_gives_way_loses_no_token),
        cmocka_unit_test(priorities_and_deadlines),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(the_context_ends_a_request),
        cmocka_unit_test(a_full_house_says_so),
        cmocka_unit_test(cancelled_from_its_own_event),
        cmocka_unit_test(a_dead_node_ends_every_request),
        cmocka_unit_test(a_dead_node_is_noticed_when_idle),
    };
    return cmocka_run_group_tests(tests, compute_alone, NULL);
}
