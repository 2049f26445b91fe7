/*
 * hold.c - pause, resume, seal, unseal.
 *
 * A pause or a seal is the command's own, which stays in the foreground for as long: until its time is
 * over, Ctrl-C, SIGTERM, or the end of the command that it was given to run. Whatever ends this process
 * ends it too. --hold makes one that outlives the process.
 */
#include "client/cmd/lag.h"

#include "core/clock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK_MS 50u /* at whether it still stands */

extern char **environ;

/* What both commands are asked for. */
struct hold {
    struct cmd_line *line;
    struct azoth *db;
    const char *what; /* "pause" */
    struct cmd_number timeout;
    int held, projections;
    char **command; /* NULL: none */
    uint64_t until_ns;
    struct azoth_seal_info seal;
};

/* ---- the line ---- */

/* What follows a "--" is the command's: it is taken off the line. */
static int take_command(struct hold *h)
{
    struct cmd_line *l = h->line;
    for (int i = 0; i < l->argc; i++)
        if (strcmp(l->argv[i], "--") == 0) {
            h->command = l->argv + i + 1;
            l->argc = i;
        }
    return h->command && !*h->command ? cmd_usage(l, "there is no command after --") : 0;
}

static int begin(struct hold *h, const struct cmd_flag *flags)
{
    struct cmd_line *l = h->line;
    int rc = take_command(h);
    if (!rc)
        rc = cmd_flags(l, flags, 0, 0);
    if (rc)
        return rc;
    if (h->timeout.n < 1 || h->timeout.n > 3600000)
        return cmd_usage(l, "--timeout is 1 ms to 1 h");
    if (h->held && h->command)
        return cmd_usage(l, "with --hold there is no command to wait for");
    rc = cmd_open(l, NULL, 0, &h->db);
    h->until_ns = clock_mono_ns() + h->timeout.n * NS_PER_MS;
    return rc;
}

/* ---- staying ---- */

/* Why it stands no more. */
static int ended_early(const struct hold *h)
{
    if (clock_mono_ns() >= h->until_ns)
        return cmd_fail_code(AZOTH_ERR_TIMEOUT, "the %s ended after its %.3g s: that was too early",
                             h->what, (double)h->timeout.n / 1e3);
    return cmd_fail_code(AZOTH_ERR_TIMEOUT, "the %s was ended by somebody else, before its time",
                         h->what);
}

static int stay(struct hold *h)
{
    while (azoth_pause_stands(h->db)) {
        if (cmd_interrupted())
            return 0;
        cmd_sleep_ms(LOOK_MS);
    }
    if (clock_mono_ns() < h->until_ns)
        return ended_early(h);
    if (!h->line->json)
        printf("the time is over: the %s has ended\n", h->what);
    return 0;
}

/* Until the command has ended: its exit code, or 1 when the pause ended before it. SIGTERM is passed on;
 * a terminal's signals reach it without us. */
