#include "engine/schedule.h"

#include "base/bounds.h"
#include "base/window.h"
#include "engine/draft.h"
#include "engine/pace.h"
#include "engine/schedule_test_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct schedule *make(int n_slots, int n_blocks, int max_rows, int n_flights)
{
    return schedule_new(&(struct schedule_options){.max_context = 1000,
                                                   .n_blocks = n_blocks,
                                                   .n_slots = n_slots,
                                                   .max_rows = max_rows,
                                                   .n_flights = n_flights,
                                                   .max_sequences = 64,
                                                   .min_chunk = 4});
}

/* A prompt that no other has the beginning of. */
static int add(struct schedule *s, int n_prompt, int room)
{
    static int n_added;
    int32_t prompt[1000];
    n_added++;
    for (int i = 0; i < n_prompt; i++)
        prompt[i] = 1000 * n_added + i;
    return add_tokens(s, prompt, n_prompt, room, 0);
}

/* The oldest step returns; every sequence that wanted logits gets a token. */
static int return_and_push_after(struct schedule *s, int64_t us)
{
    struct step_times times = {0};
    step_times_add(&times, us);
    int n = schedule_returned(s, us > 0 ? &times : NULL);
    for (int i = 0; i < n; i++)
        if (schedule_owner(s, i) >= 0)
            schedule_push(s, schedule_owner(s, i), 7);
    return n;
}

static int return_and_push(struct schedule *s)
{
    return return_and_push_after(s, 0);
}

static void one_request_alone(void **state)
{
    (void)state;
    struct schedule *s = make(2, 10, 8, 1);
    assert_string_equal(next(s), "none");
    int sequence = add(s, 3, 2);
    assert_string_equal(next(s), "o0 a0:0 0@0 0@1 0@2!");
    assert_string_equal(next(s), "none"); /* the only flight is out */
    assert_int_equal(schedule_returned(s, NULL), 1);
    assert_int_equal(schedule_owner(s, 0), sequence);
    assert_true(schedule_push(s, sequence, 42));
    struct step step;
    assert_true(schedule_next(s, &step));
    assert_string_equal(text_of(&step), "0@3!");
    assert_int_equal(step.rows[0].token, 42);
    assert_int_equal(schedule_returned(s, NULL), 1);
    assert_false(schedule_push(s, sequence, 43)); /* room was 2 */
    int n_tokens;
    assert_int_equal(schedule_tokens(s, sequence, &n_tokens)[4], 43);
    assert_int_equal(n_tokens, 5);
    schedule_end(s, sequence);
    assert_string_equal(next(s), "none");
    add(s, 1, 1);
    assert_string_equal(next(s), "c0 o0 a0:0 0@0!"); /* the close comes before the reuse */
    schedule_free(s);
}

static void prompt_chunks_follow_each_other_in_flights(void **state)
{
    (void)state;
    struct schedule *s = make(2, 10, 5, 3);
    add(s, 12, 5);
    assert_string_equal(next(s), "o0 a0:0 0@0 0@1 0@2 0@3"); /* a third of 12, at least 4 */
    assert_string_equal(next(s), "0@4 0@5 0@6 0@7");
    assert_string_equal(next(s), "0@8 0@9 0@10 0@11!");
    assert_string_equal(next(s), "none");
    assert_int_equal(return_and_push(s), 0);
    assert_string_equal(next(s), "none"); /* nothing to decode before the last row returns */
    assert_int_equal(return_and_push(s), 0);
    assert_int_equal(return_and_push(s), 1);
    assert_string_equal(next(s), "0@12!");
    assert_string_equal(next(s), "none"); /* one decode row in flight at most */
    schedule_free(s);
}

/* The rows of the first steps of these prompts, with so many flights. */
static void take_chunks(int n_flights, int n_prompts, int n_tokens, int *rows, int n_rows)
{
    struct schedule *s = schedule_new(&(struct schedule_options){.max_context = 4096,
                                                                 .n_blocks = 600,
                                                                 .n_slots = 8,
                                                                 .max_rows = 512,
                                                                 .n_flights = n_flights,
                                                                 .max_sequences = 8,
                                                                 .no_reuse = true});
    int32_t *prompt = calloc((size_t)n_tokens, sizeof(*prompt));
    assert_non_null(prompt);
    for (int i = 0; i < n_prompts; i++)
        add_tokens(s, prompt, n_tokens, 1, 0);
    free(prompt);
    int in_flight = 0;
    for (int i = 0; i < n_rows; i++) {
        struct step step;
        rows[i] = schedule_next(s, &step) ? (int)step.n_rows : 0;
        in_flight += rows[i] > 0;
        while (in_flight == n_flights) { /* decode rows would come beside: the sequence ends */
            int n = schedule_returned(s, NULL);
            in_flight--;
            for (int j = 0; j < n; j++)
                schedule_end(s, schedule_owner(s, j));
        }
    }
    for (; in_flight > 0; in_flight--)
        schedule_returned(s, NULL);
    schedule_free(s);
}

