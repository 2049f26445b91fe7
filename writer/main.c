/*
 * azoth-writer: the process that holds the store for writing. No socket: requests come through the
 * shared segment, and what leaves goes through LMDB and the segment.
 */
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/error.h"
#include "core/log.h"
#include "core/program.h"
#include "shm/pause.h"
#include "writer/writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_NS (100 * NS_PER_MS)

static const char usage[] =
    "usage: azoth-writer --dir DIR | --instance NAME  [--create] [--SECTION-KEY VALUE ...]\n"
    "\n"
    "Commits the transactions of one database. Run one; a second one is refused.\n"
    "  --dir DIR        the data directory (or AZOTH_DIR)\n"
    "  --instance NAME  /var/lib/azoth/NAME, as the systemd units call it\n"
    "  --create         make the database if there is none\n"
    "Settings come from DIR/azoth.conf, AZOTH_SECTION_KEY, and flags, e.g. --writer-sync none.\n"
    "Exit status: 0 stopped, 1 failed, 75 try again, 100 do not restart (configuration).\n";

struct arguments {
    int argc;
    char **argv;
    char dir[4096];
    int create;
};

struct loop {
    struct service service;
    struct writer *writer;
    const struct arguments *arguments;
    struct config config;
    uint64_t said_ns, transactions, events;
    uint64_t full_ns;                  /* when it was said that the disk is full; 0: it is not */
    uint32_t paused;                   /* enum pause_kind, as it was told last */
    int seal_stored;                   /* likewise: whether the store keeps a seal */
    uint64_t reaped[SHM_PARTICIPANTS]; /* by each, as of the last look */
};

/* The reader check may block behind a stopped process: a thread of its own. */
struct helper {
    struct writer *writer;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int stopping;
    pthread_t thread;
};

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    pthread_mutex_lock(&h->lock);
    while (!h->stopping) {
        struct timespec until;
        /* Not the wall clock: put back, it would have us sleep for as long. */
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += WRITER_HELP_S;
        pthread_cond_clockwait(&h->wake, &h->lock, CLOCK_MONOTONIC, &until);
        if (h->stopping)
            break;
        pthread_mutex_unlock(&h->lock);
        writer_help(h->writer);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/*
 * A database of the units is made with a directory that others may pass, so that who is let into
 * /var/lib/azoth can read its projections, and nothing else: all else is 0660. Its settings are
 * /etc/azoth/NAME.conf, by a link, since everybody looks for them in the directory. What is there already is
 * left as it is.
 */
static int make_instance(const struct arguments *a, const char *instance, struct azoth_error *err)
{
    char path[4200], conf[300];
    umask(0002);
    snprintf(path, sizeof path, "%s/data.mdb", a->dir);
    if (!a->create || access(path, F_OK) == 0)
        return 0;
    /* Each may be there, from one who was killed here. */
    snprintf(path, sizeof path, "%s/projections", a->dir);
    if ((mkdir(a->dir, 0775) && errno != EEXIST) || (mkdir(path, 0775) && errno != EEXIST))
        return error_errno(err, errno, "%s", path);
    snprintf(path, sizeof path, "%s/azoth.conf", a->dir);
    snprintf(conf, sizeof conf, "/etc/azoth/%s.conf", instance);
    return symlink(conf, path) && errno != EEXIST ? error_errno(err, errno, "%s", path) : 0;
}

static int parse(int argc, char **argv, struct arguments *a, struct config *c,
                 struct azoth_error *err)
{
    const char *dir = NULL, *instance = NULL;
    for (int i = 1; i < argc;) {
        int got = program_place_flag(argc, argv, &i, &dir, &instance, err);
        if (got < 0)
            return got;
        if (got == 0)
            a->create |= strcmp(argv[i++], "--create") == 0;
    }
    char run[4096], name[128];
    int rc = instance ? dbdir_instance(instance, a->dir, sizeof a->dir, run, sizeof run, name,
                                       sizeof name, err)
                      : dbdir_resolve(dir, a->dir, sizeof a->dir, err);
    if (!rc && instance)
        rc = make_instance(a, instance, err);
    if (!rc)
        rc = config_load(c, a->dir, err);
    for (int i = 1; i < argc && !rc;) {
        int got = config_flag(c, argc, argv, &i, err);
        if (got < 0)
            rc = got;
        else if (got == 0 && program_place_flag(argc, argv, &i, &dir, &instance, err) > 0)
            continue;
        else if (got == 0 && strcmp(argv[i], "--create") == 0)
            i++;
        else if (got == 0)
            rc = error_set(err, AZOTH_ERR_USAGE, "%s: no such option (azoth-writer --help)",
                           argv[i]);
    }
    return rc;
}

static void say_status(struct loop *l, uint64_t now)
{
    const struct gauges_shm *g = writer_gauges(l->writer)->g;
    uint64_t txns = gauge_get(&g->transactions), events = gauge_get(&g->events);
    double s = (double)(now - l->said_ns) / 1e9;
    service_status(
        &l->service,
        "head %llu, %.0f transactions/s, %.0f events/s, %u waiting, commit p99 %.1f ms%s%s",
        (unsigned long long)gauge_get(&g->head_event), (double)(txns - l->transactions) / s,
        (double)(events - l->events) / s, writer_waiting(l->writer),
        (double)histogram_at(&g->commit_ns, 0.99) / 1e6,
        gauge_get(&g->disk_full_ns) ? ", DISK FULL" : "",
        l->paused == PAUSE_SEAL ? ", SEALED"
        : l->paused             ? ", PAUSED"
                                : "");
    l->transactions = txns;
    l->events = events;
    l->said_ns = now;
}

/* How many dead participants were cleared away since the last call, by whom ever: who waits for a lock of a
 * dead one is often faster than the writer. */
static uint64_t reaped_since(struct loop *l)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < SHM_PARTICIPANTS; i++) {
        uint64_t n = gauge_get(&writer_segment(l->writer)->participant[i].reaped);
        /* Less than before: the row is another process's now. */
        sum += n >= l->reaped[i] ? n - l->reaped[i] : n;
        l->reaped[i] = n;
    }
    return sum;
}

