/* How many processors there are for this process. One file a system: cpus_linux.c. */
#ifndef SHOAL_BASE_CPUS_H
#define SHOAL_BASE_CPUS_H

/* Processors that this process may run on, held down by the CPU quota of its control group (rounded
 * up to whole processors); at least 1. Any thread. */
int cpus_usable(void);

#endif
