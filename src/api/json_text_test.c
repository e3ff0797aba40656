/* JSON in both directions: what is refused and why, and that what leaves is UTF-8. */
#include "api/json_text_impl.h"

#include "base/bounds.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The message with which `text` is refused; "" if it is not. */
static const char *refusal(const char *text, size_t bytes)
{
    static struct api_error e;
    e = (struct api_error){0};
    json_t *root = json_parse_request(text, bytes, &e);
    if (root != NULL) {
        json_decref(root);
        return "";
    }
    assert_int_equal(e.fault, FAULT_JSON);
    assert_int_equal(api_error_status(&e), 400);
    return e.reason.text;
}

static void assert_refused(const char *text, const char *part)
{
    const char *message = refusal(text, strlen(text));
    if (strstr(message, part) == NULL)
        fail_msg("%s: refused with \"%s\", expected \"%s\"", text, message, part);
}

static void bad_bodies_are_named(void **state)
{
    (void)state;
    assert_string_equal(refusal("{\"a\": 1}", 8), "");
    assert_refused("", "is empty");
    assert_refused("[1]", "must be a JSON object");
    assert_refused("{\"a\":\n 1,, }", "line 2 column 4");
    assert_refused("{\"a\": 1", "line 1 column 7");
    assert_refused("{\"a\": 1} x", "end of file expected");
    assert_refused("{\"a\": 1, \"a\": 2}", "duplicate");
    assert_refused("{\"a\": \"\xff\"}", "unable to decode byte 0xff");
    assert_refused("{\"a\": \"\xed\xa0\x80\"}", "unable to decode byte 0xed");
    assert_refused("{\"a\": \"\\ud800\"}", "\\uD800");
    assert_refused("{\"a\": \"\\u0000\"}", "NUL");
    assert_refused("{\"a\": 1e999}", "real number overflow");
    assert_refused("{\"a\": 99999999999999999999}", "too big integer");
    assert_refused("{\"a\": NaN}", "invalid token");
    assert_int_not_equal(strlen(refusal("{\"a\": 1}\0", 9)), 0);
}

/* `n` times `piece` between head and tail. */
static char *repeat(const char *head, const char *piece, size_t n, const char *tail)
{
    size_t size = strlen(head) + n * strlen(piece) + strlen(tail) + 1;
    char *text = malloc(size), *end = text + strlen(head);
    assert_non_null(text);
    strcpy(text, head);
    for (size_t i = 0; i < n; i++, end += strlen(piece))
        memcpy(end, piece, strlen(piece));
    strcpy(end, tail);
    return text;
}

static void bombs_are_counted_before_they_are_built(void **state)
{
    (void)state;
    char *deep = repeat("{\"a\":", "[", JSON_MAX_DEPTH, "");
    assert_refused(deep, "nested deeper than 128");
    free(deep);
    char *wide = repeat("{\"a\":[", "[],", JSON_MAX_CONTAINERS, "1]}");
    assert_refused(wide, "more than 65536 arrays and objects");
    free(wide);
    char *many = repeat("{\"a\":[", "1,", JSON_MAX_VALUES + 1, "1]}");
    assert_refused(many, "more than 2097152 values");
    free(many);
    /* The same bytes inside a string cost nothing, also after an escaped quote. */
    char *text = repeat("{\"a\":\"\\\"", "[{,", JSON_MAX_VALUES + 1, "\"}");
    assert_string_equal(refusal(text, strlen(text)), "");
    free(text);
    char *allowed = repeat("{\"a\":", "[", JSON_MAX_DEPTH - 1, "");
    char *whole = repeat(allowed, "]", JSON_MAX_DEPTH - 1, "}");
    assert_string_equal(refusal(whole, strlen(whole)), "");
    free(allowed);
    free(whole);
}

static void assert_repaired(const char *text, const char *expected)
{
    json_t *string = json_text(text, strlen(text));
    assert_non_null(string);
    assert_string_equal(json_string_value(string), expected);
    json_decref(string);
}

#define BAD "\xef\xbf\xbd"

static void output_is_utf8(void **state)
{
    (void)state;
    assert_repaired("", "");
    assert_repaired("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
                    "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    assert_repaired("a\xff z", "a" BAD " z");
    assert_repaired("\xed\xa0\x80", BAD BAD BAD); /* a surrogate */
    assert_repaired("\xc0\xaf", BAD BAD);         /* '/' the long way */
    assert_repaired("\xe0\x80\xaf", BAD BAD BAD);
    assert_repaired("\xf0\x80\x80\xaf", BAD BAD BAD BAD);
    assert_repaired("\xf4\x90\x80\x80", BAD BAD BAD BAD); /* above U+10FFFF */
    assert_repaired("\xe2\x82", BAD BAD);                 /* cut */
    assert_repaired("\x80x", BAD "x");
}

static void appends_one_line(void **state)
{
    (void)state;
    struct strbuf out;
    strbuf_init(&out, 100);
    json_append(&out, json_pack("{s:s}", "a", "x\ny"));
    assert_string_equal(out.data, "{\"a\":\"x\\ny\"}");
    assert_false(out.failed);
    json_append(&out, NULL);
    assert_true(out.failed);
    strbuf_release(&out);
}

static void errors_have_openai_form(void **state)
{
    (void)state;
    struct api_error e;
    struct strbuf out;
    strbuf_init(&out, 1000);
    assert_false(api_refuse(&e, FAULT_QUEUE_FULL, NULL, "wait\n\"%s\"", "x"));
    assert_int_equal(api_error_status(&e), 429);
    json_append(&out, api_error_json(&e));
    assert_string_equal(out.data, "{\"error\":{\"message\":\"wait?\\\"x\\\"\",\"type\":"
                                  "\"rate_limit_error\",\"param\":null,\"code\":\"queue_full\"}}");
    strbuf_clear(&out);
    api_refuse(&e, FAULT_INVALID, "top_p", "no");
    json_append(&out, api_error_json(&e));
    assert_non_null(strstr(out.data, "\"param\":\"top_p\""));
    strbuf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_bodies_are_named),
        cmocka_unit_test(bombs_are_counted_before_they_are_built),
        cmocka_unit_test(output_is_utf8),
        cmocka_unit_test(appends_one_line),
        cmocka_unit_test(errors_have_openai_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
