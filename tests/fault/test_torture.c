/*
 * test_torture.c - a run of the torture program, and proof that its checks find what they look for.
 *
 * The defects are those of core/crash.h: they are chosen in the environment of a build with faults.
 */
#include "core/clock.h"
#include "tests/system/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char out[1 << 16];

/* Runs it; its exit status. What it said is in out. */
static int torture(const char *kills, const char *defect, int run)
{
    const char *build = getenv("AZOTH_BUILD");
    char command[400];
    snprintf(command, sizeof command,
             "%s%s exec %s/tests/torture/torture --kills %s --seed %llu 2>&1",
             defect ? "AZOTH_BREAK=" : "", defect ? defect : "", build ? build : "build", kills,
             (unsigned long long)(harness_seed() + (uint64_t)run));
    char *const argv[] = {"sh", "-c", command, NULL};
    return harness_run(out, sizeof out, argv);
}

static void three_hundred_random_kills_lose_nothing_and_repeat_nothing(void **state)
{
    (void)state;
    int rc = torture("300", NULL, 0);
    print_message("%s", out);
    assert_int_equal(rc, 0);
}

/*
 * Every run fails, and these are among the reasons of the runs: which of them a run meets depends on
 * whom it kills in the moment in which the defect shows.
 */
static void is_caught(const char *defect, const char *reason, const char *another)
{
    int found = 0, other = 0;
    for (int run = 0; run < 5 && !(found && other); run++) {
        int rc = torture("25", defect, run);
        if (rc != 1)
            fail_msg("exit status %d: %.900s", rc, out);
        found |= strstr(out, reason) != NULL;
        other |= strstr(out, another) != NULL;
    }
    if (!found || !other)
        fail_msg("\"%s\" %s, \"%s\" %s", reason, found ? "found" : "not found", another,
                 other ? "found" : "not found");
}

static void a_build_without_stripe_locks_is_caught_by_the_history_check(void **state)
{
    (void)state;
    is_caught("locks", "is not linearizable", "below zero");
}

static void
answers_before_the_commit_are_caught_by_the_history_check_and_missed_in_the_log(void **state)
{
    (void)state;
    is_caught("early_answer", "is not linearizable", "was answered as transaction");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_hundred_random_kills_lose_nothing_and_repeat_nothing),
        cmocka_unit_test(a_build_without_stripe_locks_is_caught_by_the_history_check),
        cmocka_unit_test(
            answers_before_the_commit_are_caught_by_the_history_check_and_missed_in_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
