#include "engine/schedule.h"

#include "base/bounds.h"

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

static int add(struct schedule *s, int n_prompt, int room)
{
    int32_t prompt[1000];
    for (int i = 0; i < n_prompt; i++)
        prompt[i] = 100 + i;
    int sequence;
    assert_int_equal(schedule_add(s, prompt, n_prompt, room, &sequence, NULL), OK);
    return sequence;
}

/* A step as text: updates "o0 a0:5 c0", then rows "slot@position", "!" where logits are wanted. */
static const char *text_of(const struct step *step)
{
    static char text[2000];
    size_t n = 0;
    for (uint32_t i = 0; i < step->n_updates; i++) {
        const struct step_update *u = &step->updates[i];
        if (u->kind == UPDATE_APPEND)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "a%u:%u ", u->slot, u->block);
        else
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%c%u ",
                                  u->kind == UPDATE_OPEN ? 'o' : 'c', u->slot);
    }
    for (uint32_t i = 0; i < step->n_rows; i++) {
        const struct step_row *r = &step->rows[i];
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%u@%u%s ", r->slot, r->position,
                              r->want == WANT_LOGITS ? "!" : "");
    }
    text[n > 0 ? n - 1 : 0] = 0;
    return text;
}

static const char *next(struct schedule *s)
{
    struct step step;
    return schedule_next(s, &step) ? text_of(&step) : "none";
}

/* The oldest step returns; every sequence that wanted logits gets a token. */
static int return_and_push(struct schedule *s)
{
    const int *sequences;
    int n = schedule_returned(s, &sequences);
    for (int i = 0; i < n; i++)
        if (sequences[i] >= 0)
            schedule_push(s, sequences[i], 7);
    return n;
}

static void one_request_alone(void **state)
{
    (void)state;
    struct schedule *s = make(2, 10, 8, 1);
    assert_string_equal(next(s), "none");
    int sequence = add(s, 3, 2);
    assert_string_equal(next(s), "o0 a0:0 0@0 0@1 0@2!");
    assert_string_equal(next(s), "none"); /* the only flight is out */
    const int *who;
    assert_int_equal(schedule_returned(s, &who), 1);
    assert_int_equal(who[0], sequence);
    assert_true(schedule_push(s, sequence, 42));
    struct step step;
    assert_true(schedule_next(s, &step));
    assert_string_equal(text_of(&step), "0@3!");
    assert_int_equal(step.rows[0].token, 42);
    assert_int_equal(schedule_returned(s, &who), 1);
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
    int first = add(s, 20, 13); /* 32 positions computed: 2 blocks */
    add(s, 30, 20);             /* 49 positions: 4 blocks, must wait */
    add(s, 1, 1);               /* would fit, but does not overtake */
    struct step step;
    assert_true(schedule_next(s, &step));
    assert_int_equal(step.n_rows, 20);
    struct schedule_counts counts;
    schedule_count(s, &counts);
    assert_int_equal(counts.waiting, 2);
    assert_int_equal(counts.running, 1);
    assert_int_equal(counts.blocks_used + counts.blocks_promised, 2);
    return_and_push(s);
    schedule_end(s, first);
    assert_true(schedule_next(s, &step));
    assert_int_equal(step.n_rows, 30);
    schedule_count(s, &counts);
    assert_int_equal(counts.waiting, 1);
    assert_int_equal(counts.blocks_used + counts.blocks_promised, 4);
    schedule_free(s);
}

static void ending_in_flight_drains_first(void **state)
{
    (void)state;
    struct schedule *s = make(1, 10, 4, 3);
    int sequence = add(s, 20, 3);
    next(s);
    next(s);
    schedule_end(s, sequence);
    add(s, 1, 1);
    struct schedule_counts counts;
    schedule_count(s, &counts);
    assert_int_equal(counts.draining, 1);
    assert_int_equal(counts.slots_used, 1);
    assert_string_equal(next(s), "none"); /* the slot is not free yet */
    return_and_push(s);
    assert_string_equal(next(s), "none");
    return_and_push(s);
    assert_string_equal(next(s), "c0 o0 a0:0 0@0!");
    schedule_free(s);
}

static void an_ended_sequence_gets_no_token(void **state)
{
    (void)state;
    struct schedule *s = make(2, 10, 8, 1);
    int a = add(s, 1, 5), b = add(s, 1, 5);
    next(s);
    schedule_end(s, a);
    const int *who;
    assert_int_equal(schedule_returned(s, &who), 2);
    assert_int_equal(who[0], -1);
    assert_int_equal(who[1], b);
    schedule_end(s, b);
    int waiting = add(s, 1, 1);
    schedule_end(s, waiting); /* before it had a slot */
    struct schedule_counts counts;
    schedule_count(s, &counts);
    assert_int_equal(counts.waiting + counts.running + counts.draining + counts.slots_used, 0);
    assert_int_equal(counts.blocks_used + counts.blocks_promised, 0);
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
    assert_int_equal(schedule_add(s, &token, 1, 1, &sequence, &e), ERR_FULL);
    schedule_free(s);
}