static int wait_for_command(struct hold *h, pid_t pid, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int early = 0, told = 0, status;
    while (poll(&p, 1, (int)LOOK_MS) != 1) {
        if (cmd_interrupted() == SIGTERM && !told)
            told = kill(pid, SIGTERM) == 0;
        if (!early && !azoth_pause_stands(h->db))
            early = ended_early(h);
    }
    if (!early && !azoth_pause_stands(h->db))
        early = ended_early(h);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return early ? 1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run_command(struct hold *h)
{
    pid_t pid;
    int e = posix_spawnp(&pid, h->command[0], NULL, NULL, h->command, environ);
    if (e) {
        fprintf(stderr, "azoth: %s: %s\n", h->command[0], strerror(e));
        return e == ENOENT ? 127 : 126;
    }
    int fd = pidfd_open(pid, 0);
    if (fd < 0) {
        struct azoth_error err;
        error_errno(&err, errno, "%s", h->command[0]);
        kill(pid, SIGTERM);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return cmd_fail(&err);
    }
    int rc = wait_for_command(h, pid, fd);
    close(fd);
    return rc;
}

/* While it stands; then it is ended. */
static int foreground(struct hold *h)
{
    struct azoth_error err;
    int rc = h->command ? run_command(h) : stay(h);
    if (azoth_resume(h->db, &err) && !rc)
        rc = cmd_fail(&err);
    return rc;
}

static void say(struct hold *h, const char *text)
{
    struct json_text j = {0};
    if (h->command)
        return; /* standard output is the command's */
    if (!h->line->json) {
        puts(text);
        fflush(stdout);
        return;
    }
    out_open(&j, NULL, '{');
    out_bool(&j, "ok", 1);
    out_bool(&j, "held", h->held);
    if (strcmp(h->what, "seal") == 0) {
        char time[CMD_TIME_TEXT];
        out_u64(&j, "event", h->seal.event);
        out_u64(&j, "txn", h->seal.txn);
        out_i64(&j, "time_ns", h->seal.time_ns);
        out_str(&j, "time", cmd_time(h->seal.time_ns, time));
    }
    if (!h->held || strcmp(h->what, "seal") != 0)
        out_u64(&j, "timeout_ms", h->timeout.n);
    out_close(&j, '}');
    out_print(&j);
    fflush(stdout);
}

/* ---- pause ---- */

static int run_pause(struct cmd_line *l)
{
    struct hold h = {.line = l, .what = "pause", .timeout = {.n = 60000}};
    const struct cmd_flag flags[] = {
        {"--timeout", FLAG_SECONDS, &h.timeout}, {"--hold", FLAG_SWITCH, &h.held}, {NULL, 0, NULL}};
    struct azoth_error err;
    char text[160];
    int rc = begin(&h, flags);
    if (rc)
        return rc;
    cmd_catch_signals();
    if (h.held ? azoth_pause_hold(h.db, (uint32_t)h.timeout.n, &err)
               : azoth_pause(h.db, (uint32_t)h.timeout.n, &err)) {
        rc = cmd_fail(&err);
    } else {
        snprintf(text, sizeof text, "paused for %.3g s; %s ends it", (double)h.timeout.n / 1e3,
                 h.held ? "azoth resume" : "Ctrl-C");
        say(&h, text);
        rc = h.held ? 0 : foreground(&h);
    }
    azoth_close(h.db);
    return rc;
}

const struct cmd cmd_pause = {
    .name = "pause",
    .synopsis = "[--timeout TIME] [--hold] [--json] [-- COMMAND [ARGUMENT ...]]",
    .summary = "Pause writes, after what is submitted is finished",
    .help =
        "  --timeout TIME  the pause ends by itself after so long: 10, 1.5s, 5min; at most 1h,\n"
        "                  default 60 s\n"
        "  --hold          return at once; azoth resume ends the pause, or its time\n"
        "  -- COMMAND      run the command meanwhile, and return its exit code\n\n"
        "The pause is this process's: it lasts until Ctrl-C, SIGTERM, the end of the command or "
        "of\n"
        "this process. When its time is over before the command has ended, the exit code is 1.\n"
        "New transactions get AZOTH_ERR_PAUSED, or wait if they asked to. Reads go on.\n\n"
        "  azoth pause --timeout 5min -- cp -r data copy\n",
    .run = run_pause,
};

/* ---- ending ---- */

/* What is left, after others' were let be. */
static int say_left(const struct cmd_line *l, const char *ended)
{
    struct view v;
    struct view_pauses p;
    char dir[4096];
    int rc = cmd_dir(l, NULL, 1, dir, sizeof dir);
    if (rc)
        return rc;
    view_open(&v, dir);
    uint64_t now_ns = clock_mono_ns();
    view_pauses(&v, now_ns, &p);
    view_close(&v);
    if (l->json) {
        struct json_text j = {0};
        out_open(&j, NULL, '{');
        out_bool(&j, "ok", 1);
        out_str(&j, "writes", view_writes_name(p.writes));
        json_pauses(&j, &p, now_ns);
        out_close(&j, '}');
        return out_print(&j);
    }
    if (p.len)
        print_pauses("writes are still ", &p, now_ns);
    else
        puts(ended);
    return 0;
}

static int end_all(struct cmd_line *l,
                   int (*end)(struct azoth *, int, uint32_t *, struct azoth_error *),
                   const char *ended)
{
    struct azoth_error err;
    struct azoth *db;
    int all = 0;
    const struct cmd_flag flags[] = {{"--all", FLAG_SWITCH, &all}, {NULL, 0, NULL}};
    int rc = cmd_flags(l, flags, 0, 0);
    if (!rc)
        rc = cmd_open(l, NULL, 0, &db);
    if (rc)
        return rc;
    rc = end(db, all, NULL, &err) ? cmd_fail(&err) : say_left(l, ended);
    azoth_close(db);
    return rc;
}

static int run_resume(struct cmd_line *l)
{
    return end_all(l, azoth_resume_held, "resumed");
}

const struct cmd cmd_resume = {
    .name = "resume",
    .synopsis = "[--all] [--json]",
    .summary = "End held pauses of writes",
    .help = "  --all  end the pauses of living processes too\n\n"
            "Says whose pauses and seals are left. Writes that are not paused stay so: that is no\n"
            "error. azoth unseal ends a seal.\n\n"
            "  azoth resume\n",
    .run = run_resume,
};

static int run_unseal(struct cmd_line *l)
{
    return end_all(l, azoth_unseal_held, "unsealed");
}

const struct cmd cmd_unseal = {
    .name = "unseal",
    .synopsis = "[--all] [--json]",
    .summary = "End a seal that is held",
    .help =
        "  --all  end the seals of living processes too\n\n"
        "Says whose pauses and seals are left. What is not sealed stays so: that is no error.\n\n"
        "  azoth unseal\n",
    .run = run_unseal,
};

/* ---- seal ---- */

/* Names those that have not applied the event, as many as fit. Returns how many there are. */
static uint32_t lacking(const struct lag *g, uint64_t event, char *out, size_t size)
{
    uint32_t n = 0;
    size_t len = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < g->rows; i++) {
        char name[96];
        if (g->row[i].r.cursor >= event)
            continue;
        int wrote = snprintf(out + len, size - len, "%s%s (at %llu)", n ? ", " : "",
                             lag_name(&g->row[i], name), (unsigned long long)g->row[i].r.cursor);
        if (wrote > 0 && len + (size_t)wrote < size)
            len += (size_t)wrote;
        n++;
    }
    return n;
}

