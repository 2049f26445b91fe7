/*
 * test_follow.c - an idle system: each event is projected and told a moment after its commit, however
 * many came before it. What gets through only by the projector's timeout (1 s) is found by the time.
 */
#include "tests/system/harness.h"

#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

static void each_event_of_an_idle_system_is_projected_in_a_moment(void **state)
{
    (void)state;
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
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir, "counts", NULL);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    uint64_t until = clock_mono_ns() + 20 * NS_PER_S, first = commit_one(db);
    while (azoth_wait_projected(db, "counts", first, 100, &err) && clock_mono_ns() < until)
        harness_supervise(&h); /* it is being started */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_event_of_an_idle_system_is_projected_in_a_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
