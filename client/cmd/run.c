/*
 * run.c - azoth run: the whole system on one terminal.
 *
 * Starts writer, workers, feed and projectors, each when those before it are ready; restarts what
 * dies; stops them in the reverse order. One thread, one poll(): signals come through a signalfd,
 * the children's words through their sockets and pipes. The store is not opened here.
 *
 * Failure modes: those of a child are run_child.c's. A writer that failed for good ends the run,
 * since nothing works without it; another program is said and left out, and the exit code tells at
 * the end.
 */
#include "client/cmd/run.h"

#include "client/cmd/view.h"
#include "core/clock.h"
#include "core/dbdir.h"
#include "projector/sqlfile.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHILDREN_MAX    256u
#define LOOK_NS         NS_PER_S /* between two looks whether a projector's files were mended */
#define GRACE_NS        (10 * NS_PER_S)
#define GRACE_WRITER_NS (60 * NS_PER_S) /* it may have a long queue to finish */

enum phase { PHASE_STARTING, PHASE_RUNNING, PHASE_STOPPING };

struct run {
    char dir[4096], run_dir[4096], bin[PATH_MAX];
    struct config config;
    struct run_child child[CHILDREN_MAX];
    unsigned children;
    char **env;       /* of the children */
    unsigned env_own; /* so many strings at its beginning are ours */
    int signal_fd, lock_fd;
    enum phase phase;
    int rank;    /* while starting: the greatest that may run; while stopping: that is stopped */
    int signals; /* TERM and INT so far */
    int killed_late; /* a child had to be killed */
    uint64_t end_ns;
    uint64_t look_ns; /* when the files of projectors that failed were looked at last */
    uint64_t told;    /* of run_told() */
    struct run_show show;
};

extern char **environ;

/* ---- who there is ---- */

/* The program beside our own executable, else the name for PATH. */
static const char *program_path(const struct run *r, const char *name, char *out, size_t size)
{
    if (*r->bin && (size_t)snprintf(out, size, "%s/%s", r->bin, name) < size &&
        access(out, X_OK) == 0)
        return out;
    return name;
}

static int add(struct run *r, enum run_rank rank, const char *program, const char *label,
               struct run_child **ret, struct azoth_error *err)
{
    char path[PATH_MAX + 64];
    if (r->children == CHILDREN_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "more than %u processes", CHILDREN_MAX);
    struct run_child *c = &r->child[r->children++];
    c->rank = rank;
    snprintf(c->label, sizeof c->label, "%s", label);
    int rc = run_child_init(c, r->run_dir, r->children - 1, err);
    if (!rc)
        rc = run_child_arg(c, program_path(r, program, path, sizeof path), err);
    if (!rc)
        rc = run_child_arg(c, "--dir", err);
    if (!rc)
        rc = run_child_arg(c, r->dir, err);
    *ret = c;
    return rc;
}

static int add_named(struct run *r, enum run_rank rank, const char *program, const char *kind,
                     const char *name, const struct cmd_list *loads, struct azoth_error *err)
{
    char label[80];
    struct run_child *c;
    snprintf(label, sizeof label, "%s-%s", kind, name);
    int rc = add(r, rank, program, label, &c, err);
    if (!rc)
        rc = run_child_arg(c, "--name", err);
    if (!rc)
        rc = run_child_arg(c, name, err);
    if (!rc && rank == RANK_PROJECTOR)
        c->instance = c->argv[c->argc - 1];
    for (int i = 0; !rc && loads && i < loads->n; i++) {
        rc = run_child_arg(c, "--load", err);
        if (!rc)
            rc = run_child_arg(c, loads->text[i], err);
    }
    return rc;
}

/* The projector, or one for each shard, and workers when its definition is one of effects. A definition that
 * cannot be read is told by the projector. */
