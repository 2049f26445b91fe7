/*
 * test_crash_archive.c - a death at every crash point of archiving, and of the writer while it is archived.
 *
 * The points are those of core/crash.h whose name begins with "archive_"; one without a row here fails the run,
 * as does one that is not passed. The victim dies at the first passing and at a later one. After each death, and
 * when a run went to its end, every event is in the log once, with its content; at the end nothing is left over.
 */
#include "client/internal.h"
#include "core/clock.h"
#include "core/crash.h"
#include "core/mark.h"
#include "core/record.h"
#include "tests/system/harness.h"
#include "writer/control.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#define EVENTS  400u /* before each death */
#define KEPT    "100"
#define SEGMENT "120"

static const char *const point_name[] = {
#define X(name) #name,
    CRASH_POINTS(X)
#undef X
};

enum victim { ARCHIVER, MOVER, WRITER };

static const struct row {
    enum crash_point at;
    enum victim who;
    unsigned later; /* the passing of the second death */
} rows[] = {
    {CRASH_archive_written, ARCHIVER, 2}, {CRASH_archive_synced, ARCHIVER, 3},
    {CRASH_archive_placed, ARCHIVER, 2},  {CRASH_archive_recorded, ARCHIVER, 2},
    {CRASH_archive_deleted, ARCHIVER, 2}, {CRASH_archive_placed, MOVER, 2},
    {CRASH_archive_moved, MOVER, 2},      {CRASH_control_applied, WRITER, 3},
    {CRASH_writer_committed, WRITER, 4},  {CRASH_writer_published, WRITER, 3},
};

static struct harness h;
static struct azoth *db;
static struct process *writer, *archiver, *mover;
static char what[120], out[65536];
static uint64_t sent;

static struct process *prepare(const char *name, const char *a, const char *b, const char *c,
                               const char *d, const char *e)
{
    char path[256];
    harness_program(&h, "azoth", path);
    const char *const argv[] = {path, "archive", "--dir", h.dir, a, b, c, d, e};
    struct process *p = &h.process[h.processes++];
    snprintf(p->name, sizeof p->name, "%s", name);
    for (int i = 0; i < 9 && argv[i]; i++)
        p->argv[i] = strdup(argv[i]);
    return p;
}

static void begin(void)
{
    char dest[300];
    harness_begin(&h);
    snprintf(dest, sizeof dest, "%s/moved", h.dir);
    writer = harness_start(&h, "writer", 0, "azoth-writer", "--dir", h.dir, "--writer-sync", "none",
                           NULL);
    archiver = prepare("archive", "--keep-events", KEPT, "--segment-events", SEGMENT, NULL);
    mover = prepare("move", "--move", dest, NULL, NULL, NULL);
    db = harness_attach(&h, 30000);
    assert_non_null(db);
    sent = 0;
}

/* Events whose payloads are their numbers, one to seventeen in a transaction. */
static void send(unsigned n)
{
    struct azoth_error err;
    for (uint64_t end = sent + n; sent < end;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (unsigned i = 0; i <= sent % 17; i++) {
            char text[24];
            snprintf(text, sizeof text, "%llu", (unsigned long long)sent + i + 1);
            azoth_event(
                t, &(struct azoth_event_in){.type = AZOTH_STR("sent"), .payload = azoth_str(text)});
        }
        struct azoth_commit_info info;
        if (azoth_commit(t, &info, &err))
            fail_msg("%s: %s", what, err.message);
        azoth_txn_free(t);
        sent = info.last_event;
    }
}

static struct azoth_events *read_log(uint64_t from)
{
    struct azoth_events *it;
    struct azoth_error err;
    assert_int_equal(azoth_events(db, from, 0, NULL, &it, &err), 0);
    return it;
}

/* Reads it on from event `id`, up to the end or but not with `to`: each event once, with its content. */
static void check_read(struct azoth_events *it, uint64_t id, uint64_t to)
{
    struct azoth_event ev;
    struct azoth_error err = {0};
    int rc = 1;
    for (; id < to && (rc = azoth_events_next(it, &ev, &err)) == 1; id++) {
        char text[24];
        snprintf(text, sizeof text, "%llu", (unsigned long long)id);
        if (ev.id != id || ev.payload.len != strlen(text) ||
            memcmp(ev.payload.ptr, text, ev.payload.len) != 0)
            fail_msg("%s: event %llu is %llu with %.*s", what, (unsigned long long)id,
                     (unsigned long long)ev.id, (int)ev.payload.len, (const char *)ev.payload.ptr);
    }
    if (rc < 0 || id != to)
        fail_msg("%s: %d, the log ends before event %llu of %llu: %s", what, rc,
                 (unsigned long long)id, (unsigned long long)sent, err.message);
}

/* The log is one, whatever lies where. */
static void check_log(void)
{
    struct azoth_events *it = read_log(0);
    struct azoth_event ev;
    struct azoth_error err;
    check_read(it, 1, sent + 1);
    assert_int_equal(azoth_events_next(it, &ev, &err), 0);
    azoth_events_free(it);
}