static void chunks_suit_the_length_of_the_ring(void **state)
{
    (void)state;
    int rows[32];
    take_chunks(1, 1, 2048, rows, 4); /* alone: as few as can be */
    for (int i = 0; i < 4; i++)
        assert_int_equal(rows[i], 512);
    take_chunks(3, 1, 2048, rows, 23); /* the root of 2048 x 4 */
    for (int i = 0; i < 22; i++)
        assert_int_equal(rows[i], 90);
    assert_int_equal(rows[22], 2048 - 22 * 90);
    take_chunks(5, 1, 2048, rows, 30); /* three stages idle for a chunk */
    for (int i = 0; i < 30; i++)
        assert_in_range(rows[i], 50, 54);
    take_chunks(3, 8, 400, rows, 28); /* what is left gets less, the chunks do not */
    for (int i = 0; i < 28; i++)
        assert_in_range(rows[i], 110, 115);
    take_chunks(3, 1, 90, rows, 3); /* not below the least that a chunk may have */
    assert_true(rows[0] == 32 && rows[1] == 32 && rows[2] == 26);
}

static void decoding_comes_first_and_prompts_fill_up(void **state)
{
    (void)state;
    struct schedule *s = make(3, 10, 6, 1);
    add(s, 2, 9);
    add(s, 2, 9);
    assert_string_equal(next(s), "o0 o1 a0:0 a1:1 0@0 0@1! 1@0 1@1!");
    return_and_push(s);
    add(s, 9, 9);
    assert_string_equal(next(s), "o2 a2:2 0@2! 1@2! 2@0 2@1 2@2 2@3");
    return_and_push(s);
    assert_string_equal(next(s), "0@3! 1@3! 2@4 2@5 2@6 2@7");
    return_and_push(s);
    assert_string_equal(next(s), "0@4! 1@4! 2@8!");
    return_and_push(s);
    assert_string_equal(next(s), "0@5! 1@5! 2@9!");
    schedule_free(s);
}

static void sequences_spread_over_the_flights(void **state)
{
    (void)state;
    struct schedule *s = make(4, 10, 16, 2);
    for (int i = 0; i < 4; i++)
        add(s, 1, 9);
    assert_string_equal(next(s), "o0 o1 o2 o3 a0:0 a1:1 a2:2 a3:3 0@0! 1@0! 2@0! 3@0!");
    return_and_push(s);
    assert_string_equal(next(s), "0@1! 1@1!");
    assert_string_equal(next(s), "2@1! 3@1!");
    return_and_push(s);
    assert_string_equal(next(s), "0@2! 1@2!");
    return_and_push(s);
    assert_string_equal(next(s), "2@2! 3@2!");
    schedule_free(s);
}

static void first_come_first_served(void **state)
{
    (void)state;
    struct schedule *s = make(4, 4, 64, 1);
    int first = add(s, 20, 13); /* 2 blocks, and one more soon */
    add(s, 30, 20);             /* 2 blocks: must wait */
    add(s, 1, 1);               /* would fit, but does not overtake */
    struct step step;
    assert_true(schedule_next(s, &step));
    assert_int_equal(step.n_rows, 20);
    struct schedule_counts counts;
    schedule_count(s, &counts);
    assert_int_equal(counts.waiting, 2);
    assert_int_equal(counts.running, 1);
    assert_int_equal(counts.blocks_used, 2);
    return_and_push(s);
    schedule_end(s, first);
    assert_true(schedule_next(s, &step));
    assert_int_equal(step.n_rows, 31);
    schedule_count(s, &counts);
    assert_int_equal(counts.waiting, 0);
    assert_int_equal(counts.blocks_used, 3);
    schedule_free(s);
}

