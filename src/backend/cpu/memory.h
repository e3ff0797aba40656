/* Memory of the CPU backend: zeroed, 64-byte aligned, and on huge pages where the system gives them
 * (a decode step reads every weight once; with 4 KiB pages it would spend a good part of that on
 * address translation). Freed memory goes back to the system at once. Any thread. */
#ifndef SHOAL_BACKEND_CPU_MEMORY_H
#define SHOAL_BACKEND_CPU_MEMORY_H

#include <stddef.h>

/* NULL when there is no memory. `bytes` 0 is allowed. Pages are touched by whoever uses them first.
 */
void *cpu_alloc(size_t bytes);
void cpu_free(void *p, size_t bytes); /* `bytes` as given to cpu_alloc; NULL allowed */

#endif
