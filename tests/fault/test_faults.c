/*
 * test_faults.c - deaths at named places, a lossy feed, a full disk, a full queue.
 *
 * Built with crash points (AZOTH_FAULTS) like the programs that it runs. With arguments it is its own
 * client: --add DIR KEY N ID commits N additions of 1.
 */
#include "core/clock.h"
#include "core/crash.h"
#include "core/error.h"
#include "shm/segment.h"
#include "tests/system/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static int add_one(struct azoth *db, const char *key, uint32_t deadline_ms, struct azoth_error *err)
{
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_txn_set_deadline(t, deadline_ms);
    azoth_add_i64(t, azoth_str(key), 1);
    azoth_event_bytes(t, "added", azoth_str(key));
    struct azoth_commit_info info = {0};
    int rc = azoth_commit(t, &info, err);
    azoth_txn_free(t);
    /* The batch record must have answered, not the request id: nobody sent this twice. */
    if (rc == 0 && info.duplicate)
        rc = error_set(err, AZOTH_ERR_CORRUPT, "answered as if it had been sent twice");
    return rc;
}

static int add_main(const char *dir, const char *key, int n)
{
    struct azoth_options o = {.deadline_ms = 20000, .attach_wait_ms = 10000};
    struct azoth *db;
    struct azoth_error err = {0};
    int rc = azoth_open(dir, &o, &db, &err);
    for (int i = 0; i < n && !rc; i++)
        rc = add_one(db, key, 20000, &err);
    if (rc)
        fprintf(stderr, "%s\n", err.message);
    else
        azoth_close(db);
    return rc != 0;
}

static struct process *start_adder(struct harness *h, const char *name, const char *key, int n)
{
    char count[16];
    snprintf(count, sizeof count, "%d", n);
    char self[256];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    return harness_start(h, name, 0, self, "--add", h->dir, key, count, NULL);
}

static struct process *start_writer(struct harness *h, int restart)
{
    return harness_start(h, "writer", restart, "azoth-writer", "--dir", h->dir, NULL);
}

static uint64_t count_events(struct azoth *db)
{
    struct azoth_events *it;
    struct azoth_event ev;
    struct azoth_error err;
    uint64_t n = 0;
    int rc;
    assert_int_equal(azoth_events(db, 1, 0, "added", &it, &err), 0);
    while ((rc = azoth_events_next(it, &ev, &err)) == 1)
        n++;
    assert_int_equal(rc, 0);
    azoth_events_free(it);
    return n;
}

/* ---- the writer, at each of its points ---- */

static void writer_dies_at(const char *variable, const char *value)
{
    static struct harness h;
    harness_begin(&h);
    setenv(variable, value, 1);
    struct process *w = start_writer(&h, 1);
    unsetenv(variable); /* its successor lives */
    if (strcmp(variable, "LD_PRELOAD") == 0)
        unsetenv("AZOTH_SHIM_META");
    struct process *c[3];
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "adder%d", i);
        c[i] = start_adder(&h, name, "n", 20);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(harness_wait(&h, c[i], 30000), 0);
    /* It did die there, and not of something else. */
    assert_int_equal(w->restarts, 1);
    assert_true(WIFSIGNALED(w->status) && WTERMSIG(w->status) == SIGKILL);
    struct azoth *db = harness_attach(&h, 5000);
    assert_non_null(db);
    int64_t n;
    struct azoth_error err;
    assert_int_equal(azoth_get_i64(db, AZOTH_STR("n"), &n, &err), 0);
    assert_int_equal(n, 60);
    assert_int_equal(count_events(db), 60);
    assert_true(harness_segment_clean(&h, 2000));
    azoth_close(db);
    harness_end(&h);
}