static void the_last_in_rank_gives_way(void **state)
{
    (void)state;
    struct schedule *s = make(4, 4, 64, 1);
    int first = add(s, 14, 34), second = add(s, 14, 40); /* at most 3 and 4 blocks */
    struct schedule_counts counts;
    struct sequence_account account;
    int n_tokens = 0;
    for (int i = 0; i < 19; i++) { /* both grow to 32 tokens: all 4 blocks */
        next(s);
        return_and_push(s);
    }
    schedule_count(s, &counts);
    assert_int_equal(counts.blocks_used, 4);
    assert_int_equal(counts.running, 2);
    next(s); /* the first needs a fifth */
    schedule_count(s, &counts);
    assert_int_equal(counts.running, 1);
    return_and_push(s);
    schedule_account(s, second, &account);
    assert_int_equal(account.n_preempted, 1);
    schedule_tokens(s, second, &n_tokens);
    assert_int_equal(n_tokens, 33); /* nothing is lost */
    schedule_account(s, first, &account);
    assert_int_equal(account.n_preempted, 0);
    for (; schedule_tokens(s, first, &n_tokens), n_tokens < 48; return_and_push(s))
        next(s);
    schedule_end(s, first);
    struct step step;
    assert_true(schedule_next(s, &step));
    assert_int_equal(step.rows[0].position, 16); /* its first block had not been taken from it */
    assert_int_equal(step.rows[step.n_rows - 1].position, 32);
    assert_int_equal(step.rows[step.n_rows - 1].want, WANT_LOGITS);
    schedule_free(s);
}

static void rows_of_a_preempted_sequence_count_for_nothing(void **state)
{
    (void)state;
    struct schedule *s = make(1, 10, 8, 2);
    static const int32_t prompt[3] = {1, 2, 3};
    int low = add_tokens(s, prompt, 3, 9, 0), n_tokens;
    assert_string_equal(next(s), "o0 a0:0 0@0 0@1 0@2!");
    int high = add_tokens(s, prompt + 1, 2, 9, 1);
    assert_string_equal(next(s), "c0 o0 a0:0 0@0 0@1!"); /* while low's rows are on their way */
    assert_int_equal(schedule_returned(s, NULL), 1);
    assert_int_equal(schedule_owner(s, 0), -1);
    assert_int_equal(schedule_returned(s, NULL), 1);
    assert_int_equal(schedule_owner(s, 0), high);
    schedule_end(s, high);
    assert_string_equal(next(s), "c0 o0 a0:0 0@0 0@1 0@2!");
    return_and_push(s);
    schedule_tokens(s, low, &n_tokens);
    assert_int_equal(n_tokens, 4);
    schedule_free(s);
}

static void priority_goes_before_arrival(void **state)
{
    (void)state;
    struct schedule *s = make(1, 10, 8, 1);
    int32_t prompt[3] = {1, 2, 3};
    int low = add_tokens(s, prompt, 3, 5, -1), usual = add_tokens(s, prompt, 2, 5, 0);
    int high = add_tokens(s, prompt, 1, 5, 7);
    assert_string_equal(next(s), "o0 a0:0 0@0!"); /* one slot: the last to come has it */
    return_and_push(s);
    schedule_end(s, high);
    next(s);
    struct sequence_account account;
    schedule_account(s, usual, &account);
    assert_true(account.started);
    schedule_account(s, low, &account);
    assert_false(account.started);
    return_and_push(s);
    high = add_tokens(s, prompt, 1, 5, 7); /* takes the slot of a running one */
    next(s);
    schedule_account(s, usual, &account);
    assert_int_equal(account.n_preempted, 1);
    schedule_account(s, high, &account);
    assert_true(account.started);
    schedule_free(s);
}

static void prefixes_are_computed_once(void **state)
{
    (void)state;
    struct schedule *s = make(4, 20, 64, 2);
    int32_t prompt[50];
    for (int i = 0; i < 50; i++)
        prompt[i] = i;
    int first = add_tokens(s, prompt, 40, 9, 0), second = add_tokens(s, prompt, 40, 9, 0);
    struct step step;
    assert_true(schedule_next(s, &step));
    assert_int_equal(step.n_rows, 40); /* the second waits for the rest of the first's last block */
    /* Its two full blocks are the first's, its third a copy; only the last token is computed. */
    assert_string_equal(next(s), "a1:0 a1:1 y2:3 a1:3 1@39!");
    return_and_push(s);
    return_and_push(s);
    struct sequence_account account;
    schedule_account(s, second, &account);
    assert_int_equal(account.n_cached, 39);
    schedule_end(s, first);
    schedule_end(s, second);
    struct schedule_counts counts;
    schedule_count(s, &counts);
    assert_int_equal(counts.blocks_used, 0);
    assert_int_equal(counts.blocks_idle, 2);
    assert_int_equal(counts.cached_tokens, 39);
    assert_int_equal(counts.prompt_tokens, 80);
    prompt[20] = 0; /* parts with the others inside the second block */
    add_tokens(s, prompt, 32, 9, 0);
    const char *text = next(s);
    assert_non_null(strstr(text, "a1:0 y1:"));
    assert_non_null(strstr(text, " 1@20 1@21 "));
    assert_null(strstr(text, "1@19"));
    schedule_free(s);
}

