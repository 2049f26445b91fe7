/*
 * test_embedded_projection.c - projections applied by the process that has the database open: the same rows as
 * the projector's, exactly once although it is killed over and over, one at a time for each file, in many threads.
 * The test is also the program that is killed: with words it is that.
 */
#include "tests/system/harness.h"

#include "core/clock.h"
#include "core/error.h"
#include "shm/gauges.h"

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define KILLS   20
#define THREADS 4

static struct harness h;
static struct azoth_error err;
static char text[4000];

#define TABLE                                                                                      \
    "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER, v CHECK (v > 0));\n"                   \
    "CREATE TABLE log (id INTEGER);\n"
#define PUT "-- azoth: on put\nINSERT INTO log VALUES (@id);\nINSERT INTO t VALUES (@id, :v);\n"

static void define(const char *name, const char *marks, const char *sql)
{
    char path[300];
    snprintf(path, sizeof path, "%s/projections/%s.sql", h.dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "-- azoth: projection %s\n%s%s", name, marks, sql);
    fclose(f);
}

static struct azoth *open_embedded(const char *dir)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .sync = "none", .deadline_ms = 20000};
    struct azoth *db = NULL;
    int rc = azoth_open(dir, &o, &db, &err);
    if (rc)
        fprintf(stderr, "%s\n", err.message);
    return rc ? NULL : db;
}

static struct azoth *begin(void)
{
    harness_begin(&h);
    struct azoth *db = open_embedded(h.dir);
    assert_non_null(db);
    return db;
}

static void end(struct azoth *db)
{
    azoth_close(db);
    harness_end(&h);
}

static int commit(struct azoth *db, const char *type, int n, int v)
{
    struct azoth_txn *t = azoth_txn_new(db);
    char json[40];
    snprintf(json, sizeof json, "{\"v\":%d}", v);
    for (int i = 0; i < n; i++)
        azoth_event_json(t, type, json);
    int rc = azoth_commit(t, NULL, &err);
    azoth_txn_free(t);
    return rc;
}

static void committed(struct azoth *db, const char *type, int n, int v)
{
    if (commit(db, type, n, v))
        fail_msg("%s", err.message);
}

static void once(struct azoth *db, const char *name, uint64_t want)
{
    uint64_t cursor = 0;
    int rc = azoth_projection_run_once(db, name, NULL, &cursor, &err);
    if (rc)
        fail_msg("%s", err.message);
    assert_int_equal(cursor, want);
}

static int fails(struct azoth *db, const char *name, const char *with)
{
    uint64_t cursor = 77;
    int rc = azoth_projection_run_once(db, name, NULL, &cursor, &err);
    assert_int_equal(cursor, 77);
    if (!strstr(err.message, with))
        fail_msg("%s", err.message);
    return rc;
}

static const char *rows(const char *name, const char *sql)
{
    return harness_rows(&h, name, sql, text, sizeof text);
}

/* ---- tests ---- */

static void the_rows_are_those_that_the_projector_makes(void **state)
{
    (void)state;
    struct azoth *db = begin();
    char proof[2000], own[4000];
    static const char all[] = "SELECT count(*), sum(id), sum(v), (SELECT sum(id) FROM log), "
                              "(SELECT count(*) FROM azoth_dlq), (SELECT cursor FROM "
                              "azoth_projection) FROM t";
    define("p", "-- azoth: on-error dead-letter\n", TABLE PUT);
    define("q", "-- azoth: on-error dead-letter\n", TABLE PUT);
    once(db, "p", 0);
    committed(db, "put", 2500, 3);
    committed(db, "put", 3, 0);
    committed(db, "other", 10, 1);
    once(db, "p", 2513);
    once(db, "p", 2513);
    committed(db, "put", 5, 7);
    once(db, "p", 2518);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    struct process *q =
        harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir, "--once", "q", NULL);
    assert_int_equal(harness_wait(&h, q, 20000), 0);
    snprintf(own, sizeof own, "%s", rows("p", all));
    assert_string_equal(rows("q", all), own);
    assert_string_equal(own, "2505,3138830,7535,3138830,3,2518;");
    assert_int_equal(harness_azoth(&h, proof, sizeof proof, "verify", "--projection", "p", NULL),
                     0);
    assert_non_null(strstr(proof, "p: events 1 to 2518: its 2508 handled"));
    end(db);
}

