/* How many processors there are for this process, where they are, and keeping threads to them. One
 * file a system: cpus_linux.c. Any thread. */
#ifndef SHOAL_BASE_CPUS_H
#define SHOAL_BASE_CPUS_H

#include <stdbool.h>

enum { CPUS_MAX = 1024 }; /* processors that are told apart */

/* Processors that this process may run on, held down by the CPU quota of its control group, or of
 * one above it (version 1 or 2; rounded up to whole processors); at least 1. */
int cpus_usable(void);

struct cpu_place {
    int cpu;
    int node; /* memory node: processors of the same one reach the same memory fastest; 0 if alone
               */
};

/* The processors that the calling thread may run on, node by node; within a node first one of each
 * core, then the cores' further hardware threads. Answers their number, 0 where the system does not
 * tell: then nobody can be bound. */
int cpus_places(struct cpu_place *out, int max);

/* Let the calling thread run only on these processors. False: the system does not let it. */
bool cpus_bind(const int *cpus, int n);

#endif
