/*
 * test_disk.c - the n-th write, sync or allocation of the writer or the projector fails, for n from 1
 * until none fires; and a disk that fills and is freed.
 *
 * What must hold each time: an answered transaction is there once, a refused one is not there, one of
 * unknown outcome is there at most once; the process that is started again goes on; no lock is left;
 * the projection is a replay. With arguments this is the client: --load DIR N JOURNAL.
 */
#include "core/error.h"
#include "tests/system/harness.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TRANSACTIONS 4
#define EVENTS       1000

/* ---- the client ---- */

static int commit_one(struct azoth *db, int n, struct azoth_error *err)
{
    static char fill[6000]; /* more than a page: the file grows */
    char text[32];
    snprintf(text, sizeof text, "%d", n);
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_add_i64(t, AZOTH_STR("sum"), 1);
    azoth_set_bytes(t, azoth_str(text), (struct azoth_bytes){fill, sizeof fill});
    azoth_event_bytes(t, "added", azoth_str(text));
    int rc = azoth_commit(t, NULL, err);
    azoth_txn_free(t);
    return rc;
}

static int load_main(const char *dir, int n, const char *journal)
{
    struct azoth_options o = {.deadline_ms = 20000, .attach_wait_ms = 10000};
    struct azoth *db;
    struct azoth_error err = {0};
    FILE *f = fopen(journal, "w");
    int rc = f ? azoth_open(dir, &o, &db, &err) : 1;
    if (rc) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    for (int i = 0; i < n; i++) {
        rc = commit_one(db, i, &err);
        fprintf(f, "%d %d %s\n", i, rc, rc ? err.message : "");
    }
    azoth_close(db);
    return fclose(f) != 0;
}

/* ---- one run ---- */

static struct harness h;
static char fired[300], shim[300];

static void arm(const char *kind, int n, int error, const char *from)
{
    char text[40], cwd[200];
    assert_non_null(getcwd(cwd, sizeof cwd));
    int absolute = h.build[0] == '/';
    snprintf(shim, sizeof shim, "%.100s%s%.100s/tests/fault/fail_io.so", absolute ? "" : cwd,
             absolute ? "" : "/", h.build);
    assert_int_equal(access(shim, R_OK), 0);
    snprintf(fired, sizeof fired, "%s/fired", h.dir);
    snprintf(text, sizeof text, "%s,%d,%d", kind, n, error);
    setenv("AZOTH_FAIL", text, 1);
    setenv("AZOTH_FAIL_DIR", h.dir, 1);
    setenv("AZOTH_FAIL_FROM", from, 1);
    setenv("AZOTH_FAIL_FIRED", fired, 1);
    setenv("LD_PRELOAD", shim, 1);
}

static void disarm(void)
{
    unsetenv("LD_PRELOAD");
    unsetenv("AZOTH_FAIL");
    unsetenv("AZOTH_FAIL_FULL");
}

static int definite(int rc)
{
    return rc == AZOTH_ERR_NOSPACE || rc == AZOTH_ERR_NOMEM || rc == AZOTH_ERR_IO;
}

/* How often event n is there. */
static int times(struct azoth *db, int n, int *ret_all)
{
    struct azoth_events *it;
    struct azoth_event ev;
    struct azoth_error err;
    char text[32];
    int found = 0, rc;
    *ret_all = 0;
    snprintf(text, sizeof text, "%d", n);
    assert_int_equal(azoth_events(db, 1, 0, "added", &it, &err), 0);
    while ((rc = azoth_events_next(it, &ev, &err)) == 1) {
        found +=
            ev.payload.len == strlen(text) && memcmp(ev.payload.ptr, text, ev.payload.len) == 0;
        ++*ret_all;
    }
    assert_int_equal(rc, 0);
    azoth_events_free(it);
    return found;
}

static int refused; /* transactions, in the last run */

static void check_journal(const char *journal, const char *what)
{
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    FILE *f = fopen(journal, "r");
    assert_non_null(f);
    char line[400];
    int lines = 0, all = 0;
    refused = 0;
    while (fgets(line, sizeof line, f)) {
        int i, rc;
        assert_int_equal(sscanf(line, "%d %d", &i, &rc), 2);
        int there = times(db, i, &all);
        if (!(rc == 0        ? there == 1
              : definite(rc) ? there == 0
                             : rc == AZOTH_ERR_OUTCOME_UNKNOWN && there <= 1))
            fail_msg("%s: %sthere %d times", what, line, there);
        lines++;
        refused += rc != 0;
    }
    fclose(f);
    assert_int_equal(lines, TRANSACTIONS);
    struct azoth_error err;
    int64_t sum = 0;
    int rc = azoth_get_i64(db, AZOTH_STR("sum"), &sum, &err);
    assert_true(rc == 0 || (rc == AZOTH_ERR_NOT_FOUND && all == 0));
    assert_int_equal(sum, all);
    assert_int_equal(commit_one(db, 1000, &err), 0);
    azoth_close(db);
}

