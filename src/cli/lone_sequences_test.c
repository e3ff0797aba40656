/* Sequences driven by hand over a model in memory: the logits that arrive are those of the right
 * row, however the ids are cut into steps. */
#include "cli/lone_sequences.h"

#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 100, LENGTH = 40, SEQUENCES = 2 };

/* What was visited: logits by sequence and position, and how often. */
struct seen {
    float logits[SEQUENCES][LENGTH][VOCAB];
    int times[SEQUENCES][LENGTH];
    int n;
};

static void visit(int sequence, int position, float *logits, void *context)
{
    struct seen *s = context;
    memcpy(s->logits[sequence][position], logits, sizeof s->logits[0][0]);
    s->times[sequence][position]++;
    s->n++;
}

static int window; /* of the model that open_lead makes */

static struct modelfile *open_lead(struct lead *lead, int n, int max_rows)
{
    const struct tiny_shape shape = {.n_layers = 2,
                                     .hidden = 32,
                                     .ffn = 64,
                                     .n_heads = 2,
                                     .n_kv_heads = 1,
                                     .head_size = 16,
                                     .vocab = VOCAB,
                                     .window = window,
                                     .type = DTYPE_F32};
    struct modelfile *file = tiny_model(&shape, 3);
    struct lead_options o = {.file = file,
                             .threads = 1,
                             .n_slots = n,
                             .max_rows = max_rows,
                             .context = LENGTH,
                             .no_engine = true};
    assert_int_equal(lead_open(&o, lead, NULL), OK);
    return file;
}

static const int32_t *ids_of(int sequence)
{
    static int32_t ids[SEQUENCES][LENGTH];
    for (int i = 0; i < LENGTH; i++)
        ids[sequence][i] = (i * 37 + sequence * 11 + 5) % VOCAB;
    return ids[sequence];
}

/* All logits of n sequences of LENGTH ids, `first` of them appended in one call and the rest after.
 */
static void run(int n, int max_rows, int first, bool twice, struct seen *seen)
{
    struct lead lead;
    struct lone_sequences s;
    struct modelfile *file = open_lead(&lead, n, max_rows);
    const int32_t *ids[SEQUENCES], *rest[SEQUENCES];
    for (int i = 0; i < n; i++) {
        ids[i] = ids_of(i);
        rest[i] = ids[i] + first;
    }
    assert_int_equal(lone_sequences_init(&s, &lead, n, max_rows, NULL), OK);
    for (int round = 0; round < (twice ? 2 : 1); round++) {
        memset(seen, 0, sizeof *seen);
        lone_sequences_restart(&s, n);
        assert_int_equal(lone_sequences_append(&s, ids, first, true, visit, seen, NULL), OK);
        assert_int_equal(lone_sequences_append(&s, rest, LENGTH - first, true, visit, seen, NULL),
                         OK);
    }
    lone_sequences_release(&s);
    lead_close(&lead);
    modelfile_close(file);
    assert_int_equal(seen->n, n * LENGTH);
    for (int i = 0; i < n * LENGTH; i++)
        assert_int_equal(seen->times[i / LENGTH][i % LENGTH], 1);
}

static void steps_and_neighbours_change_nothing(void **state)
{
    (void)state;
    static struct seen alone, cut, side_by_side;
    run(1, LENGTH, LENGTH, false, &alone);
    run(1, 3, 17, true, &cut);
    assert_memory_equal(cut.logits[0], alone.logits[0], sizeof alone.logits[0]);
    run(2, 7, 1, true, &side_by_side);
    assert_memory_equal(side_by_side.logits[0], alone.logits[0], sizeof alone.logits[0]);
    assert_memory_not_equal(side_by_side.logits[1], alone.logits[0], sizeof alone.logits[0]);
}

/* With a window: in three blocks of its own, or in two that take turns. */
static void windows_take_blocks_in_turn(void **state)
{
    (void)state;
    static struct seen without, alone, cut, side_by_side;
    run(1, LENGTH, LENGTH, false, &without);
    window = 10;
    run(1, LENGTH, LENGTH, false, &alone);
    assert_memory_equal(alone.logits[0], without.logits[0], 10 * sizeof alone.logits[0][0]);
    assert_memory_not_equal(alone.logits[0][11], without.logits[0][11], sizeof alone.logits[0][11]);
    run(1, 3, 17, true, &cut);
    assert_memory_equal(cut.logits[0], alone.logits[0], sizeof alone.logits[0]);
    run(2, 7, 1, true, &side_by_side);
    assert_memory_equal(side_by_side.logits[0], alone.logits[0], sizeof alone.logits[0]);
    window = 0;
}

