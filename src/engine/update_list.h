/* What the next step must tell the stages about their tables: the changes of a slot book
 * (kv/slot_book.h), in order, as updates. Memory is taken once. One thread at a time. */
#ifndef SHOAL_ENGINE_UPDATE_LIST_H
#define SHOAL_ENGINE_UPDATE_LIST_H

#include "kv/slot_book.h"
#include "stage/step.h"

#include <stdbool.h>

struct update_list {
    struct step_update *updates; /* [STEP_MAX_UPDATES] */
    int n;
    bool taken; /* they went out with the last step, which may still look at them */
};

void update_list_init(struct update_list *l);
void update_list_release(struct update_list *l);

/* A slot_change_fn whose context is the list. */
void update_list_note(void *list, const struct slot_change *change);

/* Those that went out are forgotten: before the next step is put together. */
void update_list_begin(struct update_list *l);

/* They go out with `step`. */
void update_list_take(struct update_list *l, struct step *step);

#endif
