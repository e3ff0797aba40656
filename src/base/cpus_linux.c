/* The affinity mask says which processors the process may run on; a container's share of their time
 * is the quota of its control group. In version 2 that is "cpu.max" of the group that
 * /proc/self/cgroup names, and of each above it; in version 1 cpu.cfs_quota_us and
 * cpu.cfs_period_us in the "cpu" hierarchy. From inside a container the own group is often what is
 * mounted as the root while /proc still names its path outside: every step of the path is tried,
 * those that are not there have no say. Nodes and cores: /sys/devices/system, without libnuma. */
#include "base/cpus.h"

#include "base/cpus_impl.h"

#include <assert.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 1024 };

/* ---- quotas ---- */

/* Up to two numbers at the start of a file; how many there were. */
static int read_numbers(const char *path, long long *a, long long *b)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    int n = fscanf(f, "%lld %lld", a, b); /* "max" is no number: 0 are read */
    fclose(f);
    return n > 0 ? n : 0;
}

static int whole_processors(long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return 0;
    long long whole = (quota - 1) / period + 1;
    return whole < INT_MAX ? (int)whole : INT_MAX;
}

/* The quota of one group; 0: none. */
static int quota_of(const char *folder, bool is_v2)
{
    char path[PATH_BYTES + 32];
    long long quota = 0, period = 0, unused;
    if (is_v2) {
        snprintf(path, sizeof path, "%s/cpu.max", folder);
        return read_numbers(path, &quota, &period) == 2 ? whole_processors(quota, period) : 0;
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    bool has_quota = read_numbers(path, &quota, &unused) >= 1;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    bool has_period = read_numbers(path, &period, &unused) >= 1;
    return has_quota && has_period ? whole_processors(quota, period) : 0;
}

static int stricter(int a, int b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

/* The least of the group `group` ("/a/b") below `mount` and all above it. */
static int quota_up_from(const char *mount, const char *group, bool is_v2)
{
    char path[PATH_BYTES];
    int written = snprintf(path, sizeof path, "%s%s", mount, group);
    size_t top = strlen(mount);
    int least = 0;
    if (written < 0 || (size_t)written >= sizeof path)
        return 0;
    for (;;) {
        least = stricter(least, quota_of(path, is_v2));
        char *last = strrchr(path, '/');
        if (strlen(path) <= top || last == NULL || (size_t)(last - path) < top)
            return least;
        *last = 0;
    }
}

/* Whether "cpu" is one of a line's controllers ("cpu,cpuacct"). */
static bool names_cpu(const char *controllers)
{
    for (const char *at = controllers; *at != 0; at += strcspn(at, ",")) {
        at += *at == ',';
        if (strcspn(at, ",") == 3 && strncmp(at, "cpu", 3) == 0)
            return true;
    }
    return false;
}

/* What one line of /proc/self/cgroup ("4:cpu,cpuacct:/path", version 2 "0::/path") allows. */
static int quota_of_line(const char *root, char *line)
{
    char mount[PATH_BYTES];
    char *controllers = strchr(line, ':');
    char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    if (group == NULL)
        return 0;
    *group++ = 0;
    group[strcspn(group, "\n")] = 0;
    controllers++;
    bool is_v2 = controllers[0] == 0;
    if (!is_v2 && !names_cpu(controllers))
        return 0;
    /* Version 1 is mounted under the names of its controllers, together and each alone. */
    snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, is_v2 ? "" : "/cpu");
    return quota_up_from(mount, group, is_v2);
}

int cpus_quota_under(const char *root)
{
    char path[PATH_BYTES], line[PATH_BYTES];
    int least = 0;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        least = stricter(least, quota_of_line(root, line));
    if (f != NULL)
        fclose(f);
    return least;
}

/* ---- which processors ---- */

/* False: more processors than fit, or none can be told. */
static bool allowed_now(bool is_in[CPUS_MAX])
{
    static_assert(CPUS_MAX <= CPU_SETSIZE, "every processor has a bit");
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return false;
    for (int i = 0; i < CPUS_MAX; i++)
        is_in[i] = CPU_ISSET((size_t)i, &set);
    return true;
}

int cpus_usable(void)
{
    bool is_in[CPUS_MAX];
    int n = 0;
    if (allowed_now(is_in))
        for (int i = 0; i < CPUS_MAX; i++)
            n += is_in[i];
    if (n < 1) /* more processors than the set has bits */
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = cpus_quota_under("");
    if (quota > 0 && quota < n)
        n = quota;
    return n < 1 ? 1 : n;
}

/* ---- where they are ---- */

bool cpus_parse_list(const char *text, bool is_in[CPUS_MAX])
{
    bool found[CPUS_MAX] = {false};
    while (*text != 0 && *text != '\n') {
        char *end;
        if (*text < '0' || *text > '9')
            return false;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-' && end[1] >= '0' && end[1] <= '9')
            last = strtoul(end + 1, &end, 10);
        if (first > last || (*end != ',' && *end != '\n' && *end != 0))
            return false;
        for (unsigned long i = first; i <= last && i < CPUS_MAX; i++)
            found[i] = true;
        text = end + (*end == ',');
    }
    for (int i = 0; i < CPUS_MAX; i++)
        is_in[i] |= found[i];
    return true;
}

static bool read_list(const char *path, bool is_in[CPUS_MAX])
{
    char text[4096];
    FILE *f = fopen(path, "re");
    bool good = f != NULL && fgets(text, sizeof text, f) != NULL && cpus_parse_list(text, is_in);
    if (f != NULL)
        fclose(f);
    return good;
}

/* Whether a processor is the first of its core, or of those of the core that are allowed. */
static bool leads_core(const char *root, const bool allowed[CPUS_MAX], int cpu)
{
    char path[PATH_BYTES];
    bool core[CPUS_MAX] = {false};
    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             root, cpu);
    if (!read_list(path, core))
        return true;
    for (int i = 0; i < cpu; i++)
        if (core[i] && allowed[i])
            return false;
    return true;
}