static void spawn_armed(struct process *p, const struct row *r, unsigned passing)
{
    char value[80];
    snprintf(value, sizeof value, "%s:%u", point_name[r->at], passing);
    setenv("AZOTH_CRASH", value, 1);
    harness_spawn(&h, p);
    unsetenv("AZOTH_CRASH");
}

static void dies(struct process *p)
{
    int status = harness_wait(&h, p, 30000);
    if (status == -1 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s: not passed, status %d", what, status);
}

static void succeeds(struct process *p)
{
    int status = harness_wait(&h, p, 60000);
    if (status != 0)
        fail_msg("%s: %s ends with status %d", what, p->name, status);
}

static void die_once(const struct row *r, unsigned passing)
{
    snprintf(what, sizeof what, "%s, passing %u", point_name[r->at], passing);
    send(EVENTS);
    if (r->who == WRITER) {
        harness_stop(&h, writer);
        spawn_armed(writer, r, passing);
        harness_spawn(&h, archiver);
        dies(writer);
        harness_spawn(&h, writer);
        succeeds(archiver); /* by itself: it waits for the next writer */
    } else {
        if (r->who == MOVER) {
            harness_spawn(&h, archiver);
            succeeds(archiver);
        }
        struct process *victim = r->who == MOVER ? mover : archiver;
        spawn_armed(victim, r, passing);
        dies(victim);
    }
    check_log();
}

static int files_in(const char *name)
{
    char path[300];
    int n = 0;
    snprintf(path, sizeof path, "%s/%s", h.dir, name);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

/* All segments are good: how many, the newest event in them, and the first in LMDB. */
static unsigned verified(unsigned long long *last, unsigned long long *first)
{
    unsigned segments = 0;
    if (harness_azoth(&h, out, sizeof out, "archive", "verify", NULL, NULL) != 0)
        fail_msg("%s: %s", what, out);
    const char *sum = strstr(out, "segments, events up to");
    while (sum && sum > out && sum[-1] != '\n')
        sum--;
    if (!sum || sscanf(sum, "%u segments, events up to %llu; LMDB begins with event %llu",
                       &segments, last, first) != 3)
        fail_msg("%s: %s", what, out);
    return segments;
}

/* A run without a death goes on, and leaves what it has to. */
static void check_end(const struct row *r)
{
    unsigned long long last = 0, first = 0;
    snprintf(what, sizeof what, "%s, the end", point_name[r->at]);
    send(EVENTS);
    harness_spawn(&h, archiver);
    succeeds(archiver);
    if (r->who == MOVER) {
        harness_spawn(&h, mover);
        succeeds(mover);
    }
    check_log();
    unsigned segments = verified(&last, &first);
    assert_true(first == last + 1 && last <= sent - 100 && last + 17 > sent - 100);
    assert_int_equal(files_in("archive"), r->who == MOVER ? 0 : segments);
    assert_int_equal(files_in("moved"), r->who == MOVER ? segments : 0);
}

static void every_death_loses_nothing_and_doubles_nothing(void **state)
{
    (void)state;
    unsigned deaths = 0;
    for (int at = 0; at < CRASH_POINT_COUNT; at++) {
        int known = strncmp(point_name[at], "archive_", 8) != 0;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            known |= rows[i].at == (enum crash_point)at;
        if (!known)
            fail_msg("the crash point %s has no row", point_name[at]);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        begin();
        die_once(&rows[i], 1);
        die_once(&rows[i], rows[i].later);
        check_end(&rows[i]);
        azoth_close(db);
        harness_end(&h);
        deaths += 2;
    }
    print_message("MEASURED %u deaths while archiving\n", deaths);
}

/* One that is stopped is alive: another one is refused. */
static void two_at_once_are_refused(void **state)
{
    (void)state;
    static const struct row r = {CRASH_archive_placed, ARCHIVER, 1};
    strcpy(what, "two at once");
    begin();
    send(EVENTS);
    setenv("AZOTH_CRASH_ACTION", "stop", 1);
    spawn_armed(archiver, &r, 1);
    unsetenv("AZOTH_CRASH_ACTION");
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)archiver->pid, &info, WSTOPPED | WNOWAIT), 0);
    int rc = harness_azoth(&h, out, sizeof out, "archive", "--keep-events", "0", NULL);
    assert_int_equal(rc, azoth_code_exit(AZOTH_ERR_BUSY));
    check_log();
    harness_kill(archiver, SIGKILL);
    dies(archiver);
    check_end(&r);
    azoth_close(db);
    harness_end(&h);
}

