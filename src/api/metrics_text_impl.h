/* GET /metrics: how things stand, in Prometheus' text format (0.0.4). Names and meanings are listed
 * in docs/api.md; where vLLM counts the same thing, the name ends as vLLM's does. Pure: numbers in,
 * text out. */
#ifndef SHOAL_API_METRICS_TEXT_IMPL_H
#define SHOAL_API_METRICS_TEXT_IMPL_H

#include "api/api.h"
#include "base/strbuf.h"

/* `stats` NULL: no model is served yet. */
void metrics_append(struct strbuf *out, const struct engine_stats *stats,
                    const struct api_stage *stages, int n_stages);

#endif
