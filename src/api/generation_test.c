/* The meeting of engine and connection: no lost wake-up, no lost text, no leak whoever goes first.
 */
#include "api/fake_engine_impl.h"
#include "api/generation_impl.h"
#include "api/token_logprobs_impl.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A reader that sleeps on a semaphore, as a connection does in libmicrohttpd. */
static sem_t woken;
static int n_sleeps, n_wakes;

static void note_sleep(void *context)
{
    (void)context;
    n_sleeps++;
}

static void wake(void *context)
{
    (void)context;
    n_wakes++;
    sem_post(&woken);
}

static const struct sleeper sleeper = {note_sleep, wake, NULL};
static struct tokenizer *letters;
static const int32_t ids[3] = {1, 2, 3};

static struct request_options options(int n_prompt, int max_tokens)
{
    return (struct request_options){.prompt = ids, .n_prompt = n_prompt, .max_tokens = max_tokens};
}

static enum take_result take_awake(struct generation *g, bool whole)
{
    enum take_result result;
    while ((result = generation_take(g, whole)) == TAKE_SLEEPING)
        sem_wait(&woken);
    return result;
}

static struct engine *begin(void)
{
    sem_init(&woken, 0, 0);
    n_sleeps = n_wakes = 0;
    return fake_engine_new();
}

static void end(struct engine *engine)
{
    fake_engine_free(engine);
    sem_destroy(&woken);
}

static void streams_every_byte(void **state)
{
    (void)state;
    struct engine *engine = begin();
    struct generation *g = generation_new(engine, 1, &sleeper);
    struct request_options o = options(2, 100);
    struct error e;
    assert_int_equal(generation_submit(g, 0, &o, &e), OK);
    struct strbuf all;
    strbuf_init(&all, 10000);
    struct choice_state c;
    do {
        assert_int_equal(take_awake(g, false), TAKE_NEWS);
        generation_read(g, 0, &c);
        strbuf_append(&all, c.text.data, c.text.bytes);
        choice_state_release(&c);
    } while (c.finish == FINISH_NONE);
    assert_int_equal(c.finish, FINISH_LENGTH);
    assert_int_equal(c.timings.n_output, 100);
    assert_int_equal(n_sleeps, n_wakes);
    assert_int_equal(strncmp(all.data, "2.0 2.1 2.2 ", 12), 0);
    assert_int_equal(strcmp(all.data + all.bytes - 5, "2.99 "), 0);
    assert_int_equal(all.bytes, 10 * 4 + 90 * 5);
    strbuf_release(&all);
    generation_detach(g);
    end(engine);
}

/* What is read at a time is whole tokens, with their log-probabilities, and in the end all of them.
 */
static void tokens_and_text_leave_together(void **state)
{
    (void)state;
    struct engine *engine = begin();
    fake_engine_set(engine, engine->late_text = true);
    struct generation *g = generation_new(engine, 1, &sleeper);
    struct request_options o = options(2, 60);
    struct error e;
    o.logprobs = true;
    assert_int_equal(generation_submit(g, 0, &o, &e), OK);
    int n = 0;
    struct choice_state c;
    do {
        assert_int_equal(take_awake(g, false), TAKE_NEWS);
        generation_read(g, 0, &c);
        const char *text = c.text.data;
        struct strbuf json;
        strbuf_init(&json, 100000);
        token_logprobs_append_text(&json, letters, &c.logprobs);
        for (const char *number = strstr(json.data, "token_logprobs") + 17; *number != ']'; n++) {
            char expected[16];
            snprintf(expected, sizeof expected, "2.%d ", n);
            assert_memory_equal(text, expected, strlen(expected));
            text += strlen(expected);
            assert_int_equal((int)-strtod(number, (char **)&number), n);
            number += *number == ',';
        }
        assert_string_equal(text, "");
        strbuf_release(&json);
        choice_state_release(&c);
    } while (c.finish == FINISH_NONE);
    assert_int_equal(n, 60);
    generation_detach(g);
    end(engine);
}

static void waits_for_all_choices(void **state)
{
    (void)state;
    struct engine *engine = begin();
    struct generation *g = generation_new(engine, 3, &sleeper);
    struct error e;
    for (int i = 0; i < 3; i++) {
        struct request_options o = options(i + 1, 2);
        assert_int_equal(generation_submit(g, i, &o, &e), OK);
    }
    assert_int_equal(take_awake(g, true), TAKE_NEWS);
    static const char *const texts[] = {"1.0 1.1 ", "2.0 2.1 ", "3.0 3.1 "};
    for (int i = 0; i < 3; i++) {
        struct choice_state c;
        generation_read(g, i, &c);
        assert_string_equal(c.text.data, texts[i]);
        assert_int_equal(c.finish, FINISH_LENGTH);
        choice_state_release(&c);
    }
    generation_detach(g);
    end(engine);
}

