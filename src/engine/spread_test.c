/* Decisions from given times, then whole rings on a fake clock: stages of given speeds behind a
 * schedule that is told how long they took. */
#include "engine/schedule_test_impl.h"
#include "engine/spread.h"

enum { LONG_ENOUGH = 40 };

static void nothing_is_decided_unseen(void **state)
{
    (void)state;
    struct spread s = {0};
    for (int i = 0; i < LONG_ENOUGH; i++)
        spread_decide(&s, 0);
    assert_false(s.is_wide);
}

static bool decided(int64_t gap_us, double own_us)
{
    struct spread s = {0};
    for (int i = 0; i < LONG_ENOUGH; i++) {
        spread_note_gap(&s, gap_us);
        spread_decide(&s, own_us);
    }
    return s.is_wide;
}

static void the_longer_one_is_hidden(void **state)
{
    (void)state;
    assert_false(decided(100, 5000));
    assert_true(decided(5000, 100));
    assert_false(decided(0, 0));
    assert_false(decided(-50, 0));     /* clocks of two machines */
    assert_false(decided(1100, 1000)); /* not clearly */
}

static void it_is_looked_at_again(void **state)
{
    (void)state;
    struct spread s = {0};
    for (int i = 0; i < LONG_ENOUGH; i++)
        spread_note_gap(&s, 5000);
    spread_decide(&s, 1000);
    assert_true(s.is_wide);
    int n = 0;
    for (; s.is_wide && n < 100000; n++) /* no gap is seen in the meantime */
        spread_decide(&s, 1000);
    assert_in_range(n, 500, 10000);
    for (int i = 0; i < LONG_ENOUGH; i++) {
        spread_note_gap(&s, 100);
        spread_decide(&s, 1000);
        assert_false(s.is_wide);
    }
    for (int i = 0; i < LONG_ENOUGH; i++)
        spread_note_gap(&s, 5000);
    spread_decide(&s, 1000);
    assert_true(s.is_wide);
    spread_decide(&s, 9000); /* the model's weights no longer fit a cache, say */
    assert_false(s.is_wide);
}

/* A ring on a fake clock. */
struct ring {
    int n_stages, n_flights;
    bool fits;
    int64_t own_us, row_us; /* of a step, in the slowest stage */
    int64_t quick_us;       /* in each of the others: own_us by this many less */
    int64_t hop_us;
};

/* How many tokens n streams get in a second. */
static int64_t rate(const struct ring *r, int n_streams, struct schedule_counts *counts)
{
    enum { STEPS = 4000, SETTLED = 1000, MOST_STAGES = 8, ROOM = 8000 };
    struct schedule *s =
        schedule_new(&(struct schedule_options){.max_context = 2 * ROOM,
                                                .n_blocks = n_streams * 2 * ROOM / 16,
                                                .n_slots = n_streams,
                                                .max_rows = 64,
                                                .n_flights = r->n_flights,
                                                .fit_flights = r->fits,
                                                .n_stages = r->n_stages,
                                                .max_sequences = n_streams});
    int64_t free_at[MOST_STAGES] = {0}, back_at[MOST_STAGES + 1], now = 1, from = 0, n_tokens = 0;
    struct step_times times[MOST_STAGES + 1];
    int first = 0, n_flying = 0;
    for (int i = 0; i < n_streams; i++)
        add_tokens(s, (int32_t[]){i + 10}, 1, ROOM, 0);
    for (int n = 0; n < STEPS; n++) {
        struct step step;
        schedule_clock(s, now);
        while (schedule_next(s, &step)) {
            int at = (first + n_flying++) % r->n_flights;
            int64_t t = now;
            times[at] = (struct step_times){0};
            for (int i = 0; i < r->n_stages; i++) {
                int64_t us = r->own_us + r->row_us * step.n_rows - (i > 0 ? r->quick_us : 0);
                t += r->hop_us;
                t = (t > free_at[i] ? t : free_at[i]) + us;
                free_at[i] = t;
                step_times_add(&times[at], us);
            }
            back_at[at] = t;
        }
        schedule_clock(s, now = now > back_at[first] ? now : back_at[first]);
        int wanted = schedule_returned(s, &times[first]);
        first = (first + 1) % r->n_flights;
        n_flying--;
        from = n == SETTLED ? now : from;
        n_tokens += n > SETTLED ? wanted : 0;
        for (int i = 0; i < wanted; i++)
            schedule_push(s, schedule_owner(s, i), 7);
    }
    schedule_count(s, counts);
    schedule_free(s);
    return n_tokens * 1000000 / (now - from);
}

/* With fitting against all flights always, in percent. */
static int gain(struct ring r, int n_streams, int *n_decode_flights)
{
    struct schedule_counts counts;
    int64_t fixed = rate(&r, n_streams, &counts);
    assert_int_equal(counts.n_decode_flights, r.n_flights);
    r.fits = true;
    int64_t fitted = rate(&r, n_streams, &counts);
    *n_decode_flights = counts.n_decode_flights;
    return (int)(fitted * 100 / fixed);
}

static void weights_are_read_no_more_often_than_stages_need(void **state)
{
    (void)state;
    int n;
    struct ring r = {.n_stages = 2, .n_flights = 3, .own_us = 8000, .row_us = 100, .hop_us = 100};
    assert_in_range(gain(r, 6, &n), 140, 150);
    assert_int_equal(n, 2);
    r = (struct ring){.n_stages = 4, .n_flights = 5, .own_us = 8000, .row_us = 100, .hop_us = 100};
    assert_in_range(gain(r, 20, &n), 115, 125);
    assert_int_equal(n, 4);
}

static void long_hops_are_hidden(void **state)
{
    (void)state;
    int n;
    struct ring r = {.n_stages = 3, .n_flights = 4, .own_us = 1000, .row_us = 900, .hop_us = 1500};
    assert_in_range(gain(r, 12, &n), 96, 102); /* it looks again at times */
    assert_int_equal(n, 4);
}

/* The slow stage is always busy: the others' waiting is no reason for one flight more. */
static void unequal_stages_need_no_more(void **state)
{
    (void)state;
    int n;
    struct ring r = {.n_stages = 3,
                     .n_flights = 4,
                     .own_us = 9000,
                     .quick_us = 8000,
                     .row_us = 10,
                     .hop_us = 300};
    assert_in_range(gain(r, 12, &n), 125, 140);
    assert_int_equal(n, 3);
}

static void few_streams_lose_nothing(void **state)
{
    (void)state;
    int n;
    struct ring r = {.n_stages = 4, .n_flights = 5, .own_us = 8000, .row_us = 100, .hop_us = 100};
    for (int n_streams = 1; n_streams <= 4; n_streams++)
        assert_in_range(gain(r, n_streams, &n), 99, 101);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_decided_unseen),
        cmocka_unit_test(the_longer_one_is_hidden),
        cmocka_unit_test(it_is_looked_at_again),
        cmocka_unit_test(weights_are_read_no_more_often_than_stages_need),
        cmocka_unit_test(long_hops_are_hidden),
        cmocka_unit_test(unequal_stages_need_no_more),
        cmocka_unit_test(few_streams_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
