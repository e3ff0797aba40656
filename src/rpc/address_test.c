/* Addresses as people write them: split, joined, refused, classified. */
#include "rpc/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static void splits_and_joins(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        int port;
    } good[] = {{"127.0.0.1:50100", "127.0.0.1", 50100},
                {"node-7.lan:0", "node-7.lan", 0},
                {"[::1]:65535", "::1", 65535}};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct address a;
        char text[ADDRESS_MAX];
        assert_int_equal(address_parse(good[i].text, &a, NULL), OK);
        assert_string_equal(a.host, good[i].host);
        assert_int_equal(a.port, good[i].port);
        address_format(&a, text);
        assert_string_equal(text, good[i].text);
    }
}

static void refuses_what_is_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",      "127.0.0.1", ":50100",   "host:", "host:65536", "host:-1",  "host:1x", "::1:50100",
        "[::1]", "[]:1",      "[host]:1", "a b:1", "a/b:1",      "h:000001", "[::1:1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct address a;
        struct error e = {.code = OK};
        assert_int_equal(address_parse(bad[i], &a, &e), ERR_INVALID);
        assert_non_null(strstr(e.text, "expected HOST:PORT"));
    }
    char text[400];
    memset(text, 'x', sizeof(text));
    strcpy(text + 300, ":1");
    struct address a;
    assert_int_equal(address_parse(text, &a, NULL), ERR_INVALID);
}

static void knows_loopback(void **state)
{
    (void)state;
    static const struct {
        const char *host;
        bool loopback;
    } hosts[] = {{"127.0.0.1", true},  {"127.9.9.9", true},
                 {"::1", true},        {"0.0.0.0", false},
                 {"::", false},        {"10.0.0.1", false},
                 {"128.0.0.1", false}, {"no-such-host.invalid", false}};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        struct address a = {.port = 1};
        strcpy(a.host, hosts[i].host);
        assert_int_equal(address_is_loopback(&a), hosts[i].loopback);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(splits_and_joins),
                                       cmocka_unit_test(refuses_what_is_none),
                                       cmocka_unit_test(knows_loopback)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