static void its_batches_are_in_the_histograms(void **state)
{
    (void)state;
    struct azoth *db = begin();
    struct segment_name name;
    struct gauges *g;
    define("p", "", TABLE PUT);
    committed(db, "put", 10, 1);
    once(db, "p", 10);
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(gauges_attach(&name, 0, &g, &err), 0);
    assert_int_equal(gauge_get(&g->g->apply_ns.count), 1);
    assert_int_equal(gauge_get(&g->g->lag_ns.count), 1);
    assert_true(gauge_get(&g->g->lag_ns.max) >= gauge_get(&g->g->apply_ns.max));
    assert_in_range(gauge_get(&g->g->lag_ns.max), 1000, 60 * NS_PER_S);
    /* Nothing of it, and nothing at all: no batch was applied. */
    committed(db, "other", 10, 1);
    once(db, "p", 20);
    once(db, "p", 20);
    assert_int_equal(gauge_get(&g->g->apply_ns.count), 1);
    gauges_detach(g);
    end(db);
}

static void the_projector_and_this_process_exclude_each_other(void **state)
{
    (void)state;
    struct azoth *db = begin();
    define("p", "", TABLE PUT);
    once(db, "p", 0);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    struct process *p =
        harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir, "p", NULL);
    committed(db, "put", 1, 1);
    uint64_t until = clock_mono_ns() + 20 * NS_PER_S;
    while (azoth_wait_projected(db, "p", 1, 100, &err) && clock_mono_ns() < until)
        harness_supervise(&h);
    assert_int_equal(fails(db, "p", "another process projects into it"), AZOTH_ERR_DUPLICATE);
    harness_stop(&h, p);
    committed(db, "put", 1, 1);
    once(db, "p", 2);
    end(db);
}

