/*
 * run_child.c - one supervised process: started, heard, restarted, stopped.
 *
 * Happy path: spawned in a process group of its own (Ctrl-C reaches the supervisor alone, which
 * stops things in order), says READY=1 on its notification socket as under systemd, logs to a pipe
 * whose lines are printed with its name, ends when told to.
 *
 * Failure modes
 *   dies            started again after 100 ms, doubling to 5 s while it keeps dying
 *   exits with 100  never started again: its configuration has to be mended first
 *   hangs           no WATCHDOG=1 for 30 s, or no READY=1 for 60 s: killed, then as above
 *   does not stop   killed after its grace
 *   we are killed   the kernel sends it SIGTERM (PR_SET_PDEATHSIG)
 */
#include "client/cmd/run.h"

#include "core/clock.h"
#include "core/error.h"
#include "core/service.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKOFF_FIRST_NS (100 * NS_PER_MS)
#define BACKOFF_LAST_NS  (5 * NS_PER_S)
#define HEALTHY_NS       (10 * NS_PER_S) /* ran for so long: the backoff begins anew */
#define START_NS         (60 * NS_PER_S)
#define WATCHDOG_NS      (30 * NS_PER_S)
#define LINE_MAX_BYTES   8192u

void (*run_before_line)(void);

/* One write, so that lines stay whole. */
static void print_line(const char *label, const char *text, size_t n)
{
    static char out[LINE_MAX_BYTES + 128];
    if (run_before_line)
        run_before_line();
    int len = snprintf(out, sizeof out, "%-18s | %.*s\n", label, (int)n, text);
    if (len > 0)
        (void)!write(STDERR_FILENO, out, (size_t)len < sizeof out ? (size_t)len : sizeof out - 1);
}

void run_say(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    print_line("run", text, strlen(text));
}

/* ---- made and unmade ---- */

int run_child_init(struct run_child *c, const char *run_dir, unsigned index,
                   struct azoth_error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    c->notify_fd = c->log_fd = -1;
    c->backoff_ns = BACKOFF_FIRST_NS;
    c->exit_code = -1;
    int n = snprintf(c->notify_path, sizeof c->notify_path, "%s/notify-%u.sock", run_dir, index);
    if (n < 0 || (size_t)n >= sizeof c->notify_path)
        return error_set(err, AZOTH_ERR_CONFIG, "%s: choose a shorter run.dir", run_dir);
    strcpy(sa.sun_path, c->notify_path);
    c->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(c->notify_path); /* of a supervisor that was killed; we hold its place now */
    if (c->notify_fd < 0 || bind(c->notify_fd, (struct sockaddr *)&sa, sizeof sa))
        return error_errno(err, errno, "%s", c->notify_path);
    return 0;
}

void run_child_fini(struct run_child *c)
{
    if (c->notify_fd >= 0) {
        close(c->notify_fd);
        unlink(c->notify_path);
    }
    if (c->log_fd >= 0)
        close(c->log_fd);
    for (int i = 0; i < c->argc; i++)
        free(c->argv[i]);
    buf_fini(&c->line);
}

int run_child_arg(struct run_child *c, const char *arg, struct azoth_error *err)
{
    /* A NULL ends the array. */
    if (c->argc + 1 >= (int)RUN_ARGS_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "%s: too many arguments", c->label);
    c->argv[c->argc] = strdup(arg);
    if (!c->argv[c->argc])
        return error_set(err, AZOTH_ERR_NOMEM, "out of memory");
    c->argc++;
    return 0;
}

/* ---- starting ---- */

int run_child_main(int argc, char **argv)
{
    if (argc < 2)
        return SERVICE_EXIT_NEVER_RESTART;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    /* The parent may have died before we asked. */
    if (getppid() != (pid_t)strtol(argv[0], NULL, 10))
        return 1;
    execvp(argv[1], argv + 1);
    fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
    return errno == ENOMEM || errno == EAGAIN ? 1 : SERVICE_EXIT_NEVER_RESTART;
}

