#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char told[8192];

/* What `tell` writes to stderr, in `told`. */
static void capture(void (*tell)(void))
{
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    assert_true(file != NULL && kept >= 0);
    dup2(fileno(file), STDERR_FILENO);
    tell();
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    size_t n = fread(told, 1, sizeof told - 1, file);
    told[n] = 0;
    fclose(file);
}

static void tell_each(void)
{
    log_error("one %d", 1);
    log_warn("two");
    log_info("three");
    log_debug("four");
}

static void only_what_the_level_allows(void **state)
{
    (void)state;
    log_set_level(LOG_WARN);
    capture(tell_each);
    assert_non_null(strstr(told, " error one 1\n"));
    assert_non_null(strstr(told, " warn  two\n"));
    assert_null(strstr(told, "three"));
    log_set_level(LOG_DEBUG);
    capture(tell_each);
    assert_non_null(strstr(told, " info  three\n"));
    assert_non_null(strstr(told, " debug four\n"));
    assert_true(log_enabled(LOG_DEBUG));
}

static void tell_hostile(void)
{
    log_warn("node %s left", "a\nb\x1b[2J");
}

static void tell_long(void)
{
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    log_warn("%s", text);
}

static void one_line_whatever_it_holds(void **state)
{
    (void)state;
    log_set_level(LOG_WARN);
    capture(tell_hostile);
    assert_non_null(strstr(told, " warn  node a?b?[2J left\n"));
    assert_ptr_equal(strchr(told, '\n'), told + strlen(told) - 1);
    capture(tell_long);
    assert_ptr_equal(strchr(told, '\n'), told + strlen(told) - 1);
    assert_true(strlen(told) > 900 && strlen(told) <= 1024);
}

static void the_environment_sets_the_level(void **state)
{
    (void)state;
    struct error e;
    log_set_level(LOG_WARN);
    setenv("SHOAL_LOG", "info", 1);
    assert_int_equal(log_init(&e), OK);
    assert_true(log_enabled(LOG_INFO) && !log_enabled(LOG_DEBUG));
    setenv("SHOAL_LOG", "loud", 1);
    assert_int_equal(log_init(&e), ERR_INVALID);
    assert_string_equal(e.text, "SHOAL_LOG: expected error, warn, info or debug, found \"loud\"");
    setenv("SHOAL_LOG", "", 1);
    assert_int_equal(log_init(&e), OK);
    unsetenv("SHOAL_LOG");
    assert_int_equal(log_init(&e), OK);
    assert_true(log_enabled(LOG_INFO)); /* as it was */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_the_level_allows),
        cmocka_unit_test(one_line_whatever_it_holds),
        cmocka_unit_test(the_environment_sets_the_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
