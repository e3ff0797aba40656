/* The engine's text: that of the tokens, stop strings, end tokens, prompts cut to fit. Over rings
 * of the hashing backend. */
#include "engine_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- text ---- */

enum { ID_BOS = 1, ID_EOS = 2, N_PIECES = 60 }; /* fewer than the model's 64: padded */

/* Words, letters, and the four bytes of an emoji one by one. */
static struct tokenizer *small_tokenizer(void)
{
    static float scores[N_PIECES];
    static uint8_t types[N_PIECES];
    struct tokenizer_vocab v = {.kind = VOCAB_SPM,
                                .space = VOCAB_SPACE_EVERY,
                                .scores = scores,
                                .types = types,
                                .bos = ID_BOS,
                                .eos = ID_EOS,
                                .eot = TOKEN_NONE,
                                .unknown = 0};
    for (int i = 0; i < N_PIECES; i++) {
        static const char *const special[] = {"<unk>",  "<s>",    "</s>",  "<0xF0>",
                                              "<0x9F>", "<0x98>", "<0x80>"};
        char piece[16];
        if (i < 7)
            snprintf(piece, sizeof(piece), "%s", special[i]);
        else
            snprintf(piece, sizeof(piece), "%s%c%c", i % 3 == 0 ? "▁" : "", 'a' + i % 26,
                     'a' + i / 26 * 7);
        types[i] = i == 0  ? VOCAB_UNKNOWN
                   : i < 3 ? VOCAB_CONTROL
                   : i < 7 ? VOCAB_BYTE
                           : VOCAB_NORMAL;
        assert_int_equal(string_table_append(&v.tokens, piece, strlen(piece), NULL), OK);
    }
    struct tokenizer *t;
    struct error e = {.text = ""};
    if (tokenizer_new_vocab(&v, &t, &e) != OK)
        fail_msg("%s", e.text);
    string_table_release(&v.tokens);
    return t;
}

/* Run one request of 30 tokens with changes made by `change`; what was heard. */
static void run_text(const struct tokenizer *t, const char *const *stops, int n_stop, int variant,
                     struct heard *h)
{
    struct rig rig = rig_start((struct rig_options){.n_stages = 2, .tokenizer = t});
    int32_t prompt[64];
    heard_init(h);
    struct request_options o = request_of(variant, prompt, h);
    o.max_tokens = 40;
    o.stop = stops;
    o.n_stop = n_stop;
    uint64_t id;
    struct error e = {.text = ""};
    if (engine_submit(rig.engine, &o, &id, &e) != OK)
        fail_msg("%s", e.text);
    wait_end(h);
    rig_stop(&rig);
}

/* Where each token's text stands: spans follow each other, and hold what the token says. */
static void assert_spans(const struct tokenizer *t, const struct heard *h)
{
    size_t at = 0;
    for (int i = 0; i < h->n_tokens; i++) {
        const struct text_span *s = &h->spans[i];
        assert_true(s->begin == at || s->begin + 1 == at); /* there the one before ended inside */
        size_t counted = 0, bytes;
        for (size_t k = 0; k < s->begin; k++)
            counted += ((unsigned char)h->text[k] & 0xC0) != 0x80;
        assert_int_equal(s->characters, counted);
        const char *piece =
            h->tokens[i] < N_PIECES ? tokenizer_piece(t, (uint32_t)h->tokens[i], &bytes) : NULL;
        if (h->tokens[i] >= 7 && piece != NULL && s->end - s->begin == bytes)
            assert_memory_equal(h->text + s->begin, piece, bytes);
        if (h->tokens[i] >= 7 && piece != NULL) /* behind a broken character stands its U+FFFD */
            assert_true(s->end - s->begin == bytes || s->end - s->begin == bytes + 3);
        at = s->end;
    }
}