static void a_writer_killed_at_any_of_its_points_loses_nothing_and_repeats_nothing(void **state)
{
    (void)state;
    static const char *const points[] = {"writer_taken:7", "writer_applied:7", "writer_committed:7",
                                         "writer_one_completed:7", "writer_completed:7"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        writer_dies_at("AZOTH_CRASH", points[i]);
}

static void a_writer_killed_again_while_it_recovers_still_answers_from_the_record(void **state)
{
    (void)state;
    static struct harness h;
    harness_begin(&h);
    setenv("AZOTH_CRASH", "writer_committed:7", 1);
    struct process *w = start_writer(&h, 0);
    struct process *c[2];
    setenv("AZOTH_CRASH", "writer_epoch", 1);
    for (int i = 0; i < 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "adder%d", i);
        c[i] = start_adder(&h, name, "n", 20);
    }
    for (int i = 0; i < 3; i++) { /* at the commit, then twice behind the new epoch */
        int status = harness_wait(&h, w, 20000);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        if (i == 2)
            unsetenv("AZOTH_CRASH");
        harness_spawn(&h, w);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(harness_wait(&h, c[i], 30000), 0);
    struct azoth *db = harness_attach(&h, 5000);
    assert_non_null(db);
    assert_int_equal(count_events(db), 40);
    assert_true(harness_segment_clean(&h, 2000));
    azoth_close(db);
    harness_end(&h);
}

static void a_writer_killed_between_meta_page_and_reader_table_applies_the_batch_once(void **state)
{
    (void)state;
    char shim[256], cwd[200];
    assert_non_null(getcwd(cwd, sizeof cwd));
    const char *build = getenv("AZOTH_BUILD");
    snprintf(shim, sizeof shim, "%s/%s/tests/fault/shim.so", cwd, build ? build : "build");
    if (build && build[0] == '/')
        snprintf(shim, sizeof shim, "%s/tests/fault/shim.so", build);
    assert_int_equal(access(shim, R_OK), 0);
    /* The first meta writes are the opening's own; these are of batches. */
    for (int at = 4; at < 8; at++) {
        char number[8];
        snprintf(number, sizeof number, "%d", at);
        setenv("AZOTH_SHIM_META", number, 1);
        writer_dies_at("LD_PRELOAD", shim);
    }
}

/* ---- submitters and reapers ---- */

static void a_client_killed_at_any_of_its_points_leaves_no_lock_for_a_second(void **state)
{
    (void)state;
    static const char *const points[] = {"preflight_claimed", "preflight_one_stripe",
                                         "preflight_locked", "preflight_submitted"};
    static struct harness h;
    harness_begin(&h);
    start_writer(&h, 1);
    struct azoth *db = harness_attach(&h, 5000);
    assert_non_null(db);
    struct azoth_error err = {0};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        setenv("AZOTH_CRASH", points[i], 1);
        struct process *c = start_adder(&h, points[i], "k", 1);
        unsetenv("AZOTH_CRASH");
        assert_true(WIFSIGNALED(harness_wait(&h, c, 10000)));
        uint64_t from = clock_mono_ns();
        assert_int_equal(add_one(db, "k", 5000, &err), 0);
        assert_true(clock_mono_ns() - from < NS_PER_S);
    }
    /* One of them had been submitted: it was committed though nobody waited. */
    int64_t n;
    assert_int_equal(azoth_get_i64(db, AZOTH_STR("k"), &n, &err), 0);
    assert_int_equal(n, 5);
    assert_true(harness_segment_clean(&h, 2000));
    azoth_close(db);
    harness_end(&h);
}

static void a_reaper_killed_in_the_middle_is_replaced(void **state)
{
    (void)state;
    static const char *const points[] = {"reaper_marked", "reaper_stripes_released"};
    static struct harness h;
    harness_begin(&h);
    struct process *w = start_writer(&h, 0);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    struct azoth_error err = {0};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        /* The writer reaps too: stopped, it leaves the dead to the client that comes. */
        setenv("AZOTH_CRASH", "preflight_locked", 1);
        struct process *first = start_adder(&h, "first", "k", 1);
        unsetenv("AZOTH_CRASH");
        harness_kill(w, SIGSTOP);
        int status = harness_wait(&h, first, 10000);
        assert_true(WIFSIGNALED(status));
        setenv("AZOTH_CRASH", points[i], 1);
        struct process *second = start_adder(&h, points[i], "k", 1);
        unsetenv("AZOTH_CRASH");
        status = harness_wait(&h, second, 10000);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        harness_kill(w, SIGCONT);
        uint64_t from = clock_mono_ns();
        assert_int_equal(add_one(db, "k", 5000, &err), 0);
        assert_true(clock_mono_ns() - from < NS_PER_S);
    }
    assert_true(harness_segment_clean(&h, 2000));
    azoth_close(db);
    harness_end(&h);
}

