/*
 * test_slow_feed.c - slow and stopped processes behind the commit: feed and projectors.
 *
 * Projectors pull, so one that is slow or stopped holds up nobody: not the writer, not the feed, not
 * another projector; and what waits for it waits in the log, not in the feed's memory. One that goes on
 * has every event once. Built with crash points, at which a process stops itself.
 */
#include "core/clock.h"
#include "core/error.h"
#include "shm/gauges.h"
#include "shm/projection_row.h"
#include "tests/system/harness.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define EVENTS      3000
#define EVENT_BYTES 20000
/* What the feed may come to hold for one projector more: its credit, the batch that is being made,
 * and what the transport copies. */
#define FEED_GROWTH_KIB 4096

static struct harness h;
static struct azoth_error err;

static void put_file(const char *name, const char *fmt, const char *a)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", h.dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, fmt, a);
    fclose(f);
}

static void define(const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "projections/%s.sql", name);
    put_file(file,
             "-- azoth: projection %s\n"
             "-- azoth: migration 1 create\n"
             "CREATE TABLE seen (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);\n"
             "-- azoth: on added\n"
             "INSERT INTO seen VALUES (@id, length(@payload));\n",
             name);
}

static void add_events(struct azoth *db, int n, size_t bytes)
{
    static char big[EVENT_BYTES];
    assert_true(bytes <= sizeof big);
    for (int i = 0; i < n;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int k = 0; k < 50 && i < n; k++, i++)
            azoth_event_bytes(t, "added", (struct azoth_bytes){big, bytes});
        assert_int_equal(azoth_commit(t, NULL, &err), 0);
        azoth_txn_free(t);
    }
}

/* A database with that many events, a writer and a handle on it. */
static struct azoth *begin(int events, size_t bytes)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .sync = "none"};
    struct azoth *db;
    harness_begin(&h);
    put_file("azoth.conf", "[feed]\nlapse = %s\n", "500ms");
    assert_int_equal(azoth_open(h.dir, &o, &db, &err), 0);
    add_events(db, events, bytes);
    azoth_close(db);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, NULL);
    db = harness_attach(&h, 5000);
    assert_non_null(db);
    return db;
}

static struct process *start_feed(void)
{
    return harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
}

static struct process *start_projector(const char *name, const char *credit)
{
    return harness_start(&h, name, 0, "azoth-projector", "--dir", h.dir, "--projector-credit",
                         credit, "--projector-timeout", "200ms", name, NULL);
}

/* One event a second, and a transaction for each: a quarter of its credit is less than an event. */
static void start_slow_projector(const char *name)
{
    char shim[300], cwd[200];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(shim, sizeof shim, "%s%s%s/tests/fault/shim.so", h.build[0] == '/' ? "" : cwd,
             h.build[0] == '/' ? "" : "/", h.build);
    assert_int_equal(access(shim, R_OK), 0);
    setenv("LD_PRELOAD", shim, 1);
    setenv("AZOTH_SHIM_SLOW", "INSERT INTO seen", 1);
    start_projector(name, "65536");
    unsetenv("LD_PRELOAD");
    unsetenv("AZOTH_SHIM_SLOW");
}

static struct projection_row row_of(const char *projection)
{
    struct segment_name name;
    struct gauges *g;
    struct projection_row r;
    int there = 0;
    assert_int_equal(segment_name_of(h.dir, &name, &err), 0);
    assert_int_equal(gauges_attach(&name, 0, &g, &err), 0);
    for (uint32_t i = 0; i < SHM_PROJECTIONS && !there; i++)
        there = projection_row_read(g, i, &r) && strcmp(r.name, projection) == 0;
    gauges_detach(g);
    if (!there)
        memset(&r, 0, sizeof r);
    return r;
}

/* Every event up to `last` once, and the cursor at it. */
static void holds_events_to(const char *projection, uint64_t last)
{
    char db[400], out[200], want[200];
    snprintf(db, sizeof db, "%s/projections/%s.db", h.dir, projection);
    char *const argv[] = {"sqlite3", "-readonly", db,
                          "SELECT count(*) || ' ' || min(id) || ' ' || max(id) || ' ' || "
                          "(SELECT cursor FROM azoth_projection) FROM seen",
                          NULL};
    assert_int_equal(harness_run(out, sizeof out, argv), 0);
    out[strcspn(out, "\n")] = 0;
    snprintf(want, sizeof want, "%" PRIu64 " 1 %" PRIu64 " %" PRIu64, last, last, last);
    assert_string_equal(out, want);
}

static uint64_t head_of(struct azoth *db)
{
    uint64_t event, txn;
    assert_int_equal(azoth_head(db, &event, &txn, &err), 0);
    return event;
}

static long anonymous_kib(const struct process *p)
{
    char path[64], line[200];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)p->pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (kib < 0 && fgets(line, sizeof line, f))
        sscanf(line, "RssAnon: %ld", &kib);
    fclose(f);
    assert_true(kib >= 0);
    return kib;
}

/* Milliseconds until a new projector has applied everything. */
static uint64_t time_to_head(struct azoth *db, const char *name)
{
    uint64_t from = clock_mono_ns();
    start_projector(name, "1M");
    assert_int_equal(azoth_wait_projected(db, name, EVENTS, 60000, &err), 0);
    return (clock_mono_ns() - from) / NS_PER_MS;
}