static int add_projection(struct run *r, const char *name, struct azoth_error *err)
{
    char path[4300], worker[AZOTH_NAME_MAX + 24];
    struct sqlfile def;
    int rc = 0;
    if (dbdir_path(path, sizeof path, r->dir, "projections/%s.sql", name) ||
        sqlfile_read(path, &def, NULL))
        return add_named(r, RANK_PROJECTOR, "azoth-projector", "projector", name, NULL, err);
    for (uint32_t i = 0; !rc && i < (def.shards ? def.shards : 1); i++) {
        snprintf(worker, sizeof worker, def.shards ? "%s:%u-%u" : "%s", name, i, def.shards);
        rc = add_named(r, RANK_PROJECTOR, "azoth-projector", "projector", worker, NULL, err);
    }
    uint64_t workers = def.effects[0] ? r->config.number[CONFIG_effects_workers] : 0;
    for (uint64_t i = 1; !rc && i <= workers; i++) {
        snprintf(worker, sizeof worker, "%s:%" PRIu64, name, i);
        rc = add_named(r, RANK_EFFECTS, "azoth-effects", "effects", worker, NULL, err);
    }
    sqlfile_fini(&def);
    return rc;
}

static int add_defined(struct run *r, struct azoth_error *err)
{
    struct dirent **list;
    int n = cmd_definitions(r->dir, &list, err), rc = n < 0 ? n : 0;
    for (int i = 0; !rc && i < n; i++)
        rc = add_projection(r, list[i]->d_name, err);
    cmd_definitions_free(list, n);
    return rc;
}

static int add_projector(struct run *r, const char *name, struct azoth_error *err)
{
    char path[4200];
    if (!dbdir_name_valid(name))
        return error_set(err, AZOTH_ERR_USAGE, "%s is no name of a projection", name);
    if (dbdir_path(path, sizeof path, r->dir, "projections/%s.sql", name) || access(path, R_OK))
        return error_errno(err, errno, "%s", path);
    return add_projection(r, name, err);
}

static int add_all(struct run *r, const struct cmd_list *projections, const struct cmd_list *loads,
                   int create, struct azoth_error *err)
{
    struct run_child *c;
    int rc = add(r, RANK_WRITER, "azoth-writer", "writer", &c, err);
    if (!rc && create)
        rc = run_child_arg(c, "--create", err);
    for (uint64_t i = 1; !rc && i <= r->config.number[CONFIG_run_workers]; i++) {
        char name[24];
        snprintf(name, sizeof name, "%llu", (unsigned long long)i);
        rc = add_named(r, RANK_WORKER, "azoth-worker", "worker", name, loads, err);
    }
    if (!rc)
        rc = add(r, RANK_FEED, "azoth-feed", "feed", &c, err);
    for (int i = 0; !rc && i < projections->n; i++)
        rc = add_projector(r, projections->text[i], err);
    if (!rc && projections->n == 0)
        rc = add_defined(r, err);
    return rc;
}

/* ---- beginning and end ---- */

/* Our environment, without what a supervisor of our own gave us, and with the settings given as
 * flags. */
static int make_env(struct run *r, const struct config *flagged, struct azoth_error *err)
{
    size_t n = 0, k = 0;
    while (environ[n])
        n++;
    r->env = calloc(n + CONFIG_KEYS + 1, sizeof *r->env);
    for (size_t i = 0; r->env && i < n; i++)
        if (strncmp(environ[i], "NOTIFY_SOCKET=", 14) && strncmp(environ[i], "WATCHDOG_", 9))
            r->env[k++] = environ[i];
    for (int key = 0; r->env && key < CONFIG_KEYS; key++) {
        char text[400];
        if (flagged->source[key] != 3)
            continue;
        snprintf(text, sizeof text, "AZOTH_%s=%s", config_key_name((enum config_key)key),
                 flagged->text[key]);
        for (char *p = text; *p && *p != '='; p++)
            *p = *p == '.' ? '_' : (char)toupper((unsigned char)*p);
        /* First in the array: the first of two counts. */
        memmove(r->env + 1, r->env, k++ * sizeof *r->env);
        r->env[0] = strdup(text);
        if (!r->env[0])
            return error_set(err, AZOTH_ERR_NOMEM, "out of memory");
        r->env_own++;
    }
    return r->env ? 0 : error_set(err, AZOTH_ERR_NOMEM, "out of memory");
}

