/*
 * powercut_record.c - the recorded run: init, then three lives of writer, feed and projector, with
 * transactions whose answers are noted in the same log as the writes and syncs (record_io.c).
 */
#include "tests/fault/powercut_record.h"

#include "shm/segment.h"
#include "tests/fault/powercut.h"
#include "tests/fault/powercut_check.h"
#include "tests/system/harness.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#define IN_FLIGHT 8

static struct {
    struct harness h;
    char db[280], log[280], recorder[300];
    int log_fd;
    uint64_t next;
} run;

static void mark(uint64_t n, uint64_t txn, const struct answer *a)
{
    struct cut_record r = {.magic = CUT_MAGIC, .kind = CUT_MARK, .ino = n, .at = txn};
    r.data = sizeof *a;
    struct iovec v[] = {{&r, sizeof r}, {(void *)(uintptr_t)a, sizeof *a}};
    assert_int_equal(writev(run.log_fd, v, 2), (ssize_t)(sizeof r + sizeof *a));
}

static void answered(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                     const struct azoth_error *err, void *arg)
{
    struct answer a = {.first_event = info->first_event};
    if (code)
        fprintf(stderr, "%s\n", err->message);
    assert_int_equal(code, 0);
    azoth_txn_id(t, a.id);
    mark((uint64_t)(uintptr_t)arg, info->txn, &a);
    azoth_txn_free(t);
}

static void commit_some(struct azoth *db, uint64_t n)
{
    struct azoth_error err;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t number = run.next++;
        char key[40], json[40];
        struct azoth_txn *t = azoth_txn_new(db);
        snprintf(key, sizeof key, "k/%" PRIu64, number);
        snprintf(json, sizeof json, "{\"n\":%" PRIu64 "}", number);
        azoth_set_i64(t, azoth_str(key), (int64_t)number);
        azoth_add_i64(t, AZOTH_STR("sum"), 1);
        azoth_event_json(t, "added", json);
        while (azoth_in_flight(db) >= IN_FLIGHT)
            azoth_poll(db, 1000);
        assert_int_equal(azoth_submit(t, answered, (void *)(uintptr_t)number, &err), 0);
    }
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
}

static struct process *recorded(const char *name, const char *a, const char *b, const char *more)
{
    setenv("LD_PRELOAD", run.recorder, 1);
    struct process *p = harness_start(&run.h, name, 0, a, "--dir", run.db, b, more, NULL);
    unsetenv("LD_PRELOAD");
    return p;
}

static void phase(const char *sync, int last)
{
    struct azoth_error err;
    struct azoth_options o = {.deadline_ms = 20000, .attach_wait_ms = 10000};
    struct azoth *db;
    struct process *w = recorded("writer", "azoth-writer", "--writer-sync", sync);
    assert_int_equal(azoth_open(run.db, &o, &db, &err), 0);
    struct process *f = harness_start(&run.h, "feed", 0, "azoth-feed", "--dir", run.db, NULL);
    struct process *p = recorded("projector", "azoth-projector", "counts", NULL);
    commit_some(db, TRANSACTIONS / 3);
    assert_int_equal(azoth_wait_projected(db, "counts", run.next - 1, 20000, &err), 0);
    /* The projector ends in order, and so checkpoints; the last writer's end is not seen, since it
     * syncs what the lazier modes had not. */
    assert_int_equal(harness_stop(&run.h, p), 0);
    if (last)
        harness_kill(w, SIGKILL);
    azoth_close(db);
    harness_stop(&run.h, f);
    harness_stop(&run.h, w);
}

void cut_recorder(char out[300])
{
    char cwd[200];
    const char *build = getenv("AZOTH_BUILD") ? getenv("AZOTH_BUILD") : "build";
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(out, 300, "%.100s%s%.100s/tests/fault/record_io.so", build[0] == '/' ? "" : cwd,
             build[0] == '/' ? "" : "/", build);
    assert_int_equal(access(out, R_OK), 0);
}

static void record_begin(void)
{
    char path[300];
    harness_begin(&run.h);
    cut_recorder(run.recorder);
    snprintf(run.db, sizeof run.db, "%s/db", run.h.dir);
    snprintf(run.log, sizeof run.log, "%s/io.log", run.h.dir);
    setenv("AZOTH_RECORD_DIR", run.db, 1);
    setenv("AZOTH_RECORD_LOG", run.log, 1);
    run.log_fd = open(run.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(run.log_fd >= 0);
    run.next = 1;
    char program[256];
    harness_program(&run.h, "azoth", program);
    char *const init[] = {program, "init", run.db, NULL};
    setenv("LD_PRELOAD", run.recorder, 1);
    assert_int_equal(harness_run(path, sizeof path, init), 0);
    unsetenv("LD_PRELOAD");
    mark(0, 0, &(struct answer){0});
    snprintf(path, sizeof path, "%s/run", run.db);
    mkdir(path, 0770);
    snprintf(path, sizeof path, "%s/projections", run.db);
    cut_put_file(path, "counts.sql", cut_counts_sql);
}

const char *cut_record(const char *sync)
{
    record_begin();
    for (int i = 0; i < 3; i++)
        phase(sync, i == 2);
    unsetenv("AZOTH_RECORD_DIR");
    unsetenv("AZOTH_RECORD_LOG");
    return run.log;
}

/* To a place of its own: the harness's directory goes. A test's directory is on one file system. */
static void keep_log(const char *mode)
{
    char kept[400];
    const char *states = getenv("AZOTH_CUT_STATES");
    snprintf(kept, sizeof kept, "%s.io.log", run.h.dir);
    if (rename(run.log, kept))
        perror(kept);
    else
        print_message("the recording is kept: %s\n"
                      "again: AZOTH_TEST_SEED=%" PRIu64 "%s%s test_powercut --log %s %s\n",
                      kept, harness_seed(), states ? " AZOTH_CUT_STATES=" : "",
                      states ? states : "", kept, mode);
}

void cut_record_end(const char *mode, int keep)
{
    struct segment_name name;
    close(run.log_fd);
    if (keep)
        keep_log(mode);
    if (segment_name_of(run.db, &name, NULL) == 0)
        segment_unlink(&name);
    harness_end(&run.h);
}