/* Who holds writes, first of all the seal that the store keeps: it may have been forgotten. */
static int holder(const struct segment *s, struct pause_info *ret)
{
    for (uint32_t i = 0; i <= SHM_PAUSE_STORE; i++)
        if (pause_read(s, SHM_PAUSE_STORE - i, ret))
            return 1;
    return 0;
}

static void say_paused(struct loop *l, uint64_t now)
{
    struct segment *s = writer_segment(l->writer);
    struct pause_info p;
    uint32_t paused = atomic_load(&s->header->paused);
    int stored = pause_read(s, SHM_PAUSE_STORE, &p);
    if (paused == l->paused && stored == l->seal_stored)
        return;
    l->paused = paused;
    l->seal_stored = stored;
    if (!paused)
        log_line(LOG_LEVEL_NOTICE, "writes go on");
    else if (holder(s, &p))
        log_line(LOG_LEVEL_WARN, "%s head=%llu by=\"%s\" pid=%u held=%d durable=%d since_s=%llu",
                 paused == PAUSE_SEAL ? "sealed: writes wait or are refused"
                                      : "paused: writes wait or are refused",
                 (unsigned long long)atomic_load(&s->header->head_event), p.who, p.pid,
                 p.held || p.stored, p.stored, (unsigned long long)((now - p.since_ns) / NS_PER_S));
}

static void say_reaped(struct loop *l)
{
    uint64_t n = reaped_since(l);
    if (n)
        log_line(LOG_LEVEL_NOTICE, "repaired what dead participants left participants=%llu",
                 (unsigned long long)n);
}

/* Once when it gets full and once when there is room again, whatever is refused in between. */
static void say_disk(struct loop *l, uint64_t now)
{
    const struct gauges_shm *g = writer_gauges(l->writer)->g;
    int full = gauge_get(&g->disk_full_ns) != 0;
    unsigned long long head = gauge_get(&g->head_event);
    if (full == (l->full_ns != 0))
        return;
    if (full)
        log_line(LOG_LEVEL_ERR, "the disk is full: new transactions are refused head=%llu", head);
    else
        log_line(LOG_LEVEL_NOTICE,
                 "there is room again: transactions are accepted head=%llu full_s=%llu", head,
                 (unsigned long long)((now - l->full_ns) / NS_PER_S));
    l->full_ns = full ? now : 0;
}

