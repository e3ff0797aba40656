#include "engine/stop_filter.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Push `text` in pieces of `piece` bytes; the text that came out, ended by "|" and the stop string
 * if one was met, else by what finishing adds after a "+". */
static const char *filtered(const char *const *stops, int n, const char *text, size_t piece)
{
    static char result[4096];
    struct stop_filter *f;
    struct strbuf out;
    strbuf_init(&out, 1000);
    const char *stop = NULL;
    assert_int_equal(stop_filter_new(stops, n, &f, NULL), OK);
    size_t bytes = strlen(text);
    for (size_t i = 0; i < bytes && stop == NULL; i += piece) {
        size_t now = bytes - i < piece ? bytes - i : piece;
        stop = stop_filter_push(f, text + i, now, &out);
    }
    size_t end = out.bytes;
    if (stop == NULL)
        stop_filter_finish(f, &out);
    assert_false(out.failed);
    snprintf(result, sizeof(result), "%.*s%c%s", (int)end, out.data, stop != NULL ? '|' : '+',
             stop != NULL ? stop : out.data + end);
    strbuf_release(&out);
    stop_filter_free(f);
    return result;
}

static void cut_and_held_back(void **state)
{
    (void)state;
    static const struct {
        const char *stops[3];
        int n;
        const char *text, *expected;
    } cases[] = {
        {{NULL}, 0, "all of it", "all of it+"},
        {{"END"}, 1, "one END two", "one |END"},
        {{"END"}, 1, "one EN", "one +EN"},
        {{"END"}, 1, "one ENOUGH", "one ENOUGH+"},
        {{"END"}, 1, "END", "|END"},
        {{"aab"}, 1, "aaaab", "aa|aab"}, /* the beginning slides on */
        {{"abab x"}, 1, "ababab x!", "ab|abab x"},
        {{"abcd", "bc"}, 2, "xabcd", "xa|bc"}, /* complete first wins */
        {{"c", "abc"}, 2, "xabc", "x|abc"},    /* complete together: the longest */
        {{"\n\n", "User:"}, 2, "a\nUser: b", "a\n|User:"},
        {{"\xc3\xa9"}, 1, "caf\xc3\xa8 caf\xc3\xa9!", "caf\xc3\xa8 caf|\xc3\xa9"},
        {{"x"}, 1, "", "+"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t piece = 1; piece <= 9; piece++)
            assert_string_equal(filtered(cases[i].stops, cases[i].n, cases[i].text, piece),
                                cases[i].expected);
}

/* Random texts over two letters against a search by hand. */
static void random_texts_against_a_naive_search(void **state)
{
    (void)state;
    unsigned seed = 11;
    int n_met = 0;
    for (int round = 0; round < 3000; round++) {
        char text[40], a[8], b[8];
        const char *stops[2] = {a, b};
        struct {
            char *s;
            int n;
        } all[] = {
            {text, 1 + rand_r(&seed) % 39}, {a, 1 + rand_r(&seed) % 7}, {b, 1 + rand_r(&seed) % 7}};
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < all[i].n; j++)
                all[i].s[j] = "xy"[rand_r(&seed) % 2];
            all[i].s[all[i].n] = 0;
        }
        int cut = -1;
        const char *met = NULL;
        for (int end = 1; end <= all[0].n && met == NULL; end++)
            for (int i = 1; i <= 2; i++)
                if (all[i].n <= end && memcmp(text + end - all[i].n, all[i].s, all[i].n) == 0 &&
                    (met == NULL || end - all[i].n < cut)) {
                    met = all[i].s;
                    cut = end - all[i].n;
                }
        const char *got = filtered(stops, 2, text, 1 + rand_r(&seed) % 5);
        n_met += met != NULL;
        if (met != NULL) {
            assert_memory_equal(got, text, cut);
            assert_int_equal(got[cut], '|');
            assert_string_equal(got + cut + 1, met);
        } else {
            const char *plus = strchr(got, '+');
            assert_non_null(plus);
            assert_memory_equal(got, text, plus - got);
            assert_string_equal(plus + 1, text + (plus - got));
        }
    }
    assert_in_range(n_met, 500, 2990);
}

static void bad_strings_are_refused(void **state)
{
    (void)state;
    struct stop_filter *f;
    struct error e;
    char longer[REQUEST_MAX_STOP_BYTES + 2];
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    assert_int_equal(stop_filter_new((const char *const[]){"a", ""}, 2, &f, &e), ERR_INVALID);
    assert_null(f);
    assert_int_equal(stop_filter_new((const char *const[]){longer}, 1, &f, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "1025"));
    assert_int_equal(stop_filter_new((const char *const[]){"\xa9"}, 1, &f, &e), ERR_INVALID);
    const char *many[REQUEST_MAX_STOP + 1];
    for (int i = 0; i <= REQUEST_MAX_STOP; i++)
        many[i] = "x";
    assert_int_equal(stop_filter_new(many, REQUEST_MAX_STOP + 1, &f, &e), ERR_LIMIT);
    longer[REQUEST_MAX_STOP_BYTES] = 0;
    many[0] = longer;
    assert_int_equal(stop_filter_new(many, REQUEST_MAX_STOP, &f, &e), OK);
    stop_filter_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_and_held_back),
        cmocka_unit_test(random_texts_against_a_naive_search),
        cmocka_unit_test(bad_strings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
