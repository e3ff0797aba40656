/* For pool.c and its test: a pool on a machine that is not this one. */
#ifndef SHOAL_BASE_POOL_IMPL_H
#define SHOAL_BASE_POOL_IMPL_H

#include "base/cpus.h"
#include "base/pool.h"

/* pool_open with the places given: nodes in ascending order. */
enum err pool_open_on(const struct pool_options *o, const struct cpu_place *places, int n_places,
                      struct pool **out, struct error *e);

#endif
