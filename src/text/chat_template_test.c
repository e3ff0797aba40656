/* Chat templates: what Jinja2 and `transformers` do, feature by feature (expected texts were
 * printed by Python's jinja2 3.1), errors, and hostile templates that must end in an error soon. */
#include "text/test_data_impl.h"

#include <time.h>

struct rendering {
    const char *source, *variables, *expected;
};

static enum err render(const char *source, const char *variables, char **out, struct error *e)
{
    struct chat_template *c = NULL;
    size_t bytes = 0;
    *out = NULL;
    enum err err = chat_template_new(source, strlen(source), &c, e);
    if (err == OK)
        err = chat_template_render(c, variables, strlen(variables), out, &bytes, e);
    assert_true(*out == NULL || strlen(*out) == bytes);
    chat_template_free(c);
    return err;
}

static void check_all(const struct rendering *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *out = NULL;
        struct error e = {0};
        if (render(cases[i].source, cases[i].variables, &out, &e) != OK)
            fail_msg("%s: %s", cases[i].source, e.text);
        if (strcmp(out, cases[i].expected) != 0)
            fail_msg("%s:\n expected %s\n found    %s", cases[i].source, cases[i].expected, out);
        free(out);
    }
}

#define CHECK_ALL(cases) check_all(cases, sizeof(cases) / sizeof((cases)[0]))

static void test_white_space_and_control(void **state)
{
    (void)state;
    static const struct rendering cases[] = {
        {"{% for m in messages %}\n<{{ m.role }}>{{ m['content'] }}\n{% endfor %}\n",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"bot\",\"content\":\"b\"}]}",
         "<user>a\n<bot>b\n"},
        {"a\n   {% if true %}\n b\n   {% endif %}\nc\n", "{}", "a\n b\nc"},
        {"a  {%- if x is defined -%}  y  {%- endif %}  b", "{}", "a  b"},
        {"{% for i in range(9) %}{% if i == 5 %}{% break %}{% endif %}{% if i is odd %}"
         "{% continue %}{% endif %}{{ i }}{% endfor %}", "{}", "024"},
        {"{% set ns = namespace(n=0) %}{% for i in [1,2,3] %}{% set ns.n = ns.n + i %}{% endfor %}"
         "{{ ns.n }}", "{}", "6"},
        {"{% macro f(a, b='x') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(2, b=3) }}", "{}",
         "1x23"},
        {"{% generation %}hi{% endgeneration %}\n{%- generation -%} ho {%- endgeneration -%} !",
         "{}", "hiho!"},
        {"{{ undefined_thing }}|{{ x.y }}|{{ none }}", "{\"x\":{}}", "||None"},
        {"{{ messages[1:][0] }}{{ messages[::-1][0] }}{{ messages|length }}",
         "{\"messages\":[\"a\",\"b\"]}", "bb2"},
        {"{% set x %}a{{ 1 }}{% endset %}{{ x * 2 }}", "{}", "a1a1"},
        {"{% block b %}in{% endblock %}", "{}", "in"},
    };
    CHECK_ALL(cases);
}

static void test_values_print_as_in_python(void **state)
{
    (void)state;
    static const struct rendering cases[] = {
        {"{{ true }} {{ none }} {{ 1.0 }} {{ 1e20 }} {{ [1, 'a', none] }} {{ {'k': \"it's\"} }}",
         "{}", "True None 1.0 1e+20 [1, 'a', None] {'k': \"it's\"}"},
        {"{{ 'x' ~ true ~ none ~ 2.50 ~ [false] }}", "{}", "xTrueNone2.5[False]"},
        {"{{ x|string + '!' }}{{ [1, true]|join('-') }}", "{\"x\":{\"b\":1,\"a\":2}}",
         "{'b': 1, 'a': 2}!1-True"},
        {"{{ x|tojson }}", "{\"x\":{\"z\":[1,2.5,true,null],\"a\":\"<é\\n\\\"&'>\"}}",
         "{\"z\": [1, 2.5, true, null], \"a\": \"<é\\n\\\"&'>\"}"},
        {"{{ x|tojson(indent=2) }}", "{\"x\":{\"a\":[1,{}],\"b\":[]}}",
         "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"},
        {"{{ x|tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true) }}",
         "{\"x\":{\"b\":\"é😀\",\"a\":1}}", "{\"a\":1,\"b\":\"\\u00e9\\ud83d\\ude00\"}"},
        {"{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}", "{}",
         "a\n    b\n\n    c|  a\n  b"},
        {"{{ 7 // 2 }} {{ 7 / 2 }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ 3 * 1.5 }} {{ [1] * 2 }}", "{}",
         "3 3.5 3 8 4.5 [1, 1]"},
        {"{{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 % 2 }} {{ 'a%s' % 1 }}", "{}",
         "1 2 -2 1.5 a1"},
        {"{{ '%s has %d' % ('x', 3) }} {{ '{}-{}'.format(1, 'b') }}", "{}", "x has 3 1-b"},
    };
    CHECK_ALL(cases);
}