static void only_the_last_is_told_if_so_asked(void **state)
{
    (void)state;
    static struct seen seen, all;
    struct lead lead;
    struct lone_sequences s;
    struct modelfile *file = open_lead(&lead, 2, 4);
    const int32_t *ids[] = {ids_of(0), ids_of(1)};
    assert_int_equal(lone_sequences_init(&s, &lead, 2, 4, NULL), OK);
    assert_int_equal(lone_sequences_append(&s, ids, 20, false, NULL, NULL, NULL), OK);
    lone_sequences_restart(&s, 2);
    assert_int_equal(lone_sequences_append(&s, ids, 20, false, visit, &seen, NULL), OK);
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.times[0][19] + seen.times[1][19], 2);
    lone_sequences_restart(&s, 2);
    assert_int_equal(lone_sequences_append(&s, ids, 20, true, visit, &all, NULL), OK);
    assert_memory_equal(seen.logits[1][19], all.logits[1][19], sizeof seen.logits[1][19]);
    lone_sequences_release(&s);
    lead_close(&lead);
    modelfile_close(file);
}

/* Rows before whose logits nobody wants: they end early, in the last layer, and leave the same keys
 * and values. */
static void what_was_not_asked_changes_nothing_after(void **state)
{
    (void)state;
    static struct seen alone, seen;
    run(1, LENGTH, LENGTH, false, &alone);
    static const int steps[] = {LENGTH, 5, 1};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct lead lead;
        struct lone_sequences s;
        struct modelfile *file = open_lead(&lead, 1, steps[i]);
        const int32_t *ids[] = {ids_of(0)}, *rest[] = {ids_of(0) + 23};
        memset(&seen, 0, sizeof seen);
        assert_int_equal(lone_sequences_init(&s, &lead, 1, steps[i], NULL), OK);
        assert_int_equal(lone_sequences_append(&s, ids, 23, false, NULL, NULL, NULL), OK);
        assert_int_equal(lone_sequences_append(&s, rest, 10, false, visit, &seen, NULL), OK);
        rest[0] += 10;
        assert_int_equal(lone_sequences_append(&s, rest, LENGTH - 33, true, visit, &seen, NULL),
                         OK);
        assert_int_equal(seen.n, 1 + LENGTH - 33);
        assert_memory_equal(seen.logits[0][32], alone.logits[0][32],
                            (LENGTH - 32) * sizeof alone.logits[0][0]);
        lone_sequences_release(&s);
        lead_close(&lead);
        modelfile_close(file);
    }
}

/* More and fewer sequences one after the other: slots left open are closed, and the logits are
 * those of a sequence alone. */
static void the_number_of_sequences_may_change(void **state)
{
    (void)state;
    static struct seen alone, seen;
    run(1, LENGTH, LENGTH, false, &alone);
    struct lead lead;
    struct lone_sequences s;
    struct modelfile *file = open_lead(&lead, SEQUENCES, 5);
    const int32_t *ids[] = {ids_of(0), ids_of(1)};
    assert_int_equal(lone_sequences_init(&s, &lead, SEQUENCES, 5, NULL), OK);
    static const int counts[] = {2, 1, 1, 2, 1};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        memset(&seen, 0, sizeof seen);
        lone_sequences_restart(&s, counts[i]);
        assert_int_equal(lone_sequences_append(&s, ids, LENGTH, true, visit, &seen, NULL), OK);
        assert_int_equal(seen.n, counts[i] * LENGTH);
        assert_memory_equal(seen.logits[0], alone.logits[0], sizeof alone.logits[0]);
    }
    lone_sequences_release(&s);
    lead_close(&lead);
    modelfile_close(file);
}