/* 1 when the fault was reached. */
static int writer_with(const char *kind, int n, int error, const char *from)
{
    char journal[300], what[80], count[8], self[256];
    snprintf(what, sizeof what, "%s %d fails with %s", kind, n, strerror(error));
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    harness_begin(&h);
    snprintf(journal, sizeof journal, "%s/journal", h.dir);
    snprintf(count, sizeof count, "%d", TRANSACTIONS);
    arm(kind, n, error, from);
    struct process *w = harness_start(&h, "writer", 1, "azoth-writer", "--dir", h.dir, NULL);
    disarm(); /* its successor finds a sound disk */
    struct process *c = harness_start(&h, "load", 0, self, "--load", h.dir, count, journal, NULL);
    int status = harness_wait(&h, c, 40000);
    if (status != 0 || w->restarts > 1 || (w->restarts && WIFSIGNALED(w->status)))
        fail_msg("%s: client %d, writer restarted %d times, status %d", what, status, w->restarts,
                 w->status);
    /* A fault that was not reached yet may be met at the end; the next writer has a sound disk. */
    harness_stop(&h, w);
    harness_spawn(&h, w);
    check_journal(journal, what);
    assert_true(harness_segment_clean(&h, 2000));
    int reached = access(fired, F_OK) == 0;
    harness_end(&h);
    return reached;
}

static void sweep(int (*with)(const char *, int, int, const char *), const char *kind, int error,
                  const char *from)
{
    int n = 1, runs = 0;
    /* All of the first ones; then, of thousands of allocations, fewer and fewer. */
    while (with(kind, n, error, from)) {
        runs++;
        n += 1 + n / 6;
    }
    print_message("MEASURED %s failing with %s in %s: %d places of about %d\n", kind,
                  strerror(error), from, runs, n - 1);
    assert_true(runs >= 3);
}

static void a_writer_whose_nth_write_fails_loses_nothing_and_invents_nothing(void **state)
{
    (void)state;
    sweep(writer_with, "write", ENOSPC, "writer");
    sweep(writer_with, "write", EIO, "writer");
}

static void a_writer_whose_nth_sync_fails_answers_nothing_as_durable_by_it(void **state)
{
    (void)state;
    sweep(writer_with, "sync", EIO, "writer");
    sweep(writer_with, "sync", ENOSPC, "writer");
}

/* Nobody knows what the disk holds then: the transaction is not refused, the next writer looks. */
static void a_meta_page_that_fails_on_a_full_disk_refuses_nothing_and_ends_the_writer(void **state)
{
    (void)state;
    int n = 1;
    for (; writer_with("meta", n, ENOSPC, "writer"); n++)
        if (refused)
            fail_msg("meta page %d: %d transactions were refused", n, refused);
    assert_true(n > 4);
}

static void a_writer_whose_nth_allocation_fails_refuses_or_is_started_again(void **state)
{
    (void)state;
    sweep(writer_with, "alloc", ENOMEM, "azoth-writer");
    sweep(writer_with, "alloc", ENOMEM, "liblmdb");
}

/* ---- the projector ---- */

static void define_and_fill(void)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .sync = "none"};
    struct azoth *db;
    struct azoth_error err;
    char path[400];
    snprintf(path, sizeof path, "%s/projections/counts.sql", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("-- azoth: projection counts\n-- azoth: migration 1 create\n"
          "CREATE TABLE seen (id INTEGER PRIMARY KEY, n TEXT NOT NULL, list TEXT NOT NULL);\n"
          "-- azoth: on added\nINSERT INTO seen VALUES (@id, :text, :list);\n",
          f);
    fclose(f);
    assert_int_equal(azoth_open(h.dir, &o, &db, &err), 0);
    struct azoth_txn *t = azoth_txn_new(db);
    for (int i = 0; i < EVENTS; i++)
        azoth_event_bytes(t, "added", AZOTH_STR("{\"text\":\"0123456789\",\"list\":[1,2,3]}"));
    assert_int_equal(azoth_commit(t, NULL, &err), 0);
    azoth_txn_free(t);
    azoth_close(db);
}

/* nanomsg 1.1.5 ends its process when it gets no memory: it aborts (alloc_assert), and in nn_bind and
 * nn_connect writes to the endpoint that it did not get. Only what comes after is ours. */
