#include "cli/size_flags.h"

enum err size_flags_check(const struct size_flags *f, struct error *e)
{
    if (f->no_overlap && f->flights > 1)
        return error_set(e, ERR_USAGE, "--no-overlap is --flights 1, found --flights %d",
                         f->flights);
    return OK;
}

void size_flags_apply(const struct size_flags *f, struct lead_options *o)
{
    profile_apply((enum profile)f->profile, o);
    if (f->slots > 0)
        o->n_slots = f->slots;
    if (f->max_rows > 0)
        o->max_rows = f->max_rows;
    if (f->flights > 0 || f->no_overlap)
        o->n_flights = f->no_overlap ? 1 : f->flights;
    if (f->max_itl_ms >= 0) { /* a bound in milliseconds takes the place of a relative one */
        o->max_itl_us = (time_us)f->max_itl_ms * 1000;
        o->max_stretch = 0;
    }
    if (f->draft >= 0)
        o->max_draft = f->draft;
    if (f->max_queued > 0)
        o->max_queued = f->max_queued;
    if (f->kv_mb > 0)
        o->kv_bytes = (uint64_t)f->kv_mb * 1000000;
    o->no_reuse = f->no_prefix_cache;
}
