#include "base/cpus.h"
#include "base/cpus_impl.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int quota_in(const char *text)
{
    char path[] = "/tmp/shoal-cpu-max-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int quota = cpus_quota_of(path);
    unlink(path);
    return quota;
}

static void quotas_are_rounded_up(void **state)
{
    (void)state;
    assert_int_equal(quota_in("200000 100000\n"), 2);
    assert_int_equal(quota_in("200001 100000\n"), 3);
    assert_int_equal(quota_in("1000 100000\n"), 1);
}

static void no_quota_is_none(void **state)
{
    (void)state;
    assert_int_equal(quota_in("max 100000\n"), 0);
    assert_int_equal(quota_in(""), 0);
    assert_int_equal(quota_in("-1 100000\n"), 0);
    assert_int_equal(quota_in("100000 0\n"), 0);
    assert_int_equal(cpus_quota_of("/tmp/no-such-folder/cpu.max"), 0);
}

static void one_allowed_processor_is_one(void **state)
{
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_true(cpus_usable() >= 1 && cpus_usable() <= CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(cpus_usable(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotas_are_rounded_up),
        cmocka_unit_test(no_quota_is_none),
        cmocka_unit_test(one_allowed_processor_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
