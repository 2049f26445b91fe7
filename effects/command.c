/*
 * command.c - the child, its three pipes, its end.
 *
 * Failure modes
 *   the command does not read its input: it is told EPIPE or never asked; what is left is dropped when
 *       it ends
 *   it leaves processes behind that hold standard error: its own end counts, theirs is not waited for
 *   it does not end: the caller signals its group
 *   we are killed: the kernel kills the child (PR_SET_PDEATHSIG); what the child has started itself may
 *       live on, as with any shell
 */
#include "effects/command.h"

#include "core/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OWN_VARIABLES 10u

extern char **environ;

static char *variable(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *variable(const char *fmt, ...)
{
    char *text;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    return n < 0 ? NULL : text;
}

static void free_environment(char **env)
{
    for (uint32_t i = 0; env && i < OWN_VARIABLES; i++)
        free(env[i]);
    free(env);
}

/* Our variables, then those of this process; NULL: no memory. A key with a zero byte ends there. */
static char **make_environment(const struct command_event *e)
{
    const struct event_record *ev = &e->event;
    size_t others = 0;
    while (environ[others])
        others++;
    char **env = calloc(OWN_VARIABLES + others + 1, sizeof *env);
    if (!env)
        return NULL;
    env[0] = variable("AZOTH_EVENT_ID=%" PRIu64, ev->id);
    env[1] = variable("AZOTH_EVENT_TYPE=%.*s", (int)ev->type.len, (const char *)ev->type.ptr);
    env[2] = variable("AZOTH_EVENT_KEY=%.*s", (int)ev->key.len,
                      ev->key.len ? (const char *)ev->key.ptr : "");
    env[3] = variable("AZOTH_EVENT_TIME=%" PRId64, ev->time_ns);
    env[4] = variable("AZOTH_EVENT_TXN=%" PRIu64, ev->txn);
    env[5] = variable("AZOTH_PROJECTION=%s", e->projection);
    env[6] = variable("AZOTH_ATTEMPT=%u", e->attempt);
    env[7] = variable("AZOTH_DELIVERY=%u", e->delivery);
    env[8] = variable("AZOTH_DATABASE_UUID=%s", e->uuid);
    env[9] = variable("AZOTH_IDEMPOTENCY_KEY=%s-%s-%" PRIu64, e->uuid, e->projection, ev->id);
    uint32_t made = 0;
    while (made < OWN_VARIABLES && env[made])
        made++;
    if (made < OWN_VARIABLES) {
        free_environment(env);
        return NULL;
    }
    memcpy(env + OWN_VARIABLES, environ, others * sizeof *env);
    return env;
}

/* Behind fork() in a process with threads: system calls only. */
static void child(const char *text, char **env, int in, int err, pid_t parent)
{
    char *const argv[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c",
                          (char *)(uintptr_t)text, NULL};
    sigset_t none;
    sigemptyset(&none);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(125);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(in, 0);
    dup2(err, 2);
    execve("/bin/sh", argv, env);
    _exit(126);
}

static void close_all(struct command *c)
{
    int *const fds[] = {&c->pid_fd, &c->in_fd, &c->err_fd};
    for (int i = 0; i < 3; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    free(c->input);
    c->input = NULL;
    c->pid = 0;
}

static int start_child(struct command *c, const char *text, char **env, struct azoth_error *err)
{
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC))
        return error_errno(err, errno, "a pipe");
    if (pipe2(out, O_CLOEXEC)) {
        int e = errno;
        close(in[0]);
        close(in[1]);
        return error_errno(err, e, "a pipe");
    }
    pid_t parent = getpid(), pid = fork();
    int e = errno;
    if (pid == 0)
        child(text, env, in[0], out[1], parent);
    close(in[0]);
    close(out[1]);
    c->in_fd = in[1];
    c->err_fd = out[0];
    if (pid < 0)
        return error_errno(err, e, "a process for the command");
    setpgid(pid, pid); /* whichever of the two is first */
    c->pid = pid;
    c->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (c->pid_fd < 0) {
        e = errno;
        kill(-pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return error_errno(err, e, "pidfd_open");
    }
    fcntl(c->in_fd, F_SETFL, O_NONBLOCK);
    fcntl(c->err_fd, F_SETFL, O_NONBLOCK);
    return 0;
}

int command_start(struct command *c, const char *text, const struct command_event *e,
                  struct azoth_error *err)
{
    *c = (struct command){.pid_fd = -1, .in_fd = -1, .err_fd = -1};
    size_t len = e->event.payload.len;
    char **env = make_environment(e);
    c->input = malloc(len + 1);
    int rc = env && c->input ? 0 : error_set(err, AZOTH_ERR_NOMEM, "the command's input");
    if (!rc && len)
        memcpy(c->input, e->event.payload.ptr, len);
    c->input_len = len;
    if (!rc)
        rc = start_child(c, text, env, err);
    free_environment(env);
    if (rc)
        close_all(c);
    return rc;
}

int command_poll_fds(const struct command *c, struct pollfd *ret)
{
    int n = 0;
    if (c->pid_fd >= 0)
        ret[n++] = (struct pollfd){.fd = c->pid_fd, .events = POLLIN};
    if (c->in_fd >= 0)
        ret[n++] = (struct pollfd){.fd = c->in_fd, .events = POLLOUT};
    if (c->err_fd >= 0)
        ret[n++] = (struct pollfd){.fd = c->err_fd, .events = POLLIN};
    return n;
}

static void feed_input(struct command *c)
{
    while (c->in_fd >= 0) {
        ssize_t n = write(c->in_fd, c->input + c->input_at, c->input_len - c->input_at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n > 0)
            c->input_at += (size_t)n;
        /* All of it, or it does not want it (EPIPE). */
        if (n < 0 || c->input_at == c->input_len) {
            close(c->in_fd);
            c->in_fd = -1;
        }
    }
}

/* Keeps the beginning of the last line that is not empty. */
static void note_line(struct command *c, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\n') {
            if (c->line_len < COMMAND_ERROR_MAX)
                c->line[c->line_len++] = p[i];
            continue;
        }
        if (c->line_len) {
            memcpy(c->last, c->line, c->line_len);
            c->last[c->line_len] = 0;
        }
        c->line_len = 0;
    }
}

static void pass_errors(struct command *c)
{
    char text[4096];
    while (c->err_fd >= 0) {
        ssize_t n = read(c->err_fd, text, sizeof text);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            close(c->err_fd);
            c->err_fd = -1;
            return;
        }
        (void)!write(STDERR_FILENO, text, (size_t)n);
        note_line(c, text, (size_t)n);
    }
}

int command_step(struct command *c, int *ret_status)
{
    feed_input(c);
    pass_errors(c);
    pid_t got = waitpid(c->pid, ret_status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR))
        return 0;
    if (got < 0)
        *ret_status = 126 << 8;
    pass_errors(c); /* what it wrote last */
    note_line(c, "\n", 1);
    close_all(c);
    return 1;
}

void command_signal(const struct command *c, int signal)
{
    if (c->pid > 0)
        kill(-c->pid, signal);
}

void command_error(const struct command *c, int status, char *out)
{
    const char *colon = c->last[0] ? ": " : "";
    if (WIFSIGNALED(status))
        snprintf(out, COMMAND_ERROR_MAX + 1, "killed by signal %d%s%s", WTERMSIG(status), colon,
                 c->last);
    else
        snprintf(out, COMMAND_ERROR_MAX + 1, "exit status %d%s%s", WEXITSTATUS(status), colon,
                 c->last);
}
