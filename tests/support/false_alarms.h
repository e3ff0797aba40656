/* A mistake of gRPC 1.51, made to happen: it looks at the errno of connect() only after
 * epoll_ctl(), which may have set it, and then gives up a connection that is being made
 * (grpc/grpc#35064).
 *
 * Here are a connect() and an epoll_ctl() that come before those of the C library, in a test that
 * is linked with them or in a program that they are preloaded into. Both do what the real ones do;
 * the chosen connections get the errno with it. A gRPC without the mistake takes no notice. Linux
 * only.
 *
 * Preloaded, they are told by the environment:
 *     FALSE_ALARMS=SKIP,N      leave the first SKIP connections of the process alone, spoil N
 *     FALSE_ALARMS_SEEN=FILE   gets a character for each connection: '.' left alone, 'x' spoilt */
#ifndef SHOAL_TESTS_FALSE_ALARMS_H
#define SHOAL_TESTS_FALSE_ALARMS_H

/* From now on: leave n_skipped connections alone, spoil n. */
void false_alarms_plan(int n_skipped, int n);
int false_alarms_left(void); /* of the n, those that are still to come */

#endif