static void a_projector_at_one_event_a_second_holds_up_no_other_and_fills_no_memory(void **state)
{
    (void)state;
    struct azoth *db = begin(EVENTS, EVENT_BYTES);
    define("alone");
    define("fast");
    define("slow");
    struct process *feed = start_feed();
    uint64_t alone_ms = time_to_head(db, "alone");
    uint64_t slow_from = clock_mono_ns();
    start_slow_projector("slow");
    assert_int_equal(azoth_wait_projected(db, "slow", 2, 20000, &err), 0);
    long before = anonymous_kib(feed);
    uint64_t beside_ms = time_to_head(db, "fast");
    long after = anonymous_kib(feed);
    /* It goes on being slow with much behind it: nothing gathers in the feed. */
    assert_int_equal(azoth_wait_projected(db, "slow", row_of("slow").cursor + 3, 20000, &err), 0);
    long later = anonymous_kib(feed);
    uint64_t slow_at = row_of("slow").cursor, most = (clock_mono_ns() - slow_from) / NS_PER_S;
    print_message("MEASURED %d MB of events: %" PRIu64 " ms alone, %" PRIu64
                  " ms beside a slow one at event %" PRIu64 "; feed %ld, %ld, %ld KiB\n",
                  EVENTS * (EVENT_BYTES / 1000) / 1000, alone_ms, beside_ms, slow_at, before, after,
                  later);
    holds_events_to("fast", EVENTS);
    assert_in_range(slow_at, 5, most + 1);
    assert_true(beside_ms < 3 * alone_ms + 2000);
    assert_true(after - before < FEED_GROWTH_KIB && later - before < FEED_GROWTH_KIB);
    azoth_close(db);
    harness_end(&h);
}

static void a_stopped_projector_is_taken_off_and_goes_on_where_it_was(void **state)
{
    (void)state;
    static const char *const points[] = {"projector_applied:3", "projector_committed:3",
                                         "projector_grants:3"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        struct azoth *db = begin(20000, 40);
        define("stopped");
        define("other");
        struct process *feed = start_feed();
        setenv("AZOTH_CRASH", points[i], 1);
        setenv("AZOTH_CRASH_ACTION", "stop", 1);
        struct process *p = start_projector("stopped", "65536");
        unsetenv("AZOTH_CRASH");
        unsetenv("AZOTH_CRASH_ACTION");
        int status;
        assert_int_equal(waitpid(p->pid, &status, WUNTRACED), p->pid);
        assert_true(WIFSTOPPED(status));
        start_projector("other", "1M");
        add_events(db, 2000, 40);
        uint64_t head = head_of(db);
        assert_int_equal(azoth_wait_projected(db, "other", head, 30000, &err), 0);
        uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
        while (row_of("stopped").state != PROJECTION_SILENT && clock_mono_ns() < until)
            nap_ms(20);
        assert_int_equal(row_of("stopped").state, PROJECTION_SILENT);
        uint64_t cursor = row_of("stopped").cursor;
        assert_true(cursor < head);
        assert_true(anonymous_kib(feed) < 4 * FEED_GROWTH_KIB);
        harness_kill(p, SIGCONT);
        assert_int_equal(azoth_wait_projected(db, "stopped", head, 30000, &err), 0);
        holds_events_to("stopped", head);
        holds_events_to("other", head);
        azoth_close(db);
        harness_end(&h);
    }
}

/* What azoth lag says of the only projection; its exit code is 0. */
static void lag(char *out, size_t size)
{
    char program[256];
    harness_program(&h, "azoth", program);
    char *const argv[] = {program, "lag", "--dir", h.dir, "--json", NULL};
    assert_int_equal(harness_run(out, size, argv), 0);
}

static void a_stopped_feed_holds_up_no_commit_is_seen_in_lag_and_catches_up(void **state)
{
    (void)state;
    char out[2000];
    struct azoth *db = begin(2000, 40);
    define("counts");
    struct process *feed = start_feed();
    start_projector("counts", "1M");
    assert_int_equal(azoth_wait_projected(db, "counts", 2000, 20000, &err), 0);
    lag(out, sizeof out);
    assert_null(strstr(out, "\"silent\""));
    assert_int_equal(kill(feed->pid, SIGSTOP), 0);
    int status;
    assert_int_equal(waitpid(feed->pid, &status, WUNTRACED), feed->pid);
    uint64_t from = clock_mono_ns();
    for (int i = 0; i < 100; i++)
        add_events(db, 20, 40);
    assert_true(clock_mono_ns() - from < 10 * NS_PER_S);
    uint64_t head = head_of(db);
    assert_int_equal(head, 4000);
    uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
    do {
        nap_ms(20);
        lag(out, sizeof out);
    } while (!strstr(out, "\"silent\"") && clock_mono_ns() < until);
    assert_non_null(strstr(out, "\"silent\""));
    assert_non_null(strstr(out, "\"feed_alive\":true"));
    assert_non_null(strstr(out, "\"events_behind\":2000,"));
    assert_int_equal(azoth_wait_projected(db, "counts", head, 200, &err), AZOTH_ERR_TIMEOUT);
    harness_kill(feed, SIGCONT);
    assert_int_equal(azoth_wait_projected(db, "counts", head, 20000, &err), 0);
    holds_events_to("counts", head);
    until = clock_mono_ns() + 10 * NS_PER_S;
    do {
        nap_ms(20);
        lag(out, sizeof out);
    } while (strstr(out, "\"silent\"") && clock_mono_ns() < until);
    assert_null(strstr(out, "\"silent\""));
    assert_non_null(strstr(out, "\"events_behind\":0,"));
    azoth_close(db);
    harness_end(&h);
}

int main(void)
{
    /* What a sanitizer keeps of freed memory is not the feed's. */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0:quarantine_size_mb=1", 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_projector_at_one_event_a_second_holds_up_no_other_and_fills_no_memory),
        cmocka_unit_test(a_stopped_projector_is_taken_off_and_goes_on_where_it_was),
        cmocka_unit_test(a_stopped_feed_holds_up_no_commit_is_seen_in_lag_and_catches_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
