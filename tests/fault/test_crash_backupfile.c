/*
 * test_crash_backupfile.c - a writer of a backup that dies, or whose disk fails: there is a whole backup or none.
 *
 * Deaths: at each crash point of the backup file, as a file and as a directory. What is left is PATH.partial, or
 * PATH as a whole; the next writer makes it all the same. Failures: the n-th write, sync and allocation (of our
 * objects: libarchive dies of its own) for n from 1 until none fires: the error is told, and nothing is left.
 * With arguments this is the writer: --write PATH FORM; its exit status is the error's number.
 */
#include "core/buf.h"
#include "core/crash.h"
#include "core/error.h"
#include "writer/backupfile.h"

#include <errno.h>
#include <ftw.h>
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

#define MEMBER_BYTES 150000 /* some chunks that do not compress */

static const char *const point_name[] = {
#define X(name) #name,
    CRASH_POINTS(X)
#undef X
};

static char dir[64], path[128], partial[140], self[256];
static struct azoth_error err;

/* ---- the writer ---- */

static struct backup_key key = {.secret = "0123456789abcdef0123456789abcde", .secret_len = 32};

static void fill(unsigned char *p, size_t n)
{
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        p[i] = (unsigned char)(x >> 32);
    }
}

static int write_main(const char *to, const char *form)
{
    static unsigned char content[MEMBER_BYTES];
    struct backupfile_options o = {.level = 1, .key = strcmp(form, "encrypted") == 0 ? &key : NULL};
    struct backupfile_out *b;
    fill(content, sizeof content);
    int rc = strcmp(form, "dir") == 0 ? backupfile_create_dir(to, &o, bytes_str("{}"), &b, &err)
                                      : backupfile_create(to, &o, bytes_str("{}"), &b, &err);
    if (rc)
        return -rc;
    rc = backupfile_add(b, "a/b", bytes_of(content, sizeof content), &err);
    if (!rc)
        rc = backupfile_add(b, "c", bytes_of(content, 10), &err);
    if (rc) {
        backupfile_abort(b);
        return -rc;
    }
    return -backupfile_finish(b, NULL, &err);
}

/* ---- one run ---- */

static const char *const forms[] = {"plain", "encrypted", "dir"};
#define FORMS 3

