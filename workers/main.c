/*
 * azoth-worker: preflight for clients that do not attach to the segment themselves. Serves requests
 * on an SP REP endpoint, tpl images and JSON text alike, and runs the named commands of --load.
 *
 *   flags ─► commands ─► store ─► segment (waits for the writer) ─► socket ─► READY ─► loop ─►
 * drain
 *
 * Failure modes
 *   no writer yet: waits for 30 s, then exits with the "temporary" code.
 *   the writer is restarted: nothing here notices; what is in flight is answered later.
 *   the segment is retired (another layout, files put back): what is in flight is answered, then
 *     the process exits with the "temporary" code and attaches anew when it is started again.
 *   killed: its locks are given back by the others; what it had submitted is committed.
 */
#include "core/clock.h"
#include "core/dbdir.h"
#include "core/error.h"
#include "core/log.h"
#include "core/program.h"
#include "core/service.h"
#include "workers/server.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define ATTACH_WAIT_NS   (30 * NS_PER_S)
#define ATTACH_RETRY_MS  100
#define IDLE_MS          250 /* how often the loop looks at the segment and the watchdog */
#define DRAIN_NS         (10 * NS_PER_S)
#define COMMAND_LIBS_MAX 64u

static const char usage[] =
    "usage: azoth-worker --dir DIR --name NAME | --instance DB:NAME  [--load FILE.so ...]\n"
    "                    [--SECTION-KEY VALUE ...]\n"
    "\n"
    "Validates transactions under locks and hands them to the writer; answers reads.\n"
    "  --dir DIR           the data directory (or AZOTH_DIR)\n"
    "  --name NAME         of this worker: it listens on ipc://RUN/worker-NAME.sock; default 1\n"
    "  --instance DB:NAME  /var/lib/azoth/DB and /run/azoth/DB, as the systemd units call it\n"
    "  --load FILE.so      commands to serve (azoth_command.h); may be repeated\n"
    "Settings come from DIR/azoth.conf, AZOTH_SECTION_KEY, and flags, e.g.\n"
    "  --worker-listen tcp://127.0.0.1:7100    an endpoint beside the first\n"
    "  --worker-command-time 1s                most time of one command\n"
    "Exit status: 0 stopped, 1 failed, 75 try again, 100 do not restart (configuration).\n";

struct arguments {
    struct program program;
    const char *name;
    const char *load[COMMAND_LIBS_MAX];
    uint32_t loads;
};

/* What is open, in the order of opening. */
struct worker {
    struct service service;
    struct command_set *commands;
    struct command_timer *timer;
    struct store *store;
    struct segment *segment;
    struct participant *participant;
    struct reqrep *socket;
    struct server *server;
    char endpoint[160];
};

/* ---- flags ---- */

static int load_flag(void *arg, int argc, char **argv, int *i, struct azoth_error *err)
{
    struct arguments *a = arg;
    if (strcmp(argv[*i], "--load") != 0)
        return 0;
    if (*i + 1 >= argc)
        return error_set(err, AZOTH_ERR_USAGE, "--load needs the path of a shared object");
    if (a->loads == COMMAND_LIBS_MAX)
        return error_set(err, AZOTH_ERR_USAGE, "--load: at most %u", COMMAND_LIBS_MAX);
    a->load[a->loads++] = argv[*i + 1];
    *i += 2;
    return 1;
}

/* Like other names, but it may begin with a digit, since workers are often numbered. */
static int name_valid(const char *name)
{
    char lettered[AZOTH_NAME_MAX + 2];
    size_t n = strlen(name);
    if (n < 1 || n > AZOTH_NAME_MAX - 1)
        return 0;
    snprintf(lettered, sizeof lettered, "w%s", name);
    return dbdir_name_valid(lettered);
}

static int parse(struct arguments *a, int argc, char **argv, struct azoth_error *err)
{
    a->program.name = "azoth-worker";
    a->program.flag = load_flag;
    a->program.arg = a;
    int rc = program_parse(&a->program, argc, argv, err);
    if (rc)
        return rc;
    a->name = a->program.instance_name[0] ? a->program.instance_name : "1";
    if (!name_valid(a->name))
        return error_set(err, AZOTH_ERR_USAGE,
                         "--name %s: a worker's name has 1 to %u letters, digits, _ and -", a->name,
                         AZOTH_NAME_MAX - 1);
    return 0;
}