/* What a stage would see: every step's rows lie inside tables made of its updates, no block is in
 * two tables, positions of a slot come without gaps. */
enum { SLOTS = 5, BLOCKS = 20, FLIGHTS = 3, MAX_ROWS = 9 };

struct mirror {
    bool open[SLOTS];
    int n_blocks[SLOTS];
    int next_position[SLOTS];
    int block_of[BLOCKS]; /* slot + 1 */
};

static void mirror_step(struct mirror *m, const struct step *step)
{
    for (uint32_t i = 0; i < step->n_updates; i++) {
        const struct step_update *u = &step->updates[i];
        assert_int_equal(m->open[u->slot], u->kind != UPDATE_OPEN);
        if (u->kind == UPDATE_APPEND) {
            assert_int_equal(m->block_of[u->block], 0);
            m->block_of[u->block] = (int)u->slot + 1;
            m->n_blocks[u->slot]++;
            continue;
        }
        m->open[u->slot] = u->kind == UPDATE_OPEN;
        m->n_blocks[u->slot] = m->next_position[u->slot] = 0;
        for (int b = 0; b < BLOCKS; b++)
            if (m->block_of[b] == (int)u->slot + 1)
                m->block_of[b] = 0;
    }
    assert_in_range(step->n_rows, 1, MAX_ROWS);
    for (uint32_t i = 0; i < step->n_rows; i++) {
        const struct step_row *r = &step->rows[i];
        assert_true(m->open[r->slot]);
        assert_int_equal(r->position, m->next_position[r->slot]++);
        assert_true((int)r->position < m->n_blocks[r->slot] * KV_BLOCK_TOKENS);
    }
}

static void random_life_keeps_the_rules(void **state)
{
    (void)state;
    unsigned seed = 3;
    struct schedule *s = make(SLOTS, BLOCKS, MAX_ROWS, FLIGHTS);
    struct mirror mirror = {{false}};
    int names[64], left[64], n_live = 0, n_added = 0, in_flight = 0;
    for (int round = 0; round < 60000; round++) {
        if (n_live < 12 && n_added < 3000 && rand_r(&seed) % 4 == 0) {
            int n_prompt = 1 + rand_r(&seed) % 60, room;
            assert_int_equal(schedule_room(s, n_prompt, rand_r(&seed) % 40, &room, NULL), OK);
            if (room > 0) {
                left[n_live] = room;
                names[n_live++] = add(s, n_prompt, room);
                n_added++;
            }
        }
        struct step step;
        if (rand_r(&seed) % 2 == 0 && schedule_next(s, &step)) {
            mirror_step(&mirror, &step);
            in_flight++;
        } else if (in_flight > 0) {
            const int *who;
            int n = schedule_returned(s, &who);
            in_flight--;
            for (int i = 0; i < n; i++) {
                int at = 0;
                while (who[i] >= 0 && names[at] != who[i])
                    assert_true(++at < n_live);
                if (who[i] >= 0 && (schedule_push(s, who[i], 1) ? 0 : 1) != (--left[at] == 0))
                    fail_msg("sequence %d: the room does not end where it should", who[i]);
                if (who[i] >= 0 && left[at] == 0) {
                    schedule_end(s, who[i]);
                    names[at] = names[--n_live];
                    left[at] = left[n_live];
                }
            }
        }
        if (n_live > 0 && rand_r(&seed) % 60 == 0) {
            int at = rand_r(&seed) % n_live;
            schedule_end(s, names[at]);
            names[at] = names[--n_live];
            left[at] = left[n_live];
        }
    }
    assert_true(n_added > 1000);
    for (int i = 0; i < n_live; i++)
        schedule_end(s, names[i]);
    for (const int *who; in_flight > 0; in_flight--)
        schedule_returned(s, &who);
    struct schedule_counts counts;
    schedule_count(s, &counts);
    assert_int_equal(counts.slots_used + counts.blocks_used + counts.blocks_promised, 0);
    assert_int_equal(counts.waiting + counts.running + counts.draining, 0);
    schedule_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_request_alone),
        cmocka_unit_test(prompt_chunks_follow_each_other_in_flights),
        cmocka_unit_test(decoding_comes_first_and_prompts_fill_up),
        cmocka_unit_test(sequences_spread_over_the_flights),
        cmocka_unit_test(first_come_first_served),
        cmocka_unit_test(ending_in_flight_drains_first),
        cmocka_unit_test(an_ended_sequence_gets_no_token),
        cmocka_unit_test(room_is_held_down),
        cmocka_unit_test(random_life_keeps_the_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
