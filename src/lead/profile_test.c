#include "lead/profile.h"

#include "base/bounds.h"
#include "engine/draft.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void each_is_within_the_bounds_and_exact(void **state)
{
    (void)state;
    for (int i = 0; i < N_PROFILES; i++) {
        struct lead_options o = {.kv_type = KV_F16, .n_flights = 9, .threads = 3};
        profile_apply((enum profile)i, &o);
        assert_in_range(o.n_slots, 1, SLOT_MAX);
        assert_in_range(o.max_rows, o.n_slots, STEP_MAX_ROWS);
        assert_in_range(o.max_draft, 0, DRAFT_MAX);
        assert_true(o.max_queued > 0);
        assert_true(o.kv_share > 0 && o.kv_share < 1);
        assert_int_equal(o.n_flights, 0);
        assert_int_equal(o.kv_type, KV_F16); /* left alone, as is the rest */
        assert_int_equal(o.threads, 3);
        assert_non_null(profile_names[i]);
    }
    assert_null(profile_names[N_PROFILES]);
}

static void they_differ_as_their_names_say(void **state)
{
    (void)state;
    struct lead_options interactive = {0}, throughput = {0}, low = {0};
    profile_apply(PROFILE_INTERACTIVE, &interactive);
    profile_apply(PROFILE_THROUGHPUT, &throughput);
    profile_apply(PROFILE_LOW_MEMORY, &low);
    assert_true(interactive.max_stretch > 1 && interactive.max_stretch <= 2);
    assert_true(throughput.max_stretch == 0 && throughput.max_itl_us == 0);
    assert_true(throughput.n_slots > interactive.n_slots && interactive.n_slots > low.n_slots);
    assert_true(low.max_rows < interactive.max_rows && low.kv_share < interactive.kv_share);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_within_the_bounds_and_exact),
        cmocka_unit_test(they_differ_as_their_names_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
