/*
 * test_reserve.c - the reserve on a disk that really runs full: a small tmpfs in a mount namespace of
 * its own. Without the right to mount, the tests say that they are skipped.
 */
#include "core/clock.h"
#include "core/error.h"
#include "shm/segment.h"
#include "tests/system/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#define RESERVE_BYTES (4 << 20)

static struct harness h;
static char disk[270], dir[290];
static int mounted;

static void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* A disk of its own with a database; 0 without the right to mount. */
static int begin(const char *size)
{
    char path[320];
    struct azoth_error err;
    harness_begin(&h);
    snprintf(disk, sizeof disk, "%s/disk", h.dir);
    snprintf(dir, sizeof dir, "%s/db", disk);
    assert_int_equal(mkdir(disk, 0755), 0);
    static int own_namespace;
    if (!own_namespace &&
        (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, "")))
        return 0;
    own_namespace = 1;
    if (mount("none", disk, "tmpfs", 0, size))
        return 0;
    mounted = 1;
    assert_int_equal(mkdir(dir, 0770), 0);
    snprintf(path, sizeof path, "%s/azoth.conf", dir);
    put_file(path, "[writer]\nreserve = 4M\n[segment]\nslots = 64\nblocks = 256\n");
    assert_int_equal(azoth_init(dir, &err), 0);
    return 1;
}

static void end(void)
{
    struct segment_name name;
    for (int i = 0; i < h.processes; i++)
        harness_stop(&h, &h.process[i]);
    if (segment_name_of(dir, &name, NULL) == 0)
        segment_unlink(&name);
    umount2(disk, MNT_DETACH);
    mounted = 0;
    harness_end(&h);
}

/* Of a test that failed. */
static int teardown(void **state)
{
    (void)state;
    if (mounted)
        end();
    return 0;
}

