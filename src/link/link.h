/* Links move frames between stages, in order, one direction each: a sender here, a receiver there.
 *
 * What is in a frame a link does not know. The pipeline lets at most C frames (the ring's credits) be
 * on their way, and every receiver has room for C: so link_send never blocks. Implementations: inproc
 * (two queues in one process) and grpc (a long-lived bidirectional stream). */
#ifndef SHOAL_LINK_LINK_H
#define SHOAL_LINK_LINK_H

#include "base/error.h"
#include "base/queue.h"
#include "stage/step.h"

struct link; /* a sender */

struct link_ops {
    /* Hand the frame over; takes ownership also on failure. Caller: the stage's or pipeline's thread,
     * one at a time. Does not block. ERR_CLOSED once the link is down. */
    enum err (*send)(struct link *l, struct frame *f);
    /* How long, all in all, frames have waited for the network to take them. NULL: they never do.
     * Any thread. */
    int64_t (*sending_us)(struct link *l);
    /* Stop and free. Frames already sent still arrive if the peer lives. May wait briefly. */
    void (*close)(struct link *l);
};

struct link {
    const struct link_ops *ops;
};

static inline enum err link_send(struct link *l, struct frame *f)
{
    return l->ops->send(l, f);
}

static inline int64_t link_sending_us(struct link *l)
{
    return l != NULL && l->ops->sending_us != NULL ? l->ops->sending_us(l) : 0;
}

static inline void link_close(struct link *l)
{
    if (l != NULL)
        l->ops->close(l);
}

/* What arrives. A receiver is a bounded queue of events made by its owner; links push into it.
 * INBOX_FRAME carries a frame (the popper's), INBOX_DOWN tells that a link is gone, with why. */
enum inbox_kind { INBOX_FRAME, INBOX_DOWN };
struct inbox_event {
    enum inbox_kind kind;
    struct frame *frame;
    struct error reason;
};
struct inbox;
struct inbox *inbox_new(int capacity); /* frames, >= 1 */
void inbox_free(struct inbox *b); /* frees what is left in it; NULL allowed */
void inbox_close(struct inbox *b); /* takers get what is left, then ERR_CLOSED; putters ERR_CLOSED */
/* Takes over the frame, also on failure. ERR_FULL: the peer broke the credit rule. Any thread. */
enum err inbox_put_frame(struct inbox *b, struct frame *f);
/* There is always room; while one INBOX_DOWN waits to be taken, further ones add nothing. */
void inbox_put_down(struct inbox *b, const struct error *reason);
/* OK, ERR_TIMEOUT, ERR_CLOSED. timeout_us < 0 waits for ever, 0 not at all. */
enum err inbox_take(struct inbox *b, struct inbox_event *out, time_us timeout_us);

/* In one process: a sender whose frames arrive in `to`, which outlives it. Closing it puts
 * INBOX_DOWN behind what was sent. */
struct link *link_inproc_new(struct inbox *to);

/* The same with a hook in between, which takes the frame over and puts it into `to` now, later,
 * changed or not at all (sim). Its answer is link_send's. */
typedef enum err (*inproc_hook)(void *context, struct inbox *to, struct frame *f);
struct link *link_inproc_new_hooked(struct inbox *to, inproc_hook hook, void *context);

#endif