static void what_fails_is_told_and_what_waits_is_not_waited_for(void **state)
{
    (void)state;
    struct azoth *db = begin();
    define("stops", "", TABLE PUT);
    define("tries", "-- azoth: on-error retry 2 fixed 40ms then dead-letter\n", TABLE PUT);
    committed(db, "put", 2, 1);
    committed(db, "put", 1, 0);
    committed(db, "put", 2, 1);
    assert_int_equal(fails(db, "stops", "event 3 (put): "), AZOTH_ERR_HANDLER);
    assert_non_null(strstr(err.message, "stops.sql:7: CHECK constraint failed"));
    assert_string_equal(rows("stops", "SELECT count(*), max(id) FROM t"), "2,2;");
    int waits = 0, rc;
    uint64_t cursor = 0, until = clock_mono_ns() + 20 * NS_PER_S;
    while ((rc = azoth_projection_run_once(db, "tries", NULL, &cursor, &err)) == AZOTH_ERR_BUSY &&
           clock_mono_ns() < until) {
        assert_non_null(strstr(err.message, "tries event 3 again in "));
        waits++;
        nap_ms(5);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(cursor, 5);
    assert_true(waits >= 2);
    assert_string_equal(rows("tries", "SELECT count(*), (SELECT max(attempts) FROM azoth_dlq), "
                                      "(SELECT count(*) FROM azoth_dlq) FROM t"),
                        "4,3,1;");
    end(db);
}

static void what_cannot_be_projected_here_is_refused(void **state)
{
    (void)state;
    struct azoth *db = begin(), *far;
    define("p", "", TABLE PUT);
    define("e", "-- azoth: effects true\n", "");
    assert_int_equal(fails(db, "nowhere", "there is no such file"), AZOTH_ERR_PROJECTION);
    assert_int_equal(fails(db, "no/such.sql", "there is no such file"), AZOTH_ERR_PROJECTION);
    assert_int_equal(fails(db, "", "is no name"), AZOTH_ERR_USAGE);
    assert_int_equal(fails(db, "e", "effects are run by"), AZOTH_ERR_UNSUPPORTED);
    assert_int_equal(azoth_connect("ipc:///tmp/azoth-nobody.sock", NULL, &far, &err), 0);
    assert_int_equal(fails(far, "p", "remote handle"), AZOTH_ERR_UNSUPPORTED);
    azoth_close(far);
    committed(db, "put", 1, 1);
    once(db, "p", 1);
    define("p", "", TABLE PUT "SELECT 1;\n");
    assert_int_equal(fails(db, "p", "handlers differ"), AZOTH_ERR_PROJECTION);
    struct azoth_projection_options o = {.accept_changed = 1};
    assert_int_equal(azoth_projection_run_once(db, "p", &o, NULL, &err), 0);
    end(db);
}

static void one_that_is_split_is_projected_into_all_its_files(void **state)
{
    (void)state;
    char path[300], proof[2000];
    struct azoth *db = begin();
    define("p", "-- azoth: shard-by :v\n-- azoth: shards 3\n", TABLE PUT);
    for (int i = 1; i <= 20; i++)
        committed(db, "put", 10, i);
    snprintf(path, sizeof path, "%s/projections/p.sql", h.dir);
    once(db, path, 200);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/projections/p.%dof3.db", h.dir, i);
        assert_int_equal(access(path, F_OK), 0);
    }
    assert_string_equal(rows("p", "SELECT count(*), sum(v), min(cursor) FROM t, "
                                  "(SELECT min(cursor) AS cursor FROM azoth_projection)"),
                        "200,2100,200;");
    assert_int_equal(harness_azoth(&h, proof, sizeof proof, "verify", "--projection", "p", NULL),
                     0);
    end(db);
}

struct told {
    int skipped, others;
    uint64_t event;
};

static void tell(void *arg, const char *what, uint64_t event, const char *why)
{
    struct told *t = arg;
    t->event = event;
    if (strcmp(what, "skipped") == 0 && strstr(why, "CHECK constraint failed"))
        t->skipped++;
    else
        t->others++;
}

static void who_asks_is_told_of_what_was_skipped(void **state)
{
    (void)state;
    struct azoth *db = begin();
    struct told t = {0};
    struct azoth_projection_options o = {.failed = tell, .arg = &t};
    define("p", "-- azoth: on-error log-and-skip\n", TABLE PUT);
    committed(db, "put", 1, 1);
    committed(db, "put", 2, 0);
    assert_int_equal(azoth_projection_run_once(db, "p", &o, NULL, &err), 0);
    assert_int_equal(t.skipped, 2);
    assert_int_equal(t.others, 0);
    assert_int_equal(t.event, 3);
    end(db);
}

/* ---- threads ---- */

struct follower {
    struct azoth *db;
    char name[20];
    volatile int stop;
    int rc;
    struct azoth_error err;
    pthread_t thread;
};

static void *follow(void *arg)
{
    struct follower *f = arg;
    struct azoth_projection_options o = {.stop = &f->stop};
    f->rc = azoth_projection_run(f->db, f->name, &o, &f->err);
    return NULL;
}

static void start(struct follower *f, struct azoth *db, const char *name)
{
    *f = (struct follower){.db = db};
    snprintf(f->name, sizeof f->name, "%s", name);
    assert_int_equal(pthread_create(&f->thread, NULL, follow, f), 0);
}

static void stop(struct follower *f)
{
    __atomic_store_n(&f->stop, 1, __ATOMIC_RELAXED);
    pthread_join(f->thread, NULL);
    if (f->rc)
        fail_msg("%s: %s", f->name, f->err.message);
}