static void ending_in_flight_frees_at_once(void **state)
{
    (void)state;
    struct schedule *s = make(1, 10, 4, 3);
    int sequence = add(s, 20, 3);
    next(s);
    next(s);
    schedule_end(s, sequence);
    struct schedule_counts counts;
    schedule_count(s, &counts);
    assert_int_equal(counts.slots_used + counts.blocks_used, 0);
    add(s, 1, 1);
    assert_string_equal(next(s), "c0 o0 a0:0 0@0!"); /* the stages do steps in order */
    assert_int_equal(schedule_returned(s, NULL), 0);
    assert_int_equal(schedule_returned(s, NULL), 0);
    assert_int_equal(schedule_returned(s, NULL), 1);
    schedule_free(s);
}

static void an_ended_sequence_gets_no_token(void **state)
{
    (void)state;
    struct schedule *s = make(2, 10, 8, 1);
    int a = add(s, 1, 5), b = add(s, 1, 5);
    next(s);
    schedule_end(s, a);
    int again = add(s, 1, 5); /* perhaps under the same name */
    assert_int_equal(schedule_returned(s, NULL), 2);
    assert_int_equal(schedule_owner(s, 0), -1);
    assert_int_equal(schedule_owner(s, 1), b);
    schedule_end(s, b);
    schedule_end(s, again); /* before it had a slot */
    struct schedule_counts counts;
    schedule_count(s, &counts);
    assert_int_equal(counts.waiting + counts.running + counts.slots_used, 0);
    assert_int_equal(counts.blocks_used, 0);
    schedule_free(s);
}

/* ---- time ---- */

/* One stream, then a long prompt: the rows of its chunks. A row costs 1 ms, a step 10. */
static int chunk_beside_a_stream(int64_t max_itl_us, float max_stretch)
{
    struct schedule *s = schedule_new(&(struct schedule_options){.max_context = 2000,
                                                                 .n_blocks = 200,
                                                                 .n_slots = 2,
                                                                 .max_rows = 512,
                                                                 .n_flights = 1,
                                                                 .max_sequences = 4,
                                                                 .max_itl_us = max_itl_us,
                                                                 .max_stretch = max_stretch});
    int64_t now = 1;
    int chunk = -1;
    add(s, 3, 900);
    for (int i = 0; i < 40; i++) {
        struct step step;
        if (i == 10)
            add(s, 990, 100);
        schedule_clock(s, now);
        assert_true(schedule_next(s, &step));
        int64_t us = 10000 + 1000 * (int64_t)step.n_rows;
        schedule_clock(s, now += us);
        return_and_push_after(s, us);
        if (i == 20)
            chunk = (int)step.n_rows - 1;
    }
    schedule_free(s);
    return chunk;
}

