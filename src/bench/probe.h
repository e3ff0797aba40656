/* What the machine can do at most, measured where and when something else is measured: bytes read
 * from memory a second, and int8 products added a second, by all threads of a pool together.
 *
 * A probe belongs to a pool and works on its threads, so it sees the processors, bounds and
 * neighbours that the measured work sees. Figures drift (other work, other tenants): probe just
 * before and just after, and look at whether the two agree. A probe takes about a fifth of a
 * second. The pool's one caller uses it, between operations of its own. */
#ifndef SHOAL_BENCH_PROBE_H
#define SHOAL_BENCH_PROBE_H

#include "base/error.h"
#include "base/pool.h"

struct probe;

/* `variant`: the kernels whose limit is asked for, as backend.variant; the dot product is then the
 * best instruction of that set. Takes half a gigabyte of memory, more where the caches are large:
 * ERR_MEMORY. The pool is borrowed. */
enum err probe_new(struct pool *pool, const char *variant, struct probe **out, struct error *e);
void probe_free(struct probe *p); /* NULL allowed */

/* 1e9 bytes a second: every thread reads its part of a buffer far larger than the caches, front to
 * back. Median of some passes. */
double probe_read_gb_s(struct probe *p);

/* 1e9 operations a second: a product and its addition are two. Median of some runs. */
double probe_dot_gop_s(struct probe *p);

/* Likewise of floats: fused multiply-adds. */
double probe_fma_gop_s(struct probe *p);

/* What they count with: "vpdpbusd zmm", "vfmadd zmm". */
const char *probe_dot_name(const struct probe *p);
const char *probe_fma_name(const struct probe *p);

#endif