static int wait_for_projections(struct hold *h)
{
    static struct lag g;
    struct azoth_error err;
    char names[160];
    int rc = cmd_dir(h->line, NULL, 1, g.dir, sizeof g.dir);
    if (rc)
        return rc;
    if (config_load(&g.config, g.dir, &err))
        return cmd_fail(&err);
    for (;;) {
        lag_read_rows(&g);
        uint32_t n = lacking(&g, h->seal.event, names, sizeof names);
        if (n == 0)
            return azoth_pause_stands(h->db) ? 0 : ended_early(h);
        if (cmd_interrupted())
            return cmd_fail_code(AZOTH_ERR_TIMEOUT, "interrupted; not sealed");
        if (!azoth_pause_stands(h->db))
            return cmd_fail_code(AZOTH_ERR_TIMEOUT,
                                 "not sealed: %u of %u projections lack event %llu: %s", n, g.rows,
                                 (unsigned long long)h->seal.event, names);
        /* Rows change without waking anybody: a look at shared memory now and then. */
        cmd_sleep_ms(10);
    }
}

/* The command is told what it is sealed at: standard output is its own. */
static int tell_command(const struct hold *h)
{
    char event[24], txn[24];
    snprintf(event, sizeof event, "%llu", (unsigned long long)h->seal.event);
    snprintf(txn, sizeof txn, "%llu", (unsigned long long)h->seal.txn);
    if (setenv("AZOTH_SEAL_EVENT", event, 1) || setenv("AZOTH_SEAL_TXN", txn, 1))
        return cmd_fail_code(AZOTH_ERR_NOMEM, "out of memory");
    return 0;
}

/* Of its own, in force; then whatever it is wanted for. */
static int sealed(struct hold *h)
{
    struct azoth_error err;
    char text[200], time[CMD_TIME_TEXT], until[64];
    int rc = h->projections ? wait_for_projections(h) : 0;
    if (!rc && h->held && azoth_seal_hold(h->db, &h->seal, &err))
        rc = cmd_fail(&err);
    if (!rc)
        rc = tell_command(h);
    if (rc)
        return rc;
    snprintf(until, sizeof until, h->held ? "azoth unseal ends it" : "for %.3g s, Ctrl-C ends it",
             (double)h->timeout.n / 1e3);
    snprintf(text, sizeof text, "sealed at event %llu (transaction %llu), %s; %s",
             (unsigned long long)h->seal.event, (unsigned long long)h->seal.txn,
             cmd_time(h->seal.time_ns, time), until);
    say(h, text);
    return h->held ? 0 : foreground(h);
}

static int run_seal(struct cmd_line *l)
{
    struct hold h = {.line = l, .what = "seal", .timeout = {.n = 60000}};
    const struct cmd_flag flags[] = {{"--timeout", FLAG_SECONDS, &h.timeout},
                                     {"--with-projections", FLAG_SWITCH, &h.projections},
                                     {"--hold", FLAG_SWITCH, &h.held},
                                     {NULL, 0, NULL}};
    struct azoth_error err;
    int rc = begin(&h, flags);
    if (rc)
        return rc;
    cmd_catch_signals();
    rc = azoth_seal(h.db, (uint32_t)h.timeout.n, &h.seal, &err) ? cmd_fail(&err) : sealed(&h);
    azoth_close(h.db);
    return rc;
}

const struct cmd cmd_seal = {
    .name = "seal",
    .synopsis =
        "[--with-projections] [--timeout TIME] [--hold] [--json] [-- COMMAND [ARGUMENT ...]]",
    .summary = "Fix the newest event, with everything up to it complete",
    .help =
        "  --with-projections  wait until every projection has applied that event; when the time\n"
        "                      is over before, nothing stays sealed and the exit code is 1\n"
        "  --timeout TIME      the seal ends by itself after so long: 10, 1.5s, 5min; at most 1h,\n"
        "                      default 60 s\n"
        "  --hold              return at once; the seal outlives restarts of writer and machine,\n"
        "                      and ends by azoth unseal; --timeout is that of the projections\n"
        "  -- COMMAND          run the command meanwhile, and return its exit code; it finds the\n"
        "                      event in AZOTH_SEAL_EVENT, its transaction in AZOTH_SEAL_TXN\n\n"
        "The seal is this process's, as a pause is: see azoth pause. New transactions get\n"
        "AZOTH_ERR_SEALED, or wait if they asked to (--wait-paused). Reads go on.\n\n"
        "  azoth seal --with-projections -- tar cf copy.tar /var/lib/azoth/main\n",
    .run = run_seal,
};