static void test_methods_and_tests(void **state)
{
    (void)state;
    static const struct rendering cases[] = {
        {"{{ ' a b '.strip() }}{{ 'a,b'.split(',')[1] }}{{ 'a-b-c'.rsplit('-', 1) }}", "{}",
         "a bb['a-b', 'c']"},
        {"{{ 'xay'.replace('a', 'bb') }}{{ 'xxa'.lstrip('x') }}{{ 'aB'.upper() }}", "{}",
         "xbbyaAB"},
        {"{{ 'pre.x'.removeprefix('pre') }}{{ ''.isdigit() }}{{ '-'.join(['a', 'b']) }}", "{}",
         ".xFalsea-b"},
        {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{{ d.get('q', 5) }}",
         "{\"d\":{\"z\":1,\"a\":2}}", "z=1;a=2;5"},
        {"{{ 'a' is sequence }}{{ d is mapping }}{{ d is iterable }}{{ 1 is number }}"
         "{{ 'a' is string }}{{ x is none }}{{ y is defined }}",
         "{\"d\":{},\"x\":null}", "TrueTrueTrueTrueTrueTrueFalse"},
        {"{{ ms|selectattr('r', 'equalto', 'u')|map(attribute='c')|list }}",
         "{\"ms\":[{\"r\":\"u\",\"c\":1},{\"r\":\"a\",\"c\":2}]}", "[1]"},
        {"{{ strftime_now('%d %B %Y') }}", "{\"now\":\"2024-07-26T10:00:00\"}", "26 July 2024"},
        {"{% set j = joiner(', ') %}{{ j() }}a{{ j() }}b", "{}", "a, b"},
    };
    CHECK_ALL(cases);
}

static void test_time_is_now_by_default(void **state)
{
    (void)state;
    char *out = NULL, year[16];
    time_t now = time(NULL);
    struct tm tm;
    strftime(year, sizeof(year), "%Y", localtime_r(&now, &tm));
    assert_int_equal(render("{{ strftime_now('%Y') }}", "{}", &out, NULL), OK);
    assert_string_equal(out, year);
    free(out);
}

/* The rendering must fail with this code, and say this. */
static void check_refused(const char *source, const char *variables, enum err code,
                          const char *text)
{
    char *out = NULL;
    struct error e = {0};
    enum err err = render(source, variables, &out, &e);
    if (err != code || strstr(e.text, text) == NULL)
        fail_msg("%s: expected %s with '%s', found %s: %s", source, err_text(code), text,
                 err_text(err), e.text);
    assert_null(out);
}

static void test_errors(void **state)
{
    (void)state;
    check_refused("{% if %}", "{}", ERR_FORMAT, "line 1");
    check_refused("a\n{{ raise_exception('roles must alternate') }}", "{}", ERR_FORMAT,
                  "roles must alternate (template line 2)");
    check_refused("{{ x.y.z }}", "{}", ERR_FORMAT, "undefined");
    check_refused("{{ x|nope }}", "{}", ERR_FORMAT, "nope");
    check_refused("{% include 'a' %}", "{}", ERR_FORMAT, "cannot import");
    check_refused("{{ 1 }}", "{\"a\":", ERR_FORMAT, "variables");
    check_refused("{{ 1 }}", "[]", ERR_FORMAT, "variables");
    check_refused("{{ strftime_now('%Y') }}", "{\"now\":\"yesterday\"}", ERR_FORMAT, "yesterday");
    check_refused("\xff", "{}", ERR_FORMAT, "UTF-8");
    check_refused("{{ 'a' + 1 }}", "{}", ERR_FORMAT, "+");
}

/* Templates that would take all memory or never end. Each must fail soon, with an error that says
 * what was exceeded. */