static void prompts_leave_streams_their_pace(void **state)
{
    (void)state;
    assert_int_equal(chunk_beside_a_stream(0, 0), 1); /* the prompt was over in two steps */
    assert_in_range(chunk_beside_a_stream(30000, 0), 17, 20);
    assert_in_range(chunk_beside_a_stream(0, 2), 9, 12);
    assert_in_range(chunk_beside_a_stream(40000, 2), 9, 12);         /* the stricter of the two */
    assert_int_equal(chunk_beside_a_stream(1000, 0), PACE_MIN_ROWS); /* impossible: it goes on */
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* 16 streams, then a prompt of 4096 tokens: p99 of the times between tokens while it is computed,
 * in hundredths of the median before. A step lasts 30 ms and 2 ms a row, give or take a tenth. */
static int64_t stretch_by_a_long_prompt(float max_stretch, int *n_steps)
{
    enum { STREAMS = 16, BEFORE = 50, MOST = 2000 };
    struct schedule *s = schedule_new(&(struct schedule_options){.max_context = 9000,
                                                                 .n_blocks = 3000,
                                                                 .n_slots = 32,
                                                                 .max_rows = 512,
                                                                 .n_flights = 1,
                                                                 .max_sequences = 32,
                                                                 .max_stretch = max_stretch});
    static int32_t prompt[4096];
    static int64_t gaps[MOST];
    int64_t now = 1;
    int n = 0, longest = -1, n_tokens = 4096;
    unsigned seed = 9;
    for (int i = 0; i < STREAMS; i++)
        add(s, 20 + i, 5000);
    for (; n < MOST && n_tokens == 4096; n++) {
        struct step step;
        if (n == BEFORE)
            longest = add_tokens(s, prompt, 4096, 9, 0);
        schedule_clock(s, now);
        assert_true(schedule_next(s, &step));
        int64_t us = 30000 + 2000 * (int64_t)step.n_rows;
        gaps[n] = us + us * (rand_r(&seed) % 200 - 100) / 1000;
        schedule_clock(s, now += gaps[n]); /* each stream has a row in each step */
        return_and_push_after(s, gaps[n]);
        if (longest >= 0)
            schedule_tokens(s, longest, &n_tokens);
    }
    schedule_free(s);
    *n_steps = n - BEFORE;
    qsort(gaps + 10, BEFORE - 10, sizeof(gaps[0]), by_value);
    qsort(gaps + BEFORE, (size_t)*n_steps, sizeof(gaps[0]), by_value);
    return 100 * gaps[BEFORE + *n_steps * 99 / 100] / gaps[10 + (BEFORE - 10) / 2];
}

static void a_long_prompt_does_not_stall_streams(void **state)
{
    (void)state;
    int n_steps;
    assert_true(stretch_by_a_long_prompt(1.6f, &n_steps) <= 200);
    assert_in_range(n_steps, 150, 300); /* and it comes to its end: 18 rows a step */
    assert_true(stretch_by_a_long_prompt(0, &n_steps) > 1000);
    assert_in_range(n_steps, 8, 10);
}

static void waiting_is_accounted(void **state)
{
    (void)state;
    struct schedule *s = make(1, 10, 8, 1);
    schedule_clock(s, 1000);
    int first = add(s, 1, 5), second = add(s, 1, 5);
    schedule_clock(s, 1500);
    next(s);
    schedule_clock(s, 4000);
    struct sequence_account account;
    schedule_account(s, second, &account);
    assert_int_equal(account.queued_us, 3000);
    assert_false(account.started);
    schedule_account(s, first, &account);
    assert_int_equal(account.queued_us, 500);
    assert_int_equal(account.n_blocks, 1);
    schedule_free(s);
}

static void room_is_held_down(void **state)
{
    (void)state;
    struct schedule *s = make(1, 3, 8, 1); /* 48 positions, context 1000 */
    int room;
    struct error e;
    assert_int_equal(schedule_room(s, 10, 5, &room, &e), OK);
    assert_int_equal(room, 5);
    assert_int_equal(schedule_room(s, 10, -1, &room, &e), OK);
    assert_int_equal(room, 38);
    assert_int_equal(schedule_room(s, 48, 5, &room, &e), OK);
    assert_int_equal(room, 0);
    assert_int_equal(schedule_room(s, 49, 5, &room, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "49"));
    assert_non_null(strstr(e.text, "48"));
    assert_int_equal(schedule_room(s, 1001, 5, &room, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "1001"));
    assert_non_null(strstr(e.text, "1000"));
    for (int i = 0; i < 64; i++)
        add(s, 1, 1);
    int sequence;
    int32_t token = 1;
    struct sequence_options o = {.prompt = &token, .n_prompt = 1, .room = 1};
    assert_int_equal(schedule_add(s, &o, &sequence, &e), ERR_FULL);
    schedule_free(s);
}

/* What a stage would see: every step's rows lie inside tables made of its updates, and every
 * position in front of a row holds the token that the sequence has there, whoever wrote it. */
enum { SLOTS = 5, BLOCKS = 20, FLIGHTS = 3, MAX_ROWS = 9 };

struct mirror {
    bool open[SLOTS];
    int n_blocks[SLOTS], n_holes[SLOTS];
    int window;
    int table[SLOTS][BLOCKS];
    int64_t cells[BLOCKS][KV_BLOCK_TOKENS]; /* a hash of all tokens up to here; 0: never written */
};

static int64_t *cell_of(struct mirror *m, uint32_t slot, int position)
{
    int block = m->table[slot][position / KV_BLOCK_TOKENS];
    assert_true(position / KV_BLOCK_TOKENS >= m->n_holes[slot]);
    return &m->cells[block][position % KV_BLOCK_TOKENS];
}

static void mirror_step(struct mirror *m, const struct step *step)
{
    for (uint32_t i = 0; i < step->n_updates; i++) {
        const struct step_update *u = &step->updates[i];
        if (u->kind == UPDATE_COPY) {
            memcpy(m->cells[u->block], m->cells[u->from], sizeof(m->cells[0]));
            continue;
        }
        assert_int_equal(m->open[u->slot], u->kind != UPDATE_OPEN);
        if (u->kind == UPDATE_APPEND) {
            m->table[u->slot][m->n_blocks[u->slot]++] = (int)u->block;
            continue;
        }
        if (u->kind == UPDATE_TRIM) {
            assert_true((int)u->block > m->n_holes[u->slot] && m->window > 0);
            m->n_holes[u->slot] = (int)u->block;
            if (m->n_blocks[u->slot] < (int)u->block)
                m->n_blocks[u->slot] = (int)u->block;
            continue;
        }
        m->open[u->slot] = u->kind == UPDATE_OPEN;
        m->n_blocks[u->slot] = m->n_holes[u->slot] = 0;
    }
    assert_in_range(step->n_rows, 1, MAX_ROWS);
    for (uint32_t i = 0; i < step->n_rows; i++) {
        const struct step_row *r = &step->rows[i];
        assert_true(m->open[r->slot]);
        assert_true((int)r->position < m->n_blocks[r->slot] * KV_BLOCK_TOKENS);
        assert_true(window_first(m->window, (int)r->position) / KV_BLOCK_TOKENS >=
                    m->n_holes[r->slot]);
        int64_t before = r->position > 0 ? *cell_of(m, r->slot, (int)r->position - 1) : 1;
        assert_int_not_equal(before, 0); /* no gap in front of it */
        *cell_of(m, r->slot, (int)r->position) =
            (int64_t)(((uint64_t)before * 31 + r->token + 1) * 0x9E3779B97F4A7C15u | 1);
    }
}

/* The cells that a row that wants logits sees must come of the sequence's own tokens. */
static void check_cells(struct mirror *m, const struct schedule *s, int sequence,
                        const struct step_row *row)
{
    int n_tokens;
    const int32_t *tokens = schedule_tokens(s, sequence, &n_tokens);
    uint64_t hash = 1;
    for (int i = 0; i <= (int)row->position && i < n_tokens; i++) {
        hash = (hash * 31 + (uint32_t)tokens[i] + 1) * 0x9E3779B97F4A7C15u | 1;
        /* The step behind this one may have been made, and with it holes. */
        if (i >= window_first(m->window, (int)row->position + 1))
            assert_int_equal(*cell_of(m, row->slot, i), (int64_t)hash);
    }
}

/* A life at random: sequences come, go, share beginnings, give way, guess. */
struct life {
    struct schedule *s;
    struct mirror mirror;
    unsigned seed;
    int names[64], left[64], n_live, n_added, longest;
    struct step_row flights[FLIGHTS][MAX_ROWS]; /* rows that want logits */
    int n_flying[FLIGHTS], oldest, in_flight;
};

static void come(struct life *l, int n_prompt, int max_tokens)
{
    int32_t prompt[256];
    int kind = rand_r(&l->seed) % 4, room;
    for (int i = 0; i < n_prompt; i++)
        prompt[i] = kind < 3 ? i / (kind + 1) % 7 : rand_r(&l->seed) % 5;
    assert_int_equal(schedule_room(l->s, n_prompt, max_tokens, &room, NULL), OK);
    if (room == 0)
        return;
    l->left[l->n_live] = room;
    l->names[l->n_live++] = add_tokens(l->s, prompt, n_prompt, room, rand_r(&l->seed) % 20 == 0);
    l->n_added++;
}

static void go(struct life *l, int at)
{
    schedule_end(l->s, l->names[at]);
    l->names[at] = l->names[--l->n_live];
    l->left[at] = l->left[l->n_live];
}

/* Every row is looked at when its step is made: later steps may change what the stage holds. */
static void send_step(struct life *l, const struct step *step)
{
    mirror_step(&l->mirror, step);
    int at = (l->oldest + l->in_flight++) % FLIGHTS;
    l->n_flying[at] = 0;
    for (uint32_t i = 0; i < step->n_rows; i++)
        if (step->rows[i].want == WANT_LOGITS)
            l->flights[at][l->n_flying[at]++] = step->rows[i];
}

static void take_step(struct life *l)
{
    int n = schedule_returned(l->s, NULL);
    assert_int_equal(n, l->n_flying[l->oldest]);
    for (int i = 0; i < n; i++) {
        int who = schedule_owner(l->s, i), at = 0;
        if (who < 0)
            continue;
        while (l->names[at] != who)
            assert_true(++at < l->n_live);
        int n_tokens;
        schedule_tokens(l->s, who, &n_tokens);
        assert_int_equal(l->flights[l->oldest][i].position, n_tokens - 1);
        check_cells(&l->mirror, l->s, who, &l->flights[l->oldest][i]);
        int32_t token = rand_r(&l->seed) % 3 > 0 ? 0 : rand_r(&l->seed) % 3;
        if ((schedule_push(l->s, who, token) ? 0 : 1) != (--l->left[at] == 0))
            fail_msg("sequence %d: the room does not end where it should", who);
        if (l->left[at] == 0)
            go(l, at);
    }
    l->oldest = (l->oldest + 1) % FLIGHTS;
    l->in_flight--;
}

/* A draft model that is right as often as chance will have it. */
static void offer(struct life *l)
{
    struct guess_wish wishes[SLOTS];
    int n = schedule_wishes(l->s, wishes, SLOTS);
    for (int i = 0; i < n; i++) {
        int32_t guesses[DRAFT_MAX];
        for (int j = 0; j < wishes[i].n_wanted; j++)
            guesses[j] = rand_r(&l->seed) % 8 == 0 ? 1 : 0;
        schedule_offer(l->s, wishes[i].sequence, guesses,
                       wishes[i].n_wanted - rand_r(&l->seed) % 2);
    }
}

/* At most max_live sequences at once: with few, guesses go ahead of answers. */
static void live(struct life *l, int n_rounds, int max_live, int max_added)
{
    for (int round = 0; round < n_rounds; round++) {
        if (rand_r(&l->seed) % 4 == 0)
            offer(l);
        if (l->n_live < max_live && l->n_added < max_added && rand_r(&l->seed) % 3 == 0)
            come(l, 1 + rand_r(&l->seed) % l->longest, rand_r(&l->seed) % 40);
        struct step step;
        if (rand_r(&l->seed) % 2 == 0 && schedule_next(l->s, &step))
            send_step(l, &step);
        else if (l->in_flight > 0)
            take_step(l);
        if (l->n_live > 0 && rand_r(&l->seed) % 60 == 0)
            go(l, rand_r(&l->seed) % l->n_live);
    }
}

static struct life *begin_life(unsigned seed, int n_blocks, int n_flights, int window)
{
    struct life *l = calloc(1, sizeof(*l));
    assert_non_null(l);
    l->seed = seed;
    l->longest = 60;
    l->mirror.window = window;
    l->s = schedule_new(&(struct schedule_options){.max_context = 300,
                                                   .n_blocks = n_blocks,
                                                   .window = window,
                                                   .n_slots = SLOTS,
                                                   .max_rows = MAX_ROWS,
                                                   .n_flights = n_flights,
                                                   .n_stages = FLIGHTS,
                                                   .max_sequences = 64,
                                                   .min_chunk = 4,
                                                   .max_draft = 4});
    return l;
}

static struct schedule_counts end_life(struct life *l)
{
    struct schedule_counts counts;
    while (l->n_live > 0)
        go(l, 0);
    for (; l->in_flight > 0; l->in_flight--)
        schedule_returned(l->s, NULL);
    schedule_count(l->s, &counts);
    assert_int_equal(counts.slots_used + counts.blocks_used, 0);
    assert_int_equal(counts.waiting + counts.running, 0);
    schedule_free(l->s);
    free(l);
    return counts;
}

static void random_life_keeps_the_rules(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 9; seed++) {
        bool few = seed > 6;
        struct life *l = begin_life(seed, seed % 2 == 0 ? BLOCKS : 9, 1 + (int)seed % FLIGHTS, 0);
        live(l, 30000, few ? 2 : 12, 3000);
        assert_true(l->n_added > 500);
        struct schedule_counts counts = end_life(l);
        assert_true(few || counts.preempted > (seed % 2 == 0 ? 0 : 50));
        assert_true(counts.cached_tokens > 1000);
        assert_true(counts.guessed[GUESS_LOOKUP] > 500 && counts.right[GUESS_LOOKUP] > 100);
        assert_true(counts.guessed[GUESS_MODEL] > 500 && counts.right[GUESS_MODEL] > 100);
        assert_true(!few || seed % FLIGHTS == 0 || counts.shares_ahead > 200);
    }
}

