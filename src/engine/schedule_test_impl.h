/* What the tests of the schedule share: sequences put in, steps read as text. */
#ifndef SHOAL_ENGINE_SCHEDULE_TEST_IMPL_H
#define SHOAL_ENGINE_SCHEDULE_TEST_IMPL_H

#include "engine/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static inline int add_tokens(struct schedule *s, const int32_t *prompt, int n_prompt, int room,
                             int priority)
{
    int sequence;
    struct sequence_options o = {
        .prompt = prompt, .n_prompt = n_prompt, .room = room, .priority = priority};
    assert_int_equal(schedule_add(s, &o, &sequence, NULL), OK);
    return sequence;
}

/* A step as text: updates "o0 a0:5 t0:1 c0", then rows "slot@position", "!" where logits are
 * wanted. */
static inline const char *text_of(const struct step *step)
{
    static char text[2000];
    size_t n = 0;
    for (uint32_t i = 0; i < step->n_updates; i++) {
        const struct step_update *u = &step->updates[i];
        if (u->kind == UPDATE_APPEND)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "a%u:%u ", u->slot, u->block);
        else if (u->kind == UPDATE_COPY)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "y%u:%u ", u->from, u->block);
        else if (u->kind == UPDATE_TRIM)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "t%u:%u ", u->slot, u->block);
        else
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%c%u ",
                                  u->kind == UPDATE_OPEN ? 'o' : 'c', u->slot);
    }
    for (uint32_t i = 0; i < step->n_rows; i++) {
        const struct step_row *r = &step->rows[i];
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%u@%u%s ", r->slot, r->position,
                              r->want == WANT_LOGITS ? "!" : "");
    }
    text[n > 0 ? n - 1 : 0] = 0;
    return text;
}

static inline const char *next(struct schedule *s)
{
    struct step step;
    return schedule_next(s, &step) ? text_of(&step) : "none";
}

#endif
