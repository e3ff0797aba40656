/* Reading /proc and the cgroup files. */
#include "node/machine.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* The number behind "Key:" in a /proc file whose numbers are kilobytes; 0 if there is none. */
static uint64_t proc_bytes(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    char line[256];
    uint64_t found = 0;
    size_t n = strlen(key);
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, key, n) == 0 && sscanf(line + n, ": %" SCNu64, &found) == 1) {
            found *= 1024;
            break;
        }
    }
    if (f != NULL)
        fclose(f);
    return found;
}

/* A file that holds one number, or a word such as "max" (then UINT64_MAX, as when it is absent). */
static uint64_t file_number(const char *folder, const char *name)
{
    char path[512];
    uint64_t value = UINT64_MAX;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return UINT64_MAX;
    if (fscanf(f, "%" SCNu64, &value) != 1)
        value = UINT64_MAX;
    fclose(f);
    return value;
}

/* Take the cgroup in `folder` into account: its limit, and what is left under it. */
static void apply_limit(struct machine_memory *m, const char *folder, const char *limit_name,
                        const char *usage_name)
{
    uint64_t limit = file_number(folder, limit_name), used = file_number(folder, usage_name);
    if (limit >= m->total_bytes)
        return;
    m->total_bytes = limit;
    uint64_t left = used < limit ? limit - used : 0;
    if (left < m->available_bytes)
        m->available_bytes = left;
}

static void apply_cgroups(struct machine_memory *m)
{
    char line[400], folder[512];
    apply_limit(m, "/sys/fs/cgroup", "memory.max", "memory.current");
    apply_limit(m, "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes");
    FILE *f = fopen("/proc/self/cgroup", "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "0::/", 4) == 0 && line[4] != 0) {
            snprintf(folder, sizeof(folder), "/sys/fs/cgroup/%s", line + 4);
            apply_limit(m, folder, "memory.max", "memory.current");
        }
    }
    if (f != NULL)
        fclose(f);
}

void machine_memory(struct machine_memory *out)
{
    out->total_bytes = proc_bytes("/proc/meminfo", "MemTotal");
    out->available_bytes = proc_bytes("/proc/meminfo", "MemAvailable");
    apply_cgroups(out);
}

static _Atomic uint64_t anonymous_peak;

uint64_t machine_anonymous_bytes(void)
{
    uint64_t now = proc_bytes("/proc/self/status", "RssAnon");
    uint64_t peak = anonymous_peak;
    while (now > peak && !atomic_compare_exchange_weak(&anonymous_peak, &peak, now))
        ;
    return now;
}

uint64_t machine_anonymous_peak_bytes(void)
{
    return anonymous_peak;
}