/* Two supervisors on one database would start everything twice. */
static int take_place(struct run *r, struct azoth_error *err)
{
    char path[4200];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (dbdir_path(path, sizeof path, r->run_dir, "supervisor.lock"))
        return error_set(err, AZOTH_ERR_USAGE, "%s: the path is too long", r->run_dir);
    r->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
    if (r->lock_fd < 0)
        return error_errno(err, errno, "%s", path);
    if (fcntl(r->lock_fd, F_OFD_SETLK, &lock))
        return error_set(err, AZOTH_ERR_WRITER_RUNNING,
                         "%s: another azoth run works on this database", r->dir);
    if (writer_place_held(r->dir))
        return error_set(err, AZOTH_ERR_WRITER_RUNNING,
                         "%s: a writer runs on this database already", r->dir);
    return 0;
}

static int open_signals(struct run *r, struct azoth_error *err)
{
    sigset_t set;
    struct sigaction hangup;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    /* Ignored, it is nohup's; blocked, it would come all the same. */
    if (sigaction(SIGHUP, NULL, &hangup) || hangup.sa_handler != SIG_IGN)
        sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    /* Stopped by Ctrl-Z, we would leave the children's words unread until they wait for us. */
    signal(SIGTSTP, SIG_IGN);
    r->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return r->signal_fd < 0 ? error_errno(err, errno, "signals") : 0;
}

static int prepare(struct run *r, const struct config *flagged, struct azoth_error *err)
{
    ssize_t n = readlink("/proc/self/exe", r->bin, sizeof r->bin - 1);
    r->bin[n > 0 ? n : 0] = 0;
    char *slash = strrchr(r->bin, '/');
    if (slash)
        *slash = 0;
    int rc = cmd_config(r->dir, flagged, &r->config, err);
    if (!rc)
        rc = cmd_run_dir(r->dir, &r->config, r->run_dir, sizeof r->run_dir, err);
    if (!rc)
        rc = dbdir_make(r->run_dir, 0770, err);
    if (!rc)
        rc = take_place(r, err);
    if (!rc)
        rc = make_env(r, flagged, err);
    return rc ? rc : open_signals(r, err);
}

/* ---- the loop ---- */

static void read_signals(struct run *r)
{
    struct signalfd_siginfo si;
    while (read(r->signal_fd, &si, sizeof si) == sizeof si)
        if (si.ssi_signo != SIGCHLD)
            r->signals++;
}

static void begin_stopping(struct run *r, const char *why)
{
    if (r->phase == PHASE_STOPPING)
        return;
    run_say("stopping: %s", why);
    r->phase = PHASE_STOPPING;
    r->rank = RANKS - 1;
}

static unsigned ready(const struct run *r)
{
    unsigned n = 0;
    for (unsigned i = 0; i < r->children; i++)
        n += r->child[i].state == CHILD_READY;
    return n;
}

/* Somebody has mended what kept a projector from starting: its definition, its library, or the file that serves. */
static void try_mended(struct run *r, uint64_t now_ns)
{
    if (now_ns - r->look_ns < LOOK_NS)
        return;
    r->look_ns = now_ns;
    for (unsigned i = 0; i < r->children; i++) {
        struct run_child *c = &r->child[i];
        struct run_mark mark;
        if (c->state != CHILD_FAILED || !c->instance)
            continue;
        run_mark_of(r->dir, c->instance, &mark);
        if (memcmp(&mark, &c->mark, sizeof mark) == 0)
            continue;
        run_say("%s is started again: its files have changed", c->label);
        c->state = CHILD_WAITING;
        c->restart_ns = now_ns;
    }
}

static void start(struct run *r, struct run_child *c, uint64_t now_ns)
{
    /* Before it reads them. */
    if (c->instance)
        run_mark_of(r->dir, c->instance, &c->mark);
    run_child_start(c, r->env, now_ns);
}

