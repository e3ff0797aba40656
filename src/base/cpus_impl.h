/* For cpus_linux.c and its test: the same questions, to a folder that stands for /. */
#ifndef SHOAL_BASE_CPUS_IMPL_H
#define SHOAL_BASE_CPUS_IMPL_H

#include "base/cpus.h"

/* Whole processors, rounded up, that the cgroups under `root` allow this process: the least of its
 * own group (named in root/proc/self/cgroup) and those above it. 0: no quota. */
int cpus_quota_under(const char *root);

/* Mark the numbers of a list as the kernel writes them ("0-3,8,10-11") in is_in[CPUS_MAX]; false,
 * and nothing marked, if it is none. Numbers from CPUS_MAX up are passed over. */
bool cpus_parse_list(const char *text, bool is_in[CPUS_MAX]);

/* cpus_places among the processors with `allowed`, as root/sys/devices/system describes them. */
int cpus_places_under(const char *root, const bool allowed[CPUS_MAX], struct cpu_place *out,
                      int max);

#endif
