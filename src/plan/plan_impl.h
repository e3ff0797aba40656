/* Shared by the planners. */
#ifndef SHOAL_PLAN_PLAN_IMPL_H
#define SHOAL_PLAN_PLAN_IMPL_H

#include "plan/plan.h"

#include <stdbool.h>

/* Memory of a stage of these layers; the lead's has the head too. */
uint64_t plan_stage_bytes(const struct plan_model *m, int first, int last, bool is_lead);

#endif