static void test_hostile_templates(void **state)
{
    (void)state;
    static const char *const limits[] = {
        /* time: instructions without end */
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        /* memory: doubling text */
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x * 2 %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}"
        "{% endset %}{% set n.x = y %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x.replace('a', 'aaa') %}"
        "{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x|replace('a', n.x) %}"
        "{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x.join([n.x, n.x]) %}"
        "{% endfor %}",
        /* … and structures that unfold exponentially */
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
        "{{ n.x }}",
        "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}"
        "{% endfor %}{{ n.x|tojson }}",
        /* depth */
        "{% set n = namespace(x=[]) %}{% for i in range(90000) %}{% set n.x = [n.x] %}{% endfor %}",
        "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
        "{% set n = namespace() %}{% set n.x = [n] %}{{ n == n }}",
        /* one operation with a huge result */
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * 'a' }}",
        "{{ ([0] * 10000000000)|length }}",
        "{{ ('a' * 100000000) ~ ('b' * 900000000) ~ ('a' * 100000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ 'a\nb'|indent(1000000000) }}",
        "{{ [1]|batch(1000000000, 0)|list }}",
        "{{ [1]|slice(1000000000, 0)|list }}",
        /* long comparisons */
        "{% set a = 'a' * 200000000 %}{% set b = a ~ '' %}{% for i in range(100000) %}"
        "{% if a == b %}{% endif %}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        char *out = NULL;
        struct error e = {0};
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        enum err err = render(limits[i], "{}", &out, &e);
        clock_gettime(CLOCK_MONOTONIC, &b);
        double seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        printf("%5.2f s  %s  (%.50s…)\n", seconds, e.text, limits[i]);
        if (err != ERR_LIMIT && !(err == ERR_FORMAT && strstr(e.text, "recursion") != NULL))
            fail_msg("%s: found %s: %s", limits[i], err_text(err), e.text);
        assert_null(out);
        assert_true(seconds < 60);
    }
}

static void test_output_limit(void **state)
{
    (void)state;
    check_refused("{% for i in range(20) %}{{ 'a' * 1000000 }}{% endfor %}", "{}", ERR_LIMIT,
                  "template prints 20000000 bytes, at most 16777216");
}

/* `head`, `n` times `part`, `tail`: rendered, or refused without a crash. */
static enum err render_repeated(const char *head, const char *part, int n, const char *tail,
                                struct error *e)
{
    struct strbuf source;
    strbuf_init(&source, 1 << 20);
    strbuf_puts(&source, head);
    for (int i = 0; i < n; i++)
        strbuf_puts(&source, part);
    strbuf_puts(&source, tail);
    char *out = NULL;
    enum err err = render(source.data, "{}", &out, e);
    free(out);
    strbuf_release(&source);
    return err;
}

/* A template's text may nest deeply, with brackets and without: the syntax tree is recursive. */
static void test_deep_source(void **state)
{
    (void)state;
    struct error e;
    assert_int_equal(render_repeated("{{ ", "(", 20000, " }}", &e), ERR_LIMIT);
    assert_int_equal(render_repeated("{{ ", "(", 300, " }}", &e), ERR_FORMAT);
    assert_int_equal(render_repeated("{{ 1", "+1", 90000, " }}", &e), ERR_LIMIT);
    assert_int_equal(render_repeated("{{ 1", "+1", 1900, " }}", &e), OK);
    assert_int_equal(render_repeated("{{ 1", "~1", 1900, " }}", &e), OK);
    assert_int_equal(render_repeated("{{ 1", "|string", 1900, " }}", &e), OK);
    assert_int_equal(render_repeated("{{ a", ".b", 90000, " }}", &e), ERR_LIMIT);
    assert_int_equal(render_repeated("{{ ", "not ", 90000, "1 }}", &e), ERR_LIMIT);
    assert_int_equal(
        render_repeated("{% if a %}", "{% elif a %}", 40000, "{% endif %}", &e), ERR_LIMIT);
    assert_int_equal(render_repeated("{% if a %}", "{% elif a %}", 900, "{% endif %}", &e), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_white_space_and_control),
        cmocka_unit_test(test_values_print_as_in_python),
        cmocka_unit_test(test_methods_and_tests),
        cmocka_unit_test(test_time_is_now_by_default),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_hostile_templates),
        cmocka_unit_test(test_output_limit),
        cmocka_unit_test(test_deep_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