/* Where it is asked to end, nothing of the segment that it makes is left. */
static void an_interrupted_run_leaves_nothing_half_done(void **state)
{
    (void)state;
    static const struct row r = {CRASH_archive_written, ARCHIVER, 1};
    siginfo_t info;
    strcpy(what, "interrupted");
    begin();
    send(EVENTS);
    setenv("AZOTH_CRASH_ACTION", "stop", 1);
    spawn_armed(archiver, &r, 2);
    unsetenv("AZOTH_CRASH_ACTION");
    assert_int_equal(waitid(P_PID, (id_t)archiver->pid, &info, WSTOPPED | WNOWAIT), 0);
    assert_int_equal(files_in("archive"), 2); /* a segment, and what will be one */
    harness_kill(archiver, SIGINT);
    harness_kill(archiver, SIGCONT);
    int status = harness_wait(&h, archiver, 30000);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 128 + SIGINT);
    assert_int_equal(files_in("archive"), 1);
    check_log();
    check_end(&r);
    azoth_close(db);
    harness_end(&h);
}

static void a_run_with_nothing_new_deletes_what_is_recorded(void **state)
{
    (void)state;
    static const struct row r = {CRASH_archive_recorded, ARCHIVER, 1};
    unsigned long long last = 0, first = 0;
    strcpy(what, "nothing new");
    begin();
    send(EVENTS);
    spawn_armed(archiver, &r, 1);
    dies(archiver);
    assert_int_equal(verified(&last, &first), 1);
    assert_int_equal(first, 1);
    /* LMDB may have the only copy by now. */
    char is[300], away[300];
    snprintf(away, sizeof away, "%s/away", h.dir);
    snprintf(is, sizeof is, "%s/archive", h.dir);
    assert_int_equal(rename(is, away), 0);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "archive", "--before", "1", NULL),
                     azoth_code_exit(AZOTH_ERR_NOT_FOUND));
    assert_int_equal(rmdir(is), 0);
    assert_int_equal(rename(away, is), 0);
    assert_int_equal(verified(&last, &first), 1);
    assert_int_equal(first, 1);
    assert_int_equal(harness_azoth(&h, out, sizeof out, "archive", "--before", "1", NULL), 0);
    assert_int_equal(verified(&last, &first), 1);
    assert_int_equal(first, last + 1);
    check_log();
    azoth_close(db);
    harness_end(&h);
}

static void mark(size_t len, uint64_t txn, uint64_t event, struct txn_result *ret)
{
    unsigned char argument[CONTROL_MARK_MOVE] = "a place of ours";
    struct azoth_error err = {0};
    put_u64(argument + MARK_PLACE, txn);
    put_u64(argument + MARK_PLACE + 8, event);
    if (client_control(db, "mark", bytes_of(argument, len), clock_mono_ns() + 30 * NS_PER_S, ret,
                       &err))
        fail_msg("%s: %s", what, err.message);
}

static void the_archiver_is_refused(void)
{
    harness_spawn(&h, archiver);
    int status = harness_wait(&h, archiver, 30000);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), azoth_code_exit(AZOTH_ERR_BUSY));
    assert_int_equal(files_in("archive"), 0);
}

/* A place of backups has what lies before its mark, when one was made there: the mark is set before that. */
static void what_backups_lack_is_refused(void **state)
{
    (void)state;
    struct txn_result at, ignored;
    strcpy(what, "a mark");
    begin();
    send(EVENTS);
    mark(CONTROL_MARK_NEW, 0, 0, &at);
    the_archiver_is_refused();
    mark(CONTROL_MARK_MOVE, at.txn, at.last_event, &ignored);
    send(EVENTS);
    the_archiver_is_refused();
    struct azoth_events *it = read_log(sent);
    struct azoth_event ev;
    struct azoth_error err;
    assert_int_equal(azoth_events_next(it, &ev, &err), 1);
    azoth_events_free(it);
    mark(CONTROL_MARK_MOVE, ev.txn, sent, &ignored);
    harness_spawn(&h, archiver);
    succeeds(archiver);
    check_log();
    azoth_close(db);
    harness_end(&h);
}

/* Its snapshot has the old paths of files that it has not opened yet. */
static void a_reader_goes_on_while_segments_are_moved(void **state)
{
    (void)state;
    strcpy(what, "moved while it is read");
    begin();
    send(EVENTS);
    harness_spawn(&h, archiver);
    succeeds(archiver);
    struct azoth_events *it = read_log(0);
    check_read(it, 1, 50);
    harness_spawn(&h, mover);
    succeeds(mover);
    assert_int_equal(files_in("archive"), 0);
    check_read(it, 50, sent + 1);
    azoth_events_free(it);
    azoth_close(db);
    harness_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_death_loses_nothing_and_doubles_nothing),
        cmocka_unit_test(two_at_once_are_refused),
        cmocka_unit_test(an_interrupted_run_leaves_nothing_half_done),
        cmocka_unit_test(a_run_with_nothing_new_deletes_what_is_recorded),
        cmocka_unit_test(what_backups_lack_is_refused),
        cmocka_unit_test(a_reader_goes_on_while_segments_are_moved)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
