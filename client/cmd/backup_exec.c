/*
 * backup_exec.c - backups to the standard input of a command, and what it has had.
 *
 * DEST/had says which was the last one that it took: a line with its number, then its about.json. It is written when the
 * command has ended with 0, and before the mark moves: after a death between, it gets the same transactions once
 * more, under another name, which a restore passes over.
 *
 * In the middle of one that fails the command gets SIGTERM before its input ends, so that it does not take half
 * a backup for a whole one. What it has of it is no backup: a file without its end is told from a whole one.
 *
 * Its input is a pipe of which we keep both ends: what is in there when it has ended it has not read, and then it has not taken
 * the backup, whatever its exit code says. So a write gets no EPIPE; it does not block, and who waits for room looks whether
 * the command runs at all.
 *
 *   it runs, whatever it does        waited for, for as long as we are not to end ourselves
 *   we are to end (backup_follow.c)  SIGTERM to its process group, and SIGKILL BACKUP_EXEC_GRACE_NS later
 *   exit code, signal, bytes left    it has not taken this one: why is told, and it gets the same transactions again
 */
#include "client/cmd/backup.h"

#include "core/clock.h"
#include "core/crash.h"
#include "core/io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HAD     "had"
#define WAIT_MS 20u

/* ---- what it has had ---- */

int backup_exec_is(const char *dir)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof path, "%s/" HAD, dir) < PATH_MAX && access(path, F_OK) == 0;
}

static int read_all(const char *path, struct buf *out, struct azoth_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    int rc = io_read_all(fd, out, BACKUPFILE_ABOUT_MAX, path, err);
    close(fd);
    return rc ? rc : 1;
}

int backup_exec_had(struct backup_job *j, struct backup_about *ret, struct azoth_error *err)
{
    char path[PATH_MAX + 8], *end = NULL;
    struct buf text = {0};
    snprintf(path, sizeof path, "%s/" HAD, j->place.dir);
    int rc = read_all(path, &text, err);
    if (rc == 1 && buf_add(&text, "", 1))
        rc = error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    if (rc == 1) {
        j->number = strtoull((char *)text.ptr, &end, 10);
        int parsed = *end != '\n' ? error_set(err, AZOTH_ERR_CORRUPT,
                                              "%s: it should begin with a number", path)
                                  : backup_about_parse(bytes_str(end + 1), ret, err);
        if (parsed) {
            rc = parsed;
        } else {
            backup_about_fini(ret); /* of the lists nothing is wanted */
        }
    }
    buf_fini(&text);
    return rc;
}

static int write_had(const struct backup_job *j, struct azoth_error *err)
{
    char path[PATH_MAX + 8], fresh[PATH_MAX + 16];
    struct buf text = {0};
    struct buf about = {0};
    snprintf(path, sizeof path, "%s/" HAD, j->place.dir);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int rc = backup_about_text(&j->about, &about, err);
    if (!rc && (buf_addf(&text, "%llu\n", (unsigned long long)j->number) ||
                buf_add(&text, about.ptr, about.len)))
        rc = error_set(err, AZOTH_ERR_NOMEM, "%s", path);
    int fd = rc ? -1 : open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    int dir = rc ? -1 : open(j->place.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!rc && (fd < 0 || dir < 0))
        rc = error_errno(err, errno, "%s", fresh);
    if (!rc)
        rc = io_write_all(fd, text.ptr, text.len, fresh, err);
    if (!rc && (fsync(fd) || rename(fresh, path) || fsync(dir)))
        rc = error_errno(err, errno, "%s", path);
    if (fd >= 0)
        close(fd);
    if (dir >= 0)
        close(dir);
    buf_fini(&text);
    buf_fini(&about);
    return rc;
}

/* ---- the command ---- */

