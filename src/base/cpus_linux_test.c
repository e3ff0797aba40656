/* Quotas and places under folders that stand for /, and this process's own affinity. */
#include "base/cpus.h"
#include "base/cpus_impl.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATH_BYTES = 512 };

static int root_new(void **state)
{
    static char root[64];
    snprintf(root, sizeof root, "/tmp/shoal-cpus-XXXXXX");
    *state = mkdtemp(root);
    return *state == NULL;
}

static int root_remove(void **state)
{
    char command[PATH_BYTES];
    snprintf(command, sizeof command, "rm -r '%s'", (char *)*state);
    return system(command);
}

/* Write root/path, folders included. */
static void put(const char *root, const char *path, const char *text)
{
    char full[PATH_BYTES];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *at = strchr(full + strlen(root) + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = 0;
        mkdir(full, 0700);
        *at = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
}

static int quota_v2(const char *root, const char *text)
{
    put(root, "proc/self/cgroup", "0::/\n");
    put(root, "sys/fs/cgroup/cpu.max", text);
    return cpus_quota_under(root);
}

static void quotas_are_rounded_up(void **state)
{
    assert_int_equal(quota_v2(*state, "200000 100000\n"), 2);
    assert_int_equal(quota_v2(*state, "200001 100000\n"), 3);
    assert_int_equal(quota_v2(*state, "1000 100000\n"), 1);
}

static void no_quota_is_none(void **state)
{
    assert_int_equal(cpus_quota_under(*state), 0);
    assert_int_equal(quota_v2(*state, "max 100000\n"), 0);
    assert_int_equal(quota_v2(*state, ""), 0);
    assert_int_equal(quota_v2(*state, "-1 100000\n"), 0);
    assert_int_equal(quota_v2(*state, "100000 0\n"), 0);
    assert_int_equal(quota_v2(*state, "99999999999999999999999 1\n"), __INT_MAX__);
}

static void the_strictest_group_above_counts(void **state)
{
    put(*state, "proc/self/cgroup", "0::/a/b/c\n");
    put(*state, "sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n");
    assert_int_equal(cpus_quota_under(*state), 8);
    put(*state, "sys/fs/cgroup/a/cpu.max", "300000 100000\n");
    assert_int_equal(cpus_quota_under(*state), 3);
    put(*state, "sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(cpus_quota_under(*state), 3);
    put(*state, "sys/fs/cgroup/other/cpu.max", "100000 100000\n");
    assert_int_equal(cpus_quota_under(*state), 3);
}

/* In a container, /proc may name the path outside, and the own group is mounted as the root. */
static void a_group_that_is_not_there_is_passed_over(void **state)
{
    put(*state, "proc/self/cgroup", "0::/docker/0123456789abcdef\n");
    put(*state, "sys/fs/cgroup/cpu.max", "150000 100000\n");
    assert_int_equal(cpus_quota_under(*state), 2);
}

static void version_1_has_two_files(void **state)
{
    put(*state, "proc/self/cgroup", "9:memory:/x\n4:cpu,cpuacct:/box\n1:cpuset:/\n0::/\n");
    put(*state, "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "250000\n");
    assert_int_equal(cpus_quota_under(*state), 0);
    put(*state, "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_quota_under(*state), 3);
    put(*state, "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(cpus_quota_under(*state), 0);
    put(*state, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
    put(*state, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_quota_under(*state), 1);
    put(*state, "proc/self/cgroup", "4:cpuacct:/box\n1:cpuset:/\n"); /* neither is "cpu" */
    assert_int_equal(cpus_quota_under(*state), 0);
}

static void hostile_cgroup_files_are_survived(void **state)
{
    char line[3000];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = 0;
    put(*state, "proc/self/cgroup", line);
    assert_int_equal(cpus_quota_under(*state), 0);
    memcpy(line, "0::/", 4);
    put(*state, "proc/self/cgroup", line);
    assert_int_equal(cpus_quota_under(*state), 0);
    put(*state, "proc/self/cgroup", "\n:\n::\n0:\n:cpu:\n0::");
    put(*state, "sys/fs/cgroup/cpu.max", "100000 100000\n");
    assert_int_equal(cpus_quota_under(*state), 1);
}

static void lists_are_read(void **state)
{
    (void)state;
    bool in[CPUS_MAX] = {false};
    assert_true(cpus_parse_list("0-2,8,10-11\n", in));
    for (int i = 0; i < CPUS_MAX; i++)
        assert_int_equal(in[i], i <= 2 || i == 8 || i == 10 || i == 11);
    assert_true(cpus_parse_list("\n", in));
    assert_true(cpus_parse_list("5", in));
    assert_true(in[5] && in[0]);
    assert_true(cpus_parse_list("1000-99999999999999999999\n", in));
    assert_true(in[CPUS_MAX - 1] && in[1000] && !in[999]);
}

static void what_is_no_list_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"x", "1-", "-1", "3-1", "1;2", "1,,2", "0-2-4", " 1", "1,x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bool in[CPUS_MAX] = {false};
        assert_false(cpus_parse_list(bad[i], in));
        for (int c = 0; c < CPUS_MAX; c++)
            assert_false(in[c]);
    }
}

/* Compare with "cpu@node" words. */
static void places_are(const char *root, const char *allowed_list, const char *expected)
{
    bool allowed[CPUS_MAX] = {false};
    struct cpu_place places[CPUS_MAX];
    char text[256] = "";
    assert_true(cpus_parse_list(allowed_list, allowed));
    int n = cpus_places_under(root, allowed, places, CPUS_MAX);
    for (int i = 0; i < n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d@%d", i > 0 ? " " : "",
                 places[i].cpu, places[i].node);
    assert_string_equal(text, expected);
}

static void without_topology_all_are_one_node(void **state)
{
    places_are(*state, "0-2,5", "0@0 1@0 2@0 5@0");
    places_are(*state, "", "");
}

static void places_go_node_by_node_and_core_by_core(void **state)
{
    char path[PATH_BYTES], siblings[32];
    put(*state, "sys/devices/system/node/online", "0,2-3\n");
    put(*state, "sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
    put(*state, "sys/devices/system/node/node2/cpulist", "2-3,6-7\n");
    put(*state, "sys/devices/system/node/node3/cpulist", "\n"); /* memory without processors */
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 i);
        snprintf(siblings, sizeof siblings, "%d,%d\n", i % 4, i % 4 + 4);
        put(*state, path, siblings);
    }
    places_are(*state, "0-7", "0@0 1@0 4@0 5@0 2@2 3@2 6@2 7@2");
    places_are(*state, "1-6", "1@0 4@0 5@0 2@2 3@2 6@2"); /* 4 leads its core where 0 may not */
    places_are(*state, "2,6", "2@2 6@2");
    places_are(*state, "0,8-9", "0@0 8@0 9@0"); /* those of no node at the end */
    struct cpu_place few[3];
    bool allowed[CPUS_MAX] = {true, true, true, true, true};
    assert_int_equal(cpus_places_under(*state, allowed, few, 3), 3);
    assert_int_equal(few[2].cpu, 4);
}

static void the_own_processors_are_found_and_bound(void **state)
{
    (void)state;
    struct cpu_place before[CPUS_MAX], bound[CPUS_MAX];
    int all[CPUS_MAX], n = cpus_places(before, CPUS_MAX);
    assert_true(n >= 1);
    assert_true(cpus_usable() >= 1 && cpus_usable() <= n);
    for (int i = 0; i < n; i++)
        all[i] = before[i].cpu;
    assert_true(cpus_bind(&all[n - 1], 1));
    assert_int_equal(cpus_usable(), 1);
    assert_int_equal(cpus_places(bound, CPUS_MAX), 1);
    assert_int_equal(bound[0].cpu, all[n - 1]);
    assert_int_equal(sched_getcpu(), all[n - 1]);
    assert_true(cpus_bind(all, n));
    assert_int_equal(cpus_places(bound, CPUS_MAX), n);
    assert_false(cpus_bind(all, 0));
    assert_false(cpus_bind((int[]){-1}, 1));
}

#define WITH_ROOT(test) cmocka_unit_test_setup_teardown(test, root_new, root_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ROOT(quotas_are_rounded_up),
        WITH_ROOT(no_quota_is_none),
        WITH_ROOT(the_strictest_group_above_counts),
        WITH_ROOT(a_group_that_is_not_there_is_passed_over),
        WITH_ROOT(version_1_has_two_files),
        WITH_ROOT(hostile_cgroup_files_are_survived),
        cmocka_unit_test(lists_are_read),
        cmocka_unit_test(what_is_no_list_is_refused),
        WITH_ROOT(without_topology_all_are_one_node),
        WITH_ROOT(places_go_node_by_node_and_core_by_core),
        cmocka_unit_test(the_own_processors_are_found_and_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