static void a_process_stopped_inside_the_reader_mutex_holds_up_no_transaction(void **state)
{
    (void)state;
    static struct harness h;
    harness_begin(&h);
    struct process *w = start_writer(&h, 0);
    struct azoth *db = harness_attach(&h, 5000);
    assert_non_null(db);
    struct azoth_error err = {0};
    assert_int_equal(add_one(db, "k", 5000, &err), 0);
    char shim[256], cwd[200];
    const char *build = getenv("AZOTH_BUILD");
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(shim, sizeof shim, "%s%s%s/tests/fault/shim.so", build && build[0] == '/' ? "" : cwd,
             build && build[0] == '/' ? "" : "/", build ? build : "build");
    setenv("LD_PRELOAD", shim, 1);
    setenv("AZOTH_SHIM_READER", "1", 1);
    struct process *c = start_adder(&h, "stopped", "k", 1);
    unsetenv("LD_PRELOAD");
    unsetenv("AZOTH_SHIM_READER");
    int status;
    assert_int_equal(waitpid(c->pid, &status, WUNTRACED), c->pid);
    assert_true(WIFSTOPPED(status));
    for (int i = 0; i < 20; i++)
        assert_int_equal(add_one(db, "k", 2000, &err), 0);
    /* The writer starts, too: it registers no reader and checks none before it is ready. */
    harness_kill(w, SIGKILL);
    harness_wait(&h, w, 5000);
    harness_spawn(&h, w);
    uint64_t from = clock_mono_ns();
    assert_int_equal(add_one(db, "k", 5000, &err), 0);
    assert_true(clock_mono_ns() - from < NS_PER_S);
    harness_kill(c, SIGKILL);
    assert_true(WIFSIGNALED(harness_wait(&h, c, 5000)));
    azoth_close(db);
    harness_end(&h);
}