/* What a command has left behind, and nobody else waits for. */
static void reap_strays(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

/* The environment with what is told of the backup; the strings are those of `told`. */
struct environment {
    char name[80], kind[48], from[48], to[48];
    char **vars;
};

static int set_environment(struct backup_job *j, struct environment *e)
{
    size_t n = 0;
    struct tm tm;
    time_t s = (time_t)(clock_wall_ns() / (int64_t)NS_PER_S);
    char stamp[32];
    while (environ[n])
        n++;
    e->vars = calloc(n + 5, sizeof *e->vars);
    if (!e->vars)
        return AZOTH_ERR_NOMEM;
    gmtime_r(&s, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    snprintf(j->path, sizeof j->path, "%s-%06llu-%s.azb", stamp, (unsigned long long)j->number,
             backup_kind_name(j->about.kind));
    snprintf(e->name, sizeof e->name, "AZOTH_BACKUP_NAME=%.60s", j->path);
    snprintf(e->kind, sizeof e->kind, "AZOTH_BACKUP_KIND=%s", backup_kind_name(j->about.kind));
    snprintf(e->from, sizeof e->from, "AZOTH_BACKUP_FROM=%llu",
             (unsigned long long)j->about.from.txn + 1);
    snprintf(e->to, sizeof e->to, "AZOTH_BACKUP_TO=%llu", (unsigned long long)j->about.to.txn);
    /* Of two of one name the first counts. */
    char *const told[] = {e->name, e->kind, e->from, e->to};
    memcpy(e->vars, told, sizeof told);
    memcpy(e->vars + 4, environ, n * sizeof *e->vars);
    return 0;
}

/* Its input is what is read from fd; signals are as they were before we took them. */
static int start(struct backup_job *j, int fd, struct azoth_error *err)
{
    char *argv[] = {"sh", "-c", (char *)(uintptr_t)j->exec, NULL};
    struct environment e = {0};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, pipes;
    if (set_environment(j, &e))
        return error_set(err, AZOTH_ERR_NOMEM, "a command's environment");
    sigemptyset(&none);
    sigemptyset(&pipes);
    sigaddset(&pipes, SIGPIPE);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &pipes);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, fd, STDIN_FILENO);
    int rc = posix_spawn(&j->pid, "/bin/sh", &files, &attr, argv, e.vars);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    free(e.vars);
    if (rc)
        j->pid = 0;
    return rc ? error_errno(err, rc, "/bin/sh") : 0;
}

int backup_exec_begin(struct backup_job *j, const struct backupfile_options *o,
                      struct azoth_bytes about, struct azoth_error *err)
{
    int ends[2];
    reap_strays();
    if (pipe2(ends, O_CLOEXEC))
        return error_errno(err, errno, "a pipe");
    j->number++;
    /* Not to stand in a write while a signal comes. The end that the command reads is another open file. */
    int rc = fcntl(ends[1], F_SETFL, O_NONBLOCK) ? error_errno(err, errno, "a pipe")
                                                 : start(j, ends[0], err);
    if (rc) {
        close(ends[0]);
        close(ends[1]);
        return rc;
    }
    j->left_fd = ends[0];
    j->out_fd = ends[1];
    CRASH_POINT(exec_begun);
    return backupfile_stream(j->out_fd, o, about, &j->out, err);
}

/* ---- how it ends ---- */

