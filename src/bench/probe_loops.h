/* The inner loops of the probes, one set for every instruction set worth telling apart. */
#ifndef SHOAL_BENCH_PROBE_LOOPS_H
#define SHOAL_BENCH_PROBE_LOOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PROBE_READ_STEP = 512 }; /* bytes: what `read` takes is a multiple, on 64 bytes */

struct probe_loops {
    const char *isa;  /* the kernels that use it, as struct kernels.variant */
    const char *name; /* of the instruction */
    bool (*present)(void);
    /* Load every byte once; the answer depends on all of them, so that nothing is left out. */
    uint64_t (*read)(const void *p, size_t bytes);
    /* `rounds` times as many int8 products and sums as `round_ops` says, in registers. */
    int32_t (*dot)(long rounds);
    long round_ops; /* a product and its addition count two */
    /* The same of floats: fused multiply-adds, or what stands for them. */
    const char *fma_name;
    float (*fma)(long rounds);
    long fma_round_ops;
};

/* Worst first, ended by a NULL name; the first is plain C and always present. The list is in the
 * file that CMake chose: x86/probe_x86.c, arm/probe_arm.c, probe_none.c. */
extern const struct probe_loops probe_isas[];

bool probe_always(void);
uint64_t probe_read_c(const void *p, size_t bytes);
int32_t probe_dot_c(long rounds);
float probe_fma_c(long rounds);
enum { PROBE_C_ROUND = 4096 }; /* products of a round of probe_dot_c */

/* The last present entry for `variant`; the last present one of all where no entry is for it. */
const struct probe_loops *probe_choose(const char *variant);

#endif
