/* test_retention.c - which backups stay by a rule, and that no chain is broken. */
#include "core/clock.h"
#include "core/error.h"
#include "writer/retention.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static struct azoth_error err;

static int64_t at(const char *text) /* "2026-11-27 03:00:00" */
{
    struct tm tm = {0};
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
    return (int64_t)timegm(&tm) * (int64_t)NS_PER_S;
}

static struct retention_rule rule(const char *text)
{
    struct retention_rule r = {0};
    assert_int_equal(retention_parse(text, &r, &err), 0);
    return r;
}

/* What stays, as a string of k (by the rule), n (needed by another), - */
static const char *kept(const char *text, struct retention_item *items, size_t n)
{
    static char out[512];
    struct retention_rule r = rule(text);
    assert_int_equal(retention_apply(&r, items, n, &err), 0);
    assert_true(n < sizeof out);
    for (size_t i = 0; i < n; i++)
        out[i] = items[i].needed ? 'n' : items[i].kept ? 'k' : '-';
    out[n] = 0;
    return out;
}

static void a_rule_is_numbers_and_periods(void **state)
{
    (void)state;
    struct retention_rule r = rule(" 7 daily,4weekly , 12 monthly,2 yearly,24 hourly,3 last");
    const uint32_t want[RETENTION_PERIODS] = {3, 24, 7, 4, 12, 2};
    assert_memory_equal(r.keep, want, sizeof want);
    static const char *const bad[] = {"",
                                      "daily",
                                      "0 daily",
                                      "7 days",
                                      "7 daily,",
                                      "7 daily 4 weekly",
                                      "7 daily, 3 daily",
                                      "-1 daily",
                                      "99999999999999999999 last",
                                      "100001 last",
                                      ",7 daily"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        r.keep[0] = 77;
        assert_int_equal(retention_parse(bad[i], &r, &err), AZOTH_ERR_USAGE);
        assert_int_equal(r.keep[0], 77); /* untouched */
    }
    assert_int_equal(retention_parse("7 daily, 3 daily", &r, &err), AZOTH_ERR_USAGE);
    assert_non_null(strstr(err.message, "daily"));
    assert_int_equal(retention_parse("100000 last", &r, &err), 0);
}

