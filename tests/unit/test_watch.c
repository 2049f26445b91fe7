/* test_watch.c - what the writer's helper sees: a disk that fills, a reader that stays. */
#include "client/azoth.h"
#include "core/clock.h"
#include "core/error.h"
#include "writer/watch.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void a_rate_follows_what_grows_over_an_hour(void **state)
{
    (void)state;
    struct watch_rate r = {0};
    uint64_t now = 77 * NS_PER_S;
    double value = 5e9;
    /* From the start: as it has been so far. */
    for (int i = 0; i <= 600; i++, now += NS_PER_S, value += 1000)
        watch_rate_step(&r, now, value);
    assert_in_range((uint64_t)(r.per_ns * 1e9), 999, 1001);
    /* A burst does not count for more than its share of the hour. */
    watch_rate_step(&r, now, value += 1e6);
    assert_in_range((uint64_t)(r.per_ns * 1e9), 2000, 3000);
    /* Ten hours of rest: nothing is left of it. */
    for (int i = 0; i < 36000; i++)
        watch_rate_step(&r, now += NS_PER_S, value);
    assert_true(r.per_ns * 1e9 < 1);
    /* It shrinks. */
    for (int i = 0; i < 36000; i++)
        watch_rate_step(&r, now += NS_PER_S, value -= 10);
    assert_in_range((uint64_t)(-r.per_ns * 1e9), 9, 10);
}

static char dir[64];
static struct azoth *db;
static struct store *store;
static struct azoth_error err;

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/azoth-watch-XXXXXX");
    struct azoth_options o = {.flags = AZOTH_EMBEDDED | AZOTH_CREATE, .sync = "none"};
    return !mkdtemp(dir) || azoth_open(dir, &o, &db, &err) || store_open(dir, 0, &store, &err) ? -1
                                                                                               : 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[100];
    store_close(store);
    azoth_close(db);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static void commit(void)
{
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, azoth_str("n"), 1);
    assert_int_equal(azoth_commit(t, NULL, &err), 0);
    azoth_txn_free(t);
}

static void a_reader_that_stays_is_told_with_its_age_and_one_that_reads_on_is_young(void **state)
{
    (void)state;
    static struct watch w;
    static struct gauges_shm g;
    struct snapshot *sn;
    memset(&w, 0, sizeof w);
    memset(&g, 0, sizeof g);
    commit();
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    watch_step(&w, store, dir, &g, 1000);
    assert_int_equal(gauge_get(&g.pin[0].pid),
                     0); /* nothing was committed since: it pins nothing */
    for (int i = 0; i < 3; i++)
        commit();
    watch_step(&w, store, dir, &g, 2000);
    assert_int_equal(gauge_get(&g.pin[0].pid), getpid());
    assert_int_equal(gauge_get(&g.pin[0].since_ns), 2000);
    uint64_t behind = gauge_get(&g.pin[0].behind);
    assert_in_range(behind, 1, 3);
    commit();
    watch_step(&w, store, dir, &g, 5000);
    assert_int_equal(gauge_get(&g.pin[0].since_ns), 2000);
    assert_true(gauge_get(&g.pin[0].behind) > behind);
    assert_int_equal(gauge_get(&g.pin[1].pid), 0);
    /* Another snapshot of the same reader is another one. */
    snapshot_end(sn);
    assert_int_equal(snapshot_begin(store, &sn, &err), 0);
    commit();
    watch_step(&w, store, dir, &g, 9000);
    assert_int_equal(gauge_get(&g.pin[0].since_ns), 9000);
    snapshot_end(sn);
    watch_step(&w, store, dir, &g, 9500);
    assert_int_equal(gauge_get(&g.pin[0].pid), 0);
    assert_int_equal(gauge_get(&g.looked_ns), 9500);
    assert_true(gauge_get(&g.disk_free_bytes) > 0);
    assert_true(gauge_get(&g.disk_total_bytes) >= gauge_get(&g.disk_free_bytes));
    assert_int_equal(gauge_get(&g.disk_watched_ns), 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_follows_what_grows_over_an_hour),
        cmocka_unit_test_setup_teardown(
            a_reader_that_stays_is_told_with_its_age_and_one_that_reads_on_is_young, setup,
            teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