/* The processors of `in` that are still not placed: cores first. */
static int place(const char *root, int node, const bool in[CPUS_MAX], bool left[CPUS_MAX],
                 const bool allowed[CPUS_MAX], struct cpu_place *out, int n, int max)
{
    bool leads[CPUS_MAX] = {false};
    for (int i = 0; i < CPUS_MAX; i++)
        leads[i] = in[i] && left[i] && leads_core(root, allowed, i);
    for (int further = 0; further <= 1; further++) {
        for (int i = 0; i < CPUS_MAX && n < max; i++) {
            if (!in[i] || !left[i] || leads[i] == (further == 1))
                continue;
            out[n++] = (struct cpu_place){.cpu = i, .node = node};
            left[i] = false;
        }
    }
    return n;
}

int cpus_places_under(const char *root, const bool allowed[CPUS_MAX], struct cpu_place *out,
                      int max)
{
    char path[PATH_BYTES];
    bool left[CPUS_MAX], all[CPUS_MAX], nodes[CPUS_MAX] = {false};
    int n = 0;
    memcpy(left, allowed, sizeof left);
    memset(all, true, sizeof all);
    snprintf(path, sizeof path, "%s/sys/devices/system/node/online", root);
    read_list(path, nodes); /* a kernel without nodes has no such file */
    for (int node = 0; node < CPUS_MAX; node++) {
        bool in[CPUS_MAX] = {false};
        if (!nodes[node])
            continue;
        snprintf(path, sizeof path, "%s/sys/devices/system/node/node%d/cpulist", root, node);
        if (read_list(path, in))
            n = place(root, node, in, left, allowed, out, n, max);
    }
    return place(root, 0, all, left, allowed, out, n, max); /* those that no node has listed */
}

int cpus_places(struct cpu_place *out, int max)
{
    bool allowed[CPUS_MAX];
    return allowed_now(allowed) ? cpus_places_under("", allowed, out, max) : 0;
}

bool cpus_bind(const int *cpus, int n)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < n; i++)
        if (cpus[i] >= 0 && cpus[i] < CPUS_MAX)
            CPU_SET((size_t)cpus[i], &set);
    return n > 0 && sched_setaffinity(0, sizeof set, &set) == 0;
}