/* ---- opening ---- */

static int commands_open(struct worker *w, const struct arguments *a, struct azoth_error *err)
{
    int rc = command_set_open(&w->commands, err);
    for (uint32_t i = 0; !rc && i < a->loads; i++)
        rc = command_load(w->commands, a->load[i], err);
    if (rc == AZOTH_ERR_DUPLICATE)
        rc = err->code = AZOTH_ERR_CONFIG; /* no restart will mend it */
    if (!rc)
        rc = command_timer_open(a->program.config.number[CONFIG_worker_command_time] * NS_PER_MS,
                                &w->timer, err);
    return rc;
}

/* The segment of this very data file: one that was made for another is not ours to join. */
static int attach_once(struct worker *w, const struct arguments *a, struct azoth_error *err)
{
    struct segment_name name;
    struct segment *s;
    int rc = segment_name_of(a->program.dir, &name, err);
    if (!rc)
        rc = segment_attach(&name, &s, err);
    if (rc)
        return rc;
    const struct store_identity *id = store_identity(w->store);
    if (s->header->device != id->device || s->header->inode != id->inode) {
        segment_detach(s);
        return error_set(err, AZOTH_ERR_NO_WRITER, "the segment is of another data file");
    }
    rc = participant_join(s, a->program.dir, PARTICIPANT_WORKER, a->name, &w->participant, err);
    if (rc)
        segment_detach(s);
    else
        w->segment = s;
    return rc;
}

/* Waits for the writer, or for a signal. */
static int attach(struct worker *w, const struct arguments *a, struct azoth_error *err)
{
    uint64_t until = clock_mono_ns() + ATTACH_WAIT_NS;
    int rc, said = 0;
    while ((rc = attach_once(w, a, err)) == AZOTH_ERR_NO_WRITER || rc == AZOTH_ERR_RETIRED) {
        if (service_poll(&w->service))
            return 0;
        uint64_t now = clock_mono_ns();
        if (now >= until)
            return rc;
        service_heartbeat(&w->service, now);
        if (!said++)
            log_line(LOG_LEVEL_NOTICE, "waiting for the writer dir=%s", a->program.dir);
        struct pollfd p = {.fd = w->service.signal_fd, .events = POLLIN};
        poll(&p, 1, ATTACH_RETRY_MS);
    }
    return rc;
}

static int listen_on(struct worker *w, const struct arguments *a, struct azoth_error *err)
{
    int rc = dbdir_endpoint(w->endpoint, sizeof w->endpoint, a->program.run_dir, err,
                            "worker-%s.sock", a->name);
    if (!rc)
        rc = reqrep_bind(w->endpoint, &w->socket, err);
    if (!rc && a->program.config.text[CONFIG_worker_listen][0])
        rc = reqrep_bind_more(w->socket, a->program.config.text[CONFIG_worker_listen], err);
    return rc;
}

static int open_all(struct worker *w, const struct arguments *a, struct azoth_error *err)
{
    int rc = service_init(&w->service, err); /* before any thread: they inherit the mask */
    if (!rc)
        rc = commands_open(w, a, err);
    if (!rc)
        rc = store_open(a->program.dir, 0, &w->store, err);
    if (!rc)
        rc = attach(w, a, err);
    if (rc || w->service.stopping)
        return rc;
    rc = listen_on(w, a, err);
    if (rc)
        return rc;
    struct server_options o = {
        .store = w->store,
        .participant = w->participant,
        .socket = w->socket,
        .commands = w->commands,
        .timer = w->timer,
        .in_flight_max =
            w->segment->slots < SERVER_IN_FLIGHT_MAX ? w->segment->slots : SERVER_IN_FLIGHT_MAX,
    };
    return server_open(&o, &w->server, err);
}

static void close_all(struct worker *w)
{
    server_close(w->server);
    reqrep_close(w->socket);
    participant_leave(w->participant);
    segment_detach(w->segment);
    store_close(w->store);
    command_timer_close(w->timer);
    command_set_close(w->commands);
    service_fini(&w->service);
}