static void of_each_period_the_newest_stays(void **state)
{
    (void)state;
    struct retention_item a[] = {
        {.time_ns = at("2026-11-24 10:00:00"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("2026-11-24 23:59:59"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("2026-11-25 00:00:00"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("2026-11-27 04:00:00"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("2026-11-27 05:00:00"), .parent = RETENTION_NO_PARENT},
    };
    assert_string_equal(kept("1 daily", a, 5), "----k");
    assert_string_equal(kept("2 daily", a, 5), "--k-k"); /* a day without a backup is no period */
    assert_string_equal(kept("3 daily", a, 5), "-kk-k");
    assert_string_equal(kept("9 daily", a, 5), "-kk-k");
    assert_string_equal(kept("2 hourly", a, 5), "---kk");
    assert_string_equal(kept("2 last", a, 5), "---kk");
    assert_string_equal(kept("1 yearly", a, 5), "----k");
    assert_int_equal(a[4].why, RETENTION_LAST);
}

static void weeks_begin_on_monday_and_months_and_years_are_the_calendars(void **state)
{
    (void)state;
    struct retention_item a[] = {
        {.time_ns = at("2026-11-22 23:00:00"), .parent = RETENTION_NO_PARENT}, /* a Sunday */
        {.time_ns = at("2026-11-23 01:00:00"), .parent = RETENTION_NO_PARENT}, /* a Monday */
        {.time_ns = at("2026-11-29 23:00:00"), .parent = RETENTION_NO_PARENT}, /* its Sunday */
    };
    assert_string_equal(kept("5 weekly", a, 3), "k-k");
    struct retention_item b[] = {
        {.time_ns = at("2025-12-30 00:00:00"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("2025-12-31 00:00:00"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("2026-01-01 00:00:00"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("2026-02-01 00:00:00"), .parent = RETENTION_NO_PARENT},
    };
    assert_string_equal(kept("9 monthly", b, 4), "-kkk");
    assert_string_equal(kept("9 yearly", b, 4), "-k-k");
    assert_string_equal(kept("9 weekly", b, 4), "--kk"); /* one week over the year's end */
    struct retention_item old[] = {
        {.time_ns = at("1969-12-28 12:00:00"), .parent = RETENTION_NO_PARENT}, /* a Sunday */
        {.time_ns = at("1969-12-29 12:00:00"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("1970-01-04 12:00:00"), .parent = RETENTION_NO_PARENT},
    };
    assert_string_equal(kept("9 weekly", old, 3), "k-k");
    assert_string_equal(kept("9 daily", old, 3), "kkk");
}

static void what_a_kept_one_builds_on_stays(void **state)
{
    (void)state;
    struct retention_item a[] = {
        {.time_ns = at("2026-11-20 01:00:00"), .parent = RETENTION_NO_PARENT}, /* full */
        {.time_ns = at("2026-11-21 01:00:00"), .parent = 0},
        {.time_ns = at("2026-11-22 01:00:00"), .parent = 1},
        {.time_ns = at("2026-11-22 02:00:00"), .parent = 2},
        {.time_ns = at("2026-11-23 01:00:00"), .parent = RETENTION_NO_PARENT}, /* full */
        {.time_ns = at("2026-11-24 01:00:00"), .parent = 4},
    };
    assert_string_equal(kept("1 last", a, 6), "----nk");
    assert_string_equal(kept("3 daily", a, 6), "nnnkkk");
    struct retention_item ring[] = {
        {.time_ns = 1, .parent = 1},
        {.time_ns = 2, .parent = 0},
        {.time_ns = 3, .parent = 99}, /* lost */
    };
    assert_string_equal(kept("1 last", ring, 3), "--k");
    ring[0].time_ns = 9 * (int64_t)NS_PER_S * 86400;
    assert_string_equal(kept("1 daily", ring, 3), "knk");
}

static void the_newest_always_stays_and_nothing_is_fine(void **state)
{
    (void)state;
    struct retention_rule none = {0};
    struct retention_item a[] = {{.time_ns = 5, .parent = RETENTION_NO_PARENT},
                                 {.time_ns = 5, .parent = RETENTION_NO_PARENT}};
    assert_int_equal(retention_apply(&none, a, 2, &err), 0);
    assert_int_equal(a[0].kept, 0);
    assert_int_equal(a[1].kept, 1); /* of equal times the one that came later */
    assert_int_equal(retention_apply(&none, NULL, 0, &err), 0);
}

static void a_clock_that_was_set_back_costs_no_new_backup(void **state)
{
    (void)state;
    struct retention_item a[] = {
        {.time_ns = at("2026-11-20 01:00:00"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("2030-01-01 01:00:00"), .parent = RETENTION_NO_PARENT}, /* the clock's */
        {.time_ns = at("2026-11-21 01:00:00"), .parent = RETENTION_NO_PARENT},
        {.time_ns = at("2026-11-21 02:00:00"), .parent = RETENTION_NO_PARENT},
    };
    assert_string_equal(kept("1 last", a, 4), "---k");
    assert_string_equal(kept("2 last", a, 4), "--kk");
    assert_string_equal(kept("9 last", a, 4), "kkkk");
    assert_string_equal(kept("1 daily", a, 4), "-k-k");
    assert_string_equal(kept("1 yearly", a, 3), "-kk");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rule_is_numbers_and_periods),
        cmocka_unit_test(of_each_period_the_newest_stays),
        cmocka_unit_test(weeks_begin_on_monday_and_months_and_years_are_the_calendars),
        cmocka_unit_test(what_a_kept_one_builds_on_stays),
        cmocka_unit_test(the_newest_always_stays_and_nothing_is_fine),
        cmocka_unit_test(a_clock_that_was_set_back_costs_no_new_backup),
    };
    return cmocka_run_group_tests_name("retention", tests, NULL, NULL);
}
