/* Profiles: sets of sizes that suit one way of use. A profile fills in everything at once; whatever
 * the user says beside it holds instead. None of them chooses a lossy KV type or wire: the tokens
 * are the same under each. */
#ifndef SHOAL_LEAD_PROFILE_H
#define SHOAL_LEAD_PROFILE_H

#include "lead/lead.h"

enum profile {
    PROFILE_INTERACTIVE, /* a few people who read along: streams keep their pace beside prompts */
    PROFILE_THROUGHPUT,  /* many requests, none of which is waited for */
    PROFILE_LOW_MEMORY,  /* a small machine, or one with other things to do */
    N_PROFILES
};

extern const char *const profile_names[N_PROFILES + 1]; /* ends with NULL */

/* Sets n_slots, max_rows, n_flights, max_itl_us, max_stretch, max_draft, max_queued and kv_share.
 */
void profile_apply(enum profile profile, struct lead_options *o);

#endif
