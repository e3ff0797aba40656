#include "engine/sequence_impl.h"

#include "base/panic.h"

#include <stdlib.h>

void sequences_init(struct sequences *s, int n)
{
    *s = (struct sequences){.n_all = n, .n_unused = n};
    s->all = xcalloc((size_t)n, sizeof(s->all[0]));
    s->unused = xcalloc((size_t)n, sizeof(s->unused[0]));
    for (int i = 0; i < n; i++)
        s->unused[i] = n - 1 - i;
    for (int i = 0; i < N_LISTS; i++)
        s->lists[i] = (struct list){.first = -1, .last = -1};
}

void sequences_release(struct sequences *s)
{
    for (int i = 0; i < s->n_all; i++) {
        free(s->all[i].tokens);
        draft_free(s->all[i].draft);
    }
    free(s->all);
    free(s->unused);
}

int sequences_take(struct sequences *s)
{
    if (s->n_unused == 0)
        return -1;
    int i = s->unused[--s->n_unused];
    s->all[i] = (struct sequence){.slot = -1, .life = ++s->n_lives, .arrival = ++s->n_arrived};
    return i;
}

static void list_remove(struct sequences *s, int i)
{
    struct sequence *q = &s->all[i];
    struct list *l = &s->lists[q->list];
    if (q->list == LIST_NONE)
        return;
    *(q->before >= 0 ? &s->all[q->before].after : &l->first) = q->after;
    *(q->after >= 0 ? &s->all[q->after].before : &l->last) = q->before;
    l->length--;
    q->list = LIST_NONE;
}

void sequences_give_back(struct sequences *s, int i)
{
    struct sequence *q = &s->all[i];
    list_remove(s, i);
    free(q->tokens);
    draft_free(q->draft);
    *q = (struct sequence){.slot = -1, .life = ++s->n_lives};
    s->unused[s->n_unused++] = i;
}

struct sequence *sequences_live(const struct sequences *s, int i)
{
    ASSERT(i >= 0 && i < s->n_all);
    ASSERT(s->all[i].list != LIST_NONE);
    return &s->all[i];
}

bool sequence_before(const struct sequence *a, const struct sequence *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->arrival < b->arrival;
}

/* Put i, which is in no list, behind `before` (-1: in front of all). */
static void link_behind(struct sequences *s, int i, int before, enum list_kind kind)
{
    struct sequence *q = &s->all[i];
    struct list *l = &s->lists[kind];
    q->list = kind;
    q->before = before;
    q->after = before >= 0 ? s->all[before].after : l->first;
    *(before >= 0 ? &s->all[before].after : &l->first) = i;
    *(q->after >= 0 ? &s->all[q->after].before : &l->last) = i;
    l->length++;
}

void list_append(struct sequences *s, int i, enum list_kind kind)
{
    list_remove(s, i);
    link_behind(s, i, s->lists[kind].last, kind);
}

void list_insert(struct sequences *s, int i, enum list_kind kind)
{
    list_remove(s, i);
    int before = s->lists[kind].last;
    while (before >= 0 && sequence_before(&s->all[i], &s->all[before]))
        before = s->all[before].before;
    link_behind(s, i, before, kind);
}