static void a_forked_childs_handle_answers_forked_and_the_parents_goes_on(void **state)
{
    (void)state;
    static struct harness h;
    harness_begin(&h);
    start_writer(&h, 1);
    struct azoth *db = harness_attach(&h, 5000);
    assert_non_null(db);
    struct azoth_error err = {0};
    pid_t pid = fork();
    if (pid == 0) {
        int64_t n;
        int forked = add_one(db, "k", 1000, NULL) == AZOTH_ERR_FORKED &&
                     azoth_get_i64(db, AZOTH_STR("k"), &n, NULL) == AZOTH_ERR_FORKED;
        azoth_close(db); /* frees the handle, leaves the parent's alone */
        _exit(forked ? 7 : 8);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_int_equal(add_one(db, "k", 5000, &err), 0);
    /* A child that lives on does not keep its parent's place: the kernel's lock went with the
     * parent. */
    struct process *c = start_adder(&h, "adder", "k", 1);
    assert_int_equal(harness_wait(&h, c, 5000), 0);
    azoth_close(db);
    harness_end(&h);
}

/* ---- the feed ---- */

static const char counts_sql[] = "-- azoth: projection counts\n"
                                 "-- azoth: migration 1 create\n"
                                 "CREATE TABLE seen (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);\n"
                                 "-- azoth: on added\n"
                                 "INSERT INTO seen VALUES (@id, 1);\n";

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void fill_events(struct harness *h, int n)
{
    struct azoth_options o = {.flags = AZOTH_EMBEDDED, .sync = "none"};
    struct azoth *db;
    struct azoth_error err;
    assert_int_equal(azoth_open(h->dir, &o, &db, &err), 0);
    for (int i = 0; i < n;) {
        struct azoth_txn *t = azoth_txn_new(db);
        for (int k = 0; k < 500 && i < n; k++, i++)
            azoth_event_bytes(t, i % 10 ? "added" : "other",
                              AZOTH_STR("0123456789012345678901234567890123456789"));
        assert_int_equal(azoth_commit(t, NULL, &err), 0);
        azoth_txn_free(t);
    }
    azoth_close(db);
}

static void projection_is(struct harness *h, const char *want)
{
    char db[400], out[200];
    snprintf(db, sizeof db, "%s/projections/counts.db", h->dir);
    char *const argv[] = {
        "sqlite3", "-readonly", db,
        "SELECT count(*) || ' ' || min(id) || ' ' || max(id) || ' ' || sum(id) || ' ' "
        "|| (SELECT cursor FROM azoth_projection) FROM seen",
        NULL};
    assert_int_equal(harness_run(out, sizeof out, argv), 0);
    out[strcspn(out, "\n")] = 0;
    assert_string_equal(out, want);
}

static void lost_repeated_reordered_and_late_batches_change_nothing(void **state)
{
    (void)state;
    static struct harness h;
    static const char *const faults[] = {"loss=20", "dup=40", "reorder=40", "late=40",
                                         "loss=10,dup=20,reorder=20,late=20"};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        harness_begin(&h);
        put_file(h.dir, "projections/counts.sql", counts_sql);
        fill_events(&h, 20000);
        char text[100];
        snprintf(text, sizeof text, "%s,seed=%d", faults[i], (int)(harness_seed() % 1000000 + i));
        setenv("AZOTH_FEED_FAULTS", text, 1);
        harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, NULL);
        unsetenv("AZOTH_FEED_FAULTS");
        struct process *p = harness_start(&h, "projector", 0, "azoth-projector", "--dir", h.dir,
                                          "--once", "--projector-credit", "65536",
                                          "--projector-timeout", "30ms", "counts", NULL);
        assert_int_equal(harness_wait(&h, p, 60000), 0);
        /* Ids 2..20000 but those that are 1 more than a multiple of ten. */
        projection_is(&h, "18000 2 20000 180018000 20000");
        harness_end(&h);
    }
}

static void a_projector_or_feed_killed_at_its_points_goes_on_exactly_where_it_was(void **state)
{
    (void)state;
    static struct harness h;
    static const char *const points[] = {"projector_applied:3", "projector_committed:3",
                                         "feed_sent:3"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        harness_begin(&h);
        put_file(h.dir, "projections/counts.sql", counts_sql);
        fill_events(&h, 20000);
        int feed = strncmp(points[i], "feed", 4) == 0;
        if (feed)
            setenv("AZOTH_CRASH", points[i], 1);
        struct process *f = harness_start(&h, "feed", 1, "azoth-feed", "--dir", h.dir, NULL);
        if (!feed)
            setenv("AZOTH_CRASH", points[i], 1);
        struct process *p = harness_start(&h, "projector", 1, "azoth-projector", "--dir", h.dir,
                                          "--once", "--projector-credit", "65536",
                                          "--projector-timeout", "50ms", "counts", NULL);
        unsetenv("AZOTH_CRASH");
        uint64_t until = clock_mono_ns() + 30 * NS_PER_S;
        while (f->restarts + p->restarts == 0 && clock_mono_ns() < until) {
            harness_supervise(&h);
            nap_ms(1);
        }
        assert_int_equal(f->restarts + p->restarts, 1);
        p->restart = 0;
        assert_int_equal(harness_wait(&h, p, 30000), 0);
        projection_is(&h, "18000 2 20000 180018000 20000");
        harness_end(&h);
    }
}

/* A port that nobody uses now. */
static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(s >= 0);
    assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(s, (struct sockaddr *)&a, &len), 0);
    close(s);
    return ntohs(a.sin_port);
}