/* Its zombie stays, and with it the number of its group. */
static int has_ended(const struct backup_job *j, siginfo_t *ret)
{
    ret->si_pid = 0;
    return waitid(P_PID, (id_t)j->pid, ret, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           ret->si_pid == j->pid;
}

int backup_exec_ended(const struct backup_job *j)
{
    siginfo_t how;
    return j->pid && has_ended(j, &how);
}

/* What sh means by an exit code of its own, where it has a meaning. */
static const char *exit_meaning(int code, char out[64])
{
    const char *signal = code > 128 ? sigabbrev_np(code - 128) : NULL;
    out[0] = 0;
    if (code == 127)
        snprintf(out, 64, ", sh has not found it");
    else if (code == 126)
        snprintf(out, 64, ", sh may not run it");
    else if (signal)
        snprintf(out, 64, ", as sh says of SIG%s", signal);
    return out;
}

/* Why it has not taken the backup; 0 when it has. `whole`: it was given all of it. */
static int judge(const struct backup_job *j, const siginfo_t *how, int whole,
                 struct azoth_error *err)
{
    char meaning[64];
    int left = 0, code = how->si_status;
    const char *signal = sigabbrev_np(code);
    if (how->si_code != CLD_EXITED)
        return error_set(err, AZOTH_ERR_IO,
                         "the command did not take %.60s: it was killed by signal %d (SIG%s)",
                         j->path, code, signal ? signal : "?");
    if (code)
        return error_set(err, AZOTH_ERR_IO,
                         "the command did not take %.60s: it ended with exit code %d%s", j->path,
                         code, exit_meaning(code, meaning));
    if (ioctl(j->left_fd, FIONREAD, &left))
        return error_errno(err, errno, "what the command has read of %.60s", j->path);
    if (!whole || left)
        return error_set(err, AZOTH_ERR_IO,
                         "the command did not take %.60s: it ended with exit code 0 before it had "
                         "read its input to the end, %d bytes were left%s",
                         j->path, left, whole ? "" : " and more was to come");
    return 0;
}

static void close_pipe(struct backup_job *j)
{
    if (j->out_fd >= 0)
        close(j->out_fd);
    close(j->left_fd);
    j->out_fd = j->left_fd = -1;
}

/* All that is in its group: who loses a parent there becomes our child (PR_SET_CHILD_SUBREAPER), and the group's number is no
 * other's while one of them is not waited for. One that not even SIGKILL ends (a disk that hangs) is left. */
static void end_group(struct backup_job *j)
{
    uint64_t began = clock_mono_ns(), passed = 0;
    int killed = 0;
    /* Before its input ends: half a backup is not to be taken for a whole one. */
    kill(-j->pid, SIGTERM);
    close_pipe(j);
    while (passed < 2 * BACKUP_EXEC_GRACE_NS) {
        pid_t got = waitpid(-j->pid, NULL, WNOHANG);
        if (got < 0 && errno == ECHILD)
            break;
        passed = clock_mono_ns() - began;
        if (passed >= BACKUP_EXEC_GRACE_NS && !killed) {
            kill(-j->pid, SIGKILL);
            killed = 1;
        }
        service_heartbeat(j->service, began + passed);
        if (got == 0)
            cmd_sleep_ms(WAIT_MS);
    }
    j->pid = 0;
}

int backup_exec_abort(struct backup_job *j, int rc, struct azoth_error *err)
{
    siginfo_t how;
    if (!j->pid)
        return rc;
    if (has_ended(j, &how))
        rc = judge(j, &how, 0, err);
    end_group(j);
    return rc;
}

/* It may take long over its last bytes. 1: it is to be left. */
static int wait_until_ended(struct backup_job *j, siginfo_t *ret)
{
    while (!has_ended(j, ret)) {
        /* Asked first: it is told that it has ended, too. */
        int leave = backup_interrupted();
        if (has_ended(j, ret))
            return 0;
        if (leave)
            return 1;
        cmd_sleep_ms(WAIT_MS);
    }
    return 0;
}

int backup_exec_end(struct backup_job *j, struct azoth_error *err)
{
    siginfo_t how;
    int rc = backupfile_finish(j->out, j->digest, err);
    j->out = NULL;
    if (rc)
        return backup_exec_abort(j, rc, err);
    close(j->out_fd);
    j->out_fd = -1;
    if (wait_until_ended(j, &how))
        return backup_exec_abort(j, 1, err);
    CRASH_POINT(exec_ended);
    rc = judge(j, &how, 1, err);
    if (rc) {
        end_group(j);
        return rc;
    }
    close_pipe(j);
    waitpid(j->pid, NULL, 0);
    j->pid = 0;
    rc = write_had(j, err);
    CRASH_POINT(exec_noted);
    return rc;
}
