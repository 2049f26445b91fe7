/* test_copies.c - when a refusal of a request that was sent more than once may be told. */
#include "client/copies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void a_single_copys_refusal_is_final(void **state)
{
    (void)state;
    struct copies c = {0};
    copies_sent(&c, 0, 0);
    assert_int_equal(copies_settled(&c, 1), 0);
    copies_answered(&c, 0);
    assert_int_equal(copies_settled(&c, 1), 1);
}

static void a_refusal_waits_for_the_other_copy(void **state)
{
    (void)state;
    struct copies c = {0};
    copies_sent(&c, 0, 0);
    copies_sent(&c, 1, 0);
    copies_answered(&c, 1);
    assert_int_equal(copies_settled(&c, 1), 0);
    assert_int_equal(copies_out(&c), 1);
    copies_answered(&c, 0);
    assert_int_equal(copies_settled(&c, 1), 1);
}

static void a_copy_that_died_with_its_connection_is_outlived_by_a_later_one_only(void **state)
{
    (void)state;
    struct copies c = {0};
    copies_sent(&c, 0, 3);
    copies_sent(&c, 1, 0);
    copies_answered(&c, 1); /* refused, perhaps before the first was executed */
    assert_int_equal(copies_broke(&c, 0, 4), 1);
    assert_int_equal(copies_out(&c), 0);
    assert_int_equal(copies_settled(&c, 1), 0);
    copies_sent(&c, 1, 0);
    copies_answered(&c, 1);
    assert_int_equal(copies_settled(&c, 1), 1);
}

static void a_later_copy_that_gave_up_waiting_says_nothing_of_one_that_died(void **state)
{
    (void)state;
    struct copies c = {0};
    copies_sent(&c, 0, 3);
    assert_int_equal(copies_broke(&c, 0, 4), 1);
    copies_sent(&c, 1, 0);
    copies_answered(&c,
                    1); /* waited in vain, for a stripe that the first one's transaction holds */
    assert_int_equal(copies_settled(&c, 0), 0);
    assert_int_equal(copies_settled(&c, 1), 1);
}

static void a_copy_that_its_worker_gave_up_goes_on_and_only_a_later_look_can_tell(void **state)
{
    (void)state;
    struct copies c = {0};
    copies_sent(&c, 0, 0);
    copies_sent(&c, 1, 0);
    copies_unknown(&c, 0);
    assert_int_equal(copies_out(&c), 1);
    copies_answered(&c,
                    1); /* refused, perhaps because it waited for the first; perhaps before it */
    assert_int_equal(copies_settled(&c, 0), 0);
    assert_int_equal(copies_settled(&c, 1), 0);
    copies_sent(&c, 1, 0);
    copies_answered(&c, 1);
    assert_int_equal(copies_settled(&c, 0), 0);
    assert_int_equal(copies_settled(&c, 1), 1);
}

static void copies_that_all_gave_up_waiting_are_settled(void **state)
{
    (void)state;
    struct copies c = {0};
    copies_sent(&c, 0, 0);
    copies_sent(&c, 1, 0);
    copies_answered(&c, 1);
    assert_int_equal(copies_settled(&c, 0), 0);
    copies_answered(&c, 0);
    assert_int_equal(copies_settled(&c, 0), 1);
}

static void a_copy_sent_over_the_next_connection_does_not_die_with_the_last(void **state)
{
    (void)state;
    struct copies c = {0};
    copies_sent(&c, 0, 1);
    assert_int_equal(copies_broke(&c, 0, 1), 0);
    assert_int_equal(copies_out(&c), 1);
    /* The break is noticed by sending again: the first is gone, the second is out. */
    copies_sent(&c, 0, 2);
    assert_int_equal(copies_out(&c), 1);
    copies_answered(&c, 0);
    assert_int_equal(copies_settled(&c, 1), 1);
}

static void a_copy_on_a_socket_that_was_closed_here_is_never_settled(void **state)
{
    (void)state;
    struct copies c = {0};
    copies_sent(&c, 0, 0);
    copies_lose(&c, 0);
    copies_sent(&c, 1, 0);
    copies_answered(&c, 1);
    assert_int_equal(copies_settled(&c, 1), 0);
    copies_lose(&c, 2); /* none there: nothing lost by it */
    struct copies d = {0};
    copies_sent(&d, 0, 0);
    copies_lose(&d, 2);
    copies_answered(&d, 0);
    assert_int_equal(copies_settled(&d, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_copys_refusal_is_final),
        cmocka_unit_test(a_refusal_waits_for_the_other_copy),
        cmocka_unit_test(a_copy_that_died_with_its_connection_is_outlived_by_a_later_one_only),
        cmocka_unit_test(a_later_copy_that_gave_up_waiting_says_nothing_of_one_that_died),
        cmocka_unit_test(a_copy_that_its_worker_gave_up_goes_on_and_only_a_later_look_can_tell),
        cmocka_unit_test(copies_that_all_gave_up_waiting_are_settled),
        cmocka_unit_test(a_copy_sent_over_the_next_connection_does_not_die_with_the_last),
        cmocka_unit_test(a_copy_on_a_socket_that_was_closed_here_is_never_settled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
