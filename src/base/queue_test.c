#include "base/queue.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void *item(intptr_t i)
{
    return (void *)i;
}

static void order_full_and_closed(void **state)
{
    (void)state;
    struct queue *q = queue_new(2);
    void *got;
    assert_int_equal(queue_pop(q, &got, 0), ERR_TIMEOUT);
    assert_int_equal(queue_pop(q, &got, 1000), ERR_TIMEOUT);
    assert_int_equal(queue_try_push(q, item(1)), OK);
    assert_int_equal(queue_push(q, item(2)), OK);
    assert_int_equal(queue_try_push(q, item(3)), ERR_FULL);
    assert_int_equal(queue_length(q), 2);
    queue_close(q);
    assert_int_equal(queue_try_push(q, item(4)), ERR_CLOSED);
    assert_int_equal(queue_pop(q, &got, -1), OK);
    assert_ptr_equal(got, item(1));
    assert_int_equal(queue_pop(q, &got, -1), OK);
    assert_ptr_equal(got, item(2));
    assert_int_equal(queue_pop(q, &got, -1), ERR_CLOSED);
    queue_free(q);
}

enum { PER_THREAD = 5000, N_PRODUCERS = 3 };

static void *produce(void *queue)
{
    for (intptr_t i = 1; i <= PER_THREAD; i++)
        if (queue_push(queue, item(i)) != OK)
            return item(1);
    return NULL;
}

static void nothing_lost_between_threads(void **state)
{
    (void)state;
    struct queue *q = queue_new(7);
    pthread_t producers[N_PRODUCERS];
    for (int i = 0; i < N_PRODUCERS; i++)
        pthread_create(&producers[i], NULL, produce, q);
    int64_t sum = 0;
    for (int i = 0; i < N_PRODUCERS * PER_THREAD; i++) {
        void *got;
        assert_int_equal(queue_pop(q, &got, -1), OK);
        sum += (intptr_t)got;
    }
    for (int i = 0; i < N_PRODUCERS; i++) {
        void *failed;
        pthread_join(producers[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(sum, (int64_t)N_PRODUCERS * PER_THREAD * (PER_THREAD + 1) / 2);
    queue_free(q);
}

static void *push_one(void *queue)
{
    return item(queue_push(queue, item(2)));
}

static void *pop_one(void *queue)
{
    void *got;
    return item(queue_pop(queue, &got, -1));
}

/* A pusher waiting for room and a popper waiting for an item both wake when the queue is closed. */
static void closing_wakes_who_waits(void **state)
{
    (void)state;
    pthread_t thread;
    void *answer;
    struct queue *full = queue_new(1), *empty = queue_new(1);
    assert_int_equal(queue_push(full, item(1)), OK);
    pthread_create(&thread, NULL, push_one, full);
    clock_sleep_us(20000);
    assert_int_equal(queue_length(full), 1);
    queue_close(full);
    queue_close(full);
    pthread_join(thread, &answer);
    assert_ptr_equal(answer, item(ERR_CLOSED));
    pthread_create(&thread, NULL, pop_one, empty);
    clock_sleep_us(20000);
    queue_close(empty);
    pthread_join(thread, &answer);
    assert_ptr_equal(answer, item(ERR_CLOSED));
    queue_free(full);
    queue_free(empty);
    queue_free(NULL);
}

/* A pop makes room for who waits to push, and a timed pop waits for about its time. */
static void room_and_time(void **state)
{
    (void)state;
    pthread_t thread;
    void *answer, *got;
    struct queue *q = queue_new(1);
    assert_int_equal(queue_push(q, item(1)), OK);
    pthread_create(&thread, NULL, push_one, q);
    clock_sleep_us(20000);
    assert_int_equal(queue_pop(q, &got, -1), OK);
    assert_ptr_equal(got, item(1));
    pthread_join(thread, &answer);
    assert_ptr_equal(answer, item(OK));
    assert_int_equal(queue_pop(q, &got, 0), OK);
    assert_ptr_equal(got, item(2));
    time_us before = clock_now_us();
    assert_int_equal(queue_pop(q, &got, 15000), ERR_TIMEOUT);
    assert_true(clock_now_us() - before >= 15000);
    assert_null(got);
    queue_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_full_and_closed),
        cmocka_unit_test(nothing_lost_between_threads),
        cmocka_unit_test(closing_wakes_who_waits),
        cmocka_unit_test(room_and_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
