/*
 * guard.c - the outer process of the benchmarks.
 *
 * The measuring process and all that it starts are a process group of their own, and their databases
 * lie below one directory. When the measuring process ends, or a signal asks for the end, the group is
 * killed and waited for; then the databases' shared objects and the directory are removed. So neither
 * a signal in the middle of filling, nor a crash, nor SIGKILL of the measuring process leaves a
 * process, an object in shared memory, or a file. Only SIGKILL of this process does.
 *
 * Invariants:
 *   1. The group is killed before its leader is reaped: until then its number is nobody else's.
 *   2. Nothing is removed before the last process is gone: orphans of the group come to this process
 *      (it is their subreaper), and it waits until it has no child.
 */
#include "tests/bench/guard.h"

#include "shm/segment.h"
#include "tests/bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- what it leaves ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

/* Each entry may be a database: whose shared objects there are is told by its data file. */
static void clean_up(const char *dir)
{
    DIR *d = opendir(dir);
    const struct dirent *e;
    while (d && (e = readdir(d))) {
        char path[600];
        struct segment_name name;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.' && segment_name_of(path, &name, NULL) == 0)
            segment_unlink(&name);
    }
    if (d)
        closedir(d);
    if (nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS))
        fprintf(stderr, "bench: %s could not be removed whole: %s\n", dir, strerror(errno));
}

/* ---- the measuring process ---- */

static int start(char *const argv[], pid_t *ret_pid)
{
    posix_spawnattr_t attr;
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setsigmask(&attr, &none);
    int e = posix_spawn(ret_pid, "/proc/self/exe", NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    if (e)
        fprintf(stderr, "bench: cannot run the measuring process: %s\n", strerror(e));
    return e;
}

static int has_ended(pid_t pid)
{
    siginfo_t si = {.si_pid = 0};
    return waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == pid;
}

/* Until it has ended or a signal asks for the end: that signal, or 0. */
static int watch(pid_t pid, const sigset_t *signals)
{
    while (!has_ended(pid)) {
        int signo = sigwaitinfo(signals, NULL);
        if (signo > 0 && signo != SIGCHLD)
            return signo;
    }
    return 0;
}

/* Ends the whole group and waits for all of it; the leader's wait status. */
static int end_group(pid_t leader)
{
    int status = 0, leaders = 0;
    pid_t pid;
    kill(-leader, SIGKILL);
    while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR)
        if (pid == leader)
            leaders = status;
    return leaders;
}

static int exit_code(int status)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    fprintf(stderr, "bench: the measuring process was ended by a signal: %s\n",
            strsignal(WTERMSIG(status)));
    return BENCH_FAILED;
}

/* Only a death by the signal tells a shell or make that they were meant too. */
static void die_by(int signo, const sigset_t *signals)
{
    fprintf(stderr, "bench: interrupted\n");
    signal(signo, SIG_DFL);
    raise(signo);
    sigprocmask(SIG_UNBLOCK, signals, NULL);
}

int guard_run(char *const argv[], const char *below)
{
    char dir[400];
    struct sigaction hangup;
    sigset_t signals;
    pid_t pid;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* nohup */
        sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGCHLD, SIG_DFL); /* ignored, children would be reaped before they are looked at */
    signal(SIGTTOU, SIG_IGN); /* the group is no terminal's foreground, and it writes there */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    snprintf(dir, sizeof dir, "%s/bench-XXXXXX", below);
    if (!mkdtemp(dir)) {
        fprintf(stderr, "bench: %s: %s\n", dir, strerror(errno));
        return BENCH_FAILED;
    }
    setenv("TMPDIR", dir, 1);
    int signo = 0, status = 0, failed = start(argv, &pid);
    if (!failed) {
        signo = watch(pid, &signals);
        status = end_group(pid);
    }
    clean_up(dir);
    if (signo)
        die_by(signo, &signals);
    return failed ? BENCH_FAILED : exit_code(status);
}