static void text_is_that_of_the_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    for (int variant = 0; variant < 6; variant++) {
        struct heard h;
        run_text(t, NULL, 0, variant, &h);
        assert_int_equal(h.finish, FINISH_LENGTH);
        assert_spans(t, &h);
        int32_t prompt[64];
        struct request_options o = request_of(variant, prompt, &h);
        uint32_t ids[CONTEXT];
        size_t n = 0;
        for (int i = 0; i < o.n_prompt; i++) /* ids beyond the tokenizer have no text */
            if (prompt[i] < N_PIECES)
                ids[n++] = (uint32_t)prompt[i];
        struct strbuf before, all;
        strbuf_init(&before, 10000);
        strbuf_init(&all, 10000);
        assert_int_equal(tokenizer_decode(t, ids, n, TOKENIZER_SKIP_SPECIAL, &before, NULL), OK);
        for (int i = 0; i < h.n_tokens; i++)
            if (h.tokens[i] < N_PIECES)
                ids[n++] = (uint32_t)h.tokens[i];
        assert_int_equal(tokenizer_decode(t, ids, n, TOKENIZER_SKIP_SPECIAL, &all, NULL), OK);
        /* The prompt's own text may end in an unfinished character, shown as U+FFFD. */
        assert_true(h.text_bytes > 10 && h.text_bytes <= all.bytes);
        assert_memory_equal(h.text, all.data + all.bytes - h.text_bytes, h.text_bytes);
        if (before.bytes + h.text_bytes != all.bytes)
            assert_true(before.bytes + h.text_bytes <= all.bytes + 3);
        strbuf_release(&before);
        strbuf_release(&all);
    }
    tokenizer_close(t);
}

static void stop_strings_across_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    struct heard whole, cut;
    run_text(t, NULL, 0, 0, &whole);
    int n_cut = 0;
    for (size_t at = 0; at + 7 < whole.text_bytes; at += 5) {
        if (((unsigned char)whole.text[at] & 0xC0) == 0x80)
            continue; /* a stop string begins with a whole character */
        char stop[8] = "";
        memcpy(stop, whole.text + at, 7); /* longer than any piece: spans tokens */
        if (memchr(stop, 0, 7) != NULL)
            continue;
        run_text(t, (const char *const[]){"never~seen", stop}, 2, 0, &cut);
        assert_int_equal(cut.finish, FINISH_STOP);
        assert_string_equal(cut.stop, stop);
        const char *first = memmem(whole.text, whole.text_bytes, stop, 7);
        assert_int_equal(cut.text_bytes, first - whole.text);
        assert_memory_equal(cut.text, whole.text, cut.text_bytes);
        assert_memory_equal(cut.tokens, whole.tokens, (size_t)cut.n_tokens * sizeof(int32_t));
        n_cut++;
    }
    assert_true(n_cut >= 4);
    tokenizer_close(t);
}

static void end_tokens_end_unless_ignored(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    struct rig rig = rig_start((struct rig_options){.n_stages = 1, .tokenizer = t});
    const struct logit_bias favour = {.token = ID_EOS, .bias = 100};
    for (int ignore = 0; ignore <= 1; ignore++) {
        for (int special = 0; special <= 1; special++) {
            struct heard h;
            heard_init(&h);
            int32_t prompt[64];
            struct request_options o = request_of(0, prompt, &h);
            prompt[0] = 10; /* a whole word */
            o.max_tokens = 3;
            o.sampling.logit_bias = &favour;
            o.sampling.n_logit_bias = 1;
            o.ignore_eos = ignore != 0;
            o.special_text = special != 0;
            uint64_t id;
            assert_int_equal(engine_submit(rig.engine, &o, &id, NULL), OK);
            wait_end(&h);
            assert_int_equal(h.finish, ignore ? FINISH_LENGTH : FINISH_STOP);
            assert_int_equal(h.n_tokens, ignore ? 3 : 1);
            assert_int_equal(h.tokens[0], ID_EOS);
            assert_int_equal(h.text_bytes, ignore && special ? 12 : 0); /* "</s></s></s>" */
            assert_string_equal(h.stop, "");
        }
    }
    rig_stop(&rig);
    tokenizer_close(t);
}

/* ---- prompts that are too long ---- */

enum { LONG = 300 };

