/*
 * azoth-effects: a worker of an effects projection. Asks its projector for an event, runs the
 * projection's command for it, reports what became of it, asks for the next.
 *
 *   ask ─► event ─► command ─► its end ─► report and ask ─► ...
 *
 * Failure modes
 *   no projector, or it is started again: the ask, with its report, is sent again until it is answered;
 *       a report that was taken already changes nothing, and the answer that was lost is given again.
 *   the command does not end: its group is killed when the lease is over, and that is reported.
 *   killed: the kernel kills the command; the event is free when the lease is over, or when a worker of
 *       this name asks.
 *   asked to stop: nothing more is begun; a command that runs is given STOP_MS to end, then it is killed
 *       and the event given back, which is no failure of the event.
 */
#include "core/clock.h"
#include "core/crash.h"
#include "core/dbdir.h"
#include "core/error.h"
#include "core/log.h"
#include "core/program.h"
#include "core/reqrep.h"
#include "core/service.h"
#include "core/wire.h"
#include "effects/command.h"
#include "projector/effects_serve.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define STOP_MS  10000u /* what a command has to end when we are asked to stop */
#define KILL_MS  500u   /* between SIGTERM and SIGKILL for its group */
#define LEAVE_MS 1000u  /* for the answer to our last word */
#define RETRY_MS 100u   /* before an ask that was not taken is sent again */

static const char usage[] =
    "usage: azoth-effects --dir DIR NAME[:WORKER] | --instance DB:NAME[:WORKER]\n"
    "                     [--SECTION-KEY VALUE ...]\n"
    "\n"
    "Runs the command of the effects projection NAME (DIR/projections/NAME.sql) for one event "
    "after\n"
    "another. As many workers as there are take part; each has a name of its own, 1 if none is "
    "given.\n"
    "  --dir DIR           the data directory (or AZOTH_DIR)\n"
    "  --instance DB:NAME:WORKER  /var/lib/azoth/DB and /run/azoth/DB, as the systemd units call "
    "it\n"
    "The command gets the payload on standard input and AZOTH_EVENT_ID, AZOTH_EVENT_TYPE,\n"
    "AZOTH_EVENT_KEY, AZOTH_ATTEMPT, AZOTH_IDEMPOTENCY_KEY and others in its environment; exit "
    "status 0\n"
    "is success. It runs at least once for each event: azoth-projection(5) says more.\n"
    "Exit status: 0 stopped, 75 try again, 100 do not restart.\n";

struct worker {
    struct program program;
    struct service service;
    char projection[AZOTH_NAME_MAX + 1], name[AZOTH_NAME_MAX + 1], uuid[33];
    char endpoint[256];
    struct sqlfile def;
    int lock_fd;
    uint64_t instance;

    struct reqrep *socket;
    uint32_t request;            /* of the ask that is on its way */
    uint64_t asked_ns, again_ns; /* again_ns: when it is sent again; 0: nothing is on its way */
    struct wire_effect_ask ask;  /* what is to be said, until it is answered */
    char error[COMMAND_ERROR_MAX + 1]; /* what ask.error borrows */

    struct command command;
    uint64_t deadline_ns; /* of the lease */
    uint64_t kill_ns;     /* when SIGKILL follows; 0: it was not told to end */
    int overdue;          /* it was told to end since its lease is over */
    uint64_t stop_ns; /* when a command that runs is told to end since we stop; 0: not asked to */
    uint64_t done, failed, said_ns, said_done;
    struct buf buf;
};

/* ---- opening ---- */