#define SKIP_WITHOUT_MOUNT(size)                                                                   \
    do {                                                                                           \
        if (!begin(size)) {                                                                        \
            print_message("no right to mount a small disk\n");                                     \
            harness_end(&h);                                                                       \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

/* Bytes of the reserve, as far as they are allocated. */
static long long reserve_allocated(void)
{
    char path[320];
    struct stat st;
    snprintf(path, sizeof path, "%s/reserve", dir);
    assert_int_equal(stat(path, &st), 0);
    return (long long)st.st_blocks * 512;
}

static int commit_one(struct azoth *db, size_t bytes)
{
    static char fill[1 << 20];
    struct azoth_error err;
    struct azoth_txn *t = azoth_txn_new(db);
    azoth_event_bytes(t, "added", (struct azoth_bytes){fill, bytes});
    int rc = azoth_commit(t, NULL, &err);
    azoth_txn_free(t);
    return rc;
}

static struct azoth *attach(void)
{
    struct azoth_options o = {.deadline_ms = 20000, .attach_wait_ms = 10000};
    struct azoth *db;
    struct azoth_error err;
    int rc = azoth_open(dir, &o, &db, &err);
    if (rc)
        fail_msg("%s", err.message);
    return db;
}

static int status_has(const char *json, const char *text)
{
    char program[256], out[20000];
    harness_program(&h, "azoth", program);
    char *const with_json[] = {program, "status", "--dir", dir, "--json", NULL};
    char *const plain[] = {program, "status", "--dir", dir, NULL};
    assert_int_equal(harness_run(out, sizeof out, with_json), 0);
    if (!strstr(out, json))
        return 0;
    assert_int_equal(harness_run(out, sizeof out, plain), 0);
    return strstr(out, text) != NULL;
}

/* What is submitted to a writer that is still starting counts as in flight: it has to be running. */
static void wait_running(const struct process *w)
{
    char program[256], out[20000], pid[32];
    harness_program(&h, "azoth", program);
    char *const status[] = {program, "status", "--dir", dir, "--json", NULL};
    snprintf(pid, sizeof pid, "\"pid\":%d,", (int)w->pid);
    uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
    do {
        assert_true(clock_mono_ns() < until);
        harness_run(out, sizeof out, status);
    } while (!strstr(out, pid) || !strstr(out, "\"state\":\"running\""));
}

static uint64_t events(struct azoth *db)
{
    struct azoth_error err;
    uint64_t head, txn;
    assert_int_equal(azoth_head(db, &head, &txn, &err), 0);
    return head;
}

static void ballast(const char *name, long long bytes)
{
    char path[320];
    snprintf(path, sizeof path, "%s/%s", disk, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(posix_fallocate(fd, 0, bytes), 0);
    close(fd);
}

/* How many lines of the writers' log have text. */
static int logged(const char *text)
{
    char path[320], line[1000];
    int n = 0;
    snprintf(path, sizeof path, "%s/log-writer", h.dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        n += strstr(line, text) != NULL;
    fclose(f);
    return n;
}

static void a_full_disk_takes_the_reserve_and_refuses_until_there_is_room_for_it_again(void **state)
{
    (void)state;
    SKIP_WITHOUT_MOUNT("size=24m");
    assert_true(reserve_allocated() >= RESERVE_BYTES);
    ballast("ballast", 8 << 20);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", dir, NULL);
    struct azoth *db = attach();
    assert_true(status_has("\"full\":false", "writes        open"));
    int rc = 0;
    uint64_t n = 0;
    while (n < 200 && (rc = commit_one(db, 200000)) == 0)
        n++;
    assert_int_equal(rc, AZOTH_ERR_NOSPACE);
    assert_int_equal(events(db), n);
    /* Also what would fit: the space is for what was in flight, and for stopping. */
    assert_int_equal(reserve_allocated(), 0);
    assert_int_equal(commit_one(db, 10), AZOTH_ERR_NOSPACE);
    assert_true(status_has("\"full\":true", "writes        REFUSED"));
    /* It stops and starts. */
    azoth_close(db);
    assert_int_equal(harness_stop(&h, w), 0);
    harness_spawn(&h, w);
    wait_running(w);
    db = attach();
    assert_int_equal(events(db), n);
    assert_int_equal(commit_one(db, 10), AZOTH_ERR_NOSPACE);
    assert_true(status_has("\"full\":true", "writes        REFUSED"));
    /* Room: the very next one is taken. */
    char path[320];
    snprintf(path, sizeof path, "%s/ballast", disk);
    unlink(path);
    assert_int_equal(commit_one(db, 10), 0);
    assert_true(reserve_allocated() >= RESERVE_BYTES);
    assert_true(status_has("\"full\":false", "writes        open"));
    assert_int_equal(events(db), n + 1);
    azoth_close(db);
    assert_int_equal(harness_stop(&h, w), 0);
    /* Once each, whatever was refused: by the first writer, and by the one that found it full. */
    assert_int_equal(logged("<3>the disk is full: "), 2);
    assert_int_equal(logged("<5>there is room again: "), 1);
    end();
}

static void a_full_disk_is_told_as_freed_though_nobody_writes(void **state)
{
    (void)state;
    SKIP_WITHOUT_MOUNT("size=24m");
    ballast("ballast", 8 << 20);
    harness_start(&h, "writer", 0, "azoth-writer", "--dir", dir, NULL);
    struct azoth *db = attach();
    for (int n = 0; n < 200 && commit_one(db, 200000) == 0; n++)
        ;
    assert_true(status_has("\"full\":true", "writes        REFUSED"));
    char path[320];
    snprintf(path, sizeof path, "%s/ballast", disk);
    unlink(path);
    uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
    while (!status_has("\"full\":false", "writes        open") && clock_mono_ns() < until)
        ;
    assert_true(reserve_allocated() >= RESERVE_BYTES);
    azoth_close(db);
    end();
}

static void without_a_reserve_a_full_disk_is_told_too_until_something_fits(void **state)
{
    (void)state;
    SKIP_WITHOUT_MOUNT("size=24m");
    char path[320];
    snprintf(path, sizeof path, "%s/azoth.conf", dir);
    put_file(path, "[writer]\nreserve = 0\n[segment]\nslots = 64\nblocks = 256\n");
    ballast("ballast", 8 << 20);
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", dir, NULL);
    struct azoth *db = attach();
    int rc = 0;
    for (int n = 0; n < 200 && (rc = commit_one(db, 200000)) == 0; n++)
        ;
    assert_int_equal(rc, AZOTH_ERR_NOSPACE);
    assert_int_equal(commit_one(db, 200000), AZOTH_ERR_NOSPACE);
    assert_true(status_has("\"full\":true", "writes        REFUSED"));
    snprintf(path, sizeof path, "%s/ballast", disk);
    unlink(path);
    uint64_t until = clock_mono_ns() + 10 * NS_PER_S;
    do
        assert_int_equal(commit_one(db, 10), 0);
    while (!status_has("\"full\":false", "writes        open") && clock_mono_ns() < until);
    azoth_close(db);
    assert_int_equal(harness_stop(&h, w), 0);
    assert_int_equal(logged("<3>the disk is full: "), 1);
    assert_int_equal(logged("<5>there is room again: "), 1);
    end();
}

#define MANY 60

struct answers {
    int code[MANY], n;
};
static struct answers got;

static void on_answer(struct azoth_txn *t, int code, const struct azoth_commit_info *info,
                      const struct azoth_error *err, void *arg)
{
    (void)info;
    (void)err;
    got.code[(size_t)(uintptr_t)arg] = code;
    got.n++;
    azoth_txn_free(t);
}

/* In flight when the disk runs full: all are committed, into the reserve. */
static void what_was_submitted_when_the_disk_ran_full_is_committed(void **state)
{
    (void)state;
    static char fill[50000];
    uint32_t stripes[MANY];
    SKIP_WITHOUT_MOUNT("size=24m");
    struct process *w = harness_start(&h, "writer", 0, "azoth-writer", "--dir", dir, NULL);
    struct azoth *db = attach();
    struct azoth_error err;
    assert_int_equal(commit_one(db, 10), 0);
    uint64_t before = events(db);
    /* No room at all but the reserve's own. */
    struct stat st;
    char path[320];
    snprintf(path, sizeof path, "%s/fill", disk);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    for (ssize_t k = 1; k > 0;)
        k = write(fd, fill, sizeof fill);
    for (ssize_t k = 1; k > 0;)
        k = write(fd, fill, 512);
    assert_int_equal(fstat(fd, &st), 0);
    close(fd);
    harness_kill(w, SIGSTOP); /* until all are submitted */
    memset(&got, 0, sizeof got);
    for (size_t i = 0; i < MANY; i++) {
        struct azoth_txn *t = azoth_txn_new(db);
        /* Each id on a stripe of its own: else one would be queued only behind another's commit. */
        uint8_t id[AZOTH_ID_BYTES] = {(uint8_t)(i + 1)};
        uint32_t stripe = (uint32_t)(XXH64(id, sizeof id, 1) % 16384);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(stripe, stripes[k]);
        stripes[i] = stripe;
        azoth_txn_set_id(t, id);
        azoth_event_bytes(t, "added", (struct azoth_bytes){fill, sizeof fill});
        assert_int_equal(azoth_submit(t, on_answer, (void *)(uintptr_t)i, &err), 0);
        azoth_poll(db, 0);
    }
    harness_kill(w, SIGCONT);
    while (azoth_in_flight(db))
        azoth_poll(db, 1000);
    for (int i = 0; i < MANY; i++)
        if (got.code[i])
            fail_msg("transaction %d of %d: %s", i, MANY, azoth_code_name(got.code[i]));
    assert_int_equal(events(db), before + MANY);
    assert_int_equal(commit_one(db, 10), AZOTH_ERR_NOSPACE);
    azoth_close(db);
    assert_int_equal(harness_stop(&h, w), 0);
    end();
}

static void a_disk_without_room_for_the_reserve_gets_no_database(void **state)
{
    (void)state;
    char path[320];
    struct azoth_error err;
    SKIP_WITHOUT_MOUNT("size=8m");
    ballast("ballast", 3 << 20);
    snprintf(path, sizeof path, "%s/second", disk);
    assert_int_equal(mkdir(path, 0770), 0);
    char conf[340];
    snprintf(conf, sizeof conf, "%s/azoth.conf", path);
    put_file(conf, "[writer]\nreserve = 4M\n");
    assert_int_equal(azoth_init(path, &err), AZOTH_ERR_NOSPACE);
    put_file(conf, "[writer]\nreserve = 0\n");
    assert_int_equal(azoth_init(path, &err), 0);
    snprintf(conf, sizeof conf, "%s/reserve", path);
    assert_int_not_equal(access(conf, F_OK), 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(
            a_full_disk_takes_the_reserve_and_refuses_until_there_is_room_for_it_again, teardown),
        cmocka_unit_test_teardown(a_full_disk_is_told_as_freed_though_nobody_writes, teardown),
        cmocka_unit_test_teardown(without_a_reserve_a_full_disk_is_told_too_until_something_fits,
                                  teardown),
        cmocka_unit_test_teardown(what_was_submitted_when_the_disk_ran_full_is_committed, teardown),
        cmocka_unit_test_teardown(a_disk_without_room_for_the_reserve_gets_no_database, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
