#include "api/hangup_impl.h"

#include "base/panic.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct hangup_watch {
    hangup_fn fn;
    void *context;
    int epoll_fd;
    int stop_fd; /* an eventfd, in the epoll set under id 0 */
    pthread_t thread;
};

static void *watch(void *argument)
{
    struct hangup_watch *w = argument;
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(w->epoll_fd, events, 64, -1);
        ASSERT(n >= 0 || errno == EINTR);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == 0)
                return NULL;
            w->fn(w->context, events[i].data.u64);
        }
    }
}

static void close_all(struct hangup_watch *w)
{
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    if (w->stop_fd >= 0)
        close(w->stop_fd);
    free(w);
}

enum err hangup_watch_start(hangup_fn fn, void *context, struct hangup_watch **out, struct error *e)
{
    struct hangup_watch *w = xcalloc(1, sizeof *w);
    w->fn = fn;
    w->context = context;
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w->stop_fd = eventfd(0, EFD_CLOEXEC);
    struct epoll_event stop = {.events = EPOLLIN, .data.u64 = 0};
    int failure = w->epoll_fd < 0 || w->stop_fd < 0 ||
                          epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->stop_fd, &stop) != 0
                      ? errno
                      : pthread_create(&w->thread, NULL, watch, w);
    if (failure != 0) {
        close_all(w);
        return error_errno(e, ERR_IO, failure, "cannot watch connections");
    }
    *out = w;
    return OK;
}

void hangup_watch_stop(struct hangup_watch *w)
{
    if (w == NULL)
        return;
    uint64_t one = 1;
    ASSERT(write(w->stop_fd, &one, sizeof one) == sizeof one);
    pthread_join(w->thread, NULL);
    close_all(w);
}

enum err hangup_watch_add(struct hangup_watch *w, int fd, uint64_t id, struct error *e)
{
    ASSERT(id != 0);
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = id};
    if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return error_errno(e, ERR_IO, errno, "cannot watch a connection");
    return OK;
}

void hangup_watch_remove(struct hangup_watch *w, int fd)
{
    epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}