static void reload(struct loop *l)
{
    struct writer_options o = {0};
    if (!program_reload(&l->config, l->arguments->dir, l->arguments->argc, l->arguments->argv,
                        &l->service))
        return;
    writer_options_from(&l->config, &o);
    writer_reconfigure(l->writer, &o);
}

/* The heartbeat is sent here, between commits, and nowhere else: a writer that hangs in one is killed. */
static int loop(struct loop *l, struct azoth_error *err)
{
    while (!service_poll(&l->service)) {
        uint64_t now = clock_mono_ns();
        int n = writer_step(l->writer, now, err);
        if (n < 0)
            return n;
        say_disk(l, now);
        service_heartbeat(&l->service, now);
        say_paused(l, now);
        if (l->service.reload)
            reload(l);
        if (now - l->said_ns >= SERVICE_STATUS_NS) {
            say_reaped(l);
            say_status(l, now);
        }
        if (n == 0)
            writer_wait(l->writer, WAIT_NS);
    }
    return 0;
}

static void say_ready(struct loop *l)
{
    struct writer_recovery r = writer_recovered(l->writer);
    const struct gauges_shm *g = writer_gauges(l->writer)->g;
    log_line(
        LOG_LEVEL_NOTICE,
        "ready dir=%s epoch=%llu incarnation=%llu head=%llu answered=%u requeued=%u retired=%u",
        l->arguments->dir, (unsigned long long)r.epoch, (unsigned long long)r.incarnation,
        (unsigned long long)r.head_event, r.answered, r.requeued, r.retired);
    l->transactions = gauge_get(&g->transactions);
    l->events = gauge_get(&g->events);
    reaped_since(l);
    l->said_ns = clock_mono_ns();
    service_ready(&l->service, "head %llu%s", (unsigned long long)r.head_event,
                  atomic_load(&writer_segment(l->writer)->header->paused) == PAUSE_SEAL ? ", SEALED"
                                                                                        : "");
    say_paused(l, l->said_ns);
}

static int serve(struct loop *l, struct azoth_error *err)
{
    /* Not on the stack: after a failure its thread may live as long as the process. */
    static struct helper h = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    h.writer = l->writer;
    if (pthread_create(&h.thread, NULL, helper_main, &h)) {
        writer_close(l->writer);
        return error_set(err, AZOTH_ERR_NOMEM, "the helper's thread");
    }
    say_ready(l);
    int rc = loop(l, err);
    service_stopping(&l->service);
    pthread_mutex_lock(&h.lock);
    h.stopping = 1;
    pthread_cond_signal(&h.wake);
    pthread_mutex_unlock(&h.lock);
    if (rc &&
        rc !=
            AZOTH_ERR_RETIRED) /* its thread may hang in LMDB: the process ends, and that ends it */
        return rc;
    pthread_join(h.thread, NULL);
    writer_close(l->writer);
    return rc;
}

static int run(struct loop *l, struct azoth_error *err)
{
    const struct arguments *a = l->arguments;
    struct writer_options o = {.dir = a->dir, .program = "azoth-writer", .create = a->create};
    writer_options_from(&l->config, &o);
    int rc = service_init(&l->service, err);
    if (!rc)
        rc = writer_open(&o, &l->writer, err);
    if (!rc)
        rc = serve(l, err);
    if (rc)
        return rc;
    service_fini(&l->service);
    log_line(LOG_LEVEL_NOTICE, "stopped");
    return 0;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            return fputs(usage, stdout) < 0;
        if (strcmp(argv[i], "--version") == 0)
            return puts("azoth-writer " AZOTH_VERSION) < 0;
    }
    umask(0007);
    log_init("azoth-writer", LOG_LEVEL_INFO);
    static struct arguments a;
    static struct loop l;
    a.argc = argc;
    a.argv = argv;
    l.arguments = &a;
    struct azoth_error err = {0};
    int rc = parse(argc, argv, &a, &l.config, &err), level;
    if (!rc && log_level_parse(l.config.text[CONFIG_log_level], &level) == 0)
        log_set_level(level);
    if (!rc)
        rc = run(&l, &err);
    if (rc)
        log_error(LOG_LEVEL_ERR, "stopping", &err);
    return rc ? service_exit_code(rc) : 0;
}