/* Starts what may run by now. */
static void start_due(struct run *r, uint64_t now_ns)
{
    unsigned unready = 0;
    for (unsigned i = 0; i < r->children; i++) {
        struct run_child *c = &r->child[i];
        if ((int)c->rank > r->rank)
            continue;
        if (c->state == CHILD_WAITING && now_ns >= c->restart_ns)
            start(r, c, now_ns);
        /* One that died already must not keep the others from starting; the writer may. */
        unready += (c->state == CHILD_WAITING || c->state == CHILD_STARTING) &&
                   (c->deaths == 0 || c->rank == RANK_WRITER);
        if (c->state == CHILD_FAILED && c->rank == RANK_WRITER)
            begin_stopping(r, "the writer failed for good");
    }
    if (r->phase != PHASE_STARTING || unready)
        return;
    if (r->rank < RANKS - 1) {
        r->rank++;
        start_due(r, now_ns); /* at most RANKS deep */
        return;
    }
    r->phase = PHASE_RUNNING;
    run_say("running: %s, %u of %u processes ready (Ctrl-C stops)", r->dir, ready(r), r->children);
}

/* Stops rank after rank; returns 1 when nobody is left. */
static int stop_due(struct run *r, uint64_t now_ns)
{
    for (; r->rank >= 0; r->rank--) {
        unsigned alive = 0;
        for (unsigned i = 0; i < r->children; i++) {
            struct run_child *c = &r->child[i];
            if ((int)c->rank != r->rank)
                continue;
            run_child_stop(c, now_ns, c->rank == RANK_WRITER ? GRACE_WRITER_NS : GRACE_NS);
            alive += run_child_lives(c) != 0;
        }
        if (alive)
            return 0;
    }
    return 1;
}

static int poll_timeout(const struct run *r, uint64_t now_ns)
{
    uint64_t due = run_show_due(&r->show);
    for (unsigned i = 0; i < r->children; i++) {
        const struct run_child *c = &r->child[i];
        uint64_t at = run_child_due(c);
        /* One that waits for its turn or for its predecessors is started by their words. */
        if (c->state == CHILD_WAITING && (r->phase == PHASE_STOPPING || (int)c->rank > r->rank))
            continue;
        if (c->state == CHILD_FAILED && c->instance && r->phase != PHASE_STOPPING)
            at = r->look_ns + LOOK_NS;
        if (at < due)
            due = at;
    }
    if (r->end_ns && r->end_ns < due && r->phase != PHASE_STOPPING)
        due = r->end_ns;
    return due <= now_ns ? 0 : (int)((due - now_ns) / NS_PER_MS) + 1;
}

static void wait_for_words(struct run *r)
{
    struct pollfd fds[1 + 2 * CHILDREN_MAX];
    nfds_t n = 0;
    fds[n++] = (struct pollfd){.fd = r->signal_fd, .events = POLLIN};
    for (unsigned i = 0; i < r->children; i++) {
        fds[n++] = (struct pollfd){.fd = r->child[i].notify_fd, .events = POLLIN};
        if (r->child[i].log_fd >= 0)
            fds[n++] = (struct pollfd){.fd = r->child[i].log_fd, .events = POLLIN};
    }
    poll(fds, n, poll_timeout(r, clock_mono_ns()));
}

static void step(struct run *r, uint64_t now_ns)
{
    int before = r->signals;
    read_signals(r);
    for (unsigned i = 0; i < r->children; i++) {
        struct run_child *c = &r->child[i];
        run_child_read(c, now_ns);
        run_child_reap(c, now_ns);
        run_child_deadlines(c, now_ns);
        r->killed_late |= c->killed == 2;
    }
    if (r->signals > before && r->phase == PHASE_STOPPING && r->signals > 1) {
        run_say("asked again: killing what is left");
        for (unsigned i = 0; i < r->children; i++) {
            run_child_stop(&r->child[i], now_ns, 0);
            run_child_kill(&r->child[i]);
        }
    } else if (r->signals) {
        begin_stopping(r, "asked to");
    }
    if (r->end_ns && now_ns >= r->end_ns)
        begin_stopping(r, "the time is over");
    run_show_tick(&r->show, r->dir, ready(r), r->children, now_ns);
}