/* ---- serving ---- */

static void say_status(struct worker *w, uint64_t *last, uint64_t since_ns)
{
    struct server_counters n = server_counters(w->server);
    service_status(
        &w->service, "head %llu, %llu requests, %.0f/s, %llu refused, %u in flight%s",
        (unsigned long long)atomic_load(&w->segment->header->head_event),
        (unsigned long long)n.requests, (double)(n.requests - *last) * 1e9 / (double)since_ns,
        (unsigned long long)n.refused, n.in_flight,
        atomic_load(&w->segment->header->writer_state) == WRITER_ABSENT ? ", no writer" : "");
    *last = n.requests;
}

/* Sleeps until a request or a signal comes. When everything is in flight only signals count. */
static void wait_for_work(struct worker *w)
{
    if (!server_wait_room(w->server, IDLE_MS * NS_PER_MS))
        return;
    struct pollfd p[2] = {
        {.fd = w->service.signal_fd, .events = POLLIN},
        {.fd = reqrep_poll_fd(w->socket), .events = POLLIN},
    };
    poll(p, 2, IDLE_MS);
}

static int serve(struct worker *w, struct program *p, struct azoth_error *err)
{
    uint64_t said = clock_mono_ns(), last = 0;
    while (!service_poll(&w->service)) {
        if (segment_retired(w->segment))
            return error_set(err, AZOTH_ERR_RETIRED, "%s", azoth_code_sentence(AZOTH_ERR_RETIRED));
        if (w->service.reload)
            program_reload(&p->config, p->dir, p->argc, p->argv, &w->service);
        int n = server_step(w->server, err);
        if (n < 0)
            return n;
        uint64_t now = clock_mono_ns();
        if (server_alive(w->server, now))
            service_heartbeat(&w->service, now);
        if (now - said >= SERVICE_STATUS_NS) {
            /* Its writer retires one that was removed, unless it was killed before it could. */
            if (segment_taken(w->segment))
                return error_set(err, AZOTH_ERR_RETIRED, "the shared segment was removed");
            say_status(w, &last, now - said);
            said = now;
        }
        if (n < (int)SERVER_BURST)
            wait_for_work(w);
    }
    return 0;
}

/* Takes nothing more and lets finish what is in flight, until its deadlines or DRAIN_NS. */
static void drain(struct worker *w)
{
    uint64_t until = clock_mono_ns() + DRAIN_NS, now = 0;
    service_stopping(&w->service);
    while (!server_wait_idle(w->server, IDLE_MS * NS_PER_MS) && now < until) {
        now = clock_mono_ns();
        if (server_alive(w->server, now))
            service_heartbeat(&w->service, now);
    }
}

static int run(struct arguments *a, struct azoth_error *err)
{
    struct worker w = {0};
    int rc = open_all(&w, a, err);
    if (!rc && w.server) {
        log_line(LOG_LEVEL_NOTICE, "ready endpoint=%s%s%s commands=%u slots=%u", w.endpoint,
                 a->program.config.text[CONFIG_worker_listen][0] ? "," : "",
                 a->program.config.text[CONFIG_worker_listen], command_count(w.commands),
                 w.segment->slots);
        service_ready(&w.service, "listening on %s", w.endpoint);
        rc = serve(&w, &a->program, err);
        drain(&w);
        struct server_counters n = server_counters(w.server);
        log_line(LOG_LEVEL_NOTICE,
                 "stopped requests=%llu refused=%llu undelivered=%llu given_up=%u",
                 (unsigned long long)n.requests, (unsigned long long)n.refused,
                 (unsigned long long)n.undelivered, n.in_flight);
    }
    close_all(&w);
    return rc;
}

int main(int argc, char **argv)
{
    static struct arguments a; /* too large for the stack */
    struct azoth_error err = {0};
    if (program_help(argc, argv, "azoth-worker", usage))
        return 0;
    int rc = parse(&a, argc, argv, &err);
    if (!rc)
        rc = run(&a, &err);
    if (rc)
        log_error(LOG_LEVEL_ERR, "stopping", &err);
    return rc ? service_exit_code(rc) : 0;
}