static void reader_leaves_first(void **state)
{
    (void)state;
    struct engine *engine = begin();
    fake_engine_set(engine, engine->allowed = 1);
    struct generation *g = generation_new(engine, 2, &sleeper);
    struct error e;
    for (int i = 0; i < 2; i++) {
        struct request_options o = options(1, 100);
        assert_int_equal(generation_submit(g, i, &o, &e), OK);
    }
    generation_detach(g); /* the engine still runs both: they are cancelled and free it */
    assert_true(fake_engine_await_cancelled(engine, 2));
    end(engine);
}

static void gone_wakes_the_reader(void **state)
{
    (void)state;
    struct engine *engine = begin();
    fake_engine_set(engine, engine->allowed = 0);
    struct generation *g = generation_new(engine, 1, &sleeper);
    struct request_options o = options(1, 100);
    struct error e;
    assert_int_equal(generation_submit(g, 0, &o, &e), OK);
    assert_int_equal(generation_take(g, false), TAKE_SLEEPING);
    generation_cancel(g, true);
    assert_int_equal(sem_trywait(&woken), 0);
    assert_int_equal(generation_take(g, false), TAKE_GONE);
    assert_true(fake_engine_await_cancelled(engine, 1));
    generation_detach(g);
    end(engine);
}

static void submitting_after_cancel_is_cancelled(void **state)
{
    (void)state;
    struct engine *engine = begin();
    fake_engine_set(engine, engine->allowed = 0);
    struct generation *g = generation_new(engine, 1, &sleeper);
    struct request_options o = options(1, 100);
    struct error e;
    generation_cancel(g, false);
    assert_int_equal(generation_submit(g, 0, &o, &e), OK);
    assert_int_equal(take_awake(g, true), TAKE_NEWS);
    struct choice_state c;
    generation_read(g, 0, &c);
    assert_int_equal(c.finish, FINISH_CANCELLED);
    choice_state_release(&c);
    generation_detach(g);
    end(engine);
}

static void refused_and_failed(void **state)
{
    (void)state;
    struct engine *engine = begin();
    struct generation *g = generation_new(engine, 1, &sleeper);
    struct request_options o = options(1, 1);
    struct error e;
    fake_engine_set(engine, engine->refusal = ERR_FULL);
    assert_int_equal(generation_submit(g, 0, &o, &e), ERR_FULL);
    fake_engine_set(engine, (engine->refusal = OK, engine->finish = FINISH_ERROR));
    assert_int_equal(generation_submit(g, 0, &o, &e), OK);
    assert_int_equal(take_awake(g, true), TAKE_NEWS);
    struct choice_state c;
    generation_read(g, 0, &c);
    assert_int_equal(c.finish, FINISH_ERROR);
    assert_string_equal(c.error.text, "node 2 is gone");
    choice_state_release(&c);
    generation_detach(g);
    end(engine);
}

static int open_letters(void **state)
{
    (void)state;
    static const uint8_t types[] = {VOCAB_UNKNOWN};
    static const float scores[1];
    struct tokenizer_vocab v = {.kind = VOCAB_SPM,
                                .types = types,
                                .scores = scores,
                                .bos = TOKEN_NONE,
                                .eos = TOKEN_NONE,
                                .eot = TOKEN_NONE,
                                .unknown = 0};
    enum err err = string_table_append(&v.tokens, "<unk>", 5, NULL);
    if (err == OK)
        err = tokenizer_new_vocab(&v, &letters, NULL);
    string_table_release(&v.tokens);
    return err == OK ? 0 : -1;
}

static int close_letters(void **state)
{
    (void)state;
    tokenizer_close(letters);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_every_byte),
        cmocka_unit_test(tokens_and_text_leave_together),
        cmocka_unit_test(waits_for_all_choices),
        cmocka_unit_test(reader_leaves_first),
        cmocka_unit_test(gone_wakes_the_reader),
        cmocka_unit_test(submitting_after_cancel_is_cancelled),
        cmocka_unit_test(refused_and_failed),
    };
    return cmocka_run_group_tests(tests, open_letters, close_letters);
}