/* Run a prompt with these limits and the same one as it should be cut: both get the same tokens. */
static void assert_cut(struct rig *rig, const int32_t *prompt, struct request_options limits,
                       const int32_t *cut, int n_cut)
{
    struct heard h[2];
    for (int i = 0; i < 2; i++) {
        struct request_options o = i == 0 ? limits : (struct request_options){0};
        uint64_t id;
        struct error e = {.text = ""};
        heard_init(&h[i]);
        o.prompt = i == 0 ? prompt : cut;
        o.n_prompt = i == 0 ? LONG : n_cut;
        o.max_tokens = limits.max_tokens;
        o.sampling = SAMPLING_GREEDY;
        o.ignore_eos = true;
        o.on_event = hear;
        o.context = &h[i];
        if (engine_submit(rig->engine, &o, &id, &e) != OK)
            fail_msg("%s", e.text);
        wait_end(&h[i]);
    }
    assert_int_equal(h[0].timings.n_prompt, n_cut);
    assert_int_equal(h[0].timings.n_truncated, LONG - n_cut);
    assert_int_equal(h[1].timings.n_truncated, 0);
    assert_true(h[0].n_tokens > 0);
    assert_int_equal(h[0].n_tokens, h[1].n_tokens);
    assert_memory_equal(h[0].tokens, h[1].tokens, (size_t)h[0].n_tokens * sizeof(int32_t));
    assert_int_equal(h[0].text_bytes, h[1].text_bytes);
    assert_memory_equal(h[0].text, h[1].text, h[0].text_bytes);
}

static void a_prompt_is_cut_to_fit(void **state)
{
    (void)state;
    struct tokenizer *t = small_tokenizer();
    struct rig rig = rig_start((struct rig_options){.n_stages = 2, .tokenizer = t});
    struct rig small = rig_start((struct rig_options){.n_stages = 1, .n_blocks = 4});
    int32_t prompt[LONG], cut[CONTEXT];
    for (int i = 0; i < LONG; i++)
        prompt[i] = (i * i + 11) % 50 + 7;
    const int32_t *end = prompt + LONG;
    assert_cut(&rig, prompt, (struct request_options){.truncate = true, .max_tokens = 20},
               end - (CONTEXT - 20), CONTEXT - 20);
    assert_cut(&rig, prompt, (struct request_options){.truncate = true, .max_tokens = -1},
               end - (CONTEXT - 1), CONTEXT - 1);
    assert_cut(&rig, prompt, (struct request_options){.truncate_to = 5, .max_tokens = 9}, end - 5,
               5);
    assert_cut(&rig, prompt,
               (struct request_options){.truncate = true, .truncate_to = 200, .max_tokens = 100},
               end - (CONTEXT - 100), CONTEXT - 100);
    /* All blocks together hold 64 tokens. Without a tokenizer no token is BOS. */
    prompt[0] = ID_BOS;
    assert_cut(&small, prompt, (struct request_options){.truncate = true, .max_tokens = 4},
               end - 60, 60);
    memcpy(cut, end - 40, 40 * sizeof cut[0]);
    cut[0] = ID_BOS; /* it stays in front */
    assert_cut(&rig, prompt, (struct request_options){.truncate_to = 40, .max_tokens = 9}, cut, 40);
    assert_cut(&rig, prompt, (struct request_options){.truncate_to = 1, .max_tokens = 9}, end - 1,
               1);

    struct request_options o = {.prompt = prompt, .n_prompt = LONG, .max_tokens = 1};
    struct error e;
    uint64_t id;
    o.sampling = SAMPLING_GREEDY;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "300 tokens"));
    assert_non_null(strstr(e.text, "only 128"));
    o.truncate_to = 200; /* still too long */
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "200 tokens"));
    o.truncate = true;
    o.max_tokens = CONTEXT;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "max_tokens of 128"));
    o.truncate_to = -1;
    assert_int_equal(engine_submit(rig.engine, &o, &id, &e), ERR_INVALID);
    rig_stop(&rig);
    rig_stop(&small);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_that_of_the_tokens),
        cmocka_unit_test(stop_strings_across_tokens),
        cmocka_unit_test(end_tokens_end_unless_ignored),
        cmocka_unit_test(a_prompt_is_cut_to_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
