#include "engine/update_list.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <stdlib.h>

void update_list_init(struct update_list *l)
{
    *l = (struct update_list){.updates = xcalloc(STEP_MAX_UPDATES, sizeof(l->updates[0]))};
}

void update_list_release(struct update_list *l)
{
    free(l->updates);
}

void update_list_begin(struct update_list *l)
{
    if (l->taken)
        l->n = 0;
    l->taken = false;
}

void update_list_note(void *list, const struct slot_change *change)
{
    static const uint32_t kinds[] = {[SLOT_OPEN] = UPDATE_OPEN,
                                     [SLOT_APPEND] = UPDATE_APPEND,
                                     [SLOT_COPY] = UPDATE_COPY,
                                     [SLOT_CLOSE] = UPDATE_CLOSE,
                                     [SLOT_TRIM] = UPDATE_TRIM};
    struct update_list *l = list;
    update_list_begin(l);
    ASSERT(l->n < STEP_MAX_UPDATES);
    l->updates[l->n++] = (struct step_update){.kind = kinds[change->kind],
                                              .slot = (uint32_t)change->slot,
                                              .block = (uint32_t)change->block,
                                              .from = (uint32_t)change->from};
}

void update_list_take(struct update_list *l, struct step *step)
{
    step->updates = l->updates;
    step->n_updates = (uint32_t)l->n;
    l->taken = true;
}
