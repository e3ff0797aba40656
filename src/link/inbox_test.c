#include "link/link.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct frame *frame_of(int i)
{
    struct frame *f = frame_new(sizeof(i));
    assert_non_null(f);
    memcpy(f->data, &i, sizeof(i));
    return f;
}

static int take_int(struct inbox *b)
{
    struct inbox_event event;
    assert_int_equal(inbox_take(b, &event, 1000000), OK);
    assert_int_equal(event.kind, INBOX_FRAME);
    int i;
    memcpy(&i, event.frame->data, sizeof(i));
    frame_free(event.frame);
    return i;
}

static void frames_in_order_up_to_the_credits(void **state)
{
    (void)state;
    struct inbox *b = inbox_new(2);
    struct inbox_event event;
    assert_int_equal(inbox_take(b, &event, 0), ERR_TIMEOUT);
    assert_int_equal(inbox_put_frame(b, frame_of(1)), OK);
    assert_int_equal(inbox_put_frame(b, frame_of(2)), OK);
    assert_int_equal(inbox_put_frame(b, frame_of(3)), ERR_FULL);
    assert_int_equal(take_int(b), 1);
    assert_int_equal(inbox_put_frame(b, frame_of(4)), OK);
    assert_int_equal(take_int(b), 2);
    assert_int_equal(take_int(b), 4);
    inbox_free(b);
}

static void down_fits_into_a_full_inbox_and_keeps_its_place(void **state)
{
    (void)state;
    struct inbox *b = inbox_new(1);
    struct error first, second;
    error_set(&first, ERR_UNREACHABLE, "10.0.0.1:5: gone");
    error_set(&second, ERR_IO, "again");
    assert_int_equal(inbox_put_frame(b, frame_of(1)), OK);
    inbox_put_down(b, &first);
    inbox_put_down(b, &second); /* adds nothing */
    assert_int_equal(take_int(b), 1);
    struct inbox_event event;
    assert_int_equal(inbox_take(b, &event, 0), OK);
    assert_int_equal(event.kind, INBOX_DOWN);
    assert_int_equal(event.reason.code, ERR_UNREACHABLE);
    assert_string_equal(event.reason.text, "10.0.0.1:5: gone");
    assert_int_equal(inbox_take(b, &event, 0), ERR_TIMEOUT);
    inbox_put_down(b, &second); /* after the first was heard there may be another */
    assert_int_equal(inbox_take(b, &event, 0), OK);
    assert_int_equal(event.reason.code, ERR_IO);
    inbox_free(b);
}

static void closing_drains_and_what_is_left_is_freed(void **state)
{
    (void)state;
    struct inbox *b = inbox_new(3);
    assert_int_equal(inbox_put_frame(b, frame_of(1)), OK);
    inbox_close(b);
    assert_int_equal(inbox_put_frame(b, frame_of(2)), ERR_CLOSED);
    assert_int_equal(take_int(b), 1);
    struct inbox_event event;
    assert_int_equal(inbox_take(b, &event, -1), ERR_CLOSED);
    inbox_free(b);
    b = inbox_new(3); /* the leak checker looks at this one */
    assert_int_equal(inbox_put_frame(b, frame_of(1)), OK);
    struct error reason = {.code = ERR_IO};
    inbox_put_down(b, &reason);
    inbox_free(b);
}

static enum err hold_back(void *context, struct inbox *to, struct frame *f)
{
    struct frame **held = context;
    struct frame *before = *held;
    *held = f;
    return before != NULL ? inbox_put_frame(to, before) : OK;
}

static void inproc_delivers_and_tells_of_its_end(void **state)
{
    (void)state;
    struct inbox *b = inbox_new(4);
    struct link *l = link_inproc_new(b);
    assert_int_equal(link_send(l, frame_of(7)), OK);
    link_close(l);
    link_close(NULL);
    assert_int_equal(take_int(b), 7);
    struct inbox_event event;
    assert_int_equal(inbox_take(b, &event, 0), OK);
    assert_int_equal(event.kind, INBOX_DOWN);
    assert_int_equal(event.reason.code, ERR_CLOSED);

    struct frame *held = NULL;
    l = link_inproc_new_hooked(b, hold_back, &held);
    assert_int_equal(link_send(l, frame_of(1)), OK);
    assert_int_equal(inbox_take(b, &event, 0), ERR_TIMEOUT);
    assert_int_equal(link_send(l, frame_of(2)), OK);
    assert_int_equal(take_int(b), 1);
    link_close(l);
    frame_free(held);
    inbox_free(b);
}

enum { N_FRAMES = 3000, ROOM = 4 };

struct meeting {
    struct inbox *there, *back;
};

static void *echo(void *context)
{
    struct meeting *m = context;
    struct inbox_event event;
    while (inbox_take(m->there, &event, -1) == OK && event.kind == INBOX_FRAME)
        if (inbox_put_frame(m->back, event.frame) != OK)
            return m; /* not reached: asserted by the other thread */
    return NULL;
}

/* Two threads, never more frames on their way than credits: nothing lost, nothing full. */
static void between_threads_under_credits(void **state)
{
    (void)state;
    struct meeting m = {inbox_new(ROOM), inbox_new(ROOM)};
    struct link *l = link_inproc_new(m.there);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, echo, &m), 0);
    int sent = 0, back = 0;
    while (back < N_FRAMES) {
        while (sent < N_FRAMES && sent - back < ROOM)
            assert_int_equal(link_send(l, frame_of(sent++)), OK);
        assert_int_equal(take_int(m.back), back);
        back++;
    }
    link_close(l);
    void *failed;
    pthread_join(thread, &failed);
    assert_null(failed);
    inbox_free(m.there);
    inbox_free(m.back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_in_order_up_to_the_credits),
        cmocka_unit_test(down_fits_into_a_full_inbox_and_keeps_its_place),
        cmocka_unit_test(closing_drains_and_what_is_left_is_freed),
        cmocka_unit_test(inproc_delivers_and_tells_of_its_end),
        cmocka_unit_test(between_threads_under_credits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