/* Two of their own lengths, by turns: each as it is alone. */
static void one_of_its_own_length(void **state)
{
    (void)state;
    static struct seen alone[SEQUENCES], seen[SEQUENCES];
    static const int lengths[SEQUENCES] = {LENGTH, 17};
    struct lead lead;
    struct lone_sequences s[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++) {
        const int32_t *ids[] = {ids_of(i)};
        struct modelfile *file = open_lead(&lead, 1, LENGTH);
        assert_int_equal(lone_sequences_init(&s[i], &lead, 1, LENGTH, NULL), OK);
        assert_int_equal(lone_sequences_append(&s[i], ids, LENGTH, true, visit, &alone[i], NULL),
                         OK);
        lone_sequences_release(&s[i]);
        lead_close(&lead);
        modelfile_close(file);
    }
    struct modelfile *file = open_lead(&lead, SEQUENCES, 3);
    for (int i = 0, block = 0; i < SEQUENCES; block += s[i++].n_blocks)
        assert_int_equal(lone_sequences_init_one(&s[i], &lead, i, block, lengths[i], 3 - i, NULL),
                         OK);
    assert_int_equal(s[0].n_blocks, 3);
    assert_int_equal(s[1].n_blocks, 2);
    for (int round = 0; round < 2; round++) {
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < SEQUENCES; i++)
            lone_sequences_restart(&s[i], 1);
        for (int done = 0; done < LENGTH; done++)
            for (int i = 0; i < SEQUENCES; i++) {
                const int32_t *next[] = {ids_of(i) + done};
                if (done < lengths[i])
                    assert_int_equal(
                        lone_sequences_append(&s[i], next, 1, true, visit, &seen[i], NULL), OK);
            }
        for (int i = 0; i < SEQUENCES; i++) {
            assert_int_equal(seen[i].n, lengths[i]);
            assert_memory_equal(seen[i].logits[0], alone[i].logits[0],
                                (size_t)lengths[i] * sizeof seen[i].logits[0][0]);
        }
    }
    for (int i = 0; i < SEQUENCES; i++)
        lone_sequences_release(&s[i]);
    lead_close(&lead);
    modelfile_close(file);
}

static void ids_of_another_vocabulary_are_refused(void **state)
{
    (void)state;
    static struct seen seen;
    struct error e;
    struct lead lead;
    struct lone_sequences s;
    struct modelfile *file = open_lead(&lead, 1, 2);
    assert_int_equal(lone_sequences_init(&s, &lead, 1, 2, NULL), OK);
    /* The last is the bad one: the steps before it must not run. */
    assert_int_equal(lone_sequences_append(&s, (const int32_t *[]){(int32_t[]){1, 2, 3, VOCAB}}, 4,
                                           true, visit, &seen, &e),
                     ERR_MISMATCH);
    assert_string_equal(e.text, "token 100: the model's vocabulary has tokens 0 to 99 only");
    assert_int_equal(
        lone_sequences_append(&s, (const int32_t *[]){(int32_t[]){-1}}, 1, true, visit, &seen, &e),
        ERR_MISMATCH);
    assert_int_equal(seen.n, 0);
    lone_sequences_release(&s);
    lead_close(&lead);
    modelfile_close(file);
}

static void too_many_sequences_are_refused(void **state)
{
    (void)state;
    struct error e;
    struct lead lead;
    struct lone_sequences s;
    struct modelfile *file = open_lead(&lead, 2, 4);
    assert_int_equal(lone_sequences_init(&s, &lead, 3, 4, &e), ERR_LIMIT);
    assert_string_equal(e.text, "3 sequences of 40 positions need 9 KV blocks, 6 fit");
    assert_int_equal(lone_sequences_init_one(&s, &lead, 1, 5, 17, 4, &e), ERR_LIMIT);
    assert_string_equal(e.text, "17 positions need 2 KV blocks, 1 are left");
    lead_close(&lead);
    modelfile_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_and_neighbours_change_nothing),
        cmocka_unit_test(windows_take_blocks_in_turn),
        cmocka_unit_test(only_the_last_is_told_if_so_asked),
        cmocka_unit_test(what_was_not_asked_changes_nothing_after),
        cmocka_unit_test(the_number_of_sequences_may_change),
        cmocka_unit_test(one_of_its_own_length),
        cmocka_unit_test(ids_of_another_vocabulary_are_refused),
        cmocka_unit_test(too_many_sequences_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
