/*
 * azoth-writer: the process that holds the store for writing. No socket: requests come through the
 * shared segment, and what leaves goes through LMDB and the segment.
 */
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/error.h"
#include "core/log.h"
#include "core/service.h"
#include "writer/writer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define STATUS_INTERVAL_NS (5 * NS_PER_S)
#define WAIT_NS            (100 * NS_PER_MS)

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
    char dir[4096];
    int create;
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

static int parse(int argc, char **argv, struct arguments *a, struct config *c,
                 struct azoth_error *err)
{
    const char *dir = NULL, *instance = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc)
            dir = argv[++i];
        else if (strcmp(argv[i], "--instance") == 0 && i + 1 < argc)
            instance = argv[++i];
        else if (strcmp(argv[i], "--create") == 0)
            a->create = 1;
    }
    char run[4096], name[128];
    int rc = instance ? dbdir_instance(instance, a->dir, sizeof a->dir, run, sizeof run, name,
                                       sizeof name, err)
                      : dbdir_resolve(dir, a->dir, sizeof a->dir, err);
    if (!rc)
        rc = config_load(c, a->dir, err);
    for (int i = 1; i < argc && !rc;) {
        int got = config_flag(c, argc, argv, &i, err);
        if (got < 0)
            rc = got;
        else if (got == 0 && (strcmp(argv[i], "--dir") == 0 || strcmp(argv[i], "--instance") == 0))
            i += 2;
        else if (got == 0 && strcmp(argv[i], "--create") == 0)
            i++;
        else if (got == 0)
            rc = error_set(err, AZOTH_ERR_USAGE, "%s: no such option (azoth-writer --help)",
                           argv[i]);
    }
    return rc;
}

static void say_status(struct service *s, struct writer *w, uint64_t *last_txns, uint64_t since_ns)
{
    struct gauges_shm *g = writer_gauges(w)->g;
    uint64_t txns = gauge_get(&g->transactions);
    service_status(s, "head %llu, %.0f transactions/s",
                   (unsigned long long)gauge_get(&g->head_event),
                   (double)(txns - *last_txns) * 1e9 / (double)since_ns);
    *last_txns = txns;
}

static int loop(struct service *s, struct writer *w, struct azoth_error *err)
{
    uint64_t said = clock_mono_ns(), txns = 0;
    while (!service_poll(s)) {
        uint64_t now = clock_mono_ns();
        int n = writer_step(w, now, err);
        if (n < 0)
            return n;
        service_heartbeat(s, now);
        if (now - said >= STATUS_INTERVAL_NS) {
            say_status(s, w, &txns, now - said);
            said = now;
        }
        if (n == 0)
            writer_wait(w, WAIT_NS);
    }
    return 0;
}

static int run(const struct arguments *a, const struct config *c, struct azoth_error *err)
{
    struct service s;
    struct writer *w;
    struct writer_options o = {.dir = a->dir, .program = "azoth-writer", .create = a->create};
    writer_options_from(c, &o);
    int rc = service_init(&s, err);
    if (!rc)
        rc = writer_open(&o, &w, err);
    if (rc)
        return rc;
    struct writer_recovery r = writer_recovered(w);
    log_line(
        LOG_LEVEL_NOTICE,
        "ready dir=%s epoch=%llu incarnation=%llu head=%llu answered=%u requeued=%u retired=%u",
        a->dir, (unsigned long long)r.epoch, (unsigned long long)r.incarnation,
        (unsigned long long)r.head_event, r.answered, r.requeued, r.retired);
    struct helper h = {
        .writer = w, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    if (pthread_create(&h.thread, NULL, helper_main, &h)) {
        writer_close(w);
        return error_set(err, AZOTH_ERR_NOMEM, "the helper's thread");
    }
    service_ready(&s, "head %llu", (unsigned long long)r.head_event);
    rc = loop(&s, w, err);
    service_stopping(&s);
    pthread_mutex_lock(&h.lock);
    h.stopping = 1;
    pthread_cond_signal(&h.wake);
    pthread_mutex_unlock(&h.lock);
    if (rc) /* its thread may hang in LMDB: the process ends, and that ends it */
        return rc;
    pthread_join(h.thread, NULL);
    writer_close(w);
    service_fini(&s);
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
    struct arguments a = {0};
    struct config c;
    struct azoth_error err = {0};
    int rc = parse(argc, argv, &a, &c, &err), level;
    if (!rc && log_level_parse(c.text[CONFIG_log_level], &level) == 0)
        log_init("azoth-writer", level);
    if (!rc)
        rc = run(&a, &c, &err);
    if (rc)
        log_error(LOG_LEVEL_ERR, "stopping", &err);
    return rc ? service_exit_code(rc) : 0;
}
