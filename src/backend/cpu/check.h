/* Inside kernels_check: what the files with its checks share. */
#ifndef SHOAL_BACKEND_CPU_CHECK_H
#define SHOAL_BACKEND_CPU_CHECK_H

#include "backend/cpu/check_data.h"
#include "backend/cpu/kernels.h"

#include <stdbool.h>
#include <stddef.h>

enum { GUARD_BYTE = 0xa7 };

extern const char *const fill_names[N_FILLS];
extern struct kernels ref; /* the reference kernels */
extern int check_every;    /* of the costly cases, one in this many is run */

/* `bytes` writable bytes between guards, off any alignment by `skew` bytes. */
void *guarded_new(size_t bytes, size_t skew);
bool guards_intact(const void *at, size_t bytes, size_t skew);
void guarded_free(void *p, size_t skew);

/* Count a comparison; a failed one is printed. */
void report(bool ok, const char *what);
/* Compare n floats, a NaN being equal to any NaN; `what` says the case. */
void compare_floats(const float *found, const float *expected, size_t n, const char *what);

/* Floats of a fill; one in 64 an infinity or a NaN when `hostile`. */
float *values_new(struct random *r, enum fill fill, bool hostile, size_t n);

/* Of this thread's processor time, so that other work on the machine disturbs less. */
double check_seconds(void);

void check_attention(const struct kernels *k); /* check_attention.c */
void time_attention(const struct kernels *k);

#endif
