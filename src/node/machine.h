/* What this machine, and this process on it, has. Linux only: /proc and cgroups. */
#ifndef SHOAL_NODE_MACHINE_H
#define SHOAL_NODE_MACHINE_H

#include <stdint.h>

/* Memory that this process may use: the machine's, or the limit of the cgroup it is in. Available
 * is what could be taken without pushing others out (file pages that can be dropped count). */
struct machine_memory {
    uint64_t total_bytes;
    uint64_t available_bytes;
};
void machine_memory(struct machine_memory *out); /* zeros where unknown */


/* Memory of this process that no file backs: "RssAnon"; 0 where unknown. */
uint64_t machine_anonymous_bytes(void);
/* The largest that machine_anonymous_bytes has ever answered: the system keeps no such peak, so
 * whoever wants one asks often while memory grows. Any thread. */
uint64_t machine_anonymous_peak_bytes(void);

#endif
