#include "base/strbuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void grows_and_drops(void **state)
{
    (void)state;
    struct strbuf s;
    strbuf_init(&s, 10000);
    assert_string_equal(s.data, "");
    for (int i = 0; i < 1000; i++)
        strbuf_printf(&s, "%03d", i);
    assert_int_equal(s.bytes, 3000);
    strbuf_drop(&s, 2997);
    assert_string_equal(s.data, "999");
    strbuf_drop(&s, 0);
    strbuf_clear(&s);
    assert_string_equal(s.data, "");
    strbuf_puts(&s, "end");
    char *text = strbuf_detach(&s);
    assert_string_equal(text, "end");
    free(text);
    strbuf_release(&s);
}

static void limit_is_remembered(void **state)
{
    (void)state;
    struct strbuf s;
    strbuf_init(&s, 8);
    strbuf_puts(&s, "12345678");
    assert_false(s.failed);
    strbuf_puts(&s, "9");
    assert_true(s.failed);
    assert_string_equal(s.data, "12345678");
    strbuf_clear(&s);
    strbuf_printf(&s, "%d", 123456789);
    assert_true(s.failed);
    assert_string_equal(s.data, "");
    strbuf_release(&s);
    char *empty = strbuf_detach(&s);
    assert_string_equal(empty, "");
    free(empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_drops),
        cmocka_unit_test(limit_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