static int spawn_attributes(posix_spawnattr_t *attr)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int e = posix_spawnattr_init(attr);
    if (e)
        return e;
    e = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                           POSIX_SPAWN_SETSIGDEF);
    if (!e)
        e = posix_spawnattr_setpgroup(attr, 0);
    if (!e)
        e = posix_spawnattr_setsigmask(attr, &none);
    if (!e)
        e = posix_spawnattr_setsigdefault(attr, &all);
    return e;
}

/* 0 or an errno. out: the write end of the log's pipe. */
static int spawn(struct run_child *c, char *const *env, int out)
{
    char parent[16], notify[160], watchdog[48];
    char *argv[RUN_ARGS_MAX + 3] = {(char *)"azoth", (char *)RUN_CHILD_COMMAND, parent};
    char *full_env[1024];
    size_t n = 0;
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    snprintf(notify, sizeof notify, "NOTIFY_SOCKET=%s", c->notify_path);
    snprintf(watchdog, sizeof watchdog, "WATCHDOG_USEC=%llu",
             (unsigned long long)(WATCHDOG_NS / 1000));
    memcpy(argv + 3, c->argv, (size_t)c->argc * sizeof *argv);
    for (; n < sizeof full_env / sizeof *full_env - 3 && env[n]; n++)
        full_env[n] = env[n];
    if (env[n])
        return E2BIG;
    full_env[n++] = notify;
    full_env[n++] = watchdog;
    full_env[n] = NULL;

    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    int e = posix_spawn_file_actions_init(&files);
    if (e)
        return e;
    e = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    if (!e)
        e = posix_spawn_file_actions_adddup2(&files, out, 1);
    if (!e)
        e = posix_spawn_file_actions_adddup2(&files, out, 2);
    int attr_error = spawn_attributes(&attr);
    if (!e)
        e = attr_error;
    if (!e)
        e = posix_spawn(&c->pid, "/proc/self/exe", &files, &attr, argv, full_env);
    if (e)
        c->pid = 0;
    if (!attr_error)
        posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return e;
}

static void wait_for_restart(struct run_child *c, uint64_t now_ns)
{
    c->state = CHILD_WAITING;
    c->restart_ns = now_ns + c->backoff_ns;
    c->backoff_ns = c->backoff_ns * 2 < BACKOFF_LAST_NS ? c->backoff_ns * 2 : BACKOFF_LAST_NS;
}

void run_child_start(struct run_child *c, char *const *env, uint64_t now_ns)
{
    char old[512];
    int ends[2];
    /* What the one before said last is not about this one. */
    while (recv(c->notify_fd, old, sizeof old, 0) >= 0)
        ;
    int e = pipe2(ends, O_CLOEXEC) ? errno : 0;
    if (!e) {
        e = spawn(c, env, ends[1]);
        close(ends[1]);
        if (e)
            close(ends[0]);
    }
    if (e) {
        run_say("%s cannot be started: %s", c->label, strerror(e));
        wait_for_restart(c, now_ns);
        return;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    c->log_fd = ends[0];
    c->state = CHILD_STARTING;
    c->started_ns = c->heard_ns = now_ns;
    c->ready_ns = 0;
    c->killed = 0;
    run_say("%s started, pid %d", c->label, (int)c->pid);
}

/* ---- what it says ---- */

/* "<6>text" of sd-daemon(3): the number is for a journal. */
static void print_child_line(struct run_child *c)
{
    const char *text = (const char *)c->line.ptr;
    size_t n = c->line.len;
    if (n >= 3 && text[0] == '<' && text[1] >= '0' && text[1] <= '7' && text[2] == '>') {
        text += 3;
        n -= 3;
    }
    print_line(c->label, text, n);
    buf_clear(&c->line);
}

static void read_log(struct run_child *c)
{
    char part[4096];
    ssize_t n = -1;
    while (c->log_fd >= 0 && (n = read(c->log_fd, part, sizeof part)) > 0)
        for (ssize_t i = 0; i < n; i++) {
            if (part[i] != '\n' && buf_add(&c->line, &part[i], 1) == 0 &&
                c->line.len < LINE_MAX_BYTES)
                continue;
            print_child_line(c);
        }
    if (n == 0) { /* it closed its end: nothing more will come */
        close(c->log_fd);
        c->log_fd = -1;
    }
}

static void read_notifications(struct run_child *c, uint64_t now_ns)
{
    char text[1024];
    ssize_t n;
    while ((n = recv(c->notify_fd, text, sizeof text - 1, 0)) >= 0) {
        text[n] = 0;
        c->heard_ns = now_ns;
        for (char *rest = text, *word; (word = strsep(&rest, "\n"));)
            if (strcmp(word, "READY=1") == 0 && c->state == CHILD_STARTING) {
                c->state = CHILD_READY;
                c->ready_ns = now_ns;
                run_say("%s ready", c->label);
            }
    }
}

void run_child_read(struct run_child *c, uint64_t now_ns)
{
    read_log(c);
    read_notifications(c, now_ns);
}

/* ---- death ---- */

static void say_death(const struct run_child *c, pid_t pid, int status)
{
    if (WIFSIGNALED(status))
        run_say("%s (pid %d) was ended by signal %d (%s)", c->label, (int)pid, WTERMSIG(status),
                strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) || c->state != CHILD_STOPPING)
        run_say("%s (pid %d) ended with exit code %d", c->label, (int)pid, WEXITSTATUS(status));
    else
        run_say("%s stopped", c->label);
}