/* NAME[:WORKER] */
static int split_name(struct worker *w, struct azoth_error *err)
{
    const char *text = w->program.instance_name, *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : strlen(text);
    char lettered[AZOTH_NAME_MAX + 2];
    if (n == 0)
        return error_set(err, AZOTH_ERR_USAGE, "which projection? (azoth-effects --help)");
    if (n < sizeof w->projection)
        memcpy(w->projection, text, n);
    /* Workers are often numbered. */
    int m = snprintf(lettered, sizeof lettered, "w%s", colon ? colon + 1 : "1");
    if (!dbdir_name_valid(w->projection) || m < 2 || m >= (int)sizeof w->name ||
        !dbdir_name_valid(lettered))
        return error_set(err, AZOTH_ERR_USAGE, "%s: NAME or NAME:WORKER is wanted", text);
    snprintf(w->name, sizeof w->name, "%s", lettered + 1);
    return 0;
}

static int read_definition(struct worker *w, struct azoth_error *err)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/projections/%s.sql", w->program.dir, w->projection);
    int rc = sqlfile_read(path, &w->def, err);
    if (!rc && !w->def.effects[0])
        rc = error_set(err, AZOTH_ERR_PROJECTION, "%s: no effects: nothing is run for it",
                       w->def.path);
    return rc;
}

static int read_uuid(struct worker *w, struct azoth_error *err)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/uuid", w->program.dir);
    FILE *f = fopen(path, "r");
    int n = f ? fscanf(f, "%32[0-9a-f]", w->uuid) : 0;
    if (f)
        fclose(f);
    return n == 1 && strlen(w->uuid) == 32
               ? 0
               : error_set(err, AZOTH_ERR_NO_DATABASE, "%s: no database here", w->program.dir);
}

