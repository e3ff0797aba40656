/* For cpus_linux.c and its test. */
#ifndef SHOAL_BASE_CPUS_IMPL_H
#define SHOAL_BASE_CPUS_IMPL_H

/* Whole processors, rounded up, of a cgroup v2 "cpu.max" file ("QUOTA PERIOD" or "max PERIOD");
 * 0: there is no such file, or no quota in it. */
int cpus_quota_of(const char *path);

#endif
