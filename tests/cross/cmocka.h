/* What our tests use of cmocka, for cross builds (cmake/aarch64.cmake): distributions carry the
 * library for their own architecture only. The first failure is printed and ends the program with
 * status 1. A test includes the headers that cmocka wants first, so none is included here but ours.
 */
#ifndef SHOAL_CROSS_CMOCKA_H
#define SHOAL_CROSS_CMOCKA_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
    int (*setup)(void **state);
    int (*teardown)(void **state);
};

#define cmocka_unit_test(f) \
    { \
#f, f, NULL, NULL \
    }
#define cmocka_unit_test_setup_teardown(f, setup, teardown) \
    { \
#f, f, setup, teardown \
    }
#define cmocka_run_group_tests(tests, setup, teardown) \
    cross_run(tests, sizeof(tests) / sizeof(tests)[0], setup, teardown)

static inline void cross_assert(int holds, const char *what, const char *file, int line)
{
    if (holds)
        return;
    fflush(stdout);
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    exit(1);
}

static inline int cross_run(const struct CMUnitTest *tests, size_t n, int (*setup)(void **),
                            int (*teardown)(void **))
{
    void *group = NULL;
    cross_assert(setup == NULL || setup(&group) == 0, "group setup", __FILE__, __LINE__);
    for (size_t i = 0; i < n; i++) {
        void *state = group;
        printf("%s\n", tests[i].name);
        cross_assert(tests[i].setup == NULL || tests[i].setup(&state) == 0, "setup", __FILE__,
                     __LINE__);
        tests[i].run(&state);
        cross_assert(tests[i].teardown == NULL || tests[i].teardown(&state) == 0, "teardown",
                     __FILE__, __LINE__);
    }
    cross_assert(teardown == NULL || teardown(&group) == 0, "group teardown", __FILE__, __LINE__);
    return 0;
}

#define CROSS_ASSERT(holds, what) cross_assert(holds, what, __FILE__, __LINE__)
#define assert_true(a) CROSS_ASSERT(!!(a), #a)
#define assert_false(a) CROSS_ASSERT(!(a), "not " #a)
#define assert_null(a) CROSS_ASSERT((a) == NULL, #a " is NULL")
#define assert_non_null(a) CROSS_ASSERT((a) != NULL, #a " is not NULL")
#define assert_ptr_equal(a, b) CROSS_ASSERT((const void *)(a) == (const void *)(b), #a " == " #b)
#define assert_ptr_not_equal(a, b) \
    CROSS_ASSERT((const void *)(a) != (const void *)(b), #a " != " #b)
#define assert_int_equal(a, b) CROSS_ASSERT((uint64_t)(a) == (uint64_t)(b), #a " == " #b)
#define assert_int_not_equal(a, b) CROSS_ASSERT((uint64_t)(a) != (uint64_t)(b), #a " != " #b)
#define assert_string_equal(a, b) CROSS_ASSERT(strcmp(a, b) == 0, #a " equals " #b)
#define assert_memory_equal(a, b, n) CROSS_ASSERT(memcmp(a, b, n) == 0, #a " equals " #b)
#define assert_memory_not_equal(a, b, n) CROSS_ASSERT(memcmp(a, b, n) != 0, #a " differs from " #b)
#define skip() \
    do { \
        puts("    skipped"); \
        return; \
    } while (0)
#define fail_msg(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), fail())
#define fail() CROSS_ASSERT(0, "this line is not reached")

#endif