static void until_rows(const char *name, const char *sql, const char *want)
{
    uint64_t until = clock_mono_ns() + 60 * NS_PER_S;
    while (strcmp(rows(name, sql), want) != 0 && clock_mono_ns() < until)
        nap_ms(1);
    assert_string_equal(rows(name, sql), want);
}

static void several_projections_follow_in_several_threads(void **state)
{
    (void)state;
    static struct follower f[THREADS];
    struct azoth *db = begin();
    char proof[4000], name[20];
    for (int i = 0; i < THREADS; i++) {
        snprintf(name, sizeof name, "p%d", i);
        define(name,
               i % 2 ? "-- azoth: on-error retry 2 1ms..2ms then dead-letter\n"
                     : "-- azoth: on-error log-and-skip\n",
               TABLE PUT);
        start(&f[i], db, name);
    }
    until_rows("p0", "SELECT cursor FROM azoth_projection", "0;");
    assert_int_equal(fails(db, "p0", "another process projects into it"), AZOTH_ERR_DUPLICATE);
    for (int i = 1; i <= 100; i++)
        committed(db, i % 10 ? "put" : "other", 5, i % 50 ? 1 : 0);
    committed(db, "put", 1, 0);
    committed(db, "put", 1, 1);
    for (int i = 0; i < THREADS; i++) {
        snprintf(name, sizeof name, "p%d", i);
        until_rows(name, "SELECT cursor FROM azoth_projection", "502;");
        assert_string_equal(rows(name, "SELECT count(*), count(DISTINCT id), (SELECT count(*) "
                                       "FROM azoth_dlq) FROM t"),
                            i % 2 ? "451,451,1;" : "451,451,0;");
    }
    /* Each event is there a moment behind its commit: the commit wakes, and no timeout. */
    uint64_t begun = clock_mono_ns();
    for (int i = 1; i <= 50; i++) {
        char want[40];
        committed(db, "put", 1, 1);
        snprintf(want, sizeof want, "%d;", 502 + i);
        until_rows("p3", "SELECT cursor FROM azoth_projection", want);
    }
    uint64_t ms = (clock_mono_ns() - begun) / NS_PER_MS;
    print_message("MEASURED 50 events one after the other in %" PRIu64 " ms\n", ms);
    assert_true(ms < 50 * 60);
    for (int i = 0; i < THREADS; i++)
        stop(&f[i]);
    assert_int_equal(
        harness_azoth(&h, proof, sizeof proof, "verify", "--all-projections", NULL, NULL), 0);
    end(db);
}

static void it_ends_when_the_time_is_over(void **state)
{
    (void)state;
    struct azoth *db = begin();
    struct azoth_projection_options o = {.timeout_ms = 300};
    define("p", "", TABLE PUT);
    committed(db, "put", 1, 1);
    uint64_t begun = clock_mono_ns();
    assert_int_equal(azoth_projection_run(db, "p", &o, &err), 0);
    uint64_t ms = (clock_mono_ns() - begun) / NS_PER_MS;
    assert_true(ms >= 300 && ms < 10000);
    assert_string_equal(rows("p", "SELECT count(*) FROM t"), "1;");
    committed(db, "put", 1, 0);
    o.timeout_ms = 0;
    assert_int_equal(azoth_projection_run(db, "p", &o, &err), AZOTH_ERR_HANDLER);
    end(db);
}

static void a_read_only_handle_follows_another_process(void **state)
{
    (void)state;
    static struct follower f;
    struct azoth_options o = {.flags = AZOTH_READ_ONLY};
    struct azoth *db, *ro;
    harness_begin(&h);
    define("p", "", TABLE PUT);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    db = harness_attach(&h, 10000);
    assert_non_null(db);
    committed(db, "put", 3, 1);
    azoth_close(db);
    assert_int_equal(azoth_open(h.dir, &o, &ro, &err), 0);
    start(&f, ro, "p");
    until_rows("p", "SELECT count(*) FROM t", "3;");
    char request[] = "{\"events\":[{\"type\":\"put\",\"data\":{\"v\":1}}]}";
    assert_int_equal(harness_azoth(&h, text, sizeof text, "tx", request, NULL, NULL), 0);
    until_rows("p", "SELECT count(*) FROM t", "4;");
    stop(&f);
    azoth_close(ro);
    harness_end(&h);
}