static int loop(struct run *r)
{
    for (;;) {
        uint64_t now = clock_mono_ns();
        step(r, now);
        if (r->phase == PHASE_STOPPING) {
            if (stop_due(r, now))
                break;
        } else {
            try_mended(r, now);
            start_due(r, now);
        }
        run_told(&r->told, r->run_dir, r->child, r->children);
        wait_for_words(r);
    }
    run_told_end(r->run_dir);
    run_show_off();
    int failed = r->killed_late;
    for (unsigned i = 0; i < r->children; i++)
        if (r->child[i].state == CHILD_FAILED) {
            run_say("%s failed for good", r->child[i].label);
            failed = 1;
        }
    run_say("stopped");
    return failed;
}

static int run_run(struct cmd_line *l)
{
    static struct run r;
    static struct config flagged;
    struct cmd_number workers = {0}, time = {0};
    struct cmd_list projections = {0}, loads = {0};
    struct azoth_error err;
    int create = 0;
    const struct cmd_flag flags[] = {
        {"--workers", FLAG_NUMBER, &workers},
        {"--projection", FLAG_LIST, &projections},
        {"--seconds", FLAG_SECONDS, &time},
        {"--load", FLAG_LIST, &loads},
        {"--progress", FLAG_SWITCH, &r.show.progress},
        {"--create", FLAG_SWITCH, &create},
        {NULL, 0, NULL},
    };
    config_defaults(&flagged);
    l->config = &flagged;
    int rc = cmd_flags(l, flags, 0, 1);
    if (!rc && loads.n > 32)
        rc = cmd_usage(l, "--load is given too often");
    if (!rc)
        rc = cmd_dir(l, l->words ? l->word[0] : NULL, !create, r.dir, sizeof r.dir);
    if (rc)
        return rc;
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)workers.n);
    r.signal_fd = r.lock_fd = -1;
    int code = workers.given ? config_set(&flagged, CONFIG_run_workers, text, 3, &err) : 0;
    if (!code && create)
        code = dbdir_make(r.dir, 0770, &err);
    if (!code)
        code = prepare(&r, &flagged, &err);
    if (!code)
        code = add_all(&r, &projections, &loads, create, &err);
    if (code) {
        rc = cmd_fail(&err);
    } else {
        run_before_line = run_show_off;
        uint64_t now = clock_mono_ns();
        r.end_ns = time.given ? now + time.n * NS_PER_MS : 0;
        rc = loop(&r);
    }
    for (unsigned i = 0; i < r.children; i++)
        run_child_fini(&r.child[i]);
    if (r.signal_fd >= 0)
        close(r.signal_fd);
    if (r.lock_fd >= 0)
        close(r.lock_fd);
    for (unsigned i = 0; i < r.env_own; i++)
        free(r.env[i]);
    free(r.env);
    return rc;
}

const struct cmd cmd_run = {
    .name = "run",
    .synopsis = "[DIR] [--create] [--workers N] [--projection NAME ...] [--load FILE.so ...] "
                "[--seconds TIME] [--progress]",
    .summary = "The whole system on one terminal: writer, workers, feed, projectors",
    .help =
        "  --create           make the database if there is none\n"
        "  --workers N        default: run.workers of the configuration, 2\n"
        "  --projection NAME  this one (may be repeated); default: each DIR/projections/NAME.sql\n"
        "  --load FILE.so     commands for the workers (may be repeated)\n"
        "  --seconds TIME     stop after so long\n"
        "  --progress         a plain line each second, for logs; on a terminal a live line is "
        "shown\n"
        "  --SECTION-KEY V    a setting of azoth.conf(5) for all, as --writer-sync none\n\n"
        "What dies is started again; what exits with 100 is not. Ctrl-C stops everything in "
        "order;\n"
        "a second Ctrl-C kills. Exit code 1 when something failed for good.\n\n"
        "  azoth init /tmp/db && azoth run /tmp/db\n"
        "  azoth run /tmp/db --workers 4 --load ./transfer.so\n",
    .run = run_run,
};