/* Windows of any length, in pools that hold little more than one: sequences several times as long
 * as the pool come to their end. */
static void random_life_with_windows(void **state)
{
    (void)state;
    static const struct {
        int window, n_blocks;
    } cases[] = {{2, 2},  {15, 3}, {16, 4},   {20, 3},  {33, 4},
                 {40, 9}, {64, 5}, {100, 12}, {250, 17}};
    struct schedule_counts total = {0};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct life *l =
            begin_life(50 + (unsigned)i, cases[i].n_blocks, 1 + (int)i % FLIGHTS, cases[i].window);
        l->longest = 240;
        live(l, 30000, i % 3 == 1 ? 2 : 12, 3000);
        assert_true(l->n_added > 100);
        struct schedule_counts counts = end_life(l);
        total.preempted += counts.preempted;
        total.cached_tokens += counts.cached_tokens;
        total.shares_ahead += counts.shares_ahead;
        for (int g = 0; g < N_GUESS_SOURCES; g++)
            total.right[g] += counts.right[g];
    }
    assert_true(total.preempted > 80 && total.cached_tokens > 15000 && total.shares_ahead > 200);
    assert_true(total.right[GUESS_LOOKUP] > 500 && total.right[GUESS_MODEL] > 500);
}

static void a_hundred_thousand_requests_leave_no_block_behind(void **state)
{
    (void)state;
    struct life *l = begin_life(77, 12, 2, 0);
    while (l->n_added < 100000) {
        come(l, 1 + rand_r(&l->seed) % 30, 1 + rand_r(&l->seed) % 4);
        for (struct step step; schedule_next(l->s, &step);)
            send_step(l, &step);
        while (l->n_live > 8) {
            take_step(l);
            for (struct step step; schedule_next(l->s, &step);)
                send_step(l, &step);
            if (rand_r(&l->seed) % 20 == 0)
                go(l, rand_r(&l->seed) % l->n_live);
        }
    }
    end_life(l);
}