/* ---- killed over and over ---- */

/* The program that is killed: commits and projects in turn until then, or until `most` events are there. */
static int victim(const char *dir, uint64_t most)
{
    struct azoth *db = open_embedded(dir);
    uint64_t head = 0;
    int rc = db ? 0 : 1;
    while (!rc && head < most) {
        rc = commit(db, "put", 40, 1);
        if (!rc)
            rc = commit(db, "put", 1, 0);
        if (!rc)
            rc = azoth_projection_run_once(db, "p", NULL, NULL, &err);
        if (!rc)
            rc = azoth_head(db, &head, NULL, &err);
    }
    if (rc)
        fprintf(stderr, "%s\n", err.message);
    azoth_close(db);
    return rc != 0;
}

static void killed_and_started_again_each_event_is_applied_once(void **state)
{
    (void)state;
    char self[300] = "", proof[2000], want[80];
    uint64_t seed = harness_seed(), head = 0, until = clock_mono_ns() + 120 * NS_PER_S;
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    harness_begin(&h);
    define("p", "-- azoth: on-error dead-letter\n", TABLE PUT);
    struct process *p = harness_start(&h, "victim", 1, self, "victim", h.dir, "1000000000", NULL);
    for (int k = 0; k < KILLS; k++) {
        nap_ms(5 + (long)(random_next(&seed) % 120));
        pid_t was = p->pid;
        assert_true(was > 0); /* it ends by being killed alone */
        harness_kill(p, SIGKILL);
        while (p->pid == was && clock_mono_ns() < until) {
            harness_supervise(&h);
            nap_ms(1);
        }
    }
    nap_ms(50);
    p->restart = 0;
    harness_kill(p, SIGKILL);
    assert_int_equal(harness_wait(&h, p, 10000), SIGKILL);
    assert_int_equal(p->restarts, KILLS);
    struct azoth *db = open_embedded(h.dir);
    assert_non_null(db);
    assert_int_equal(azoth_head(db, &head, NULL, &err), 0);
    assert_true(head > 0);
    once(db, "p", head);
    assert_string_equal(rows("p", "SELECT count(*) - count(DISTINCT id), (SELECT count(*) - "
                                  "count(DISTINCT id) FROM log) FROM t"),
                        "0,0;");
    snprintf(want, sizeof want, "%" PRIu64 ";", head);
    assert_string_equal(rows("p", "SELECT count(*) + (SELECT count(*) FROM azoth_dlq) FROM t"),
                        want);
    assert_int_equal(harness_azoth(&h, proof, sizeof proof, "verify", "--projection", "p", NULL),
                     0);
    print_message("MEASURED %" PRIu64 " events, %d kills\n", head, KILLS);
    end(db);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "victim") == 0)
        return victim(argv[2], strtoull(argv[3], NULL, 10));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rows_are_those_that_the_projector_makes),
        cmocka_unit_test(its_batches_are_in_the_histograms),
        cmocka_unit_test(the_projector_and_this_process_exclude_each_other),
        cmocka_unit_test(what_fails_is_told_and_what_waits_is_not_waited_for),
        cmocka_unit_test(what_cannot_be_projected_here_is_refused),
        cmocka_unit_test(one_that_is_split_is_projected_into_all_its_files),
        cmocka_unit_test(who_asks_is_told_of_what_was_skipped),
        cmocka_unit_test(several_projections_follow_in_several_threads),
        cmocka_unit_test(it_ends_when_the_time_is_over),
        cmocka_unit_test(a_read_only_handle_follows_another_process),
        cmocka_unit_test(killed_and_started_again_each_event_is_applied_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