static pid_t start(const char *form)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl(self, self, "--write", path, form, NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static int run(const char *form)
{
    int status;
    pid_t pid = start(form);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static int remove_one(const char *p, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(p);
}

static void remove_all(const char *p)
{
    if (access(p, F_OK) == 0)
        assert_int_equal(nftw(p, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* It is there as a whole, and it can be read. */
static void is_whole(const char *what)
{
    static unsigned char want[MEMBER_BYTES], got[MEMBER_BYTES];
    struct backupfile_in *b;
    const char *name;
    uint64_t bytes;
    size_t n;
    fill(want, sizeof want);
    int rc = backupfile_open(path, &key, &b, &err);
    if (rc)
        fail_msg("%s: %s", what, err.message);
    assert_int_equal(backupfile_next(b, &name, &bytes, &err), 1);
    assert_string_equal(name, "a/b");
    assert_int_equal(backupfile_read(b, got, sizeof got, &n, &err), 0);
    assert_int_equal(n, sizeof got);
    assert_memory_equal(want, got, sizeof got);
    assert_int_equal(backupfile_next(b, &name, &bytes, &err), 1);
    rc = backupfile_next(b, &name, &bytes, &err);
    if (rc)
        fail_msg("%s: %s", what, err.message);
    backupfile_close(b);
}

/* ---- deaths ---- */

static void dies_at(const char *form, const char *point)
{
    setenv("AZOTH_CRASH", point, 1);
    int status = run(form);
    unsetenv("AZOTH_CRASH");
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s of %s: the writer ended with status %d", point, form, status);
    int there = access(path, F_OK) == 0, left = access(partial, F_OK) == 0;
    if (there != (strcmp(point, "backupfile_renamed") == 0) || there == left)
        fail_msg("%s of %s: there %d, partial %d", point, form, there, left);
    if (there) {
        is_whole(point);
        remove_all(path);
    }
    status = run(form);
    if (status)
        fail_msg("%s of %s: the next writer ended with status %d", point, form, status);
    is_whole(point);
    assert_int_not_equal(access(partial, F_OK), 0);
    remove_all(path);
}

static void a_writer_that_dies_leaves_a_whole_backup_or_none(void **state)
{
    (void)state;
    int tried = 0;
    for (int at = 0; at < CRASH_POINT_COUNT; at++)
        for (int f = 0; f < FORMS; f++)
            if (strncmp(point_name[at], "backupfile_", 11) == 0) {
                dies_at(forms[f], point_name[at]);
                tried++;
            }
    assert_int_equal(tried, 6 * FORMS);
}

/* The slow one has made PATH.partial and not locked it yet; the other, which dies at `point` or not at all,
 * takes it for a dead one's meanwhile. The slow one's status. */
static int loses_its_place(const char *form, const char *point)
{
    int status;
    setenv("AZOTH_CRASH", "backupfile_made", 1);
    setenv("AZOTH_CRASH_ACTION", "stop", 1);
    pid_t slow = start(form);
    unsetenv("AZOTH_CRASH");
    unsetenv("AZOTH_CRASH_ACTION");
    assert_int_equal(waitpid(slow, &status, WUNTRACED), slow);
    assert_true(WIFSTOPPED(status));
    if (point)
        setenv("AZOTH_CRASH", point, 1);
    int quick = run(form);
    unsetenv("AZOTH_CRASH");
    kill(slow, SIGCONT);
    assert_int_equal(waitpid(slow, &status, 0), slow);
    assert_int_equal(point ? WIFSIGNALED(quick) : quick, point ? 1 : 0);
    return status;
}

static void a_place_that_was_lost_before_it_was_locked_is_noticed(void **state)
{
    (void)state;
    for (int f = 0; f < FORMS; f++)
        for (int dies = 0; dies < 2; dies++) {
            int status = loses_its_place(forms[f], dies ? "backupfile_begun" : NULL);
            if (!WIFEXITED(status) || WEXITSTATUS(status) != (dies ? 0 : -AZOTH_ERR_DUPLICATE))
                fail_msg("%s: the slow one ended with status %d", forms[f], status);
            is_whole(forms[f]);
            assert_int_not_equal(access(partial, F_OK), 0);
            remove_all(path);
        }
}

/* ---- failures ---- */

static void arm(const char *kind, int n, int error, const char *from)
{
    char text[40], shim[300], fired[128];
    const char *slash = strrchr(self, '/');
    snprintf(shim, sizeof shim, "%.*s/fail_io.so", (int)(slash - self), self);
    assert_int_equal(access(shim, R_OK), 0);
    snprintf(fired, sizeof fired, "%s/fired", dir);
    snprintf(text, sizeof text, "%s,%d,%d", kind, n, error);
    setenv("AZOTH_FAIL", text, 1);
    setenv("AZOTH_FAIL_DIR", dir, 1);
    setenv("AZOTH_FAIL_FROM", from, 1);
    setenv("AZOTH_FAIL_FIRED", fired, 1);
    setenv("LD_PRELOAD", shim, 1);
}

static int disarm(void)
{
    char fired[128];
    unsetenv("LD_PRELOAD");
    unsetenv("AZOTH_FAIL");
    snprintf(fired, sizeof fired, "%s/fired", dir);
    return unlink(fired) == 0;
}

static const struct failure {
    const char *kind;
    int error, code, least; /* how many there are at least */
    const char *from;
} failures[] = {{"write", ENOSPC, -AZOTH_ERR_NOSPACE, 4, ""},
                {"sync", EIO, -AZOTH_ERR_IO, 2, ""},
                {"alloc", ENOMEM, -AZOTH_ERR_NOMEM, 6, "test_crash_backupfile"}};

/* The n-th of its kind: 1 when it fired, 2 when the backup is there all the same. */
static int fails_at(const char *form, const struct failure *how, int n)
{
    const char *kind = how->kind;
    arm(kind, n, how->error, how->from);
    int status = run(form);
    int fired = disarm();
    if (!WIFEXITED(status) || WEXITSTATUS(status) != (fired ? how->code : 0))
        fail_msg("%s %d of %s: the writer ended with status %d", kind, n, form, status);
    int there = access(path, F_OK) == 0;
    if (access(partial, F_OK) == 0)
        fail_msg("%s %d of %s: %s is left", kind, n, form, partial);
    if (there)
        is_whole(kind);
    remove_all(path);
    /* Not there, unless nothing failed, or nothing but the sync of its directory. */
    if (there && fired && strcmp(kind, "sync") != 0)
        fail_msg("%s %d of %s: told as failed, and there", kind, n, form);
    return fired + (there && fired);
}

static void a_disk_that_fails_leaves_nothing(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    print_message("skip - what is preloaded comes before a sanitizer's runtime\n");
    skip();
#endif
    for (int f = 0; f < FORMS; f++)
        for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
            const struct failure *how = &failures[i];
            int n = 1, fired, kept = 0;
            for (; (fired = fails_at(forms[f], how, n)); n++)
                kept += fired == 2;
            /* The sync behind the renaming is of the directory that it is in: what is whole is kept. */
            /* Of a directory: four files, two directories, and it itself once more. */
            int least = how->error == EIO && f == 2 ? 8 : how->least;
            if (n - 1 < least || n > 200 || kept != (how->error == EIO))
                fail_msg("%s of %s: %d fired, %d kept", how->kind, forms[f], n - 1, kept);
        }
}

int main(int argc, char **argv)
{
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len < 0 ? 0 : len] = 0;
    if (argc == 4 && strcmp(argv[1], "--write") == 0)
        return write_main(argv[2], argv[3]);
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.20s/azoth-crash-backupfile-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/there/backup", dir);
    snprintf(partial, sizeof partial, "%s.partial", path);
    char below[80];
    snprintf(below, sizeof below, "%s/there", dir);
    if (mkdir(below, 0700))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_writer_that_dies_leaves_a_whole_backup_or_none),
        cmocka_unit_test(a_place_that_was_lost_before_it_was_locked_is_noticed),
        cmocka_unit_test(a_disk_that_fails_leaves_nothing),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    /* Nothing is left behind. */
    return rmdir(below) || rmdir(dir) ? 1 : rc;
}