/* However many stand in line, the first of them always gets its tokens. */
static void nobody_starves(void **state)
{
    (void)state;
    struct schedule *s = make(6, 7, 12, 3);
    int names[60], n_ended = 0, in_flight = 0, progress = 0;
    for (int i = 0; i < 60; i++)
        names[i] = add(s, 1 + i * 7 % 50, 60); /* the pool holds 112 positions */
    for (int round = 0; n_ended < 60; round++) {
        struct step step;
        while (schedule_next(s, &step))
            in_flight++;
        assert_true(in_flight > 0);
        int n = schedule_returned(s, NULL);
        in_flight--;
        for (int i = 0; i < n; i++) {
            int who = schedule_owner(s, i), oldest = 0;
            while (names[oldest] < 0)
                oldest++;
            progress = who == names[oldest] ? round : progress;
            if (who >= 0 && !schedule_push(s, who, 7)) {
                schedule_end(s, who);
                for (int j = 0; j < 60; j++)
                    if (names[j] == who)
                        names[j] = -1;
                n_ended++;
            }
        }
        if (round - progress > 40)
            fail_msg("round %d: no token for the first in line since %d", round, progress);
    }
    schedule_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_request_alone),
        cmocka_unit_test(prompt_chunks_follow_each_other_in_flights),
        cmocka_unit_test(chunks_suit_the_length_of_the_ring),
        cmocka_unit_test(decoding_comes_first_and_prompts_fill_up),
        cmocka_unit_test(sequences_spread_over_the_flights),
        cmocka_unit_test(first_come_first_served),
        cmocka_unit_test(the_last_in_rank_gives_way),
        cmocka_unit_test(rows_of_a_preempted_sequence_count_for_nothing),
        cmocka_unit_test(priority_goes_before_arrival),
        cmocka_unit_test(prefixes_are_computed_once),
        cmocka_unit_test(ending_in_flight_frees_at_once),
        cmocka_unit_test(an_ended_sequence_gets_no_token),
        cmocka_unit_test(prompts_leave_streams_their_pace),
        cmocka_unit_test(a_long_prompt_does_not_stall_streams),
        cmocka_unit_test(waiting_is_accounted),
        cmocka_unit_test(room_is_held_down),
        cmocka_unit_test(random_life_keeps_the_rules),
        cmocka_unit_test(random_life_with_windows),
        cmocka_unit_test(a_hundred_thousand_requests_leave_no_block_behind),
        cmocka_unit_test(nobody_starves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