/* Two of one name would take each other's events away. */
static int take_place(struct worker *w, struct azoth_error *err)
{
    char path[4400];
    snprintf(path, sizeof path, "%.4096s/e-%s-%s.lock", w->program.run_dir, w->projection, w->name);
    w->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
    if (w->lock_fd < 0)
        return error_errno(err, errno, "%s", path);
    if (flock(w->lock_fd, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK
                   ? error_set(err, AZOTH_ERR_DUPLICATE, "worker %s of %s runs already", w->name,
                               w->projection)
                   : error_errno(err, errno, "%s", path);
    return 0;
}

static int open_all(struct worker *w, struct azoth_error *err)
{
    int rc = split_name(w, err);
    if (!rc)
        rc = service_init(&w->service, err);
    if (!rc)
        rc = read_definition(w, err);
    if (!rc)
        rc = read_uuid(w, err);
    if (!rc)
        rc = take_place(w, err);
    if (!rc && getrandom(&w->instance, sizeof w->instance, 0) != sizeof w->instance)
        rc = error_set(err, AZOTH_ERR_IO, "random bytes");
    if (!rc)
        rc = dbdir_endpoint(w->endpoint, sizeof w->endpoint, w->program.run_dir, err, "e-%s.sock",
                            w->projection);
    return rc;
}

static void close_all(struct worker *w)
{
    reqrep_close(w->socket);
    if (w->lock_fd >= 0)
        close(w->lock_fd);
    sqlfile_fini(&w->def);
    service_fini(&w->service);
    buf_fini(&w->buf);
}

/* ---- talking to the projector ---- */

/* A connecting socket that lost its peer in the middle of a message may never hear again (nanomsg):
 * after a silence it is a new one. */
static int send_ask(struct worker *w, uint64_t now, struct azoth_error *err)
{
    if (w->asked_ns && w->socket && now - w->asked_ns >= EFFECTS_ANSWER_MS * NS_PER_MS) {
        reqrep_close(w->socket);
        w->socket = NULL;
    }
    if (!w->socket) {
        int rc = reqrep_connect(w->endpoint, &w->socket, err);
        if (rc)
            return rc;
        w->asked_ns = 0;
    }
    buf_clear(&w->buf);
    int rc = wire_effect_ask_encode(&w->buf, &w->ask);
    if (rc)
        return error_set(err, rc, "an ask");
    rc = reqrep_request(w->socket, ++w->request, buf_bytes(&w->buf), 0, err);
    if (rc == AZOTH_ERR_BUSY) { /* nobody is there yet */
        w->again_ns = now + RETRY_MS * NS_PER_MS;
        return 0;
    }
    if (!w->asked_ns)
        w->asked_ns = now;
    w->again_ns = now + EFFECTS_ANSWER_MS * NS_PER_MS;
    return rc;
}

/* What became of the event that w->ask.id names, and whether we want another. */
static int report(struct worker *w, uint32_t result, int wants, uint64_t now,
                  struct azoth_error *err)
{
    w->ask.result = result;
    w->ask.wants = (uint32_t)wants;
    w->ask.error = bytes_str(result == WIRE_EFFECT_FAILED ? w->error : "");
    w->asked_ns = 0;
    return send_ask(w, now, err);
}

static int begin_command(struct worker *w, const struct wire_effect_answer *m, uint64_t now,
                         struct azoth_error *err)
{
    struct command_event e = {.projection = w->projection,
                              .uuid = w->uuid,
                              .attempt = m->failures + 1,
                              .delivery = m->grant};
    size_t at = 0;
    w->ask.id = m->id;
    w->ask.grant = m->grant;
    w->again_ns = 0;
    if (record_frame_next(m->frame, &at, &e.event, NULL) != 1)
        return error_set(err, AZOTH_ERR_CORRUPT, "event %" PRIu64 " fails its check", m->id);
    int rc = command_start(&w->command, w->def.effects, &e, err);
    w->deadline_ns = now + m->lease_ms * NS_PER_MS;
    w->kill_ns = 0;
    w->overdue = 0;
    return rc;
}

/* 1 when our last word was answered. */
static int take_answer(struct worker *w, uint64_t now, struct azoth_error *err)
{
    struct azoth_bytes message;
    struct wire_effect_answer m;
    uint32_t request;
    int rc = 0, last = 0;
    while (w->socket && !w->command.pid &&
           (rc = reqrep_collect(w->socket, 0, &request, &message, err)) == 1) {
        int ours = request == (w->request & 0x7fffffffu) && w->again_ns &&
                   wire_effect_answer_decode(message, &m, NULL) == 0;
        rc = 0;
        if (ours && !w->ask.wants) {
            last = 1;
        } else if (ours && m.id) {
            rc = begin_command(w, &m, now, err);
        } else if (ours) {
            w->ask.id = 0;
            rc = report(w, WIRE_EFFECT_DONE, 1, now, err);
        }
        reqrep_release(message);
        if (rc || last)
            break;
    }
    return rc < 0 ? rc : last;
}

/* ---- the command ---- */

static void tell_to_end(struct worker *w, uint64_t now)
{
    if (w->kill_ns == 0) {
        command_signal(&w->command, SIGTERM);
        w->kill_ns = now + KILL_MS * NS_PER_MS;
    } else if (now >= w->kill_ns) {
        command_signal(&w->command, SIGKILL);
        w->kill_ns = now + KILL_MS * NS_PER_MS;
    }
}

static int look_at_command(struct worker *w, uint64_t now, struct azoth_error *err)
{
    int status;
    int stopping = w->stop_ns && now >= w->stop_ns;
    w->overdue |= now >= w->deadline_ns;
    if (w->overdue || stopping)
        tell_to_end(w, now);
    if (!command_step(&w->command, &status))
        return 0;
    command_signal(&w->command, SIGKILL);
    CRASH_POINT(effects_ran);
    if (status == 0) {
        w->done++;
        return report(w, WIRE_EFFECT_DONE, w->stop_ns == 0, now, err);
    }
    if (stopping && w->kill_ns && !w->overdue)
        return report(w, WIRE_EFFECT_GIVEN_BACK, 0, now, err);
    w->failed++;
    if (w->overdue)
        snprintf(w->error, sizeof w->error, "no end within the lease of %" PRIu64 " ms",
                 w->def.lease_ms);
    else
        command_error(&w->command, status, w->error);
    return report(w, WIRE_EFFECT_FAILED, w->stop_ns == 0, now, err);
}

/* ---- the loop ---- */

static void rest(struct worker *w, uint64_t now)
{
    struct pollfd fds[2 + COMMAND_FDS] = {{.fd = w->service.signal_fd, .events = POLLIN}};
    uint64_t until = now + 1000 * NS_PER_MS;
    int n = 1;
    if (w->command.pid) {
        uint64_t due = w->kill_ns ? w->kill_ns : w->deadline_ns;
        n += command_poll_fds(&w->command, fds + n);
        until = due < until ? due : until;
        until = w->stop_ns && !w->kill_ns && w->stop_ns < until ? w->stop_ns : until;
    } else if (w->socket) {
        fds[n++] = (struct pollfd){.fd = reqrep_poll_fd(w->socket), .events = POLLIN};
        until = w->again_ns && w->again_ns < until ? w->again_ns : until;
    }
    poll(fds, (nfds_t)n, until > now ? (int)((until - now) / NS_PER_MS) + 1 : 1);
}

static void say_status(struct worker *w, uint64_t now)
{
    uint64_t since = now - w->said_ns;
    if (since < SERVICE_STATUS_NS)
        return;
    service_status(&w->service,
                   "%" PRIu64 " events done, %.1f/s, %" PRIu64 " attempts failed, %s %" PRIu64,
                   w->done, (double)(w->done - w->said_done) * 1e9 / (double)since, w->failed,
                   w->command.pid ? "running for event" : "idle, the last one was", w->ask.id);
    w->said_ns = now;
    w->said_done = w->done;
}

static int loop(struct worker *w, struct azoth_error *err)
{
    uint64_t leave_ns = 0;
    w->ask = (struct wire_effect_ask){.instance = w->instance, .worker = bytes_str(w->name)};
    int rc = report(w, WIRE_EFFECT_DONE, 1, clock_mono_ns(), err);
    while (rc == 0) {
        uint64_t now = clock_mono_ns();
        if (service_poll(&w->service) && !w->stop_ns) {
            service_stopping(&w->service);
            w->stop_ns = now + STOP_MS * NS_PER_MS;
            if (!w->command.pid) { /* what was to be reported is said again, and that we leave */
                rc = report(w, w->ask.result, 0, now, err);
                if (rc)
                    break;
            }
        }
        if (w->command.pid)
            rc = look_at_command(w, now, err);
        else if (w->again_ns && now >= w->again_ns)
            rc = send_ask(w, now, err);
        if (!rc && !w->command.pid)
            rc = take_answer(w, now, err);
        if (rc == 1)
            return 0;
        if (w->stop_ns && !w->command.pid && !leave_ns)
            leave_ns = now + LEAVE_MS * NS_PER_MS;
        if (leave_ns && now >= leave_ns)
            return 0;
        service_heartbeat(&w->service, now);
        if (w->service.reload)
            program_reload(&w->program.config, w->program.dir, w->program.argc, w->program.argv,
                           &w->service);
        say_status(w, now);
        if (!rc)
            rest(w, now);
    }
    command_signal(&w->command, SIGKILL);
    return rc;
}

int main(int argc, char **argv)
{
    static struct worker w;
    struct azoth_error err = {0};
    if (program_help(argc, argv, "azoth-effects", usage))
        return 0;
    w.program.name = "azoth-effects";
    w.program.parts = 1;
    w.lock_fd = -1;
    int rc = program_parse(&w.program, argc, argv, &err);
    umask(0007); /* what a command writes is for nobody else, unless it says so */
    if (!rc)
        rc = open_all(&w, &err);
    if (!rc) {
        log_line(LOG_LEVEL_NOTICE, "ready projection=%s worker=%s", w.projection, w.name);
        service_ready(&w.service, "worker %s of %s", w.name, w.projection);
        rc = loop(&w, &err);
    }
    if (!rc)
        log_line(LOG_LEVEL_NOTICE, "stopped done=%" PRIu64 " failed=%" PRIu64, w.done, w.failed);
    close_all(&w);
    if (rc)
        log_error(LOG_LEVEL_ERR, "stopping", &err);
    return rc ? service_exit_code(rc) : 0;
}