static void a_projector_reached_over_tcp_gets_everything_from_elsewhere(void **state)
{
    (void)state;
    static struct harness h, far;
    char feed[64], projector[64], path[300], uuid[40] = "";
    harness_begin(&h);
    harness_begin(&far); /* another directory: it has neither this store nor this segment */
    put_file(far.dir, "projections/counts.sql", counts_sql);
    fill_events(&h, 5000);
    snprintf(path, sizeof path, "%s/uuid", h.dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(uuid, sizeof uuid, f));
    fclose(f);
    uuid[strcspn(uuid, "\n")] = 0;
    snprintf(feed, sizeof feed, "tcp://127.0.0.1:%d", free_port());
    snprintf(projector, sizeof projector, "tcp://127.0.0.1:%d", free_port());
    harness_start(&h, "feed", 0, "azoth-feed", "--dir", h.dir, "--feed-listen", feed, NULL);
    struct process *p = harness_start(&far, "projector", 0, "azoth-projector", "--dir", far.dir,
                                      "--once", "--uuid", uuid, "--feed-connect", feed,
                                      "--projector-endpoint", projector, "counts", NULL);
    assert_int_equal(harness_wait(&far, p, 30000), 0);
    projection_is(&far, "4500 2 5000 11254500 5000");
    /* One that follows another database is refused, and said so. */
    put_file(far.dir, "projections/other.sql",
             "-- azoth: projection other\n-- azoth: on added\nSELECT 1;\n");
    p = harness_start(&far, "other", 0, "azoth-projector", "--dir", far.dir, "--once",
                      "--feed-connect", feed, "other", NULL);
    int status = harness_wait(&far, p, 30000);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 100);
    harness_end(&far);
    harness_end(&h);
}

/* ---- full things ---- */

static void a_full_queue_answers_busy_and_goes_on_when_there_is_room(void **state)
{
    (void)state;
    static struct harness h;
    harness_begin(&h);
    put_file(h.dir, "azoth.conf", "[segment]\nslots = 16\n");
    struct process *w = start_writer(&h, 0);
    struct azoth *db = harness_attach(&h, 10000);
    assert_non_null(db);
    struct azoth_error err = {0};
    assert_int_equal(add_one(db, "k", 5000, &err), 0);
    harness_kill(w, SIGSTOP);
    struct process *c[16];
    for (int i = 0; i < 16; i++) {
        char name[16];
        snprintf(name, sizeof name, "q%d", i);
        c[i] = start_adder(&h, name, name, 1);
    }
    /* Until all sixteen are in, ours may still find room: the answer is then "unknown", not "busy".
     */
    uint64_t until = clock_mono_ns() + 20 * NS_PER_S;
    int rc;
    do {
        struct azoth_txn *t = azoth_txn_new(db);
        azoth_txn_set_deadline(t, 100);
        azoth_read(t, AZOTH_STR("probe")); /* takes a slot and gives it back */
        rc = azoth_commit(t, NULL, &err);
        azoth_txn_free(t);
        /* Of many probes' ids one may lie on a stripe that is held. */
    } while (rc != AZOTH_ERR_BUSY && clock_mono_ns() < until);
    assert_int_equal(rc, AZOTH_ERR_BUSY);
    harness_kill(w, SIGCONT);
    for (int i = 0; i < 16; i++)
        assert_int_equal(harness_wait(&h, c[i], 10000), 0);
    assert_int_equal(add_one(db, "k", 5000, &err), 0);
    azoth_close(db);
    harness_end(&h);
}