void run_child_reap(struct run_child *c, uint64_t now_ns)
{
    int status;
    pid_t pid = c->pid;
    if (pid == 0 || waitpid(pid, &status, WNOHANG) != pid)
        return;
    run_child_read(c, now_ns);
    if (c->line.len)
        print_child_line(c);
    if (c->log_fd >= 0)
        close(c->log_fd);
    c->log_fd = -1;
    c->pid = 0;
    c->deaths++;
    c->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    say_death(c, pid, status);
    if (c->state == CHILD_STOPPING) {
        c->state = CHILD_STOPPED;
        return;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == SERVICE_EXIT_NEVER_RESTART) {
        c->state = CHILD_FAILED;
        run_say("%s is not started again: exit code %d says that something has to be mended first",
                c->label, SERVICE_EXIT_NEVER_RESTART);
        return;
    }
    if (c->ready_ns && now_ns - c->ready_ns >= HEALTHY_NS)
        c->backoff_ns = BACKOFF_FIRST_NS;
    run_say("%s is started again in %.1f s", c->label, (double)c->backoff_ns / 1e9);
    wait_for_restart(c, now_ns);
}

void run_child_kill(struct run_child *c)
{
    if (c->pid && !c->killed) {
        c->killed = 1;
        kill(c->pid, SIGKILL);
    }
}

void run_child_stop(struct run_child *c, uint64_t now_ns, uint64_t grace_ns)
{
    if (!c->pid) {
        if (c->state != CHILD_FAILED)
            c->state = CHILD_STOPPED;
        return;
    }
    if (c->state == CHILD_STOPPING)
        return;
    c->state = CHILD_STOPPING;
    c->kill_ns = now_ns + grace_ns;
    kill(c->pid, SIGTERM);
}

uint64_t run_child_due(const struct run_child *c)
{
    if (c->killed)
        return UINT64_MAX; /* its death wakes us */
    switch (c->state) {
    case CHILD_WAITING:
        return c->restart_ns;
    case CHILD_STARTING:
        return c->started_ns + START_NS;
    case CHILD_READY:
        return c->heard_ns + WATCHDOG_NS;
    case CHILD_STOPPING:
        return c->kill_ns;
    default:
        return UINT64_MAX;
    }
}

void run_child_deadlines(struct run_child *c, uint64_t now_ns)
{
    if (!c->pid || c->killed || now_ns < run_child_due(c))
        return;
    if (c->state == CHILD_STOPPING) {
        run_say("%s did not stop in time: killed", c->label);
        run_child_kill(c);
        c->killed = 2;
        return;
    }
    run_say("%s (pid %d) %s: killed", c->label, (int)c->pid,
            c->state == CHILD_STARTING ? "was not ready in time" : "gave no sign of life");
    run_child_kill(c);
}
