#include "base/printable.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void well_formed_characters_are_measured(void **state)
{
    (void)state;
    assert_int_equal(utf8_char_bytes(""), 0);
    assert_int_equal(utf8_char_bytes("a"), 1);
    assert_int_equal(utf8_char_bytes("\xc3\xa9"), 2);
    assert_int_equal(utf8_char_bytes("\xe2\x82\xac"), 3);
    assert_int_equal(utf8_char_bytes("\xed\x9f\xbf"), 3);
    assert_int_equal(utf8_char_bytes("\xf0\x9f\x90\x9f"), 4);
    assert_int_equal(utf8_char_bytes("\xf4\x8f\xbf\xbf"), 4);
}

static void others_are_not(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "\x80",
        "\xbf",
        "\xff", /* no first byte */
        "\xc0\xaf",
        "\xc1\xbf", /* overlong, two bytes */
        "\xe0\x9f\xbf",
        "\xf0\x8f\xbf\xbf", /* overlong, three and four */
        "\xed\xa0\x80",     /* a surrogate */
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", /* beyond U+10FFFF */
        "\xc3",
        "\xe2\x82",
        "\xf0\x9f\x90", /* cut */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(utf8_char_bytes(wrong[i]), 0);
}

static void check(const char *from, const char *to)
{
    char text[64];
    strcpy(text, from);
    make_printable(text);
    assert_string_equal(text, to);
}

static void what_a_terminal_obeys_is_replaced(void **state)
{
    (void)state;
    check("plain \xc3\xa9 \xf0\x9f\x90\x9f", "plain \xc3\xa9 \xf0\x9f\x90\x9f");
    check("a\nb\tc\x1b[31m\x7f", "a?b?c?[31m?");
    check("\xc2\x9b"
          "31m",
          "??31m");                /* CSI as one character */
    check("\xc2\xa0", "\xc2\xa0"); /* a blank that does not break is no control */
    check("x\xff\xc3", "x??");
    check("\xed\xa0\x80", "???");
    check("", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(well_formed_characters_are_measured),
        cmocka_unit_test(others_are_not),
        cmocka_unit_test(what_a_terminal_obeys_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
