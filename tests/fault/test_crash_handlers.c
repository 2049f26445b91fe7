/*
 * test_crash_handlers.c - a projector with handlers in C dies at each crash point of a transaction, at the first
 * passing and at later ones. The library's state is memory that follows the transactions (running_sum.c): after
 * the deaths each row has the sum that it must have, and each event that fails is one dead letter.
 */
#include "core/clock.h"
#include "core/crash.h"
#include "tests/system/harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define EVENTS   140 /* of one death; a multiple of 7 */
#define DEATHS   3
#define PATIENCE (40 * NS_PER_S)

static const char *const point_name[] = {
#define X(name) #name,
    CRASH_POINTS(X)
#undef X
};

static const enum crash_point points[] = {
    CRASH_projector_begun,         CRASH_projector_applied,       CRASH_projector_committed,
    CRASH_projector_dead_lettered, CRASH_projector_retry_written, CRASH_projector_replayed};

static struct harness h;
static struct azoth *db;
static char library[400], what[120];

static struct process *begin(void)
{
    char path[400];
    harness_begin(&h);
    snprintf(path, sizeof path, "%s/projections/p.sql", h.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("-- azoth: projection p\n-- azoth: load running_sum.so\n-- azoth: on-error custom\n"
          "-- azoth: replay every 10ms, attempts 1000000\n"
          "-- azoth: migration 1 one\nCREATE TABLE t (id INTEGER PRIMARY KEY, total INTEGER);\n"
          "-- azoth: on put in C\n",
          f);
    fclose(f);
    snprintf(path, sizeof path, "%s/projections/running_sum.so", h.dir);
    assert_int_equal(symlink(library, path), 0);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, "--writer-sync", "none", NULL);
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
    db = harness_attach(&h, 10000);
    assert_non_null(db);
    return harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir, "p", NULL);
}

/* Several transactions, so that several batches come. */
static void send(void)
{
    struct azoth_error err;
    for (int done = 0; done < EVENTS;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int i = 0; i < 10; i++, done++)
            azoth_event_json(t, "put", "{}");
        if (azoth_commit(t, NULL, &err))
            fail_msg("%s", err.message);
        azoth_txn_free(t);
    }
}

static void die_at(struct process *victim, enum crash_point at, unsigned passing)
{
    char value[80];
    snprintf(what, sizeof what, "%s, passing %u", point_name[at], passing);
    harness_kill(victim, SIGKILL);
    harness_wait(&h, victim, 5000);
    snprintf(value, sizeof value, "%s:%u", point_name[at], passing);
    setenv("AZOTH_CRASH", value, 1);
    harness_spawn(&h, victim);
    unsetenv("AZOTH_CRASH");
    send();
    int status = harness_wait(&h, victim, 30000);
    if (status == -1 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s: not passed, status %d", what, status);
    harness_spawn(&h, victim);
}

static void rows_are(const char *sql, const char *want)
{
    static char text[4000];
    uint64_t until = clock_mono_ns() + PATIENCE;
    while (strcmp(harness_rows(&h, "p", sql, text, sizeof text), want) != 0 &&
           clock_mono_ns() < until) {
        harness_supervise(&h);
        nap_ms(2);
    }
    if (strcmp(text, want) != 0)
        fail_msg("%s: %s gives %s, not %s", what, sql, text, want);
}

static void survive(enum crash_point at)
{
    char want[80];
    static char out[4000];
    struct process *victim = begin();
    for (unsigned death = 0; death < DEATHS; death++)
        die_at(victim, at, death == 0 ? 1 : 3 + 4 * death);
    snprintf(want, sizeof want, "%d;", DEATHS * EVENTS);
    rows_are("SELECT cursor FROM azoth_projection", want);
    rows_are("SELECT count(*) FROM (SELECT total, sum(id) OVER (ORDER BY id) AS wanted FROM t) "
             "WHERE total <> wanted",
             "0;");
    snprintf(want, sizeof want, "%d,0;", DEATHS * EVENTS * 6 / 7);
    rows_are("SELECT count(*), sum(id % 7 = 0) FROM t", want);
    snprintf(want, sizeof want, "%d,%d,7,7;", DEATHS * EVENTS / 7, DEATHS * EVENTS / 7);
    rows_are("SELECT count(*), sum(event % 7 = 0 AND attempts >= 2), min(code), max(code) "
             "FROM azoth_dlq",
             want);
    if (harness_azoth(&h, out, sizeof out, "verify", "--projection", "p", NULL))
        fail_msg("%s: %s", what, out);
    azoth_close(db);
    for (int i = h.processes; i-- > 0;)
        if (harness_stop(&h, &h.process[i]) != 0)
            fail_msg("%s: %s ended with status %d", what, h.process[i].name, h.process[i].status);
    harness_end(&h);
}

static void state_in_memory_follows_whatever_step_it_dies_at(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        survive(points[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_in_memory_follows_whatever_step_it_dies_at)};
    ssize_t n = readlink("/proc/self/exe", library, sizeof library - 20);
    library[n > 0 ? n : 0] = 0;
    char *slash = strrchr(library, '/');
    if (!slash)
        return 1;
    strcpy(slash, "/running_sum.so");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
