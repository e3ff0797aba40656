#include "false_alarms.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_int n_to_skip, n_to_spoil;
/* The socket whose connecting this thread has just begun; gRPC gives it to epoll next. */
static _Thread_local int connecting = -1;

void false_alarms_plan(int n_skipped, int n)
{
    n_to_skip = n_skipped;
    n_to_spoil = n;
}

int false_alarms_left(void)
{
    int n = n_to_spoil;
    return n > 0 ? n : 0;
}

__attribute__((constructor)) static void plan_from_environment(void)
{
    int n_skipped, n;
    const char *plan = getenv("FALSE_ALARMS");
    if (plan != NULL && sscanf(plan, "%d,%d", &n_skipped, &n) == 2)
        false_alarms_plan(n_skipped, n);
}

static void report(char what)
{
    const char *path = getenv("FALSE_ALARMS_SEEN");
    int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (fd < 0)
        return;
    if (write(fd, &what, 1) != 1)
        abort();
    close(fd);
}

/* Whether the next connection is spoilt. It is reported before another one is counted: connections
 * are made by several threads. */
static bool spoil_next(void)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    bool spoil = atomic_fetch_sub(&n_to_skip, 1) <= 0 && atomic_fetch_sub(&n_to_spoil, 1) > 0;
    report(spoil ? 'x' : '.');
    pthread_mutex_unlock(&mutex);
    return spoil;
}

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    int result = real(fd, address, size);
    connecting = result < 0 && errno == EINPROGRESS ? fd : -1;
    return result;
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    int (*real)(int, int, int, struct epoll_event *) = dlsym(RTLD_NEXT, "epoll_ctl");
    int result = real(epoll, op, fd, event);
    if (fd != connecting || op != EPOLL_CTL_ADD)
        return result;
    connecting = -1;
    int before = errno;
    bool spoil = spoil_next();
    errno = spoil ? ENOENT : before;
    return result;
}
