/* The link inside one process: sending is putting into the receiver's inbox. With a hook, what
 * becomes of a frame is the hook's business: the simulator delays, drops, reorders, changes. */
#include "link/link.h"

#include "base/panic.h"

#include <stdlib.h>

struct inproc_link {
    struct link base; /* first: a struct link * is one of these */
    struct inbox *to;
    inproc_hook hook; /* or NULL */
    void *context;
};

static enum err inproc_send(struct link *l, struct frame *f)
{
    struct inproc_link *link = (struct inproc_link *)l;
    if (link->hook != NULL)
        return link->hook(link->context, link->to, f);
    return inbox_put_frame(link->to, f);
}

static void inproc_close(struct link *l)
{
    struct inproc_link *link = (struct inproc_link *)l;
    struct error reason;
    error_set(&reason, ERR_CLOSED, "the sender closed the link");
    inbox_put_down(link->to, &reason);
    free(link);
}

static const struct link_ops inproc_ops = {.send = inproc_send, .close = inproc_close};

struct link *link_inproc_new(struct inbox *to)
{
    return link_inproc_new_hooked(to, NULL, NULL);
}

struct link *link_inproc_new_hooked(struct inbox *to, inproc_hook hook, void *context)
{
    struct inproc_link *link = xcalloc(1, sizeof(*link));
    *link = (struct inproc_link){
        .base = {.ops = &inproc_ops}, .to = to, .hook = hook, .context = context};
    return &link->base;
}
