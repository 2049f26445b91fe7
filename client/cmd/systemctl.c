#include "client/cmd/systemctl.h"

#include "core/clock.h"
#include "core/error.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Its output, until it closes that: 0, TIMEOUT, NOMEM. until_ns 0: without an end. */
static int read_all(int fd, struct buf *out, uint64_t until_ns)
{
    char part[4096];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t now = clock_mono_ns();
        if (until_ns && now >= until_ns)
            return AZOTH_ERR_TIMEOUT;
        if (poll(&p, 1, until_ns ? (int)((until_ns - now) / NS_PER_MS) + 1 : -1) <= 0)
            continue; /* the time is over, or a signal came */
        ssize_t n = read(fd, part, sizeof part);
        if (n <= 0)
            return 0;
        if (buf_add(out, part, (size_t)n))
            return AZOTH_ERR_NOMEM;
    }
}

/* 0 or an errno. to: where its output goes; -1: to ours. */
static int spawn(char *const argv[], int to, int quiet, pid_t *ret)
{
    posix_spawn_file_actions_t files;
    int e = posix_spawn_file_actions_init(&files);
    if (e)
        return e;
    if (to >= 0)
        e = posix_spawn_file_actions_adddup2(&files, to, STDOUT_FILENO);
    if (!e && quiet)
        e = posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (!e)
        e = posix_spawnp(ret, argv[0], &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    return e;
}

int systemctl_run(char *const argv[], struct buf *out, unsigned within_ms, int *ret_status,
                  struct azoth_error *err)
{
    int ends[2] = {-1, -1}, status = 0, rc = 0;
    pid_t pid = 0;
    if (out && pipe2(ends, O_CLOEXEC))
        return error_errno(err, errno, "a pipe");
    int e = spawn(argv, ends[1], within_ms != 0, &pid);
    if (out)
        close(ends[1]);
    if (!e && out)
        rc = read_all(ends[0], out, within_ms ? clock_mono_ns() + within_ms * NS_PER_MS : 0);
    if (out)
        close(ends[0]);
    if (e)
        return error_set(err, AZOTH_ERR_UNSUPPORTED, "%s: %s", argv[0], strerror(e));
    if (rc)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (rc)
        return error_set(err, rc, "%s %s", argv[0], argv[1]);
    *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    return 0;
}
