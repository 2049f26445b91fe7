/*
 * test_follow.c - an idle system: each event is projected and told a moment after its commit, however
 * many came before it. What gets through only by the projector's timeout (1 s) is found by the time.
 */
#include "tests/system/harness.h"

#include "core/clock.h"
#include "shm/gauges.h"
#include "shm/segment.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EVENTS    200 /* more than may be on their way at once */
#define MOMENT_MS 500

static struct harness h;

static uint64_t commit_one(struct azoth *db)
{
    struct azoth_error err;
    struct azoth_commit_info info;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_event_bytes(t, "added", AZOTH_STR("x"));
    int rc = azoth_commit(t, &info, &err);
    if (rc)
        fail_msg("%s", err.message);
    azoth_txn_free(t);
    return info.last_event;
}

/* The whole system, with one event that is projected. */
static struct azoth *begin(struct process **ret_writer)
{
    char path[300];
    struct azoth_error err = {0};
    harness_begin(&h);
    snprintf(path, sizeof path, "%s/projections/counts.sql", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("-- azoth: projection counts\n-- azoth: migration 1 create\n"
          "CREATE TABLE seen (id INTEGER PRIMARY KEY);\n"
          "-- azoth: on added\nINSERT INTO seen VALUES (@id);\n",
          f);
    fclose(f);
    *ret_writer = harness_start(&h, "writer", 1, "azoth-writer", "--dir", h.dir, NULL);
    harness_start(&h, "feed", 1, "azoth-feed", "--dir", h.dir, NULL);
    harness_start(&h, "projector", 1, "azoth-projector", "--dir", h.dir, "counts", NULL);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    uint64_t until = clock_mono_ns() + 20 * NS_PER_S, first = commit_one(db);
    while (azoth_wait_projected(db, "counts", first, 100, &err) && clock_mono_ns() < until)
        harness_supervise(&h); /* it is being started */
    return db;
}

static void each_event_of_an_idle_system_is_projected_in_a_moment(void **state)
{
    (void)state;
    struct azoth_error err = {0};
    struct process *writer;
    struct azoth *db = begin(&writer);
    for (int i = 0; i < EVENTS; i++) {
        uint64_t id = commit_one(db), from = clock_mono_ns();
        int rc = azoth_wait_projected(db, "counts", id, 5000, &err);
        uint64_t ms = (clock_mono_ns() - from) / NS_PER_MS;
        if (rc || ms > MOMENT_MS)
            fail_msg("event %d: %llu ms, %s", i, (unsigned long long)ms, rc ? err.message : "late");
    }
    azoth_close(db);
    harness_end(&h);
}

struct wait {
    struct azoth *db;
    int rc;
    _Atomic int over;
};

static void *wait_for_the_second(void *arg)
{
    struct wait *w = arg;
    w->rc = azoth_wait_projected(w->db, "counts", 2, 20000, NULL);
    w->over = 1;
    return NULL;
}

/* Mappings of an object that somebody removed. */
static int mapped(const char *object)
{
    char line[500], removed[200];
    int n = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    assert_non_null(f);
    snprintf(removed, sizeof removed, "/dev/shm%s", object);
    while (fgets(line, sizeof line, f))
        n += strstr(line, removed) != NULL;
    fclose(f);
    return n;
}

static void who_waits_is_told_of_events_in_shared_objects_that_were_made_anew(void **state)
{
    (void)state;
    struct process *writer;
    struct azoth *db = begin(&writer);
    struct segment_name name;
    struct azoth_error err = {0};
    struct wait w = {.db = db};
    pthread_t waiter;
    uint64_t until = clock_mono_ns() + 20 * NS_PER_S;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    int before = mapped(name.gauges), restarts = writer->restarts;
    assert_int_equal(pthread_create(&waiter, NULL, wait_for_the_second, &w), 0);
    while (mapped(name.gauges) == before && clock_mono_ns() < until)
        nap_ms(1);
    segment_unlink(&name); /* as a login manager does with what is left of a user */
    while (writer->restarts == restarts && clock_mono_ns() < until) {
        harness_supervise(&h);
        nap_ms(5);
    }
    struct azoth *fresh = harness_attach(&h, 10000);
    assert_int_equal(commit_one(fresh), 2);
    while (!w.over && clock_mono_ns() < until + 20 * NS_PER_S) {
        harness_supervise(&h);
        nap_ms(5);
    }
    pthread_join(waiter, NULL);
    assert_int_equal(w.rc, 0);
    azoth_close(fresh);
    azoth_close(db);
    harness_end(&h);
}

static void one_ahead_of_the_log_has_applied_nothing_of_it(void **state)
{
    (void)state;
    struct process *writer;
    struct azoth *db = begin(&writer);
    struct segment_name name;
    struct gauges *g;
    struct azoth_error err = {0};
    assert_int_equal(azoth_wait_projected(db, "counts", 1, 0, &err), 0);
    for (int i = 1; i < h.processes; i++) /* its row stays as it is */
        assert_int_not_equal(harness_stop(&h, &h.process[i]), -1);
    assert_int_equal(azoth_wait_projected(db, "counts", 1, 0, &err), 0);
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(gauges_attach(&name, 1, &g, &err), 0);
    gauge_set(&g->projection[0].cursor, 1000);
    assert_int_equal(azoth_wait_projected(db, "counts", 1, 10, &err), AZOTH_ERR_TIMEOUT);
    gauges_detach(g);
    azoth_close(db);
    harness_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_event_of_an_idle_system_is_projected_in_a_moment),
        cmocka_unit_test(who_waits_is_told_of_events_in_shared_objects_that_were_made_anew),
        cmocka_unit_test(one_ahead_of_the_log_has_applied_nothing_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
