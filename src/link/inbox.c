/* A bounded queue of events over base/queue. Frames travel as their own pointers; "a link is down"
 * is a mark (the address of the inbox) whose reason is kept aside, so that nothing is allocated
 * per event. The queue has one place more than the frames may fill: the mark always fits. A frame
 * takes no lock but the queue's: its taker, just woken, would wait for the putter to let go. */
#include "link/link.h"

#include "base/panic.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct inbox {
    struct queue *queue;
    int capacity;
    _Atomic int n_frames; /* in the queue, or about to be */
    pthread_mutex_t lock; /* guards the two below, and that they agree with the queue */
    bool down;            /* the mark is in the queue */
    struct error reason;
};

struct inbox *inbox_new(int capacity)
{
    ASSERT(capacity >= 1);
    struct inbox *b = xcalloc(1, sizeof(*b));
    b->queue = queue_new(capacity + 1);
    b->capacity = capacity;
    pthread_mutex_init(&b->lock, NULL);
    return b;
}

void inbox_free(struct inbox *b)
{
    if (b == NULL)
        return;
    void *item;
    while (queue_pop(b->queue, &item, 0) == OK)
        if (item != b)
            frame_free(item);
    queue_free(b->queue);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

void inbox_close(struct inbox *b)
{
    queue_close(b->queue);
}

enum err inbox_put_frame(struct inbox *b, struct frame *f)
{
    ASSERT(f != NULL);
    enum err err = ERR_FULL;
    if (atomic_fetch_add(&b->n_frames, 1) < b->capacity)
        err = queue_try_push(b->queue, f);
    if (err != OK) {
        atomic_fetch_sub(&b->n_frames, 1);
        frame_free(f);
    }
    return err;
}

void inbox_put_down(struct inbox *b, const struct error *reason)
{
    pthread_mutex_lock(&b->lock);
    if (!b->down && queue_try_push(b->queue, b) == OK) {
        b->down = true;
        b->reason = *reason;
    }
    pthread_mutex_unlock(&b->lock);
}

enum err inbox_take(struct inbox *b, struct inbox_event *out, time_us timeout_us)
{
    *out = (struct inbox_event){0};
    void *item;
    enum err err = queue_pop(b->queue, &item, timeout_us);
    if (err != OK)
        return err;
    if (item != b) {
        atomic_fetch_sub(&b->n_frames, 1);
        out->kind = INBOX_FRAME;
        out->frame = item;
        return OK;
    }
    pthread_mutex_lock(&b->lock);
    out->kind = INBOX_DOWN;
    out->reason = b->reason;
    b->down = false;
    pthread_mutex_unlock(&b->lock);
    return OK;
}
