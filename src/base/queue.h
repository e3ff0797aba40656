/* A bounded queue of pointers between threads: where threads meet, they meet here.
 *
 * Any number of threads push and pop. Pushing to a full queue waits (queue_push) or answers
 * ERR_FULL (queue_try_push); ownership of the item moves with a successful push. After
 * queue_close pushes answer ERR_CLOSED, pops drain what is left and then answer ERR_CLOSED. */
#ifndef SHOAL_BASE_QUEUE_H
#define SHOAL_BASE_QUEUE_H

#include "base/clock.h"
#include "base/error.h"

#include <stdbool.h>

struct queue;

struct queue *queue_new(int capacity); /* >= 1 */
void queue_free(struct queue *q);      /* no thread may be inside, not even the one that pushed
                                        * what was popped last; items left are not freed */
void queue_close(struct queue *q);     /* wakes all; may be called twice */

enum err queue_push(struct queue *q, void *item);     /* OK, ERR_CLOSED; blocks */
enum err queue_try_push(struct queue *q, void *item); /* OK, ERR_FULL, ERR_CLOSED */

/* Take the oldest item. timeout_us < 0 waits for ever, 0 not at all.
 * OK, ERR_TIMEOUT (*item NULL), ERR_CLOSED (closed and empty). */
enum err queue_pop(struct queue *q, void **item, time_us timeout_us);

int queue_length(struct queue *q); /* at this moment: for accounting only */

#endif