static int may_die;

/* What the fault left is taken over by the next process; 1 when the fault was reached. */
static int projector_with(const char *kind, int n, int error, const char *from)
{
    char path[400], out[200], want[80];
    harness_begin(&h);
    define_and_fill();
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    arm(kind, n, error, from);
    struct process *p = harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir,
                                      "--once", "--projector-timeout", "50ms", "counts", NULL);
    disarm();
    int status = harness_wait(&h, p, 20000);
    if (status == -1 || (WIFSIGNALED(status) && !may_die))
        fail_msg("%s %d in %s: status %d", kind, n, from, status);
    harness_spawn(&h, p);
    status = harness_wait(&h, p, 20000);
    if (status != 0)
        fail_msg("%s %d in %s: the next one's status %d", kind, n, from, status);
    snprintf(path, sizeof path, "%s/projections/counts.db", h.dir);
    char *const argv[] = {"sqlite3", "-readonly", path,
                          "PRAGMA integrity_check; SELECT count(*) || ' ' || sum(id) || ' ' || "
                          "count(DISTINCT list) || ' ' || "
                          "(SELECT cursor FROM azoth_projection) FROM seen",
                          NULL};
    assert_int_equal(harness_run(out, sizeof out, argv), 0);
    snprintf(want, sizeof want, "ok\n%d %d 1 %d\n", EVENTS, EVENTS * (EVENTS + 1) / 2, EVENTS);
    assert_string_equal(out, want);
    int reached = access(fired, F_OK) == 0;
    harness_end(&h);
    return reached;
}

static void a_projector_whose_nth_write_or_sync_fails_goes_on_where_it_was(void **state)
{
    (void)state;
    sweep(projector_with, "write", ENOSPC, "projector");
    sweep(projector_with, "sync", EIO, "projector");
}

static void a_projector_whose_nth_allocation_fails_goes_on_where_it_was(void **state)
{
    (void)state;
    may_die = 0;
    sweep(projector_with, "alloc", ENOMEM, "azoth-projector");
    sweep(projector_with, "alloc", ENOMEM, "libsqlite3");
    sweep(projector_with, "alloc", ENOMEM, "libjansson");
    may_die = 1;
    sweep(projector_with, "alloc", ENOMEM, "libnanomsg");
}

/* ---- a disk that fills and is freed ---- */

static void a_disk_that_fills_refuses_by_name_and_takes_writes_when_it_is_freed(void **state)
{
    (void)state;
    char full[300];
    struct azoth_error err = {0};
    harness_begin(&h);
    snprintf(full, sizeof full, "%s/full", h.dir);
    setenv("AZOTH_FAIL_FULL", full, 1);
    arm("none", 0, 0, "nobody");
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    disarm();
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    int n = 0, all;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(commit_one(db, n++, &err), 0);
        FILE *f = fopen(full, "w");
        assert_non_null(f);
        fclose(f);
        int rc = 0, before = n;
        while (n < before + 50 && (rc = commit_one(db, n, &err)) == 0)
            n++; /* free pages first */
        assert_int_equal(rc, AZOTH_ERR_NOSPACE);
        assert_int_equal(times(db, n, &all), 0);
        assert_int_equal(all, n);
        unlink(full);
    }
    assert_int_equal(commit_one(db, n, &err), 0);
    azoth_close(db);
    int status = harness_stop(&h, w);
    harness_end(&h);
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    /* The preloaded file comes before a sanitizer's runtime, which would refuse that. */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    if (argc == 5 && strcmp(argv[1], "--load") == 0)
        return load_main(argv[2], atoi(argv[3]), argv[4]);
#if defined(__SANITIZE_ADDRESS__)
    puts("skip - the sweeps preload a file that wraps calls which the address sanitizer wraps");
    return 0;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_writer_whose_nth_write_fails_loses_nothing_and_invents_nothing),
        cmocka_unit_test(a_writer_whose_nth_sync_fails_answers_nothing_as_durable_by_it),
        cmocka_unit_test(a_meta_page_that_fails_on_a_full_disk_refuses_nothing_and_ends_the_writer),
        cmocka_unit_test(a_writer_whose_nth_allocation_fails_refuses_or_is_started_again),
        cmocka_unit_test(a_projector_whose_nth_write_or_sync_fails_goes_on_where_it_was),
        cmocka_unit_test(a_projector_whose_nth_allocation_fails_goes_on_where_it_was),
        cmocka_unit_test(a_disk_that_fills_refuses_by_name_and_takes_writes_when_it_is_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