static void a_full_disk_refuses_by_name_and_writes_go_on_when_space_is_back(void **state)
{
    (void)state;
    static struct harness h;
    harness_begin(&h);
    char disk[300], dir[320], ballast[340];
    snprintf(disk, sizeof disk, "%s/disk", h.dir);
    snprintf(dir, sizeof dir, "%s/db", disk);
    snprintf(ballast, sizeof ballast, "%s/ballast", disk);
    mkdir(disk, 0755);
    if (mount("none", disk, "tmpfs", 0, "size=12m")) {
        print_message("no right to mount a small disk\n");
        harness_end(&h);
        skip();
    }
    struct azoth_error err = {0};
    struct azoth *db;
    struct azoth_options o = {.flags = AZOTH_EMBEDDED};
    int fd = open(ballast, O_WRONLY | O_CREAT, 0600);
    mkdir(dir, 0770);
    put_file(dir, "azoth.conf", "[writer]\nreserve = 1M\n");
    int made = fd >= 0 && posix_fallocate(fd, 0, 4 << 20) == 0 && azoth_init(dir, &err) == 0 &&
               azoth_open(dir, &o, &db, &err) == 0;
    close(fd);
    int rc = 0, n = 0;
    static char big[200000];
    for (; made && !rc && n < 200; n++) {
        struct azoth_txn *t = azoth_txn_new(db);
        azoth_event_bytes(t, "added", (struct azoth_bytes){big, sizeof big});
        rc = azoth_commit(t, NULL, &err);
        azoth_txn_free(t);
    }
    int refused = rc;
    int there = made && count_events(db) == (uint64_t)(n - 1);
    unlink(ballast);
    int after = made ? add_one(db, "k", 5000, &err) : -1;
    if (made)
        azoth_close(db);
    struct segment_name name;
    if (segment_name_of(dir, &name, NULL) == 0)
        segment_unlink(&name);
    umount2(disk, MNT_DETACH);
    harness_end(&h);
    assert_true(made);
    assert_int_equal(refused, AZOTH_ERR_NOSPACE);
    assert_true(there);
    assert_int_equal(after, 0);
}

static void a_missing_directory_and_a_foreign_file_are_refused_by_name(void **state)
{
    (void)state;
    static struct harness h;
    struct azoth *db;
    struct azoth_error err;
    struct azoth_options quick = {.attach_wait_ms = 50};
    harness_begin(&h);
    char path[300];
    assert_int_equal(azoth_open("/nowhere/at/all", &quick, &db, &err), AZOTH_ERR_NO_DATABASE);
    assert_int_equal(azoth_open(h.dir, &quick, &db, &err), AZOTH_ERR_NO_WRITER);
    snprintf(path, sizeof path, "%s/run", h.dir);
    assert_int_equal(azoth_open(path, &quick, &db, &err), AZOTH_ERR_NO_DATABASE);
    snprintf(path, sizeof path, "%s/data.mdb", h.dir);
    put_file(h.dir, "data.mdb", "this is no LMDB file, though it lies where one belongs\n");
    struct azoth_options o = {.flags = AZOTH_EMBEDDED};
    int rc = azoth_open(h.dir, &o, &db, &err);
    assert_true(rc == AZOTH_ERR_CORRUPT || rc == AZOTH_ERR_FORMAT);
    harness_end(&h);
}

int main(int argc, char **argv)
{
    /* The shim comes before a sanitizer's runtime, which would refuse that. */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
    if (argc == 5 && strcmp(argv[1], "--add") == 0)
        return add_main(argv[2], argv[3], atoi(argv[4]));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_writer_killed_at_any_of_its_points_loses_nothing_and_repeats_nothing),
        cmocka_unit_test(a_writer_killed_again_while_it_recovers_still_answers_from_the_record),
        cmocka_unit_test(a_writer_killed_between_meta_page_and_reader_table_applies_the_batch_once),
        cmocka_unit_test(a_client_killed_at_any_of_its_points_leaves_no_lock_for_a_second),
        cmocka_unit_test(a_reaper_killed_in_the_middle_is_replaced),
        cmocka_unit_test(a_process_stopped_inside_the_reader_mutex_holds_up_no_transaction),
        cmocka_unit_test(a_forked_childs_handle_answers_forked_and_the_parents_goes_on),
        cmocka_unit_test(lost_repeated_reordered_and_late_batches_change_nothing),
        cmocka_unit_test(a_projector_or_feed_killed_at_its_points_goes_on_exactly_where_it_was),
        cmocka_unit_test(a_projector_reached_over_tcp_gets_everything_from_elsewhere),
        cmocka_unit_test(a_full_queue_answers_busy_and_goes_on_when_there_is_room),
        cmocka_unit_test(a_full_disk_refuses_by_name_and_writes_go_on_when_space_is_back),
        cmocka_unit_test(a_missing_directory_and_a_foreign_file_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
