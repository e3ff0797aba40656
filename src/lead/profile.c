#include "lead/profile.h"

#include "base/panic.h"

const char *const profile_names[N_PROFILES + 1] = {"interactive", "throughput", "low-memory", NULL};

struct sizes {
    int n_slots, max_rows, max_queued, max_draft;
    float max_stretch, kv_share;
};

static const struct sizes sizes[N_PROFILES] = {
    [PROFILE_INTERACTIVE] = {.n_slots = 16,
                             .max_rows = 512,
                             .max_queued = 128,
                             .max_draft = 8,
                             .max_stretch = 1.5f,
                             .kv_share = 0.25f},
    [PROFILE_THROUGHPUT] =
        {.n_slots = 64, .max_rows = 1024, .max_queued = 1024, .max_draft = 4, .kv_share = 0.5f},
    [PROFILE_LOW_MEMORY] = {.n_slots = 4,
                            .max_rows = 128,
                            .max_queued = 64,
                            .max_draft = 8,
                            .max_stretch = 1.5f,
                            .kv_share = 0.1f},
};

void profile_apply(enum profile profile, struct lead_options *o)
{
    ASSERT(profile >= 0 && profile < N_PROFILES);
    const struct sizes *s = &sizes[profile];
    o->n_slots = s->n_slots;
    o->max_rows = s->max_rows;
    o->n_flights = 0; /* by the number of stages, under every profile */
    o->max_queued = s->max_queued;
    o->max_draft = s->max_draft;
    o->max_itl_us = 0;
    o->max_stretch = s->max_stretch;
    o->kv_share = s->kv_share;
}
