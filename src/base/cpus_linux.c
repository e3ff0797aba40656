/* The affinity mask says which processors the process may run on; a container's share of their time
 * is the quota of its control group, seen at the root of the cgroup file system from inside a
 * container, and in the process's own group from outside (a systemd slice, say). */
#include "base/cpus.h"

#include "base/cpus_impl.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int cpus_quota_of(const char *path)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    long quota = 0, period = 0;
    int n = fscanf(f, "%ld %ld", &quota, &period); /* "max" is no number: 0 are read */
    fclose(f);
    if (n != 2 || quota <= 0 || period <= 0)
        return 0;
    long whole = (quota - 1) / period + 1;
    return whole < INT_MAX ? (int)whole : INT_MAX;
}

/* The quota of the group that /proc/self/cgroup names ("0::/path" in version 2); 0: none. */
static int own_quota(void)
{
    char line[400], path[512];
    int quota = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f != NULL && quota == 0 && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "0::/", 4) != 0 || line[4] == 0)
            continue;
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s/cpu.max", line + 4);
        quota = cpus_quota_of(path);
    }
    if (f != NULL)
        fclose(f);
    return quota;
}

static int held_down(int n, int quota)
{
    return quota > 0 && quota < n ? quota : n;
}

int cpus_usable(void)
{
    int n = 0;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    if (n < 1) /* more processors than the set has bits */
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    n = held_down(n, cpus_quota_of("/sys/fs/cgroup/cpu.max"));
    n = held_down(n, own_quota());
    return n < 1 ? 1 : n;
}
