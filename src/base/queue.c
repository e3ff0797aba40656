#include "base/queue.h"

#include "base/panic.h"

#include <pthread.h>
#include <stdlib.h>

struct queue {
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t not_empty, not_full;
    int capacity, head, length;
    bool closed;
    void *items[];
};

struct queue *queue_new(int capacity)
{
    ASSERT(capacity >= 1);
    struct queue *q = xcalloc(1, sizeof *q + (size_t)capacity * sizeof q->items[0]);
    q->capacity = capacity;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->not_empty, &attr);
    pthread_cond_init(&q->not_full, &attr);
    pthread_condattr_destroy(&attr);
    return q;
}

void queue_free(struct queue *q)
{
    if (q == NULL)
        return;
    pthread_cond_destroy(&q->not_empty);
    pthread_cond_destroy(&q->not_full);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->not_empty);
    pthread_cond_broadcast(&q->not_full);
    pthread_mutex_unlock(&q->lock);
}

static enum err push(struct queue *q, void *item, bool wait)
{
    enum err err = OK;
    pthread_mutex_lock(&q->lock);
    while (wait && !q->closed && q->length == q->capacity)
        pthread_cond_wait(&q->not_full, &q->lock);
    if (q->closed) {
        err = ERR_CLOSED;
    } else if (q->length == q->capacity) {
        err = ERR_FULL;
    } else {
        q->items[(q->head + q->length) % q->capacity] = item;
        q->length++;
    }
    pthread_mutex_unlock(&q->lock);
    /* Not before: whoever wakes would find the lock held and sleep again. */
    if (err == OK)
        pthread_cond_signal(&q->not_empty);
    return err;
}

enum err queue_push(struct queue *q, void *item)
{
    return push(q, item, true);
}

enum err queue_try_push(struct queue *q, void *item)
{
    return push(q, item, false);
}

/* Wait until there is an item or the queue is closed; false when the time is over before. */
static bool wait_for_item(struct queue *q, time_us timeout_us)
{
    if (timeout_us < 0) {
        while (q->length == 0 && !q->closed)
            pthread_cond_wait(&q->not_empty, &q->lock);
        return true;
    }
    struct timespec deadline = clock_deadline(timeout_us);
    while (q->length == 0 && !q->closed)
        if (timeout_us == 0 || pthread_cond_timedwait(&q->not_empty, &q->lock, &deadline) != 0)
            return q->length > 0 || q->closed;
    return true;
}

enum err queue_pop(struct queue *q, void **item, time_us timeout_us)
{
    enum err err = OK;
    *item = NULL;
    pthread_mutex_lock(&q->lock);
    if (!wait_for_item(q, timeout_us)) {
        err = ERR_TIMEOUT;
    } else if (q->length == 0) {
        err = ERR_CLOSED;
    } else {
        *item = q->items[q->head];
        q->head = (q->head + 1) % q->capacity;
        q->length--;
    }
    pthread_mutex_unlock(&q->lock);
    if (err == OK)
        pthread_cond_signal(&q->not_full);
    return err;
}

int queue_length(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    int length = q->length;
    pthread_mutex_unlock(&q->lock);
    return length;
}
